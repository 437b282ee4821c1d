"""Rankings with ties, and top-k metrics against scikit-learn."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from vimoclip import metrics
from vimoclip.report import examples, figures


def test_equal_scores_are_one_step_in_every_metric() -> None:
    # two thresholds: at 0.5 two of three are positive, at 0.2 three of five
    scores, targets = np.array([0.2, 0.5, 0.5, 0.2, 0.5]), np.array([True, True, False, False, True])
    steps = metrics.score_steps(scores, targets)
    assert [column.tolist() for column in steps] == [[0.5, 0.2], [3, 5], [2, 3]]
    curve = figures.precision_recall_curve(scores, targets)
    assert (curve.recall.tolist(), curve.precision.tolist()) == ([2 / 3, 1], [2 / 3, 3 / 5])
    expected = 2 / 3 * 2 / 3 + 1 / 3 * 3 / 5  # the sum of recall gained times precision
    column = scores[:, None], targets[:, None]
    for value in (
        metrics.map_micro(*map(torch.from_numpy, column)),
        metrics.bootstrap_ap_per_class(*column, np.ones((1, 5), int))[0, 0],
        metrics.bootstrap_ap_micro(*column, np.ones((1, 5), int))[0],
        examples.clip_average_precision(scores[None], targets[None])[0],
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    # F1 is 2 * 2 / (3 + 3) at 0.5 and 2 * 3 / (5 + 3) at 0.2, the lowest score
    assert metrics.fit_thresholds(*column).tolist() == [0.2]


def test_equal_values_of_a_list_keep_their_order() -> None:
    assert metrics.descending_order(np.array([0.1, 0.5, np.nan, 0.5, 0.9])).tolist() == [4, 1, 3, 0, 2]
    assert metrics.descending_order(np.array([[1, 2, 2], [3, 1, 3]])).tolist() == [[1, 2, 0], [0, 2, 1]]


def test_precision_at_k_worked_by_hand() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.1, 0.2, 0.8], [0.3, 0.2, 0.1]])
    targets = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    for k, expected in {1: [1, 0, math.nan], 2: [1, 1 / 2, math.nan], 3: [2 / 3] * 2 + [math.nan]}.items():
        np.testing.assert_allclose(metrics.precision_at_k(scores, targets, k), expected)
    np.testing.assert_allclose(metrics.precision_at_k(scores, targets, 5), [2 / 3, 2 / 3, math.nan])  # of 3 classes


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5).filter(
        lambda x: any(t for _, t in x)
    ),
    st.integers(1, 5),
)
def test_ties_give_the_mean_over_all_orders(sample: list[tuple[int, bool]], k: int) -> None:
    scores, targets = np.array([[s for s, _ in sample]], float), np.array([[t for _, t in sample]])
    k = min(k, len(sample))
    orders = [o for o in itertools.permutations(range(len(sample))) if (np.diff(scores[0, list(o)]) <= 0).all()]
    expected = np.mean([targets[0, list(order[:k])].mean() for order in orders])
    assert metrics.precision_at_k(scores, targets, k)[0] == pytest.approx(expected)


def test_weighted_top1_equals_sklearns_accuracy() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels, scores = rng.integers(0, 4, 9), rng.random((9, 4))
        targets, weights = np.eye(4, dtype=bool)[labels], metrics.bootstrap_weights(9, 3, seed)
        plain = metrics.weighted_mean(metrics.precision_at_k(scores, targets, 1), weights)
        balanced = metrics.mean_per_class_top1(scores, targets, weights)
        for number, row in enumerate(weights):
            true, predicted = labels.repeat(row), scores.argmax(1).repeat(row)
            assert plain[number] == pytest.approx(accuracy_score(true, predicted))
            present = [(predicted == c)[true == c].mean() for c in np.unique(true)]
            assert balanced[number] == pytest.approx(np.mean(present))
    labels, scores = np.append(np.arange(5), rng.integers(0, 3, 60)), rng.random((65, 5))
    result = metrics.mean_per_class_top1(scores, np.eye(5, dtype=bool)[labels], np.ones((1, 65), int))[0]
    assert result == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))
    assert result != pytest.approx(accuracy_score(labels, scores.argmax(1)))
