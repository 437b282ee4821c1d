"""F1, fitted thresholds and calibration against scikit-learn and numbers worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from vimoclip import metrics

COLUMN = np.array([0.9, 0.8, 0.4, 0.2])[:, None]


def draw_samples(seed: int, videos: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 9, (videos, classes)) / 8, rng.random((videos, classes)) < [0.0, 0.1, 0.5, 1.0][:classes]


def column(*targets: int) -> np.ndarray:
    return np.array(targets, bool)[:, None]


def ones(videos: int) -> np.ndarray:
    return np.ones((1, videos), int)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(20))
def test_weighted_f1_equals_sklearn(seed: int) -> None:
    scores, targets = draw_samples(seed, 1 + seed)
    decisions, weights = scores >= 0.5, metrics.bootstrap_weights(1 + seed, 2, seed)
    result = metrics.f1_scores(decisions, targets, weights)
    for number, row in enumerate(weights):
        per_class = f1_score(targets, decisions, average=None, sample_weight=row, zero_division=0.0)
        has_positive = (row @ targets) > 0
        np.testing.assert_allclose(result.per_class[number], np.where(has_positive, per_class, math.nan), atol=1e-12)
        macro = per_class[has_positive].mean() if has_positive.any() else math.nan
        assert result.macro[number] == pytest.approx(macro, abs=1e-12, nan_ok=True)
        counts = (row @ (targets | decisions)).any()
        micro = f1_score(targets, decisions, average="micro", sample_weight=row) if counts else math.nan
        assert result.micro[number] == pytest.approx(micro, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("targets", "threshold"),
    [
        ((1, 1, 0, 0), 0.6),  # between 0.8 and 0.4
        ((1, 0, 0, 0), 0.85),
        ((0, 1, 0, 0), 0.6),  # F1 2/3 with the first two
        ((1, 1, 1, 1), 0.2),  # all positive: the lowest score itself
        ((0, 0, 0, 1), 0.2),
        ((1, 0, 0, 1), 0.85),  # 2/3 at 0.85 and at 0.2: the higher threshold
        ((0, 0, 0, 0), 0.5),
    ],
)
def test_thresholds_worked_by_hand(targets: tuple[int, ...], threshold: float) -> None:
    assert metrics.fit_thresholds(COLUMN, column(*targets))[0] == pytest.approx(threshold)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
def test_no_other_threshold_has_a_higher_f1(seed: int, videos: int) -> None:
    scores, targets = draw_samples(seed, videos)
    fitted = metrics.fit_thresholds(scores, targets)
    best = metrics.f1_scores(scores >= fitted, targets, ones(videos)).per_class
    for threshold in np.arange(-1, 18) / 16:
        other = metrics.f1_scores(scores >= threshold, targets, ones(videos)).per_class
        assert not (other > best + 1e-12).any()
    assert (fitted[~targets.any(0)] == 0.5).all()


@pytest.mark.parametrize("high", [0.3, 0.1 + 0.2, 1.0])
def test_a_threshold_separates_neighbouring_floats(high: float) -> None:
    scores = np.array([[high], [np.nextafter(high, 0)]])
    threshold = metrics.fit_thresholds(scores, column(1, 0))
    assert (scores >= threshold).tolist() == [[True], [False]]


def test_reliability_worked_by_hand() -> None:
    scores = np.array([[0.05, 0.30], [0.25, 1.00], [0.50, 0.80]])
    targets = np.array([[0, 1], [0, 1], [1, 0]], bool)
    # four bins: 0.05; 0.30 and 0.25, a lower edge; 0.50; 1.00, the upper edge of the last bin, and 0.80
    bins = metrics.reliability_bins(scores, targets, bins=4)
    assert [(b["low"], b["high"], b["count"]) for b in bins] == [
        (0, 0.25, 1), (0.25, 0.5, 2), (0.5, 0.75, 1), (0.75, 1, 2)
    ]  # fmt: skip
    assert [b["mean_score"] for b in bins] == pytest.approx([0.05, 0.275, 0.5, 0.9])
    assert [b["share_positive"] for b in bins] == pytest.approx([0, 0.5, 1, 0.5])
    expected = (1 * 0.05 + 2 * 0.225 + 1 * 0.5 + 2 * 0.4) / 6
    assert metrics.ece(scores, targets, ones(3), bins=4) == pytest.approx(expected)


def test_an_empty_bin_has_no_means_and_adds_nothing() -> None:
    samples = np.full((5, 1), 0.2), column(1, 0, 0, 0, 0)
    bins = metrics.reliability_bins(*samples)
    assert [b["count"] for b in bins if b["mean_score"] is not None and b["share_positive"] is not None] == [5]
    assert metrics.ece(*samples, ones(5)) == pytest.approx(0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 20))
def test_ece_of_a_resample_equals_that_of_its_videos(seed: int, videos: int, bins: int) -> None:
    scores, targets = draw_samples(seed, videos)
    weights = metrics.bootstrap_weights(videos, 3, seed)
    result = metrics.ece(scores, targets, weights, bins)
    for number, row in enumerate(weights):
        curve = metrics.reliability_bins(scores.repeat(row, 0), targets.repeat(row, 0), bins)
        distances = [b["count"] * abs(b["mean_score"] - b["share_positive"]) for b in curve if b["count"]]
        expected = sum(distances) / sum(b["count"] for b in curve)
        assert result[number] == pytest.approx(expected, abs=1e-12)
