"""Bootstrap of average precision at the size of Animal Kingdom's val split, against scikit-learn in a loop.

The plain way is too slow to be taken whole: it is timed on a few resamples, and both are told in resamples a second."""

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.harness import Row, in_turn, peak_memory, row
from benchmarks.inputs import Inputs
from vimoclip import metrics

VIDEOS, CLASSES, LABELS, EMPTY = 6096, 140, 2.3, 13  # labels a video; classes without a positive
RESAMPLES, PLAIN_RESAMPLES = 1000, 2
WITHIN = 1e-9


def run(inputs: Inputs, rounds: int) -> list[Row]:
    scores, targets = made()
    check_equal(scores, targets)
    weights = metrics.draw_weights(VIDEOS, RESAMPLES)
    work = {
        "plain": lambda: float(len(plain(scores, targets, weights[:PLAIN_RESAMPLES])[1])),
        "ours": lambda: float(len(metrics.resampled_precisions(scores, targets, weights).micro)),
    }
    rates = in_turn(work, rounds)
    seconds = RESAMPLES / float(np.median(rates["ours"]))
    peaks = peak_memory(bootstrapped, 0), peak_memory(bootstrapped, RESAMPLES)
    note = f"{RESAMPLES:,} take {seconds:.1f} s; the plain way timed on {PLAIN_RESAMPLES}"
    what = f"AP macro and micro of {VIDEOS:,} x {CLASSES}"
    return [row("evaluation", what, "resample", rates, memory=peaks, goal="30 s; 1 GiB for 1,000", note=note)]


def made() -> tuple[np.ndarray, np.ndarray]:
    """Scores and targets with a long tail of classes, the last of which have no positive."""
    rng = np.random.default_rng(0)
    prevalence = 1 / np.arange(1, CLASSES + 1)
    prevalence[-EMPTY:] = 0
    targets = rng.random((VIDEOS, CLASSES)) < (prevalence * LABELS / prevalence.sum()).clip(0, 0.5)
    return 1 / (1 + np.exp(3 - 3 * targets - rng.normal(size=targets.shape))), targets


def plain(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Macro and micro of each resample, by scikit-learn: a class and a resample at a time."""
    macro, micro = [], []
    for drawn in weights:
        known = [c for c in range(targets.shape[1]) if drawn[targets[:, c]].any()]
        found = [average_precision_score(targets[:, c], scores[:, c], sample_weight=drawn) for c in known]
        macro.append(np.mean(found))
        pooled = drawn.repeat(targets.shape[1])
        micro.append(average_precision_score(targets.ravel(), scores.ravel(), sample_weight=pooled))
    return np.array(macro), np.array(micro)


def check_equal(scores: np.ndarray, targets: np.ndarray) -> None:
    """Both ways give the same numbers, or there is nothing to compare."""
    weights = metrics.draw_weights(VIDEOS, 1, seed=1)
    macro, micro = plain(scores, targets, weights)
    found = metrics.resampled_precisions(scores, targets, weights)
    assert abs(metrics.macro(found.per_class) - macro).max() < WITHIN
    assert abs(found.micro - micro).max() < WITHIN


def bootstrapped(resamples: int) -> None:
    """For its memory, inputs and weights among it; by the plain way, of two resamples, where `resamples` is 0."""
    scores, targets = made()
    if resamples:
        metrics.resampled_precisions(scores, targets, metrics.draw_weights(VIDEOS, resamples))
    else:
        plain(scores, targets, metrics.draw_weights(VIDEOS, PLAIN_RESAMPLES))
