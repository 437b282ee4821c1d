"""What a metric is on resamples of the videos: exactly, for all resamples at once.

Average precision is that of scikit-learn with `sample_weight`: sum of (R_n - R_(n-1)) P_n over distinct scores. A
resample changes only how much each video weighs, not their order: so videos are sorted once, and what AP needs, the
weight of all videos and of the positives down to each positive's score, are sums of blocks of rows."""

from typing import NamedTuple

import numpy as np

BLOCK = 16_384  # ranks at a time: 16 MB of weights for 1,000 resamples
CELLS = 2_000_000  # of (positives, resamples) at a time: 16 MB an array


class Resampled(NamedTuple):
    """Average precisions: `per_class` (R, C), NaN where a resample has no positive of the class; `micro` (R,)."""

    per_class: np.ndarray
    micro: np.ndarray


def draw_weights(num_videos: int, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """(R, N) integers: how often each of N videos is in each resample of N, drawn with replacement."""
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, num_videos), np.int32)
    for row in weights:
        row[:] = np.bincount(generator.integers(0, num_videos, num_videos), minlength=num_videos)
    return weights


def resampled_precisions(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Resampled:
    """Exact AP, of each class and of all pairs pooled, of (N, C) scores under each of (R, N) integer weights.

    Raises ValueError for scores that are not finite. 1,000 resamples of 6,096 x 140 take seconds, and some 300 MB."""
    return Resampled(resampled_per_class(scores, targets, weights), resampled_micro(scores, targets, weights))


def resampled_per_class(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, C): the first half of `resampled_precisions`."""
    _check_finite(scores)
    by_video, videos = _by_video(weights), np.arange(len(scores))
    columns = [_precisions(scores[:, c], targets[:, c], videos, by_video) for c in range(scores.shape[1])]
    return np.stack(columns, axis=1)


def resampled_micro(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R,): its second half, over all pairs of video and class."""
    _check_finite(scores)
    videos = np.arange(len(scores)).repeat(scores.shape[1])
    return _precisions(scores.reshape(-1), targets.reshape(-1), videos, _by_video(weights))


def _check_finite(scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")


def _by_video(weights: np.ndarray) -> np.ndarray:
    """(N, R): one row a video, so that what belongs to a video lies together; a byte each, where they fit, is least."""
    small = weights.size == 0 or int(weights.max()) < 256
    return np.ascontiguousarray(weights.T.astype(np.uint8 if small else np.int64))


def interval(values: np.ndarray, level: float = 0.95, value: float | None = None) -> tuple[float, float]:
    """Percentiles between which `level` of the resamples' values lie; NaNs, where one has no such number, are left out.

    With `value`, that of all videos, they are moved so that the resamples' mean lies there, and widened to hold it. AP
    needs that: a resample that holds a class's only positive twice ranks it higher, one without it leaves the class
    out. At Animal Kingdom's size the plain interval of macro AP missed the value itself (0.509; 0.510 to 0.569)."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = (float(bound) for bound in np.quantile(known, [(1 - level) / 2, (1 + level) / 2]))
    if value is None:
        return low, high
    shift = value - float(known.mean())
    return min(low + shift, value), max(high + shift, value)


def macro(per_class: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN: over the classes that have a positive; NaN where none has."""
    known = ~np.isnan(per_class)
    count = known.sum(-1)
    return np.where(count, np.where(known, per_class, 0).sum(-1) / np.maximum(count, 1), np.nan)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R,) means of (N,) values of videos, NaNs left out, under (R, N) weights."""
    known = ~np.isnan(values)
    total = weights[:, known].sum(1)
    return np.where(total, weights[:, known] @ values[known] / np.maximum(total, 1), np.nan)


def _precisions(scores: np.ndarray, targets: np.ndarray, videos: np.ndarray, by_video: np.ndarray) -> np.ndarray:
    """(R,) AP of (M,) scores, of which each is of the video of that number; by_video (N, R)."""
    order = np.argsort(-scores, kind="stable")
    ranked, owners = scores[order], videos[order]
    positives = np.flatnonzero(targets[order])
    if not len(positives):
        return np.full(by_video.shape[1], np.nan)
    # ties are taken in whole: a rank counts down to the last one of its score
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    ends, first = np.unique(last[np.searchsorted(last, positives)], return_index=True)
    step = max(1, CELLS // len(positives))
    parts = (by_video[:, start : start + step] for start in range(0, by_video.shape[1], step))
    return np.concatenate([_of_ranks(owners, positives, first, ends, part) for part in parts])


def _of_ranks(
    owners: np.ndarray, positives: np.ndarray, first: np.ndarray, ends: np.ndarray, by_video: np.ndarray
) -> np.ndarray:
    """(R,) AP; `ends`: the ranks down to which positives are taken in, `first`: the first of each among `positives`."""
    taken = _cumulated(by_video, owners, ends)
    gained = np.add.reduceat(by_video[owners[positives]], first, axis=0, dtype=np.int64)
    found = gained.cumsum(0)
    # where nothing was taken nothing was gained, and the class may have no positive at all in this resample
    # added up one by one: sum() may pair what it adds, by how many resamples there are
    total = (gained * (found / np.maximum(taken, 1))).cumsum(0)[-1]
    return np.where(found[-1], total / np.maximum(found[-1], 1), np.nan)


def _cumulated(by_video: np.ndarray, owners: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(len(ends), R): the weight of all ranks down to each end, itself among them."""
    total = np.zeros((len(ends), by_video.shape[1]), np.int64)
    starts = np.append(0, ends[:-1] + 1)
    for begin in range(0, int(ends[-1]) + 1, BLOCK):
        stop = min(begin + BLOCK, int(ends[-1]) + 1)
        # the pieces between ends that reach into this block, the first of which may have begun before it
        low, high = np.searchsorted(starts, begin, "right") - 1, np.searchsorted(starts, stop, "left")
        cuts = np.maximum(starts[low:high], begin) - begin
        total[low:high] += np.add.reduceat(by_video[owners[begin:stop]], cuts, axis=0, dtype=np.int64)
    return total.cumsum(0)
