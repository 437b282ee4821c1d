"""Confusions between classes, co-occurrence of labels, and the best and worst clips.

`scores` (N, C) float, `targets` (N, C) bool. For a clip with k labels the k highest scores count as predicted. With one
label per clip this gives the usual confusion matrix. With several, a label that is not predicted is missed, and each
wrong class that is predicted counts as confused with it. This needs no threshold, which the scores of rare classes
hardly ever reach."""

from collections.abc import Sequence

import numpy as np

from vimoclip import metrics

MAX_CONFUSIONS = 3  # listed per class


def predicted_labels(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N, C) bool: each clip's k highest-scored classes, k its number of labels; ties go to lower class ids."""
    order = metrics.descending_order(scores)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(scores.shape[1])[None, :], axis=1)
    return ranks < targets.sum(axis=1, keepdims=True)


def confusion_counts(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (C, C) int64: clips whose label `row` is missed while `column` is wrongly predicted; diagonal: hits."""
    predicted = predicted_labels(scores, targets)
    missed, wrong = targets & ~predicted, predicted & ~targets
    counts = missed.T.astype(np.float64) @ wrong.astype(np.float64)  # BLAS multiplies floats only
    np.fill_diagonal(counts, (targets & predicted).sum(axis=0))
    return counts.astype(np.int64)


def confused_with(
    class_names: Sequence[str], scores: np.ndarray, targets: np.ndarray
) -> dict[str, tuple[int, list[str]]]:
    """Return class -> (number of clips in which it is predicted correctly, classes that it is most confused with)."""
    confusions = {}
    for c, (name, wrong) in enumerate(zip(class_names, confusion_counts(scores, targets), strict=True)):
        correct, wrong[c] = int(wrong[c]), 0
        order = [int(d) for d in metrics.descending_order(wrong)[:MAX_CONFUSIONS] if wrong[d]]
        confusions[name] = (correct, [f"{class_names[d]} ({wrong[d]:,})" for d in order])
    return confusions


def co_occurrence(targets: np.ndarray) -> np.ndarray:
    """Return (C, C) int64: number of clips with both labels; diagonal: with the label."""
    labels = targets.astype(np.float64)
    return (labels.T @ labels).astype(np.int64)


def clip_average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N,) float64: AP of each clip over the classes; NaN without a label.

    It is 1 if all labels score above all other classes."""
    return metrics.bootstrap_ap_per_class(scores.T, targets.T, np.ones((1, scores.shape[1]), np.int64))[0]


def clip_cross_entropy(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N,) float64: mean binary cross-entropy of each clip over the classes. `scores` are probabilities."""
    likelihood = np.where(targets, scores, 1 - scores)
    return -np.log(np.clip(likelihood, 1e-9, 1)).mean(axis=1)


def best_and_worst(scores: np.ndarray, targets: np.ndarray, count: int) -> tuple[list[int], list[int]]:
    """Return (best, worst): the indices of at most `count` clips each, by AP; ties are ordered by cross-entropy.

    Clips with a label set that is not in the list yet come first, so that a frequent class does not fill it. The best
    are from the better half of the clips, the worst from the other half and with an AP below 1."""
    precision, loss = clip_average_precision(scores, targets), clip_cross_entropy(scores, targets)
    labelled = np.flatnonzero(targets.any(axis=1))
    ranked = labelled[np.lexsort((loss[labelled], -precision[labelled]))].tolist()
    half = (len(ranked) + 1) // 2
    wrong = [clip for clip in ranked[half:] if precision[clip] < 1]
    best, worst = _distinct_labels_first(ranked[:half], targets), _distinct_labels_first(wrong[::-1], targets)
    return best[:count], worst[:count]


def _distinct_labels_first(ranked: list[int], targets: np.ndarray) -> list[int]:
    """Return the first clip of each label set, then the others."""
    label_sets: set[bytes] = set()
    first: list[int] = []
    others: list[int] = []
    for clip in ranked:
        labels = targets[clip].tobytes()
        (others if labels in label_sets else first).append(clip)
        label_sets.add(labels)
    return first + others
