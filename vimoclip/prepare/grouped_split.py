"""Random splits that are stratified by all labels and keep each source (recording, animal, site) in one split."""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vimoclip.annotations import SPLITS, Annotations
from vimoclip.annotations.split_checks import cover_classes, group_training_videos, source_key
from vimoclip.errors import UserError

SELECTION_FRACTION, DEFAULT_SEED = 0.1, 49
MAX_EXCESS = 0.1  # fraction of all clips that whole sources may exceed the requested one by, to have each class
PATIENCE, PATIENCE_PER_GROUP = 200, 10  # a search stops after so many changes without improvement
MISSING_LABEL_COST = 10.0  # for each label without a remaining clip to train on


class Fold(NamedTuple):
    """Fold `number`, 1 to `num_folds`, of a cross-validation: it is the val split, and all other folds are train."""

    number: int
    num_folds: int


SplitRule = Mapping[str, float] | Fold  # fractions of all videos by split (without train), or a fold


def split_videos(
    classes: Sequence[str],
    labels: Mapping[str, tuple[int, ...]],
    rule: SplitRule,
    seed: int,
    sources: Mapping[str, str] | None = None,
) -> Annotations:
    """Split videos at random into train and the splits of `rule`.

    `labels`: video -> label ids. `sources`: video -> source; all videos of a source are put into one split, unless
    there is only one source. A video without a source is one by itself. The result does not depend on the order of the
    videos. Raises UserError for more folds than sources."""
    if isinstance(rule, Fold):
        return _split_fold(classes, dict(sorted(labels.items())), rule, seed, sources or {})
    remaining, splits, remaining_fraction, sources = dict(sorted(labels.items())), {}, 1.0, sources or {}
    several_sources = _has_several_sources(remaining, sources)
    for name, fraction in rule.items():
        drawn: tuple[str, ...] = ()
        if _has_several_sources(remaining, sources) or not several_sources:
            data = Annotations(tuple(classes), {"train": remaining})
            drawn = draw_stratified(data, fraction / remaining_fraction, seed, sources)
        splits[name] = {video: remaining.pop(video) for video in drawn}
        remaining_fraction -= fraction
    splits["train"] = remaining
    return Annotations(tuple(classes), {name: splits[name] for name in SPLITS if name in splits})


def _split_fold(
    classes: Sequence[str], labels: dict[str, tuple[int, ...]], fold: Fold, seed: int, sources: Mapping[str, str]
) -> Annotations:
    num_sources = len({source_key(video, sources) for video in labels})
    if fold.num_folds > num_sources:
        problem = f"{fold.num_folds} folds need as many sources, but the {len(labels)} clips are of {num_sources}"
        raise UserError(problem, "choose fewer folds, or finer sources with --group-by")
    groups, counts, sizes = group_training_videos(Annotations(tuple(classes), {"train": labels}), sources)
    folds = draw_folds(counts, sizes, fold.num_folds, seed)
    is_val = folds == fold.number - 1
    val = {video for group, is_in_val in zip(groups, is_val, strict=True) if is_in_val for video in group}
    fold_sizes = ", ".join(map(str, np.bincount(folds, sizes).astype(int)))
    clips = f"{len(val)} of {len(labels)} clips, of {is_val.sum()} of {num_sources} sources"
    print(f"fold {fold.number} of {fold.num_folds} is val: {clips}; clips of all folds: {fold_sizes}", flush=True)
    splits = {
        "train": {v: ids for v, ids in labels.items() if v not in val},
        "val": {v: labels[v] for v in sorted(val)},
    }
    return Annotations(tuple(classes), splits)


def join_sources(names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the source of each item that has names: items that share a name are of one source, transitively."""
    parents: dict[str, str] = {}  # union-find

    def find_root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            name = parents[name]
        return name

    for item_names in names.values():
        for name in item_names:
            parents[find_root(name)] = find_root(item_names[0])
    return {item: find_root(item_names[0]) for item, item_names in names.items() if item_names}


def _has_several_sources(videos: Iterable[str], sources: Mapping[str, str]) -> bool:
    return len({source_key(video, sources) for video in videos}) > 1


def draw_stratified(
    data: Annotations,
    fraction: float = SELECTION_FRACTION,
    seed: int = DEFAULT_SEED,
    sources: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Draw training videos such that about `fraction` of each class's clips is drawn; in the training file's order.

    Uses iterative stratification (Sechidis et al. 2011). Each class keeps a clip to train on, if any choice leaves it
    one. Then a clip of each class with two clips or more is drawn, as long as there is room: the fraction, or of whole
    sources up to MAX_EXCESS more. At least one of two videos is drawn, and none of fewer. `sources`: video -> source;
    either all videos of a source are drawn or none, unless there is only one source."""
    videos = list(data.splits.get("train", {}))
    if len(videos) < 2:
        return ()
    groups, counts, sizes = group_training_videos(data, sources or {})
    if len(groups) < len(videos):
        drawn = draw_groups(counts, sizes, fraction, seed)
        limit = (fraction + min(fraction, MAX_EXCESS)) * len(videos)
    else:
        labels = counts > 0
        size = min(max(1, round(fraction * len(videos))), len(videos) - 1)
        drawn = _return_last_clips(labels, _iterative_stratification(labels, size, seed))
        drawn = _fill_to_size(labels, drawn, size, random.Random(seed))
        limit = size
    drawn = cover_classes(counts, sizes, drawn, limit, seed)
    selected = {video for group, is_drawn in zip(groups, drawn, strict=True) if is_drawn for video in group}
    return tuple(video for video in videos if video in selected)


def _iterative_stratification(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return (N,) bool: which clips are drawn, about `size`."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    # an extra column of zeros, as the library does not take a single column for multi-label
    targets = np.pad(labels, ((0, 0), (0, 1)))
    splitter = MultilabelStratifiedShuffleSplit(1, test_size=size, train_size=len(labels) - size, random_state=seed)
    _, indices = next(splitter.split(targets, targets))
    drawn = np.zeros(len(labels), bool)
    drawn[indices] = True
    return drawn


def _return_last_clips(labels: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return `drawn` without the clips of classes that would have no clip to train on."""
    drawn = drawn.copy()
    remaining = labels[~drawn].sum(axis=0)
    for index in np.flatnonzero(drawn):
        if (remaining[labels[index]] == 0).any():
            drawn[index] = False
            remaining += labels[index]
    return drawn


def _fill_to_size(labels: np.ndarray, drawn: np.ndarray, size: int, generator: random.Random) -> np.ndarray:
    """Return `drawn` with more clips at random, up to `size`, of classes that keep one; at least one clip is drawn.

    For a fraction of a tenth, the library draws none of a class of four, however many such classes there are."""
    drawn, total = drawn.copy(), labels.sum(axis=0)
    max_per_class = np.minimum(np.ceil(size / len(labels) * total), total - 1)
    num_drawn = labels[drawn].sum(axis=0)
    order = np.array(generator.sample(range(len(labels)), len(labels)))
    missing = size - drawn.sum()
    for index in order[~drawn[order]]:
        if missing <= 0:
            break
        if (num_drawn < max_per_class)[labels[index]].all():
            drawn[index] = True
            num_drawn += labels[index]
            missing -= 1
    if not drawn.any():
        lost_classes = (labels & (total == 1)).sum(axis=1)  # classes that lose their only clip
        drawn[order[lost_classes[order].argmin()]] = True
    return drawn


def draw_groups(counts: np.ndarray, sizes: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw groups that have about `fraction` of all clips and of each label's clips.

    counts (G, C): clips by label; sizes (G,): clips. Returns (G,) bool. Of two groups or more, at least one is drawn
    and at least one is not.

    No package stratifies groups of several clips with several labels: iterative-stratification and scikit-multilearn
    split single samples, scikit-learn's StratifiedGroupKFold takes one label. Iterative stratification of groups, label
    by label, drew half of 12 recordings of 20 clips for a fraction of a third, a group for each rare label. This search
    draws groups at random up to the size, then moves and swaps groups while that lowers the cost."""
    rng = np.random.default_rng(seed)
    drawn = _initial_draw(rng.permutation(len(sizes)), sizes, fraction)
    totals = np.maximum(counts.sum(0), 1)
    target_counts, target_size = fraction * counts.sum(0), fraction * sizes.sum()

    def cost(drawn_counts: np.ndarray, drawn_size: int) -> float:
        """Return the deviation of the labels plus that of the size, which weighs as much as all labels."""
        missing_labels = ((drawn_counts == counts.sum(0)) & (drawn_counts > 0)).sum()
        deviation = (np.abs(drawn_counts - target_counts) / totals).sum()
        size_deviation = abs(drawn_size - target_size) / sizes.sum()
        return float(deviation + len(totals) * size_deviation + MISSING_LABEL_COST * missing_labels)

    drawn_counts, drawn_size = counts[drawn].sum(0), int(sizes[drawn].sum())
    lowest = cost(drawn_counts, drawn_size)
    failures, patience = 0, (PATIENCE + PATIENCE_PER_GROUP * len(sizes)) * (len(sizes) > 1)
    while failures < patience:
        failures += 1
        flips = _propose_flips(rng, drawn)
        signs = np.where(drawn[flips], -1, 1)
        new_counts, new_size = drawn_counts + signs @ counts[flips], drawn_size + int(signs @ sizes[flips])
        num_drawn = drawn.sum() + signs.sum()
        if 0 < num_drawn < len(sizes) and (new_cost := cost(new_counts, new_size)) < lowest - 1e-9:
            drawn[flips] ^= True
            drawn_counts, drawn_size, lowest, failures = new_counts, new_size, new_cost, 0
    return drawn


def draw_folds(counts: np.ndarray, sizes: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Divide groups into folds of similar size that have similar numbers of each label.

    counts (G, C): clips by label; sizes (G,): clips; `num_folds` is at most G. Returns (G,): the fold, 0 to
    num_folds - 1, of each group; none is empty. From a random division, groups are moved and swapped while that lowers
    the sum of the labels' chi-squared statistics plus that of the sizes, which weighs as much as all labels. Drawing
    one fold after the other with `draw_groups` would leave all deviations to the last folds: 7, 1, 1, 1 and 100 clips
    of ten sources with a clip and one with 100."""
    rng = np.random.default_rng(seed)
    columns = np.column_stack([counts, sizes])
    weights = np.append(np.ones(counts.shape[1]), max(counts.shape[1], 1))
    features = columns * np.sqrt(weights / np.maximum(columns.sum(0), 1))  # their folds' sums of squares are the cost
    folds = np.empty(len(sizes), int)
    folds[rng.permutation(len(sizes))] = np.arange(len(sizes)) % num_folds
    sums = np.stack([features[folds == fold].sum(0) for fold in range(num_folds)])
    failures, patience = 0, PATIENCE + PATIENCE_PER_GROUP * len(sizes)
    while failures < patience:
        failures += 1
        group, other = rng.integers(len(sizes), size=2)
        fold, other_fold = folds[group], folds[other]
        is_move = rng.random() < 0.5
        if fold == other_fold:
            continue
        change = features[group] - (0 if is_move else features[other])
        # never for the last group of a fold, as no sum is below 0
        if (change * (sums[other_fold] - sums[fold] + change)).sum() < -1e-9:
            sums[fold] -= change
            sums[other_fold] += change
            folds[group], folds[other], failures = other_fold, other_fold if is_move else fold, 0
    return folds


def _initial_draw(order: np.ndarray, sizes: np.ndarray, fraction: float) -> np.ndarray:
    """Draw groups in this order while that brings the size closer to the fraction; at least one, and not all."""
    drawn, size = np.zeros(len(sizes), bool), 0
    for group in order[:-1]:
        if not size or size + sizes[group] / 2 <= fraction * sizes.sum():
            drawn[group] = True
            size += sizes[group]
    return drawn


def _propose_flips(rng: np.random.Generator, drawn: np.ndarray) -> np.ndarray:
    """Return one group to move to the other side, or two of different sides to swap."""
    group = int(rng.integers(len(drawn)))
    other_side = np.flatnonzero(drawn != drawn[group])
    if rng.random() < 0.5 or not len(other_side):
        return np.array([group])
    return np.array([group, int(rng.choice(other_side))])
