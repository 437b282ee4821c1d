"""Average precision against scikit-learn, macro and micro averages, and permuted targets."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from vimoclip import metrics

pairs = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40)


def average_precision(scores: list[float], targets: list[int]) -> float:
    return metrics.average_precision(torch.tensor(scores, dtype=torch.float32), torch.tensor(targets))


def sklearn(scores: list[float], targets: list[int]) -> float:
    return float(average_precision_score(targets, scores))


@settings(max_examples=300, deadline=None)
@given(pairs.filter(lambda p: any(positive for _, positive in p)))
def test_average_precision_with_ties_equals_sklearn(sample: list[tuple[int, bool]]) -> None:
    scores, targets = [float(s) for s, _ in sample], [int(t) for _, t in sample]
    assert average_precision(scores, targets) == pytest.approx(sklearn(scores, targets), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(pairs, st.randoms(use_true_random=False))
def test_average_precision_does_not_depend_on_the_order_of_samples(
    sample: list[tuple[int, bool]], rng: random.Random
) -> None:
    shuffled = rng.sample(sample, len(sample))
    first, second = (average_precision([float(s) for s, _ in x], [int(t) for _, t in x]) for x in (sample, shuffled))
    assert first == pytest.approx(second, nan_ok=True)


def test_average_precision_worked_by_hand() -> None:
    # ranks: + - + -; precision 1/1 at recall 1/2 and 2/3 at recall 1
    assert average_precision([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]) == pytest.approx((1 + 2 / 3) / 2)
    # one tie of a positive and a negative: precision 1/2 at once
    assert average_precision([0.5, 0.5], [0, 1]) == pytest.approx(0.5)
    assert average_precision([0.5, 0.5], [1, 0]) == pytest.approx(0.5)


def test_average_precision_of_extreme_cases() -> None:
    assert average_precision([0.1, 0.9, 0.3], [1, 1, 1]) == 1
    assert average_precision([0.3], [1]) == 1
    assert math.isnan(average_precision([0.3], [0]))
    assert math.isnan(average_precision([0.3, 0.2], [0, 0]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_raise(bad: float) -> None:
    scores, targets = torch.tensor([[0.1, bad], [0.3, 0.4]]), torch.ones(2, 2)
    with pytest.raises(ValueError, match="finite"):
        metrics.average_precision(scores[:, 1], targets[:, 1])
    with pytest.raises(ValueError, match="finite"):
        metrics.map_macro(scores, targets)
    with pytest.raises(ValueError, match="finite"):
        metrics.map_micro(scores, targets)
    with pytest.raises(ValueError, match="finite"):
        metrics.average_precision(scores[:, 1], torch.zeros(2))


def test_macro_is_the_mean_over_classes_that_have_a_positive() -> None:
    scores = torch.tensor([[0.9, 0.9, 0.2], [0.8, 0.1, 0.3], [0.7, 0.2, 0.4]])
    targets = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 0, 0]])
    per_class = metrics.average_precision_per_class(scores, targets)
    assert per_class[0].item() == pytest.approx((1 + 2 / 3) / 2)
    assert per_class[1].isnan()
    assert per_class[2].item() == pytest.approx(1 / 2)
    assert metrics.map_macro(scores, targets) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert math.isnan(metrics.map_macro(scores, torch.zeros(3, 3)))


def test_micro_pools_every_pair_of_video_and_class() -> None:
    rng = np.random.default_rng(0)
    scores, targets = rng.random((30, 7)).astype(np.float32), rng.random((30, 7)) < 0.2
    targets[:, 3] = False
    pooled = average_precision_score(targets.ravel(), scores.ravel())
    assert metrics.map_micro(torch.from_numpy(scores), torch.from_numpy(targets)) == pytest.approx(pooled)
    assert metrics.map_micro(torch.from_numpy(scores), torch.from_numpy(targets)) != pytest.approx(
        metrics.map_macro(torch.from_numpy(scores), torch.from_numpy(targets))
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_permutations_reorder_whole_rows_and_follow_the_seed(rows: int, seed: int) -> None:
    targets = torch.arange(rows * 3).reshape(rows, 3)
    permutations = list(metrics.permute_targets(targets, 4, seed))
    assert len(permutations) == 4
    assert all(sorted(rows.tolist()) == targets.tolist() for rows in permutations)
    assert torch.equal(torch.stack(permutations), torch.stack(list(metrics.permute_targets(targets, 4, seed))))
    assert torch.equal(targets, torch.arange(rows * 3).reshape(rows, 3))


def test_another_seed_or_round_is_another_order() -> None:
    targets = torch.arange(12)[:, None]
    orders = [tuple(rows.flatten().tolist()) for seed in (0, 1) for rows in metrics.permute_targets(targets, 5, seed)]
    assert len(set(orders)) == 10


def test_the_chance_level_is_above_the_prevalence_for_few_positives() -> None:
    scores, targets = torch.rand(12, 1, generator=torch.Generator().manual_seed(3)), torch.zeros(12, 1)
    targets[:3] = 1
    values = [metrics.map_macro(scores, permuted) for permuted in metrics.permute_targets(targets, 1000, 0)]
    # the mean over all orders, with H = 1 + 1/2 + ... + 1/12: H / 12 + (3 - 1) / (12 * 11) * (12 - H)
    harmonic = sum(1 / k for k in range(1, 13))
    chance = harmonic / 12 + 2 / (12 * 11) * (12 - harmonic)
    assert chance == pytest.approx(0.3934, abs=1e-4)
    assert np.mean(values) == pytest.approx(chance, abs=0.03)
    assert np.mean(values) > 3 / 12 + 0.1


def test_many_samples_of_half_precision_scores_lose_no_accuracy() -> None:
    rng = np.random.default_rng(1)
    scores, targets = torch.from_numpy(rng.random(20_000)).half(), torch.from_numpy(rng.random(20_000) < 0.3)
    expected = average_precision_score(targets.numpy(), scores.double().numpy())
    assert metrics.average_precision(scores, targets) == pytest.approx(expected, abs=1e-9)
