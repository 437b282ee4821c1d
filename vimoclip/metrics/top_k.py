"""Top-k metrics: one value per video, so that a resample's metric is a weighted mean.

Classes whose scores tie share the remaining ranks: the value is the expectation over random tie-breaking, so that it
does not depend on the order of the classes."""

import numpy as np


def hit_at_1(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N,): 1 if the highest-scored class is one of the video's labels; NaN for a video without labels."""
    return precision_at_k(scores, targets, 1)


def precision_at_k(scores: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return (N,): the fraction of labels among the k highest-scored classes; NaN for a video without labels.

    k is limited to the number of classes."""
    k = min(k, scores.shape[1])
    kth_score = np.sort(scores, axis=1)[:, -k, None]
    above, tied = scores > kth_score, scores == kth_score
    remaining_ranks = k - above.sum(1)
    hits = (above & targets).sum(1) + remaining_ranks * (tied & targets).sum(1) / tied.sum(1)
    return np.where(targets.any(1), hits / k, np.nan)


def top1(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N,) `hit_at_1` of videos with exactly one label. Raises ValueError for others."""
    _check_single_label(targets)
    return hit_at_1(scores, targets)


def mean_per_class_top1(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the mean over classes of the top-1 accuracy on their videos, as in MammalNet; with (R, N) weights: (R,).

    Averages the classes that have a video (in the resample). Raises ValueError unless each video has one label."""
    _check_single_label(targets)
    rows = np.ones((1, len(targets))) if weights is None else weights.astype(np.float64)
    count = rows @ targets.astype(np.float64)
    correct = rows @ (targets * hit_at_1(scores, targets)[:, None])
    num_classes = (count > 0).sum(1)
    accuracy = np.where(num_classes, (correct / np.maximum(count, 1)).sum(1) / np.maximum(num_classes, 1), np.nan)
    return accuracy if weights is not None else accuracy[0]


def _check_single_label(targets: np.ndarray) -> None:
    if (targets.sum(1) != 1).any():
        raise ValueError("a video has no label, or several")
