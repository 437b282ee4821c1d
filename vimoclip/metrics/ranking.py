"""Ranking of scores. How ties count is decided here, and for ranks up to k in top_k.py.

Equal scores are one step, since no threshold separates them: average precision, precision-recall curves and fitted
thresholds do not depend on the order of equal scores."""

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
