"""Bootstrap metrics repeatedst scikit-learn with `sample_weight`, intervals, and the baselines."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torchmetrics.classification import MultilabelAveragePrecision

from vimoclip import metrics
from vimoclip.metrics import bootstrap


def sklearn(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """Return NaN without a positive of nonzero weight, like vimoclip; scikit-learn returns 0."""
    if not weights[targets].any():
        return math.nan
    return float(average_precision_score(targets, scores, sample_weight=weights))


def draw_samples(
    seed: int, videos: int, classes: int, share: float = 0.3, levels: int = 7
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of few values, so that many tie, and targets."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, (videos, classes)) / levels, rng.random((videos, classes)) < share


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    videos=st.integers(1, 25),
    classes=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    levels=st.sampled_from([1, 2, 5, 10**6]),
    max_weight=st.sampled_from([1, 3, 255, 256, 100_000]),
)
def test_bootstrap_ap_equals_sklearn(
    seed: int, videos: int, classes: int, share: float, levels: int, max_weight: int
) -> None:
    scores, targets = draw_samples(seed, videos, classes, share, levels)
    weights = np.random.default_rng(seed).integers(0, max_weight + 1, (5, videos))
    result = metrics.bootstrap_ap(scores, targets, weights)
    per_class = [[sklearn(scores[:, c], targets[:, c], row) for c in range(classes)] for row in weights]
    micro = [sklearn(scores.ravel(), targets.ravel(), row.repeat(classes)) for row in weights]
    np.testing.assert_allclose(result.per_class, per_class, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.micro, micro, rtol=0, atol=1e-12)


def test_a_resample_worked_by_hand() -> None:
    scores, targets = np.array([[0.9], [0.8], [0.8], [0.1]]), np.array([[True], [False], [True], [False]])
    # weights 1 2 3 9: 1/4 of the positives' weight at precision 1/1, then, with the tie, 3/4 at (1 + 3) / (1 + 2 + 3)
    weights = np.array([[1, 2, 3, 9], [0, 1, 1, 0], [0, 5, 0, 1]])
    result = metrics.bootstrap_ap(scores, targets, weights)
    np.testing.assert_allclose(result.per_class[:, 0], [1 / 4 + 3 / 4 * 4 / 6, 1 / 2, math.nan])
    np.testing.assert_array_equal(result.micro, result.per_class[:, 0])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 6), st.sampled_from([2, 10**6]))
def test_weights_of_one_give_the_plain_metrics(seed: int, videos: int, classes: int, levels: int) -> None:
    scores, targets = draw_samples(seed, videos, classes, 0.2, levels)
    result = metrics.bootstrap_ap(scores, targets, np.ones((1, videos), np.int32))
    tensors = torch.from_numpy(scores), torch.from_numpy(targets)
    assert result.micro[0] == pytest.approx(metrics.map_micro(*tensors), abs=1e-12, nan_ok=True)
    assert metrics.macro_average(result.per_class)[0] == pytest.approx(
        metrics.map_macro(*tensors), abs=1e-12, nan_ok=True
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_a_weight_equals_copies_of_the_video(seed: int, videos: int) -> None:
    scores, targets = draw_samples(seed, videos, 3)
    weights = metrics.bootstrap_weights(videos, 3, seed)
    result = metrics.bootstrap_ap(scores, targets, weights)
    for number, row in enumerate(weights):
        copies = np.arange(videos).repeat(row)
        repeated = metrics.bootstrap_ap(scores[copies], targets[copies], np.ones((1, videos), np.int32))
        np.testing.assert_allclose(result.per_class[number], repeated.per_class[0], atol=1e-12)
        np.testing.assert_allclose(result.micro[number], repeated.micro[0], atol=1e-12)


@pytest.mark.parametrize("block", [1, 7, 64, 10**6])
@pytest.mark.parametrize("cells", [1, 1000, 10**9])
def test_block_and_chunk_sizes_do_not_change_results(monkeypatch: pytest.MonkeyPatch, block: int, cells: int) -> None:
    rng = np.random.default_rng(0)
    scores, targets = rng.random((200, 5)), rng.random((200, 5)) < 0.3
    weights = metrics.bootstrap_weights(200, 31)
    result = metrics.bootstrap_ap(scores, targets, weights)
    monkeypatch.setattr(bootstrap, "RANKS_PER_BLOCK", block)
    monkeypatch.setattr(bootstrap, "CELLS_PER_CHUNK", cells)
    repeated = metrics.bootstrap_ap(scores, targets, weights)
    single = metrics.bootstrap_ap(scores, targets, weights[4:5])
    np.testing.assert_array_equal(result.per_class, repeated.per_class)
    np.testing.assert_array_equal(result.micro, repeated.micro)
    np.testing.assert_array_equal(result.per_class[4:5], single.per_class)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_raise(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        metrics.bootstrap_ap(np.array([[bad]]), np.array([[True]]), np.ones((1, 1), int))


def test_resamples_are_as_large_as_the_set_and_follow_the_seed() -> None:
    weights = metrics.bootstrap_weights(50, 2000, seed=3)
    assert weights.shape == (2000, 50)
    assert set(weights.sum(1)) == {50}
    assert np.array_equal(weights, metrics.bootstrap_weights(50, 2000, seed=3))
    assert not np.array_equal(weights, metrics.bootstrap_weights(50, 2000, seed=4))
    assert np.array_equal(weights[:10], metrics.bootstrap_weights(50, 10, seed=3))
    # with replacement: counts are binomial with variance 50 * 1/50 * 49/50
    assert weights.var() == pytest.approx(0.98, rel=0.03)


def test_the_interval_ignores_nan() -> None:
    values = np.append(np.arange(101.0), [math.nan] * 7)
    assert metrics.confidence_interval(values) == pytest.approx((2.5, 97.5))
    assert metrics.confidence_interval(values, 0.5) == pytest.approx((25, 75))
    assert np.isnan(metrics.confidence_interval(np.array([math.nan]))).all()
    assert metrics.confidence_interval(np.array([3.0])) == (3, 3)


def test_an_interval_is_shifted_to_the_value_and_contains_it() -> None:
    # mean 50, bounds 2.5 and 97.5: shifted by 10
    assert metrics.confidence_interval(np.arange(101.0), value=60.0) == pytest.approx((12.5, 107.5))
    # mean -10, both bounds 0: shifted by 12 they are above the value, so the lower is set to it; and negated
    skewed = np.append(np.zeros(99), -1000.0)
    assert metrics.confidence_interval(skewed, value=2.0) == pytest.approx((2, 12))
    assert metrics.confidence_interval(-skewed, value=-2.0) == pytest.approx((-12, -2))
    assert metrics.confidence_interval(np.append(skewed, math.nan), value=2.0) == pytest.approx((2, 12))


def test_for_rare_classes_only_the_shifted_interval_contains_the_value() -> None:
    # two positives per class: a resample with two copies of one of them ranks it higher
    rng = np.random.default_rng(0)
    targets = np.zeros((100, 300), bool)
    targets[rng.integers(0, 100, (2, 300)), np.arange(300)] = True
    scores = rng.normal(size=targets.shape) + 2 * targets
    weights = np.append(np.ones((1, 100), int), metrics.bootstrap_weights(100, 400), axis=0)
    value, *rows = metrics.macro_average(metrics.bootstrap_ap_per_class(scores, targets, weights)).tolist()
    assert metrics.confidence_interval(np.array(rows))[0] > value + 0.01
    low, high = metrics.confidence_interval(np.array(rows), value=value)
    assert low + 0.01 < value < high - 0.01


def test_the_width_of_an_interval_matches_the_standard_error() -> None:
    hits = np.arange(400) < 100  # a share of 1/4: standard error sqrt(0.25 * 0.75 / 400) = 0.02165
    low, high = metrics.confidence_interval(
        metrics.weighted_mean(hits.astype(float), metrics.bootstrap_weights(400, 4000))
    )
    assert (low, high) == pytest.approx((0.25 - 1.96 * 0.02165, 0.25 + 1.96 * 0.02165), abs=0.006)


def test_macro_leaves_out_classes_without_a_positive_in_the_resample() -> None:
    per_class = np.array([[0.2, math.nan, 0.6], [math.nan] * 3])
    np.testing.assert_allclose(metrics.macro_average(per_class), [0.4, math.nan])


def test_weighted_means_leave_out_nan() -> None:
    values, weights = np.array([1.0, math.nan, 4.0]), np.array([[1, 5, 2], [0, 3, 0]])
    np.testing.assert_allclose(metrics.weighted_mean(values, weights), [3, math.nan])


@pytest.mark.parametrize(("positives", "count"), [(0, 3), (1, 1), (1, 5), (2, 5), (3, 7), (6, 7), (7, 7)])
def test_expected_random_ap_is_the_mean_over_all_rankings(positives: int, count: int) -> None:
    result = metrics.expected_random_ap(positives, count)
    if not positives:
        assert math.isnan(result)
        return
    total, rankings = 0.0, list(itertools.combinations(range(1, count + 1), positives))
    for ranks in rankings:  # of the positives; the precision at the k-th is k / rank
        total += sum(k / rank for k, rank in enumerate(ranks, 1)) / positives
    assert result == pytest.approx(total / len(rankings), abs=1e-12)


def test_random_scores_have_the_expected_ap() -> None:
    targets = np.arange(30)[:, None] < 4
    ones = np.ones((1, 30), int)
    rounds = [metrics.bootstrap_ap_micro(s, targets, ones)[0] for s in metrics.random_scores((30, 1), 2000, 0)]
    assert np.mean(rounds) == pytest.approx(metrics.expected_random_ap(4, 30), abs=0.015)
    assert metrics.expected_random_ap(4, 30) > 4 / 30 + 0.05


def test_the_constant_predictor_has_the_prevalence_of_each_class() -> None:
    targets = np.random.default_rng(0).random((80, 3)) < [0.1, 0.3, 0.7]
    scores = metrics.constant_scores(np.array([0.2, 0.2, 0.5]), 80)
    result = metrics.bootstrap_ap(scores, targets, np.ones((1, 80), int))
    np.testing.assert_allclose(result.per_class[0], targets.mean(0))
    assert result.micro[0] == pytest.approx(average_precision_score(targets.ravel(), scores.ravel()))


@pytest.mark.filterwarnings("ignore:No positive samples")
def test_torchmetrics_macro_equals_torchmetrics_and_is_below_1_for_a_perfect_model() -> None:
    targets = np.zeros((300, 140), bool)
    targets[np.arange(300), np.arange(300) % 127] = True  # 13 of 140 have none
    scores = targets * 0.9 + 0.05
    for values in (scores, np.random.default_rng(0).random(scores.shape)):
        ours = metrics.bootstrap_ap_per_class(values, targets, np.ones((1, 300), int))[0]
        expected = MultilabelAveragePrecision(140, average="macro")(torch.tensor(values), torch.tensor(targets).int())
        assert metrics.torchmetrics_macro(ours) == pytest.approx(expected.item(), abs=1e-6)
    ours = metrics.bootstrap_ap_per_class(scores, targets, np.ones((1, 300), int))[0]
    assert metrics.torchmetrics_macro(ours) == pytest.approx(127 / 140) == pytest.approx(0.907, abs=1e-3)
    assert metrics.macro_average(ours) == 1


def test_micro_is_torchmetrics_micro() -> None:
    rng = np.random.default_rng(1)
    scores, targets = rng.random((60, 9)), rng.random((60, 9)) < 0.2
    expected = MultilabelAveragePrecision(9, average="micro")(torch.tensor(scores), torch.tensor(targets).int())
    assert metrics.bootstrap_ap_micro(scores, targets, np.ones((1, 60), int))[0] == pytest.approx(
        expected.item(), abs=1e-6
    )
