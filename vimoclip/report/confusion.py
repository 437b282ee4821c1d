"""What is predicted in the stead of what, and which clips come out best and worst: pure functions of arrays.

A clip with k labels has k chances here: its k highest scores are what it is taken for. Where it has one label, that is
the usual confusion matrix; where it has several, a label that isn't among them is missed, and each wrong class among
them is predicted in its stead. No threshold is needed, which the rare classes would hardly ever reach."""

import numpy as np


def taken_for(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N, C) bool: each clip's k highest-scored classes, k its number of labels; of equals the first ones.

    scores (N, C) float, targets (N, C) bool."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(scores.shape[1])[None, :], axis=1)
    return ranks < targets.sum(axis=1, keepdims=True)


def confusions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(C, C) int64: the clips labelled with the row's class that miss it and are taken for the column's instead.

    On the diagonal the clips that are taken for what they are. scores (N, C) float, targets (N, C) bool."""
    taken = taken_for(scores, targets)
    missed, wrong = targets & ~taken, taken & ~targets
    counts = missed.T.astype(np.float64) @ wrong.astype(np.float64)  # BLAS, unlike a product of integers
    np.fill_diagonal(counts, (targets & taken).sum(axis=0))
    return counts.astype(np.int64)


def co_occurrence(targets: np.ndarray) -> np.ndarray:
    """(C, C) int64: the clips that have both labels; on the diagonal those that have the one. targets (N, C) bool."""
    labels = targets.astype(np.float64)
    return (labels.T @ labels).astype(np.int64)


def clip_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,) float64: each clip's average precision over its classes, ties as scikit-learn has them; NaN without a label.

    scores (N, C) float, targets (N, C) bool. It is 1 where all labels score above all other classes."""
    clips, labels = np.nonzero(targets)
    above = scores[clips] >= scores[clips, labels][:, None]
    precisions = (above & targets[clips]).sum(axis=1) / above.sum(axis=1)
    counts = targets.sum(axis=1)
    sums = np.bincount(clips, weights=precisions, minlength=len(targets))
    return np.divide(sums, counts, out=np.full(len(targets), np.nan), where=counts > 0)


def clip_loss(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,) float64: each clip's mean binary cross-entropy over the classes. scores: (N, C) probabilities."""
    right = np.where(targets, scores, 1 - scores)
    return -np.log(np.clip(right, 1e-9, 1)).mean(axis=1)


def best_and_worst(scores: np.ndarray, targets: np.ndarray, count: int) -> tuple[list[int], list[int]]:
    """Clips of highest and of lowest average precision, by the loss where that is equal; none is in both lists.

    One clip of each set of labels comes before others with the same, so that a common class doesn't fill the lists.
    Both come from their half of the clips, and no clip is among the worst whose labels score above all else."""
    precision, loss = clip_precision(scores, targets), clip_loss(scores, targets)
    labelled = np.flatnonzero(targets.any(axis=1))
    ranked = labelled[np.lexsort((loss[labelled], -precision[labelled]))].tolist()
    half = (len(ranked) + 1) // 2
    wrong = [clip for clip in ranked[half:] if precision[clip] < 1]
    return _varied(ranked[:half], targets)[:count], _varied(wrong[::-1], targets)[:count]


def _varied(ranked: list[int], targets: np.ndarray) -> list[int]:
    """The first clip of each set of labels, then the others."""
    seen: set[bytes] = set()
    first: list[int] = []
    others: list[int] = []
    for clip in ranked:
        labels = targets[clip].tobytes()
        (others if labels in seen else first).append(clip)
        seen.add(labels)
    return first + others
