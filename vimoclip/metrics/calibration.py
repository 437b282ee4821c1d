"""Calibration: the reliability curve and the expected calibration error (ECE)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ReliabilityCurve:
    """B bins: `edges` (B + 1,), `count` (B,), `mean_score` and `share_positive` (B,), NaN for an empty bin."""

    edges: np.ndarray
    count: np.ndarray
    mean_score: np.ndarray
    share_positive: np.ndarray


def reliability_curve(scores: np.ndarray, targets: np.ndarray, bins: int = 15) -> ReliabilityCurve:
    """All (video, class) pairs in bins of equal width. A bin holds its lower edge, the last one also 1."""
    count, total, positive = (part.sum(0) for part in _bin_sums(scores, targets, bins))
    safe_count = np.maximum(count, 1)
    mean, share = (np.where(count, part / safe_count, np.nan) for part in (total, positive))
    return ReliabilityCurve(np.linspace(0, 1, bins + 1), count, mean, share)


def ece(scores: np.ndarray, targets: np.ndarray, bins: int = 15, weights: np.ndarray | None = None) -> np.ndarray:
    """Expected calibration error over all pairs: the weighted mean over bins of |mean score - share of positives|.

    With (R, N) weights: (R,). Naeini et al., AAAI 2015; Guo et al., ICML 2017, with 15 bins."""
    parts = _bin_sums(scores, targets, bins)
    rows = np.ones((1, len(scores))) if weights is None else weights.astype(np.float64)
    count, total, positive = (rows @ part for part in parts)
    error = np.abs(total - positive).sum(1) / np.maximum(count.sum(1), 1)
    return error if weights is not None else error[0]


def _bin_sums(scores: np.ndarray, targets: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, B) each: number of a video's pairs in each bin, sum of their scores, number of positives."""
    cells = np.clip((scores * bins).astype(np.int64), 0, bins - 1) + bins * np.arange(len(scores))[:, None]
    flat, size = cells.reshape(-1), bins * len(scores)
    sums = (np.bincount(flat, w, size).reshape(-1, bins) for w in (None, scores.reshape(-1), targets.reshape(-1)))
    count, total, positive = sums
    return count.astype(np.float64), total, positive.astype(np.float64)
