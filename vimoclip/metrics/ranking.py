"""Rankings of scores, and the metrics of each video's highest scores.

Equal scores are one step of a ranking, since no threshold separates them: average precision, precision-recall curves
and fitted thresholds do not depend on the order of equal scores. In top-k metrics, classes whose scores tie share the
remaining ranks: the value is the expectation over random tie-breaking."""

from typing import NamedTuple

import numpy as np


class RankedScores(NamedTuple):
    """`order` (N,): indices of the scores, highest first; `step_ends` (S,): last rank of each run of equal scores."""

    order: np.ndarray
    step_ends: np.ndarray


class ScoreSteps(NamedTuple):
    """The S distinct scores, highest first, as thresholds.

    `predicted`, `true_positives` (S,) int: number of scores, and of positives, at or above each threshold."""

    thresholds: np.ndarray
    predicted: np.ndarray
    true_positives: np.ndarray


def rank_scores(scores: np.ndarray) -> RankedScores:
    """Rank (N,) scores."""
    order = descending_order(scores)
    ranked = scores[order]
    return RankedScores(order, np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1))


def score_steps(scores: np.ndarray, targets: np.ndarray) -> ScoreSteps:
    """Return the steps of (N,) scores with (N,) bool targets."""
    order, ends = rank_scores(scores)
    return ScoreSteps(scores[order[ends]], ends + 1, targets[order].cumsum()[ends])


def descending_order(values: np.ndarray) -> np.ndarray:
    """Return the indices along the last axis, highest value first: of equal values the lower index, NaN last.

    For lists, in which equal values need distinct positions."""
    return np.argsort(-values, axis=-1, kind="stable")


def precision_at_k(scores: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return (N,): the fraction of labels among the k highest-scored classes; NaN for a video without labels.

    scores, targets: (N, C). k is limited to C; k = 1 is hit@1. One value per video, so that a resample's metric is a
    weighted mean."""
    k = min(k, scores.shape[1])
    kth_score = np.sort(scores, axis=1)[:, -k, None]
    above, tied = scores > kth_score, scores == kth_score
    remaining_ranks = k - above.sum(1)
    hits = (above & targets).sum(1) + remaining_ranks * (tied & targets).sum(1) / tied.sum(1)
    return np.where(targets.any(1), hits / k, np.nan)


def mean_per_class_top1(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (R,): the mean over classes of the top-1 accuracy on their videos, as in MammalNet.

    weights: (R, N). Averages the classes that have a video in the resample. Each video has exactly one label."""
    rows = weights.astype(np.float64)
    count = rows @ targets.astype(np.float64)
    correct = rows @ (targets * precision_at_k(scores, targets, 1)[:, None])
    num_classes = (count > 0).sum(1)
    return np.where(num_classes, (correct / np.maximum(count, 1)).sum(1) / np.maximum(num_classes, 1), np.nan)
