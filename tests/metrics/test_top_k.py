"""hit@1, precision@k and top-1 against numbers worked by hand and scikit-learn; ties do not depend on class order."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from vimoclip import metrics

SCORES = np.array([[0.9, 0.5, 0.1], [0.1, 0.2, 0.8], [0.3, 0.2, 0.1]])


def test_hit_at_1_and_precision_at_k_worked_by_hand() -> None:
    targets = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    np.testing.assert_array_equal(metrics.hit_at_1(SCORES, targets), [1, 0, math.nan])
    np.testing.assert_array_equal(metrics.precision_at_k(SCORES, targets, 2), [1, 1 / 2, math.nan])
    np.testing.assert_allclose(metrics.precision_at_k(SCORES, targets, 3), [2 / 3, 2 / 3, math.nan])
    np.testing.assert_array_equal(
        metrics.precision_at_k(SCORES, targets, 5), metrics.precision_at_k(SCORES, targets, 3)
    )


def test_a_single_class_is_always_a_hit() -> None:
    np.testing.assert_array_equal(metrics.hit_at_1(np.zeros((2, 1)), np.array([[True], [False]])), [1, math.nan])


@settings(max_examples=100, deadline=None)
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


def test_equal_scores_do_not_depend_on_the_class_order() -> None:
    targets = np.zeros((10, 4), bool)
    targets[:, 0] = True
    assert metrics.hit_at_1(np.full((10, 4), 0.5), targets).tolist() == [1 / 4] * 10
    assert metrics.hit_at_1(np.full((10, 4), 0.5), targets[:, ::-1]).tolist() == [1 / 4] * 10


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_weighted_top1_equals_sklearns_accuracy(seed: int, videos: int) -> None:
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, 4, videos), rng.random((videos, 4))
    targets, weights = np.eye(4, dtype=bool)[labels], metrics.bootstrap_weights(videos, 3, seed)
    plain = metrics.weighted_mean(metrics.top1(scores, targets), weights)
    balanced = metrics.mean_per_class_top1(scores, targets, weights)
    for number, row in enumerate(weights):
        copies = np.arange(videos).repeat(row)
        assert plain[number] == pytest.approx(accuracy_score(labels[copies], scores[copies].argmax(1)))
        present = [(scores[copies].argmax(1) == c)[labels[copies] == c].mean() for c in np.unique(labels[copies])]
        assert balanced[number] == pytest.approx(np.mean(present))


def test_mean_per_class_top1_is_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    labels, scores = np.append(np.arange(5), rng.integers(0, 3, 60)), rng.random((65, 5))
    result = metrics.mean_per_class_top1(scores, np.eye(5, dtype=bool)[labels])
    assert result == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))
    assert result != pytest.approx(accuracy_score(labels, scores.argmax(1)))


@pytest.mark.parametrize("row", [(0, 0, 0), (1, 1, 0)])
def test_top1_requires_one_label_per_video(row: tuple[int, ...]) -> None:
    targets = np.array([(1, 0, 0), row, (0, 0, 1)], bool)
    for metric in (metrics.top1, metrics.mean_per_class_top1):
        with pytest.raises(ValueError, match="no label, or several"):
            metric(SCORES, targets)
