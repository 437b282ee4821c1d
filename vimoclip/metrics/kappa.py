"""Cohen's kappa, precision, recall and F1 as functions of sums, so that resamples need weighted sums only."""

from typing import NamedTuple

import numpy as np

STATES_PER_CHUNK = 1024


class PrecisionRecallF1(NamedTuple):
    """Arrays of one shape; NaN where the denominator is 0."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator, NaN where the denominator is 0."""
    return np.where(denominator, numerator / np.where(denominator, denominator, 1), np.nan)


def precision_recall_f1(both: np.ndarray, coded: np.ndarray, predicted: np.ndarray) -> PrecisionRecallF1:
    """Return the three from counts: in both codings, in the true one, in the predicted one."""
    return PrecisionRecallF1(divide(both, predicted), divide(both, coded), divide(2 * both, coded + predicted))


def cohen_kappa(agreed: np.ndarray, products: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return kappa = (p_o - p_e) / (1 - p_e), NaN where p_e is 1: both raters gave one and the same category only.

    `agreed`: samples to which both raters gave one category; `products`: sum over the categories of the product of both
    raters' counts; `total`: samples. Cohen, Educational and Psychological Measurement 20, 1960."""
    return divide(agreed * total - products, total * total - products)


def binary_kappa(counts: np.ndarray) -> np.ndarray:
    """Return the kappas (...) of counts (..., 4): samples of both raters, the first only, the second only, none."""
    both, first, second, neither = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    products = (both + first) * (both + second) + (neither + first) * (neither + second)
    return cohen_kappa(both + neither, products, both + first + second + neither)


def weighted_products(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (R,) sums over the S categories of the product of both raters' counts, for `cohen_kappa`.

    `weights` (R, U) of units, such as films; `first`, `second` (U, S): samples of each category in each unit."""
    products = np.zeros(len(weights))
    for start in range(0, first.shape[1], STATES_PER_CHUNK):  # limits the memory of R x S
        chunk = slice(start, start + STATES_PER_CHUNK)
        products += ((weights @ first[:, chunk]) * (weights @ second[:, chunk])).sum(1)
    return products
