"""Precision-recall curves for plots."""

from typing import NamedTuple

import numpy as np

from vimoclip import metrics

MAX_POINTS = 101  # of a plotted curve


class PrecisionRecallCurve(NamedTuple):
    """Ascending recall and the precision at each recall, both (n,) float64."""

    recall: np.ndarray
    precision: np.ndarray


def precision_recall_curve(scores: np.ndarray, targets: np.ndarray) -> PrecisionRecallCurve:
    """Return one point for each threshold at which recall increases; tied scores are one threshold.

    scores (N,) float, targets (N,) bool. The area of the steps is scikit-learn's AP. Empty without a positive."""
    _, predicted, true_positives = metrics.score_steps(scores, targets)
    increases = np.diff(true_positives, prepend=0) > 0
    recall = true_positives[increases] / max(int(targets.sum()), 1)
    return PrecisionRecallCurve(recall, true_positives[increases] / predicted[increases])


def precision_at_recall(curve: PrecisionRecallCurve, recall: np.ndarray) -> np.ndarray:
    """Return (n,) precision at the highest threshold that reaches each recall. `curve` must not be empty."""
    return curve.precision[np.searchsorted(curve.recall, recall - 1e-12).clip(max=len(curve.recall) - 1)]


def thin_curve(curve: PrecisionRecallCurve, points: int = MAX_POINTS) -> PrecisionRecallCurve:
    """Return the curve, sampled at `points` evenly spaced recalls if it has more points."""
    if len(curve.recall) <= points:
        return curve
    recall = np.linspace(0, 1, points)
    return PrecisionRecallCurve(recall, precision_at_recall(curve, recall))


def micro_curve(scores: np.ndarray, targets: np.ndarray) -> PrecisionRecallCurve:
    """Return the curve of all (clip, class) pairs pooled. scores, targets: (N, C)."""
    return thin_curve(precision_recall_curve(scores.ravel(), targets.ravel()))


def macro_curve(scores: np.ndarray, targets: np.ndarray) -> PrecisionRecallCurve:
    """Return the mean precision at each recall over the classes that have a positive. scores, targets: (N, C)."""
    recall = np.linspace(0, 1, MAX_POINTS)
    classes = np.flatnonzero(targets.any(axis=0))
    if not len(classes):
        return PrecisionRecallCurve(np.empty(0), np.empty(0))
    precisions = [precision_at_recall(precision_recall_curve(scores[:, c], targets[:, c]), recall) for c in classes]
    return PrecisionRecallCurve(recall, np.mean(precisions, axis=0))
