"""Precision-recall curves to draw: pure functions of arrays."""

from typing import NamedTuple

import numpy as np

POINTS = 101  # at most, in a curve that is drawn


class Curve(NamedTuple):
    """Ascending recall and the precision there, each (n,) float64."""

    recall: np.ndarray
    precision: np.ndarray


def precision_recall(scores: np.ndarray, targets: np.ndarray) -> Curve:
    """The points at which recall grows, as scores are taken in from the highest down, equal ones together.

    scores (N,) float, targets (N,) bool. The steps under these points have the area of scikit-learn's average
    precision. Empty without a positive."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(targets[order])
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # the last of each run of equal scores
    found, taken = hits[last], last + 1
    grows = np.diff(found, prepend=0) > 0
    return Curve(found[grows] / max(int(targets.sum()), 1), found[grows] / taken[grows])


def at_recall(curve: Curve, recall: np.ndarray) -> np.ndarray:
    """(n,) The precision at the highest score by which each of these recalls is reached. `curve` isn't empty."""
    return curve.precision[np.searchsorted(curve.recall, recall - 1e-12).clip(max=len(curve.recall) - 1)]


def thinned(curve: Curve, points: int = POINTS) -> Curve:
    """The curve, where it has more points, at evenly spaced recalls."""
    if len(curve.recall) <= points:
        return curve
    recall = np.linspace(0, 1, points)
    return Curve(recall, at_recall(curve, recall))


def micro(scores: np.ndarray, targets: np.ndarray) -> Curve:
    """Over all pairs of clip and class, pooled. (N, C) both."""
    return thinned(precision_recall(scores.ravel(), targets.ravel()))


def macro(scores: np.ndarray, targets: np.ndarray) -> Curve:
    """The mean over the classes that have a positive of their precision at each recall. (N, C) both."""
    recall = np.linspace(0, 1, POINTS)
    known = np.flatnonzero(targets.any(axis=0))
    if not len(known):
        return Curve(np.empty(0), np.empty(0))
    precisions = [at_recall(precision_recall(scores[:, c], targets[:, c]), recall) for c in known]
    return Curve(recall, np.mean(precisions, axis=0))
