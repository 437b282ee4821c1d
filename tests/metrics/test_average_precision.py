"""Average precision and its bootstrap against scikit-learn, intervals, and chance levels."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torchmetrics.classification import MultilabelAveragePrecision

from vimoclip import metrics
from vimoclip.metrics import average_precision


def sklearn(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return NaN without a positive of nonzero weight, like vimoclip; scikit-learn returns 0."""
    if not (targets if weights is None else weights[targets]).any():
        return math.nan
    return float(average_precision_score(targets, scores, sample_weight=weights))


def draw_samples(
    seed: int, videos: int, classes: int, share: float = 0.3, levels: int = 7
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of few values, so that many tie, and targets."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, (videos, classes)) / levels, rng.random((videos, classes)) < share


def ones(videos: int) -> np.ndarray:
    return np.ones((1, videos), int)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    videos=st.integers(1, 25),
    classes=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    levels=st.sampled_from([1, 2, 5, 10**6]),
    max_weight=st.sampled_from([1, 3, 255, 256, 100_000]),
)
def test_ap_equals_sklearn(seed: int, videos: int, classes: int, share: float, levels: int, max_weight: int) -> None:
    scores, targets = draw_samples(seed, videos, classes, share, levels)
    weights = np.random.default_rng(seed).integers(0, max_weight + 1, (5, videos))
    per_class = [[sklearn(scores[:, c], targets[:, c], row) for c in range(classes)] for row in weights]
    micro = [sklearn(scores.ravel(), targets.ravel(), row.repeat(classes)) for row in weights]
    resampled = metrics.bootstrap_ap_per_class(scores, targets, weights)
    np.testing.assert_allclose(resampled, per_class, rtol=0, atol=1e-12)
    np.testing.assert_allclose(metrics.bootstrap_ap_micro(scores, targets, weights), micro, rtol=0, atol=1e-12)
    tensors = torch.from_numpy(scores), torch.from_numpy(targets)
    aps = [sklearn(scores[:, c], targets[:, c]) for c in range(classes)]
    np.testing.assert_allclose(metrics.average_precision_per_class(*tensors), aps, rtol=0, atol=1e-12)
    macro = np.mean([ap for ap in aps if not math.isnan(ap)] or math.nan)
    assert metrics.map_macro(*tensors) == pytest.approx(macro, abs=1e-12, nan_ok=True)
    pooled = sklearn(scores.ravel(), targets.ravel())
    assert metrics.map_micro(*tensors) == pytest.approx(pooled, abs=1e-12, nan_ok=True)


def test_ap_worked_by_hand() -> None:
    # ranks of class 0: + - +, so precision 1/1 at recall 1/2 and 2/3 at recall 1; class 1 has no positive
    scores = torch.tensor([[0.9, 0.9, 0.2], [0.8, 0.1, 0.3], [0.7, 0.2, 0.4]])
    targets = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 0, 0]])
    expected = [(1 + 2 / 3) / 2, math.nan, 1 / 2]
    np.testing.assert_allclose(metrics.average_precision_per_class(scores, targets), expected)
    assert metrics.map_macro(scores, targets) == pytest.approx((expected[0] + expected[2]) / 2)
    # weights 1 2 3 9: 1/4 of the positives' weight at precision 1/1, then, with the tie, 3/4 at (1 + 3) / (1 + 2 + 3)
    column = np.array([[0.9], [0.8], [0.8], [0.1]]), np.array([[True], [False], [True], [False]])
    weights = np.array([[1, 2, 3, 9], [0, 1, 1, 0], [0, 5, 0, 1]])
    expected = [1 / 4 + 3 / 4 * 4 / 6, 1 / 2, math.nan]
    np.testing.assert_allclose(metrics.bootstrap_ap_per_class(*column, weights)[:, 0], expected)
    np.testing.assert_allclose(metrics.bootstrap_ap_micro(*column, weights), expected)


def test_many_scores_of_half_precision_lose_no_accuracy() -> None:
    rng = np.random.default_rng(1)
    scores, targets = torch.from_numpy(rng.random((20_000, 1))), torch.from_numpy(rng.random((20_000, 1)) < 0.3)
    for dtype in (torch.float16, torch.bfloat16):
        expected = average_precision_score(targets.numpy(), scores.to(dtype).double().numpy())
        assert metrics.map_micro(scores.to(dtype), targets) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", [metrics.map_macro, metrics.map_micro])
def test_scores_that_are_not_finite_raise(metric: Callable[..., float], bad: float) -> None:
    for targets in (torch.ones(2, 2), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="array"):
            metric(torch.tensor([[0.1, bad], [0.3, 0.4]]), targets)


def test_micro_is_torchmetrics_micro() -> None:
    scores, targets = draw_samples(1, 60, 9, 0.2, 10**6)
    expected = MultilabelAveragePrecision(9, average="micro")(torch.tensor(scores), torch.tensor(targets).int())
    assert metrics.bootstrap_ap_micro(scores, targets, ones(60))[0] == pytest.approx(expected.item(), abs=1e-6)


# --- resamples


@pytest.mark.parametrize("block", [1, 7, 64, 10**6])
@pytest.mark.parametrize("cells", [1, 1000, 10**9])
def test_block_and_chunk_sizes_do_not_change_results(monkeypatch: pytest.MonkeyPatch, block: int, cells: int) -> None:
    scores, targets = draw_samples(0, 200, 5, 0.3, 10**6)
    weights = metrics.bootstrap_weights(200, 31)
    per_class, micro = (
        f(scores, targets, weights) for f in (metrics.bootstrap_ap_per_class, metrics.bootstrap_ap_micro)
    )
    monkeypatch.setattr(average_precision, "RANKS_PER_BLOCK", block)
    monkeypatch.setattr(average_precision, "CELLS_PER_CHUNK", cells)
    np.testing.assert_array_equal(per_class, metrics.bootstrap_ap_per_class(scores, targets, weights))
    np.testing.assert_array_equal(micro, metrics.bootstrap_ap_micro(scores, targets, weights))
    np.testing.assert_array_equal(per_class[4:5], metrics.bootstrap_ap_per_class(scores, targets, weights[4:5]))


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
    assert metrics.confidence_interval(values, 50.0) == pytest.approx((2.5, 97.5))
    assert np.isnan(metrics.confidence_interval(np.array([math.nan]), 0.0)).all()
    assert metrics.confidence_interval(np.array([3.0]), 3.0) == (3, 3)


def test_an_interval_is_shifted_to_the_value_and_contains_it() -> None:
    # mean 50, bounds 2.5 and 97.5: shifted by 10
    assert metrics.confidence_interval(np.arange(101.0), 60.0) == pytest.approx((12.5, 107.5))
    # mean -10, both bounds 0: shifted by 12 they are above the value, so the lower is set to it; and negated
    skewed = np.append(np.zeros(99), -1000.0)
    assert metrics.confidence_interval(skewed, 2.0) == pytest.approx((2, 12))
    assert metrics.confidence_interval(-skewed, -2.0) == pytest.approx((-12, -2))
    assert metrics.confidence_interval(np.append(skewed, math.nan), 2.0) == pytest.approx((2, 12))


def test_for_rare_classes_only_the_shifted_interval_contains_the_value() -> None:
    # two positives per class: a resample with two copies of one of them ranks it higher
    rng = np.random.default_rng(0)
    targets = np.zeros((100, 300), bool)
    targets[rng.integers(0, 100, (2, 300)), np.arange(300)] = True
    scores = rng.normal(size=targets.shape) + 2 * targets
    weights = np.append(ones(100), metrics.bootstrap_weights(100, 400), axis=0)
    value, *rows = metrics.macro_average(metrics.bootstrap_ap_per_class(scores, targets, weights)).tolist()
    assert np.quantile(rows, 0.025) > value + 0.01
    low, high = metrics.confidence_interval(np.array(rows), value)
    assert low + 0.01 < value < high - 0.01


def test_means_ignore_nan() -> None:
    per_class = np.array([[0.2, math.nan, 0.6], [math.nan] * 3])
    np.testing.assert_allclose(metrics.macro_average(per_class), [0.4, math.nan])
    values, weights = np.array([1.0, math.nan, 4.0]), np.array([[1, 5, 2], [0, 3, 0]])
    np.testing.assert_allclose(metrics.weighted_mean(values, weights), [3, math.nan])


# --- chance levels


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


def test_permuted_targets_give_the_expected_random_ap() -> None:
    scores, targets = torch.rand(12, 1, generator=torch.Generator().manual_seed(3)), torch.zeros(12, 1)
    targets[:3] = 1
    values = [metrics.map_macro(scores, permuted) for permuted in metrics.permute_targets(targets, 1000, 0)]
    assert np.mean(values) == pytest.approx(metrics.expected_random_ap(3, 12), abs=0.03)
    assert metrics.expected_random_ap(3, 12) == pytest.approx(0.3934, abs=1e-4)  # the prevalence is 0.25


def test_permutations_reorder_whole_rows_and_follow_the_seed() -> None:
    targets = torch.arange(36).reshape(12, 3)
    permutations = list(metrics.permute_targets(targets, 5, 0))
    assert all(sorted(rows.tolist()) == targets.tolist() for rows in permutations)
    assert torch.equal(torch.stack(permutations), torch.stack(list(metrics.permute_targets(targets, 5, 0))))
    orders = {tuple(rows[:, 0].tolist()) for seed in (0, 1) for rows in metrics.permute_targets(targets, 5, seed)}
    assert len(orders) == 10
