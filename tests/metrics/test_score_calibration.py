"""Calibration of scores: known temperatures and slopes are recovered, and nothing is made of too few labels."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_info, threadpool_limits

from vimoclip import metrics
from vimoclip.metrics.score_calibration import (
    METHODS,
    FittedCalibration,
    ScoreCalibration,
    fit_calibration,
    log_losses,
    sigmoid,
)


class Labelled(NamedTuple):
    """True logits (N, C), and labels drawn from their probabilities."""

    logits: np.ndarray
    targets: np.ndarray


def draw_labels(videos: int, classes: int, seed: int = 0, spread: float = 2.0) -> Labelled:
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, spread, (videos, classes))
    return Labelled(logits, rng.random(logits.shape) < sigmoid(logits))


def scores_of(logits: np.ndarray) -> np.ndarray:
    """Scores as a model writes them: float32."""
    return sigmoid(logits).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    logits, targets = draw_labels(3000, 4)
    fitted = fit_calibration(scores_of(temperature * logits), targets)
    # Platt scaling may be better by chance, by numbers that are nearly those of the temperature
    assert fitted.method in ("temperature", "platt")
    assert fitted.temperature == pytest.approx(temperature, rel=0.05)
    assert fitted.calibration.slopes == pytest.approx(np.full(4, 1 / temperature), rel=0.15)
    assert fitted.log_losses["none"] > fitted.log_losses["temperature"] + 0.001
    assert fitted.folds == 5


def test_slope_and_intercept_of_each_class_are_recovered() -> None:
    logits, targets = draw_labels(3000, 3)
    slopes, intercepts = np.array([0.4, 1.0, 2.5]), np.array([1.0, -1.5, 0.5])
    fitted = fit_calibration(scores_of((logits - intercepts) / slopes), targets)
    assert fitted.method == "platt" and fitted.by_platt.all()
    assert fitted.calibration.slopes == pytest.approx(slopes, rel=0.12)
    assert fitted.calibration.intercepts == pytest.approx(intercepts, abs=0.15)
    assert fitted.log_losses["platt"] == min(fitted.log_losses.values())


def test_a_score_of_1_counts_like_the_float32_below_it() -> None:
    """With wrong labels at scores of 1; as logits of 37 they gave a temperature of 14."""
    logits, targets = draw_labels(60, 3)
    temperatures = []
    for certain in (1.0, float(np.nextafter(np.float32(1), np.float32(0)))):
        scores = scores_of(2 * logits)
        scores[:5, 0], targets[:5, 0] = certain, False
        temperatures.append(fit_calibration(scores, targets).temperature)
    assert temperatures[0] == pytest.approx(temperatures[1], rel=0.05)
    assert temperatures[0] > 2


def test_well_calibrated_scores_stay_nearly_as_they_are() -> None:
    changes = []
    for seed in range(10):
        logits, targets = draw_labels(400, 3, seed)
        scores = scores_of(logits)
        changes.append(np.abs(fit_calibration(scores, targets).calibration(scores) - scores).mean())
    assert np.mean(changes) < 0.015


def test_a_temperature_is_taken_also_if_raw_scores_are_better_in_cross_validation() -> None:
    """As on few clips that the model knows too well; other clips are usually harder."""
    logits, targets = draw_labels(40, 3)
    scores = scores_of(np.where(targets, abs(logits), -abs(logits)))  # all right
    fitted = fit_calibration(scores, targets)
    assert fitted.method != "none" and set(fitted.log_losses) == set(METHODS)


def test_separable_labels_and_scores_of_0_and_1_stay_finite() -> None:
    targets = np.arange(40)[:, None] % np.array([2, 3]) == 0
    for scores in (targets.astype(float), np.where(targets, 0.8, 0.3)):
        fitted = fit_calibration(scores, targets)
        calibrated = fitted.calibration(np.vstack([scores, [[0.0, 1.0]]]))
        assert np.isfinite([fitted.calibration.slopes, fitted.calibration.intercepts]).all()
        assert np.isfinite(calibrated).all() and np.isfinite(fitted.temperature)
        assert (calibrated[:40][targets] > 0.9).all() and (calibrated[:40][~targets] < 0.1).all()
    assert calibrated[:40].max() < 0.999  # 40 videos are no evidence of certainty


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float32, (12, 1), elements=st.floats(0, 1, width=32)),
    arrays(bool, (12, 1)),
    st.floats(0.01, 30),
    st.floats(-20, 20),
)
def test_order_is_never_reversed(scores: np.ndarray, targets: np.ndarray, slope: float, intercept: float) -> None:
    calibrated = ScoreCalibration(np.array([slope]), np.array([intercept]))(scores)
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    assert (np.diff(calibrated[np.argsort(scores[:, 0], kind="stable"), 0]) >= 0).all()
    if len(np.unique(calibrated)) == len(np.unique(scores)):  # float64 did not round two scores to one
        ones = np.ones((1, 12), int)
        before, after = (metrics.bootstrap_ap_per_class(x.astype(float), targets, ones) for x in (scores, calibrated))
        np.testing.assert_array_equal(before, after)


def test_order_and_average_precision_stay_with_fitted_numbers() -> None:
    """Also of neighbouring float32 scores near 0 and 1."""
    logits, targets = draw_labels(300, 3, spread=5)
    scores = scores_of(1.5 * logits)
    scores[:2, 0] = 1.0, np.nextafter(np.float32(1), np.float32(0))
    scores[2:4, 0] = 0.0, np.nextafter(np.float32(0), np.float32(1))
    calibrated = fit_calibration(scores, targets).calibration(scores)
    assert all(len(np.unique(calibrated[:, c])) == len(np.unique(scores[:, c])) for c in range(3))
    ones = np.ones((1, 300), int)
    before, after = (metrics.bootstrap_ap_per_class(x, targets, ones) for x in (scores, calibrated))
    np.testing.assert_array_equal(before, after)


def test_nan_stays_nan_and_windows_keep_their_shape() -> None:
    scores = np.array([[[0.2, np.nan], [0.5, 0.9]]])
    result = ScoreCalibration(np.array([2.0, 1.0]), np.array([0.0, 0.0]))(scores)
    assert result.shape == (1, 2, 2)
    assert np.isnan(result).tolist() == np.isnan(scores).tolist()
    assert result[0, 1].tolist() == [0.5, 0.9]
    assert result[0, 0, 0] == pytest.approx(0.2**2 / (0.2**2 + 0.8**2))


def test_a_class_with_fewer_than_10_positives_gets_the_temperature() -> None:
    rng = np.random.default_rng(0)
    targets = np.zeros((200, 4), bool)
    for c, positives in enumerate((9, 10, 100, 191)):  # the last has 9 negatives
        targets[rng.permutation(200)[:positives], c] = True
    scores = scores_of(rng.normal(-3, 1, targets.shape) + 2 * targets)  # all too low, so that an intercept helps
    fitted = fit_calibration(scores, targets)
    assert fitted.method == "platt"
    assert fitted.by_platt.tolist() == [False, True, True, False]
    assert fitted.calibration.slopes[[0, 3]] == pytest.approx(1 / fitted.temperature)
    assert (fitted.calibration.intercepts != 0).tolist() == [False, True, True, False]


def is_left_alone(fitted: FittedCalibration) -> bool:
    slopes, intercepts = fitted.calibration.slopes, fitted.calibration.intercepts
    return fitted.method == "none" and (slopes == 1).all() and (intercepts == 0).all() and not fitted.by_platt.any()


def test_an_anticorrelated_class_is_not_inverted() -> None:
    logits, targets = draw_labels(600, 3)
    scores = scores_of(logits * [1, 1, -1] + [1.5, 1.5, 0])
    fitted = fit_calibration(scores, targets)
    assert fitted.method == "platt" and fitted.by_platt.tolist() == [True, True, False]
    assert (fitted.calibration.slopes > 0).all()
    assert fitted.calibration.slopes[2] == pytest.approx(1 / fitted.temperature)
    inverted = fit_calibration(scores_of(-logits), targets)  # all of them
    assert is_left_alone(inverted) and inverted.log_losses  # no temperature above 0 improves them


def test_videos_of_one_source_are_in_one_fold() -> None:
    """All videos of a source have one score and one label, so folds that split sources have seen every video."""
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(8) % 2 == 0, 20)[:, None]
    scores = scores_of(np.repeat(rng.normal(0, 3, 8), 20)[:, None])
    sources = [f"film{i}" for i in np.repeat(np.arange(8), 20)]
    losses = [fit_calibration(scores, targets, named).log_losses for named in (None, sources)]
    assert losses[0]["none"] == pytest.approx(losses[1]["none"])  # nothing is fitted, so the folds don't matter
    assert losses[0]["platt"] < losses[1]["platt"] - 0.02
    few = fit_calibration(scores, targets, ["a"] * 40 + ["b"] * 60 + ["c"] * 60)
    assert few.folds == 3


@pytest.mark.parametrize(
    ("videos", "label"),
    [(1, None), (0, None), (30, False), (30, True), (8, None)],
    ids=["one video", "no video", "no label", "all labels", "fewer than ten labels"],
)
def test_nothing_is_fitted_without_data_enough(videos: int, label: bool | None) -> None:
    logits, targets = draw_labels(videos, 2)
    fitted = fit_calibration(scores_of(3 * logits), targets if label is None else np.full_like(targets, label))
    assert is_left_alone(fitted)
    assert (fitted.log_losses, fitted.temperature, fitted.folds) == ({}, 1, 0)


def test_videos_of_a_single_source_get_a_temperature_without_cross_validation() -> None:
    logits, targets = draw_labels(400, 2)
    fitted = fit_calibration(scores_of(2 * logits), targets, ["film"] * 400)
    assert (fitted.method, fitted.log_losses, fitted.folds) == ("temperature", {}, 0)
    assert fitted.temperature == pytest.approx(2, rel=0.15) and not fitted.by_platt.any()


class ThreadCounter(list[str]):
    """Sources that note how many threads BLAS has when they are read."""

    def __iter__(self) -> Iterator[str]:
        self.threads = {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}
        return super().__iter__()


def test_the_fit_uses_one_thread() -> None:
    sources = ThreadCounter(str(i) for i in range(40))
    logits, targets = draw_labels(40, 2)
    with threadpool_limits(2, user_api="blas"):
        fit_calibration(scores_of(logits), targets, sources)
        threads = {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}
    assert sources.threads == {1} and threads == {2}


def test_the_same_data_give_the_same_calibration() -> None:
    logits, targets = draw_labels(60, 3)
    first, second = (fit_calibration(scores_of(3 * logits), targets) for _ in range(2))
    assert first.log_losses == second.log_losses and list(first.log_losses) == list(METHODS)
    assert (first.calibration.slopes == second.calibration.slopes).all()


def test_log_losses_equal_scikit_learn() -> None:
    logits, targets = draw_labels(50, 4)
    scores = sigmoid(logits)
    scores[0], targets[0] = [0.0, 1.0, 0.0, 1.0], [True, False, False, True]
    result = log_losses(scores, targets)
    assert result.mean() == pytest.approx(log_loss(targets.ravel(), scores.ravel()))
    for c in range(4):
        assert result[:, c].mean() == pytest.approx(log_loss(targets[:, c], scores[:, c]))
