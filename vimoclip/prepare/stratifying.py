"""Iterative stratification of groups that can't be taken apart."""

import random

import numpy as np


def drawn_groups(counts: np.ndarray, sizes: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(G,) bool: the groups that have about `share` of each label's clips. counts (G, C): clips by label; sizes (G,).

    By iterative stratification (Sechidis et al. 2011): the rarest label is dealt out first, each group of it to the
    side that lacks most of it. Groups of several clips are no case of the packages that have it (single samples in
    iterative-stratification and scikit-multilearn; one label in scikit-learn's StratifiedGroupKFold), so it is done
    here, for counts. Large groups go first, as small ones can still even things out. At least one group is drawn of
    two, and one isn't."""
    order = random.Random(seed).sample(range(len(sizes)), len(sizes))
    lacking = np.outer([1 - share, share], counts.sum(0))  # of each label, by side
    room = np.array([1 - share, share]) * sizes.sum()
    sides = np.full(len(sizes), -1)

    def put(group: int, wanted: np.ndarray) -> None:
        side = int(_key(wanted[1], room[1]) > _key(wanted[0], room[0]))  # of equals the first, which is to be learnt
        sides[group] = side
        lacking[side] -= counts[group]
        room[side] -= sizes[group]

    while (left := counts[sides < 0].sum(0)).any():
        label = int(np.where(left > 0, left, left.max() + 1).argmin())
        having = [group for group in order if sides[group] < 0 and counts[group, label]]
        put(max(having, key=lambda group: (counts[group, label], sizes[group])), lacking[:, label])
    for group in sorted((group for group in order if sides[group] < 0), key=lambda group: -sizes[group]):
        put(group, room)
    for side in (0, 1):
        if len(sides) > 1 and not (sides == side).any():
            sides[order[int(sizes[order].argmin())]] = side
    return sides == 1


def _key(lacking: float, room: float) -> tuple[float, float]:
    return round(float(lacking), 9), round(float(room), 9)
