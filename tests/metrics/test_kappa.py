"""Kappa, precision, recall and F1 from sums, against scikit-learn and numbers worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, precision_recall_fscore_support

from vimoclip.metrics.kappa import binary_kappa, cohen_kappa, precision_recall_f1, weighted_products

SEEDS = st.integers(0, 2**32 - 1)


def test_kappa_of_a_published_table() -> None:
    """Worked by hand: p_o = 35 / 50, p_e = (25 x 30 + 25 x 20) / 50**2 = 0.5."""
    assert binary_kappa(np.array([20, 5, 10, 15])) == pytest.approx(0.4)


@given(SEEDS, st.integers(1, 30))
def test_kappa_of_an_action_equals_sklearn(seed: int, samples: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, samples)) < rng.random((2, 1))
    counts = [(first & second).sum(), (first & ~second).sum(), (~first & second).sum(), (~first & ~second).sum()]
    if first.min() == first.max() == second.min() == second.max():
        assert np.isnan(binary_kappa(np.array(counts)))
    else:
        assert binary_kappa(np.array(counts)) == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)


@given(SEEDS, st.integers(1, 6), st.integers(1, 3000))
def test_kappa_of_states_equals_sklearn_under_weights(seed: int, units: int, states: int) -> None:
    """`states` exceeds the chunk over which the products are summed."""
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, states, (2, units, 8))
    weights = np.vstack([np.ones(units, int), rng.integers(0, 3, (2, units))])
    counts = [np.stack([np.bincount(row, minlength=states) for row in rows]) for rows in (first, second)]
    products = weighted_products(weights.astype(float), *counts)
    kappas = cohen_kappa(weights @ (first == second).sum(1), products, 8 * weights.sum(1))
    for row, kappa in zip(weights, kappas, strict=True):
        drawn = [rows.repeat(row, axis=0).reshape(-1) for rows in (first, second)]
        is_defined = len({*drawn[0], *drawn[1]}) > 1
        expected = cohen_kappa_score(*drawn) if is_defined else math.nan
        assert kappa == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(SEEDS, st.integers(1, 20))
def test_precision_recall_and_f1_equal_sklearn(seed: int, samples: int) -> None:
    rng = np.random.default_rng(seed)
    coded, predicted = rng.random((2, samples)) < rng.random((2, 1))
    result = precision_recall_f1((coded & predicted).sum(), coded.sum(), predicted.sum())
    expected = precision_recall_fscore_support(coded, predicted, average="binary", zero_division=math.nan)[:3]
    np.testing.assert_allclose(np.array(result), expected, atol=1e-12)
