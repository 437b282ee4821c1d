"""What stands first in a video's scores: a value a video, so that means of resamples are weighted means of them.

Classes that tie for a place share it: the value is what a draw among them gives on average, so that no predictor gains
by the order of the classes."""

import numpy as np


def hit_at_1(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,): 1 where the class with the highest score is one of the video's labels; NaN for a video without labels."""
    return precision_at_k(scores, targets, 1)


def precision_at_k(scores: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """(N,): the share of the k classes with the highest scores that are labels; NaN for a video without labels.

    k beyond the number of classes is that number."""
    k = min(k, scores.shape[1])
    kth = np.sort(scores, axis=1)[:, -k, None]
    above, tied = scores > kth, scores == kth
    places = k - above.sum(1)  # left for those that tie
    found = (above & targets).sum(1) + places * (tied & targets).sum(1) / tied.sum(1)
    return np.where(targets.any(1), found / k, np.nan)


def top1(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,): `hit_at_1`, of videos with one label each. Raises ValueError for others."""
    _check_single(targets)
    return hit_at_1(scores, targets)


def mean_per_class_top1(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The mean over classes of the top-1 accuracy on their videos, as MammalNet has it; (R,) of (R, N) weights.

    Over the classes that have a video (in the resample). Raises ValueError where a video has not one label."""
    _check_single(targets)
    rows = np.ones((1, len(targets))) if weights is None else weights.astype(np.float64)
    count = rows @ targets.astype(np.float64)
    right = rows @ (targets * hit_at_1(scores, targets)[:, None])
    known = (count > 0).sum(1)
    found = np.where(known, (right / np.maximum(count, 1)).sum(1) / np.maximum(known, 1), np.nan)
    return found if weights is not None else found[0]


def _check_single(targets: np.ndarray) -> None:
    if (targets.sum(1) != 1).any():
        raise ValueError("a video has no label, or several")
