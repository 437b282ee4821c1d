"""F1, fitted thresholds, the reliability curve and the expected calibration error (ECE)."""

from typing import Any, NamedTuple

import numpy as np

from vimoclip.metrics.average_precision import macro_average
from vimoclip.metrics.ranking import score_steps


class F1Scores(NamedTuple):
    """`per_class` (R, C), NaN for a class without a positive; `macro` (R,) its mean; `micro` (R,) pooled."""

    per_class: np.ndarray
    macro: np.ndarray
    micro: np.ndarray


def f1_scores(decisions: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> F1Scores:
    """Return F1 = 2 TP / (2 TP + FP + FN) of boolean (N, C) decisions under each row of (R, N) weights.

    Macro averages the classes that have a positive in the resample; micro pools all (video, class) pairs."""
    # matrix products of float32 are fast and exact for counts of some thousands
    rows = weights.astype(np.float32)
    masks = (decisions & targets, decisions, targets)
    true_positives, predicted, positives = ((rows @ mask.astype(np.float32)).astype(np.float64) for mask in masks)
    per_class = np.where(positives > 0, 2.0 * true_positives / np.maximum(predicted + positives, 1), np.nan)
    pooled = (predicted + positives).sum(1)
    micro = np.where(pooled, 2 * true_positives.sum(1) / np.maximum(pooled, 1), np.nan)
    return F1Scores(per_class, macro_average(per_class), micro)


def fit_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (C,) thresholds: for each class the t for which `scores >= t` has the highest F1.

    A threshold is the midpoint of two adjacent scores. Among equally good ones it is the highest, which predicts the
    fewest positives. 0.5 for a class without a positive."""
    return np.array([_fit_threshold(scores[:, c], targets[:, c]) for c in range(scores.shape[1])])


def _fit_threshold(scores: np.ndarray, targets: np.ndarray) -> float:
    if not targets.any():
        return 0.5
    thresholds, predicted, true_positives = score_steps(scores, targets)
    best = int(np.argmax(2 * true_positives / (predicted + true_positives[-1])))
    if best == len(thresholds) - 1:
        return float(thresholds[-1])
    midpoint = (thresholds[best] + thresholds[best + 1]) / 2
    # the midpoint of two neighbouring floats may round to the lower one
    return float(midpoint if midpoint > thresholds[best + 1] else thresholds[best])


def reliability_bins(scores: np.ndarray, targets: np.ndarray, bins: int = 15) -> list[dict[str, Any]]:
    """Return the reliability curve of all (video, class) pairs, one dict per bin of equal width; means may be None.

    Bins include their lower edge; the last also 1."""
    edges = np.linspace(0, 1, bins + 1).tolist()
    columns = zip(
        edges[:-1], edges[1:], *(sums.sum(0).tolist() for sums in _bin_sums(scores, targets, bins)), strict=True
    )
    return [
        {
            "low": low,
            "high": high,
            "count": int(count),
            "mean_score": score_sum / count if count else None,
            "share_positive": positives / count if count else None,
        }
        for low, high, count, score_sum, positives in columns
    ]


def ece(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray, bins: int = 15) -> np.ndarray:
    """Return (R,) expected calibration errors over all pairs: mean over bins of |mean score - fraction of positives|.

    Bins are weighted by their number of pairs. weights: (R, N). Naeini et al., AAAI 2015; Guo et al., ICML
    2017, with 15 bins."""
    count, score_sum, positives = (weights.astype(np.float64) @ sums for sums in _bin_sums(scores, targets, bins))
    return np.abs(score_sum - positives).sum(1) / np.maximum(count.sum(1), 1)


def _bin_sums(scores: np.ndarray, targets: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three (N, B) arrays: number of a video's pairs in each bin, sum of their scores, number of positives."""
    cells = np.clip((scores * bins).astype(np.int64), 0, bins - 1) + bins * np.arange(len(scores))[:, None]
    flat, size = cells.reshape(-1), bins * len(scores)
    sums = (np.bincount(flat, w, size).reshape(-1, bins) for w in (None, scores.reshape(-1), targets.reshape(-1)))
    count, score_sum, positives = sums
    return count.astype(np.float64), score_sum, positives.astype(np.float64)
