"""Average precision (AP), of all videos and of all bootstrap resamples of them at once.

AP is that of scikit-learn with `sample_weight`: sum of (R_n - R_(n-1)) P_n over distinct scores. A resample changes the
weight of each video, not the order of their scores. Videos are therefore sorted once; AP then needs only the total
weight, of all videos and of positives, down to the rank of each positive. AP of all videos is that of one row of ones;
scikit-learn takes 2 to 9 times as long for it (140 classes)."""

from collections.abc import Iterator

import numpy as np
import torch

from vimoclip.metrics.ranking import rank_scores

RANKS_PER_BLOCK = 16_384  # 16 MB of weights for 1,000 resamples
CELLS_PER_CHUNK = 2_000_000  # (positives, resamples) cells: 16 MB an array


# --- of tensors, as in training


def map_macro(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the mean AP over the classes that have a positive: the metric of Animal Kingdom and Charades.

    scores, targets: (N, C). NaN without a positive. Raises ValueError for scores that are not finite."""
    return float(macro_average(average_precision_per_class(scores, targets)))


def map_micro(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the AP over all (video, class) pairs pooled: the paper's 77.09 (torchmetrics, average="micro").

    scores, targets: (N, C). NaN without a positive. Raises ValueError for scores that are not finite."""
    return float(bootstrap_ap_micro(*_as_arrays(scores, targets))[0])


def average_precision_per_class(scores: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Return (C,) APs from (N, C) scores and targets; NaN for a class without a positive."""
    return bootstrap_ap_per_class(*_as_arrays(scores, targets))[0]


def _as_arrays(scores: torch.Tensor, targets: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, targets and weights of one."""
    # float64, as numpy has no bfloat16
    return scores.detach().cpu().double().numpy(), (targets > 0).cpu().numpy(), np.ones((1, len(scores)), np.uint8)


def permute_targets(targets: torch.Tensor, rounds: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield the rows of (N, C) targets in `rounds` random orders, for the chance level of a metric.

    The chance level of AP is above the prevalence; the fewer positives, the larger the difference."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(rounds):
        yield targets[torch.randperm(len(targets), generator=generator)]


def expected_random_ap(positives: int, count: int) -> float:
    """Return the expected AP of a random ranking of `count` items with `positives` positives; NaN without a positive.

    A positive at rank i has expected precision (1 + (i - 1) (m - 1) / (n - 1)) / i, and all ranks are equally likely.
    The result is above the prevalence; the fewer positives, the larger the difference (Bestgen, 2015)."""
    if not positives:
        return float("nan")
    harmonic = float((1 / np.arange(1, count + 1)).sum())
    other_positives = (positives - 1) / (count - 1) if count > 1 else 0.0
    return (harmonic + other_positives * (count - harmonic)) / count


# --- of resamples


def bootstrap_weights(num_videos: int, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Return (R, N) int32 counts: how often each resample, N draws with replacement, contains each of N videos."""
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, num_videos), np.int32)
    for row in weights:
        row[:] = np.bincount(generator.integers(0, num_videos, num_videos), minlength=num_videos)
    return weights


def cluster_bootstrap_weights(clusters: np.ndarray, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Return (R, N) int32 counts of resamples of G clusters, drawn as a whole, as often as there are clusters.

    clusters (N,): the index of each video's cluster, 0..G-1. Resamples differ in their number of videos."""
    return bootstrap_weights(int(clusters.max(initial=-1)) + 1, resamples, seed)[:, clusters]


def bootstrap_ap_per_class(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the exact (R, C) APs of (N, C) scores under each row of (R, N) integer weights.

    NaN where a resample has no positive of the class. Raises ValueError for scores that are not finite. 1,000 resamples
    of 6,096 x 140 take seconds, and some 300 MB."""
    scores, weights_by_video, videos = np.asarray_chkfinite(scores), _transpose_weights(weights), np.arange(len(scores))
    columns = [_weighted_ap(scores[:, c], targets[:, c], videos, weights_by_video) for c in range(scores.shape[1])]
    return np.stack(columns, axis=1)


def bootstrap_ap_micro(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (R,) APs over all (video, class) pairs pooled. Otherwise as `bootstrap_ap_per_class`."""
    videos = np.arange(len(scores)).repeat(scores.shape[1])
    return _weighted_ap(
        np.asarray_chkfinite(scores).reshape(-1), targets.reshape(-1), videos, _transpose_weights(weights)
    )


def _transpose_weights(weights: np.ndarray) -> np.ndarray:
    """Return contiguous (N, R) weights, so that a video's weights are one row; uint8 if they fit, to save memory."""
    return np.ascontiguousarray(weights.T.astype(np.uint8 if weights.max(initial=0) < 256 else np.int64))


def confidence_interval(values: np.ndarray, value: float) -> tuple[float, float]:
    """Return the percentile interval that contains 95 % of the resamples' values; NaNs are ignored.

    It is shifted so that the resamples' mean is at `value`, the metric of all videos, and widened to contain it. AP
    needs this, since it is biased upwards on resamples: a resample with two copies of a class's only positive ranks it
    higher, and one without it excludes the class. At Animal Kingdom's size the plain interval of macro AP excluded
    the value itself (0.509; 0.510 to 0.569)."""
    valid = values[~np.isnan(values)]
    if not len(valid):
        return float("nan"), float("nan")
    low, high = (float(bound) for bound in np.quantile(valid, [(1 - 0.95) / 2, (1 + 0.95) / 2]))
    shift = value - float(valid.mean())
    return min(low + shift, value), max(high + shift, value)


def macro_average(per_class: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis, ignoring NaN (classes without a positive); NaN if all values are."""
    valid = ~np.isnan(per_class)
    count = valid.sum(-1)
    return np.where(count, np.where(valid, per_class, 0).sum(-1) / np.maximum(count, 1), np.nan)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (R,) means of the (N,) values of videos under (R, N) weights, ignoring NaN."""
    valid = ~np.isnan(values)
    total = weights[:, valid].sum(1)
    return np.where(total, weights[:, valid] @ values[valid] / np.maximum(total, 1), np.nan)


def _weighted_ap(
    scores: np.ndarray, targets: np.ndarray, videos: np.ndarray, weights_by_video: np.ndarray
) -> np.ndarray:
    """Return (R,) APs of (M,) scores. `videos` (M,): the video of each score; `weights_by_video`: (N, R)."""
    order, last_ranks = rank_scores(scores)
    ranked_videos = videos[order]
    positives = np.flatnonzero(targets[order])
    if not len(positives):
        return np.full(weights_by_video.shape[1], np.nan)
    step_ends, first_positives = np.unique(last_ranks[np.searchsorted(last_ranks, positives)], return_index=True)
    step = max(1, CELLS_PER_CHUNK // len(positives))
    chunks = (weights_by_video[:, start : start + step] for start in range(0, weights_by_video.shape[1], step))
    return np.concatenate(
        [_ap_from_ranks(ranked_videos, positives, first_positives, step_ends, chunk) for chunk in chunks]
    )


def _ap_from_ranks(
    ranked_videos: np.ndarray,
    positives: np.ndarray,
    first_positives: np.ndarray,
    step_ends: np.ndarray,
    weights_by_video: np.ndarray,
) -> np.ndarray:
    """Return (R,) APs from the steps that contain positives.

    `positives`: their ranks; `step_ends`: last rank of each step; `first_positives`: index into `positives` of each
    step's first positive."""
    predicted = _cumulative_weights(weights_by_video, ranked_videos, step_ends)
    gains = np.add.reduceat(weights_by_video[ranked_videos[positives]], first_positives, axis=0, dtype=np.int64)
    true_positives = gains.cumsum(0)
    # `predicted` is 0 only if the gain is 0 too. cumsum adds in a fixed order; the order of sum() may depend on the
    # number of resamples
    total = (gains * (true_positives / np.maximum(predicted, 1))).cumsum(0)[-1]
    return np.where(true_positives[-1], total / np.maximum(true_positives[-1], 1), np.nan)


def _cumulative_weights(weights_by_video: np.ndarray, ranked_videos: np.ndarray, step_ends: np.ndarray) -> np.ndarray:
    """Return (len(step_ends), R): the total weight of all ranks up to and including the end of each step."""
    total = np.zeros((len(step_ends), weights_by_video.shape[1]), np.int64)
    step_starts = np.append(0, step_ends[:-1] + 1)
    for start in range(0, int(step_ends[-1]) + 1, RANKS_PER_BLOCK):
        stop = min(start + RANKS_PER_BLOCK, int(step_ends[-1]) + 1)
        # the steps that overlap this block; the first of them may start before it
        low, high = np.searchsorted(step_starts, start, "right") - 1, np.searchsorted(step_starts, stop, "left")
        offsets = np.maximum(step_starts[low:high], start) - start
        total[low:high] += np.add.reduceat(weights_by_video[ranked_videos[start:stop]], offsets, axis=0, dtype=np.int64)
    return total.cumsum(0)
