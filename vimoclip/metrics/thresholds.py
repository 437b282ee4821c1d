"""F1 of binary decisions, and thresholds that maximise it."""

from typing import NamedTuple

import numpy as np

from vimoclip.metrics.ranking import score_steps


class F1Scores(NamedTuple):
    """`per_class` (..., C), NaN for a class without a positive; `macro` (...,) its mean; `micro` (...,) pooled."""

    per_class: np.ndarray
    macro: np.ndarray
    micro: np.ndarray


def f1_scores(decisions: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> F1Scores:
    """Return F1 = 2 TP / (2 TP + FP + FN) of boolean (N, C) decisions; with (R, N) weights, of each resample.

    Macro averages the classes that have a positive (in the resample); micro pools all (video, class) pairs."""
    # matrix products of float32 are fast and exact for counts of some thousands
    rows = np.ones((1, len(targets)), np.float32) if weights is None else weights.astype(np.float32)
    masks = (decisions & targets, decisions, targets)
    true_positives, predicted, positives = ((rows @ mask.astype(np.float32)).astype(np.float64) for mask in masks)
    per_class = np.where(positives > 0, 2.0 * true_positives / np.maximum(predicted + positives, 1), np.nan)
    num_classes = (positives > 0).sum(1)
    macro = np.where(num_classes, np.nansum(per_class, 1) / np.maximum(num_classes, 1), np.nan)
    pooled = (predicted + positives).sum(1)
    micro = np.where(pooled, 2 * true_positives.sum(1) / np.maximum(pooled, 1), np.nan)
    scores = F1Scores(per_class, macro, micro)
    return scores if weights is not None else F1Scores(*(values[0] for values in scores))


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
