"""Bootstrap of average precision at the size of Animal Kingdom's val split, against scikit-learn in a loop.

The plain implementation is slow and therefore timed on few resamples; both rates are in resamples/s."""

from statistics import median

import numpy as np
from sklearn.metrics import average_precision_score

from benchmarks.harness import BenchmarkRow, make_row, measure_peak_memory, measure_rates
from benchmarks.inputs import BenchmarkInputs
from vimoclip import metrics

VIDEOS, CLASSES, LABELS_PER_VIDEO, EMPTY_CLASSES = 6096, 140, 2.3, 13  # the last: classes without a positive
RESAMPLES, PLAIN_RESAMPLES = 1000, 2
TOLERANCE = 1e-9


def run(inputs: BenchmarkInputs, rounds: int) -> list[BenchmarkRow]:
    scores, targets = make_predictions()
    check_same_values(scores, targets)
    weights = metrics.bootstrap_weights(VIDEOS, RESAMPLES)
    work = {
        "plain": lambda: float(len(sklearn_bootstrap(scores, targets, weights[:PLAIN_RESAMPLES])[1])),
        "ours": lambda: float(len(exact_bootstrap(scores, targets, weights)[1])),
    }
    rates = measure_rates(work, rounds)
    seconds = RESAMPLES / median(rates["ours"])
    peaks = measure_peak_memory(run_bootstrap, 0), measure_peak_memory(run_bootstrap, RESAMPLES)
    note = f"{RESAMPLES:,} take {seconds:.1f} s; the plain implementation timed on {PLAIN_RESAMPLES}"
    what = f"AP macro and micro of {VIDEOS:,} x {CLASSES}"
    return [make_row("evaluation", what, "resample", rates, memory=peaks, goal="30 s; 1 GiB for 1,000", note=note)]


def make_predictions() -> tuple[np.ndarray, np.ndarray]:
    """Return scores and targets of long-tailed classes; the last classes have no positive."""
    rng = np.random.default_rng(0)
    prevalence = 1 / np.arange(1, CLASSES + 1)
    prevalence[-EMPTY_CLASSES:] = 0
    targets = rng.random((VIDEOS, CLASSES)) < (prevalence * LABELS_PER_VIDEO / prevalence.sum()).clip(0, 0.5)
    return 1 / (1 + np.exp(3 - 3 * targets - rng.normal(size=targets.shape))), targets


def exact_bootstrap(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (macro, micro) of each resample by this project."""
    per_class = metrics.bootstrap_ap_per_class(scores, targets, weights)
    return metrics.macro_average(per_class), metrics.bootstrap_ap_micro(scores, targets, weights)


def sklearn_bootstrap(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (macro, micro) of each resample by scikit-learn, one class and one resample at a time."""
    macro, micro = [], []
    for resample in weights:
        classes = [c for c in range(targets.shape[1]) if resample[targets[:, c]].any()]
        per_class = [average_precision_score(targets[:, c], scores[:, c], sample_weight=resample) for c in classes]
        macro.append(np.mean(per_class))
        pooled = resample.repeat(targets.shape[1])
        micro.append(average_precision_score(targets.ravel(), scores.ravel(), sample_weight=pooled))
    return np.array(macro), np.array(micro)


def check_same_values(scores: np.ndarray, targets: np.ndarray) -> None:
    """Assert that both implementations return the same values."""
    weights = metrics.bootstrap_weights(VIDEOS, 1, seed=1)
    macro, micro = sklearn_bootstrap(scores, targets, weights)
    our_macro, our_micro = exact_bootstrap(scores, targets, weights)
    assert abs(our_macro - macro).max() < TOLERANCE
    assert abs(our_micro - micro).max() < TOLERANCE


def run_bootstrap(resamples: int) -> None:
    """Run one bootstrap, to measure its memory; with 0 resamples, the plain implementation with two."""
    scores, targets = make_predictions()
    if resamples:
        exact_bootstrap(scores, targets, metrics.bootstrap_weights(VIDEOS, resamples))
    else:
        sklearn_bootstrap(scores, targets, metrics.bootstrap_weights(VIDEOS, PLAIN_RESAMPLES))
