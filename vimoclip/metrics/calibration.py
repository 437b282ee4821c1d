"""Calibration: the reliability curve and the expected calibration error (ECE)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ReliabilityCurve:
    """B bins: `edges` (B + 1,), `count` (B,), `mean_score` and `fraction_positive` (B,), NaN for an empty bin."""

    edges: np.ndarray
    count: np.ndarray
    mean_score: np.ndarray
    fraction_positive: np.ndarray


def reliability_curve(scores: np.ndarray, targets: np.ndarray, bins: int = 15) -> ReliabilityCurve:
    """Return the curve of all (video, class) pairs. Bins of equal width include their lower edge; the last also 1."""
    count, score_sum, positives = (sums.sum(0) for sums in _bin_sums(scores, targets, bins))
    safe_count = np.maximum(count, 1)
    mean, fraction = (np.where(count, sums / safe_count, np.nan) for sums in (score_sum, positives))
    return ReliabilityCurve(np.linspace(0, 1, bins + 1), count, mean, fraction)


def ece(scores: np.ndarray, targets: np.ndarray, bins: int = 15, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the expected calibration error over all pairs: mean over bins of |mean score - fraction of positives|.

    Bins are weighted by their number of pairs. With (R, N) weights: (R,). Naeini et al., AAAI 2015; Guo et al., ICML
    2017, with 15 bins."""
    rows = np.ones((1, len(scores))) if weights is None else weights.astype(np.float64)
    count, score_sum, positives = (rows @ sums for sums in _bin_sums(scores, targets, bins))
    error = np.abs(score_sum - positives).sum(1) / np.maximum(count.sum(1), 1)
    return error if weights is not None else error[0]


def _bin_sums(scores: np.ndarray, targets: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three (N, B) arrays: number of a video's pairs in each bin, sum of their scores, number of positives."""
    cells = np.clip((scores * bins).astype(np.int64), 0, bins - 1) + bins * np.arange(len(scores))[:, None]
    flat, size = cells.reshape(-1), bins * len(scores)
    sums = (np.bincount(flat, w, size).reshape(-1, bins) for w in (None, scores.reshape(-1), targets.reshape(-1)))
    count, score_sum, positives = sums
    return count.astype(np.float64), score_sum, positives.astype(np.float64)
