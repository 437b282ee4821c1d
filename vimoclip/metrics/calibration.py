"""Whether a score of 0.8 is right in 80 % of cases: reliability by bins, and the expected calibration error."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Reliability:
    """Of B bins: `edges` (B + 1,), `count` (B,), `mean_score` and `share_positive` (B,), NaN for an empty bin."""

    edges: np.ndarray
    count: np.ndarray
    mean_score: np.ndarray
    share_positive: np.ndarray


def reliability(scores: np.ndarray, targets: np.ndarray, bins: int = 15) -> Reliability:
    """All pairs of video and class in bins of equal width by their probability; a score on an edge goes up, 1 down."""
    count, total, positive = (part.sum(0) for part in _by_video(scores, targets, bins))
    safe = np.maximum(count, 1)
    mean, share = (np.where(count, part / safe, np.nan) for part in (total, positive))
    return Reliability(np.linspace(0, 1, bins + 1), count, mean, share)


def ece(scores: np.ndarray, targets: np.ndarray, bins: int = 15, weights: np.ndarray | None = None) -> np.ndarray:
    """Expected calibration error over all pairs: the mean of |mean score - share of positives| of their bins.

    (Naeini et al., AAAI 2015; Guo et al., ICML 2017, with 15 bins.) Of (R, N) weights, (R,) of them."""
    parts = _by_video(scores, targets, bins)
    rows = np.ones((1, len(scores))) if weights is None else weights.astype(np.float64)
    count, total, positive = (rows @ part for part in parts)
    found = np.abs(total - positive).sum(1) / np.maximum(count.sum(1), 1)
    return found if weights is not None else found[0]


def _by_video(scores: np.ndarray, targets: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, B) each: how many of a video's pairs lie in each bin, the sum of their scores, how many are positive."""
    place = np.clip((scores * bins).astype(np.int64), 0, bins - 1) + bins * np.arange(len(scores))[:, None]
    flat, size = place.reshape(-1), bins * len(scores)
    sums = (np.bincount(flat, w, size).reshape(-1, bins) for w in (None, scores.reshape(-1), targets.reshape(-1)))
    count, total, positive = sums
    return count.astype(np.float64), total, positive.astype(np.float64)
