"""F1 of decisions, and the thresholds that make decisions of scores."""

from typing import NamedTuple

import numpy as np


class F1(NamedTuple):
    """`per_class` (..., C), NaN for a class without a positive; `macro` (...,), their mean; `micro` (...,), of all."""

    per_class: np.ndarray
    macro: np.ndarray
    micro: np.ndarray


def f1(decisions: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> F1:
    """F1 = 2 TP / (2 TP + FP + FN) of boolean (N, C) decisions; with weights (R, N) of each resample.

    Macro is over the classes that have a positive (in the resample), micro over all pairs of video and class."""
    # products of floats: counts of some thousands are exact in float32
    rows = np.ones((1, len(targets)), np.float32) if weights is None else weights.astype(np.float32)
    parts = (decisions & targets, decisions, targets)
    hits, said, true = ((rows @ part.astype(np.float32)).astype(np.float64) for part in parts)
    per_class = np.where(true > 0, 2.0 * hits / np.maximum(said + true, 1), np.nan)
    known = (true > 0).sum(1)
    macro = np.where(known, np.nansum(per_class, 1) / np.maximum(known, 1), np.nan)
    both = (said + true).sum(1)
    micro = np.where(both, 2 * hits.sum(1) / np.maximum(both, 1), np.nan)
    found = F1(per_class, macro, micro)
    return found if weights is not None else F1(*(part[0] for part in found))


def fit_thresholds(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(C,): for each class the threshold at which `scores >= threshold` has the highest F1 on these videos.

    It lies midway between neighbouring scores; of equally good ones the highest is taken, which says least. 0.5 for a
    class without a positive here, of which nothing can be learnt."""
    return np.array([_fit(scores[:, c], targets[:, c]) for c in range(scores.shape[1])])


def _fit(scores: np.ndarray, targets: np.ndarray) -> float:
    if not targets.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], targets[order].cumsum()
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    best = last[np.argmax(2 * hits[last] / (last + 1 + hits[-1]))]
    if best == len(ranked) - 1:
        return float(ranked[-1])
    middle = (ranked[best] + ranked[best + 1]) / 2
    # between two neighbours among floats there is no number, and their mean may be the lower
    return float(middle if middle > ranked[best + 1] else ranked[best])
