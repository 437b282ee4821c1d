"""Splits that are stratified by all labels, and have each source (recording, animal, site) on one side."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vimoclip.annotations import SPLITS, Annotations

SHARE, SEED = 0.1, 49
NAMED = 5  # sources or videos that a line names


def split(
    classes: Sequence[str],
    labels: Mapping[str, tuple[int, ...]],
    shares: Mapping[str, float],
    seed: int,
    sources: Mapping[str, str] | None = None,
) -> Annotations:
    """Videos and their label ids into splits, of which `shares` says how large those are that don't train.

    `sources`: video -> where it comes from: all of one source is in one split, unless there is but one source; videos
    without are their own.
    The same arguments give the same splits, whatever the order of the videos."""
    rest, found, whole, sources = dict(sorted(labels.items())), {}, 1.0, sources or {}
    several = _several(rest, sources)
    for name, share in shares.items():
        may_draw = _several(rest, sources) or not several
        drawn = draw(Annotations(tuple(classes), {"train": rest}), share / whole, seed, sources) if may_draw else ()
        found[name] = {video: rest.pop(video) for video in drawn}
        whole -= share
    found["train"] = rest
    return Annotations(tuple(classes), {name: found[name] for name in SPLITS if name in found})


def _several(videos: Iterable[str], sources: Mapping[str, str]) -> bool:
    """Whether these are of several sources."""
    return len({(True, sources[v]) if v in sources else (False, v) for v in videos}) > 1


def leaks(splits: Mapping[str, Iterable[str]], sources: Mapping[str, str]) -> list[str]:
    """A line for each pair of splits that have videos of one source: how many sources, and the first of them."""
    seen = {name: Counter(sources[v] for v in videos if v in sources) for name, videos in splits.items()}
    names, lines = list(seen), []
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            shared = sorted(seen[one].keys() & seen[other].keys())
            if shared:
                clips = sum(seen[other][source] for source in shared)
                more = ", ..." if len(shared) > NAMED else ""
                lines.append(
                    f"warning: {len(shared)} sources are in {one} and in {other}, with {clips} clips of {other} "
                    f"({', '.join(shared[:NAMED])}{more}): a model may know these by their place or animal, and the "
                    "numbers are then too good; keep what comes from one recording, animal or site in one split"
                )
    return lines


IN_VAIN, IN_VAIN_A_GROUP = 200, 10  # moves and swaps that don't help, after which it stays
MISSED = 10.0  # how bad it is where a label is left without any clip to learn from


def drawn_groups(counts: np.ndarray, sizes: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(G,) bool: the groups that together have about `share` of the clips, and of each label's. counts (G, C): clips by
    label; sizes (G,): clips. At least one group is drawn of two, and one isn't.

    Groups of several clips with several labels are no case of the packages that stratify (single samples in
    iterative-stratification and scikit-multilearn; one label in scikit-learn's StratifiedGroupKFold), and iterative
    stratification by hand, label by label, drew half of 12 films of 20 clips where a third was asked for: each rare
    label wants its own. So: groups at random up to the size, then moves and swaps as long as they help."""
    rng = np.random.default_rng(seed)
    drawn = _begin(rng.permutation(len(sizes)), sizes, share)
    totals = np.maximum(counts.sum(0), 1)
    goal = share * counts.sum(0), share * sizes.sum()

    def cost(have: np.ndarray, size: int) -> float:
        """How far the shares are off: of all clips, which weighs as much as all labels, and of the labels."""
        learnt_none = ((have == counts.sum(0)) & (have > 0)).sum()
        of_labels = (np.abs(have - goal[0]) / totals).sum()
        return float(of_labels + len(totals) * abs(size - goal[1]) / sizes.sum() + MISSED * learnt_none)

    have, size = counts[drawn].sum(0), int(sizes[drawn].sum())
    best = cost(have, size)
    in_vain, patience = 0, (IN_VAIN + IN_VAIN_A_GROUP * len(sizes)) * (len(sizes) > 1)
    while in_vain < patience:
        in_vain += 1
        turned = _turned(rng, drawn)
        signs = np.where(drawn[turned], -1, 1)
        now = have + signs @ counts[turned], size + int(signs @ sizes[turned])
        left = drawn.sum() + signs.sum()
        if 0 < left < len(sizes) and (new := cost(*now)) < best - 1e-9:
            drawn[turned] ^= True
            (have, size), best, in_vain = now, new, 0
    return drawn


def _begin(order: np.ndarray, sizes: np.ndarray, share: float) -> np.ndarray:
    """Groups in this order as long as they bring the size nearer to the share; one at least, and not all."""
    drawn, size = np.zeros(len(sizes), bool), 0
    for group in order[:-1]:
        if not size or size + sizes[group] / 2 <= share * sizes.sum():
            drawn[group] = True
            size += sizes[group]
    return drawn


def _turned(rng: np.random.Generator, drawn: np.ndarray) -> np.ndarray:
    """One group that changes sides, or two that change places."""
    one = int(rng.integers(len(drawn)))
    others = np.flatnonzero(drawn != drawn[one])
    if rng.random() < 0.5 or not len(others):
        return np.array([one])
    return np.array([one, int(rng.choice(others))])


def draw(
    data: Annotations, share: float = SHARE, seed: int = SEED, sources: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Training videos, in the training file's order, such that each class has about `share` of its clips among them.

    By iterative stratification (Sechidis et al. 2011). A class keeps a clip to train on, where any choice leaves it
    one, and at least one video is drawn of two; of fewer none is. `sources`: video -> where it comes from; of a source
    all videos are drawn, or none, unless there is but one."""
    videos = list(data.splits.get("train", {}))
    if len(videos) < 2:
        return ()
    labels = np.zeros((len(videos), len(data.classes)), bool)
    for row, video in zip(labels, videos, strict=True):
        row[list(data.splits["train"][video])] = True
    groups = _groups(videos, sources or {})
    if 1 < len(groups) < len(videos):
        return _draw_groups(videos, labels, groups, share, seed)
    size = min(max(1, round(share * len(videos))), len(videos) - 1)
    drawn = _leave_some_of_each(labels, _stratified(labels, size, seed))
    drawn = _fill_up(labels, drawn, size, random.Random(seed))
    return tuple(video for video, one in zip(videos, drawn, strict=True) if one)


def _groups(videos: Sequence[str], sources: Mapping[str, str]) -> list[list[int]]:
    """Places of the videos of each source; a video of unknown source is one by itself."""
    found: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for place, video in enumerate(videos):
        found[(True, sources[video]) if video in sources else (False, video)].append(place)
    return list(found.values())


def _draw_groups(
    videos: Sequence[str], labels: np.ndarray, groups: Sequence[Sequence[int]], share: float, seed: int
) -> tuple[str, ...]:
    counts = np.stack([labels[list(members)].sum(0) for members in groups])
    sizes = np.array([len(members) for members in groups])
    drawn = drawn_groups(counts, sizes, share, seed)
    chosen = {place for members, one in zip(groups, drawn, strict=True) if one for place in members}
    return tuple(video for place, video in enumerate(videos) if place in chosen)


def _stratified(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """(N,) bool: which clips are drawn, some `size`, before any is given back."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    # a column of zeros more: with a single one the library would not see that this is multi-label
    targets = np.pad(labels, ((0, 0), (0, 1)))
    splitter = MultilabelStratifiedShuffleSplit(1, test_size=size, train_size=len(labels) - size, random_state=seed)
    _, places = next(splitter.split(targets, targets))
    drawn = np.zeros(len(labels), bool)
    drawn[places] = True
    return drawn


def _leave_some_of_each(labels: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The same, but for clips given back to classes that have no other to train on."""
    drawn = drawn.copy()
    left = labels[~drawn].sum(axis=0)
    for place in np.flatnonzero(drawn):
        if (left[labels[place]] == 0).any():
            drawn[place] = False
            left += labels[place]
    return drawn


def _fill_up(labels: np.ndarray, drawn: np.ndarray, size: int, generator: random.Random) -> np.ndarray:
    """The same, and more at random, of classes that can spare one, towards `size`; one at least.

    The library draws none of a class of four where a tenth is asked for, however many such classes there are."""
    drawn, total = drawn.copy(), labels.sum(axis=0)
    most = np.minimum(np.ceil(size / len(labels) * total), total - 1)  # of each class
    taken = labels[drawn].sum(axis=0)
    order = np.array(generator.sample(range(len(labels)), len(labels)))
    missing = size - drawn.sum()
    for place in order[~drawn[order]]:
        if missing <= 0:
            break
        if (taken < most)[labels[place]].all():
            drawn[place] = True
            taken += labels[place]
            missing -= 1
    if not drawn.any():
        alone = (labels & (total == 1)).sum(axis=1)  # classes that lose their only clip
        drawn[order[alone[order].argmin()]] = True
    return drawn
