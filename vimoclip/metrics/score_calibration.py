"""Calibration of scores: temperature and Platt scaling on the logits, fitted by scikit-learn.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017; Platt, Probabilistic Outputs for Support Vector
Machines, 1999, whose targets are used: they keep the slope finite where the scores separate the labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

# Platt scaling has two numbers per class, and a temperature one for all. A class with fewer positives, or negatives,
# gets the temperature; with fewer positives of all classes together, nothing is fitted.
MIN_POSITIVES = 10
MAX_FOLDS = 5
METHODS = ("none", "temperature", "platt")  # fewest numbers first, which is taken of equals
# float32, the type of the models' scores, rounds probabilities beyond these to 0 and 1. A score of 1 is taken as no
# more certain than that; as float64 it would have a logit of 37, twice that of the float32 below it
LOWEST, HIGHEST = 2.0**-150, 1 - 2.0**-25


@dataclass(frozen=True)
class ScoreCalibration:
    """The calibrated score of class c is sigmoid(slopes[c] * logit(score) + intercepts[c]); slopes are above 0.

    The order of a class's scores is never reversed; scores near 0 or 1 may become equal, where float64 rounds. With
    slope 1 and intercept 0 scores stay exactly as they are."""

    slopes: np.ndarray
    intercepts: np.ndarray

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Return (..., C) calibrated scores of (..., C) scores in 0..1; NaN stays NaN."""
        is_identity = (self.slopes == 1) & (self.intercepts == 0)
        return np.where(is_identity, scores, sigmoid(self.slopes * logit(scores) + self.intercepts))


class FittedCalibration(NamedTuple):
    """`method`: `temperature` or `platt`, whichever has the lower log loss; `none` if too few labels are known or the
    calibration would change nothing; `log_losses`: of METHODS in cross-validation, {} without one, as of a single
    source; `temperature`: 1 unless it was fitted; `by_platt` (C,): classes with their own numbers; `folds`: of the
    cross-validation, 0 without one."""

    calibration: ScoreCalibration
    temperature: float
    by_platt: np.ndarray
    method: str
    log_losses: dict[str, float]
    folds: int


def logit(scores: np.ndarray) -> np.ndarray:
    """Return log(p / (1 - p)) of scores in 0..1, finite also for 0 and 1: p is clipped to LOWEST..HIGHEST."""
    p = np.clip(np.asarray(scores, np.float64), LOWEST, HIGHEST)
    return np.log(p) - np.log1p(-p)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, also of infinite ones."""
    with np.errstate(over="ignore"):  # below -709: a probability of 0
        return 1 / (1 + np.exp(-logits))


def log_losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N, C) negative log likelihoods, in nats, of labels under (N, C) scores in 0..1.

    Scores of 0 and 1 are clipped by float64's epsilon, as in scikit-learn's log_loss."""
    epsilon = np.finfo(np.float64).eps
    return -np.log(np.where(targets, scores, 1 - scores).clip(epsilon, 1 - epsilon))


def fit_calibration(
    scores: np.ndarray, targets: np.ndarray, sources: Sequence[str] | None = None, seed: int = 0
) -> FittedCalibration:
    """Fit the calibration of (N, C) scores with (N, C) bool targets that has the lower log loss in cross-validation.

    Raw scores are no candidate: on 18 runs of the demo a temperature was better than they on other clips in each, also
    where cross-validation on few clips found it worse (NOTES.md). `sources`: of each video; videos of one source are in
    one fold, since they resemble each other."""
    if min(targets.sum(), (~targets).sum()) < MIN_POSITIVES:
        return FittedCalibration(*_identity(targets.shape[1]), "none", {}, 0)
    import sklearn.linear_model  # noqa: F401 - before the limit, which is only of loaded libraries

    positives = targets.sum(0)
    has_enough = np.minimum(positives, len(targets) - positives) >= MIN_POSITIVES
    with threadpool_limits(1, user_api="blas"):  # arrays are small: threads that wait for a core made it 6 times slower
        folds = _split_folds(len(scores), sources, seed)
        losses = dict.fromkeys(METHODS if folds else (), 0.0)
        for held_out in folds:
            rest = np.setdiff1d(np.arange(len(scores)), held_out)
            for method, fit in _fit_methods(scores[rest], targets[rest], has_enough).items():
                losses[method] += float(log_losses(fit.calibration(scores[held_out]), targets[held_out]).sum())
        fits = _fit_methods(scores, targets, has_enough)
    losses = {method: loss / targets.size for method, loss in losses.items()}
    method = min(METHODS[1:], key=losses.__getitem__) if losses else "temperature"
    if method == "temperature" and fits[method].temperature == 1:
        method = "none"
    return FittedCalibration(*fits[method], method, losses, len(folds))


def _split_folds(count: int, sources: Sequence[str] | None, seed: int) -> list[np.ndarray]:
    """Return the indices of the videos of each fold; no fold if there are too few videos or sources for two."""
    from sklearn.model_selection import GroupKFold, KFold

    num_groups = len(set(sources)) if sources is not None else count
    folds = min(MAX_FOLDS, num_groups)
    if folds < 2:
        return []
    splitter = KFold(folds, shuffle=True, random_state=seed) if sources is None else GroupKFold(folds)
    return [held_out for _, held_out in splitter.split(np.arange(count), groups=sources)]


class _Fit(NamedTuple):
    calibration: ScoreCalibration
    temperature: float
    by_platt: np.ndarray


def _identity(num_classes: int) -> _Fit:
    return _Fit(ScoreCalibration(np.ones(num_classes), np.zeros(num_classes)), 1.0, np.zeros(num_classes, bool))


def _fit_methods(scores: np.ndarray, targets: np.ndarray, has_enough: np.ndarray) -> dict[str, _Fit]:
    """Fit each of METHODS. `has_enough` (C,): classes with labels enough for Platt scaling; the others, and those whose
    slope would not be above 0, get the temperature."""
    logits = logit(scores)
    slope, _ = _regress(logits.reshape(-1), targets.reshape(-1), fit_intercept=False)
    slope = slope if slope > 0 else 1.0
    slopes, intercepts = np.full(targets.shape[1], slope), np.zeros(targets.shape[1])
    by_temperature = _Fit(ScoreCalibration(slopes.copy(), intercepts.copy()), 1 / slope, np.zeros(len(slopes), bool))
    by_platt = np.zeros(len(slopes), bool)
    for c in np.flatnonzero(has_enough):
        own_slope, intercept = _regress(logits[:, c], targets[:, c], fit_intercept=True)
        if own_slope > 0:
            slopes[c], intercepts[c], by_platt[c] = own_slope, intercept, True
    platt = _Fit(ScoreCalibration(slopes, intercepts), 1 / slope, by_platt)
    return dict(zip(METHODS, (_identity(len(slopes)), by_temperature, platt), strict=True))


def _regress(logits: np.ndarray, targets: np.ndarray, fit_intercept: bool) -> tuple[float, float]:
    """Return (slope, intercept) of the logistic regression of (M,) labels on logits, with Platt's targets.

    Labels 1 count as (P + 1) / (P + 2) of P positives, labels 0 as 1 / (N + 2) of N negatives."""
    from sklearn.linear_model import LogisticRegression

    positives = int(targets.sum())
    soft = np.where(targets, (positives + 1) / (positives + 2), 1 / (len(targets) - positives + 2))
    model = LogisticRegression(C=np.inf, fit_intercept=fit_intercept, tol=1e-8, max_iter=1000)
    both = np.tile(logits, 2)[:, None]
    model.fit(both, np.repeat([1, 0], len(logits)), sample_weight=np.concatenate([soft, 1 - soft]))
    return float(model.coef_[0, 0]), float(model.intercept_[0]) if fit_intercept else 0.0
