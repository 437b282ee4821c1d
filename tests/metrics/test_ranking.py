"""Ties: equal scores are one step in every metric that depends on a ranking, and keep their order in lists."""

import numpy as np
import torch

from vimoclip import metrics
from vimoclip.report import confusion, pr_curves

# two thresholds: at 0.5 two of three are positive, at 0.2 three of five
SCORES = np.array([0.2, 0.5, 0.5, 0.2, 0.5])
TARGETS = np.array([True, True, False, False, True])


def test_equal_scores_are_one_step() -> None:
    steps = metrics.score_steps(SCORES, TARGETS)
    assert steps.thresholds.tolist() == [0.5, 0.2]
    assert steps.predicted.tolist() == [3, 5]
    assert steps.true_positives.tolist() == [2, 3]


def test_every_metric_of_a_ranking_has_the_same_steps() -> None:
    expected = 2 / 3 * 2 / 3 + 1 / 3 * 3 / 5  # the sum of recall gained times precision
    column = SCORES[:, None], TARGETS[:, None]
    ones = np.ones((1, 5), np.int64)
    curve = pr_curves.precision_recall_curve(SCORES, TARGETS)
    assert (curve.recall.tolist(), curve.precision.tolist()) == ([2 / 3, 1], [2 / 3, 3 / 5])
    for value in (
        metrics.map_micro(*map(torch.from_numpy, column)),
        metrics.bootstrap_ap_per_class(*column, ones)[0, 0],
        metrics.bootstrap_ap_micro(*column, ones)[0],
        confusion.clip_average_precision(SCORES[None], TARGETS[None])[0],
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    # F1 is 2 * 2 / (3 + 3) at 0.5 and 2 * 3 / (5 + 3) at 0.2, the lowest score
    assert metrics.fit_thresholds(*column).tolist() == [0.2]


def test_a_clip_without_a_mistake_has_an_average_precision_of_exactly_1() -> None:
    targets = np.arange(20) < np.arange(1, 20)[:, None]
    scores = np.where(targets, 0.9, 0.1) + np.arange(20) / 1000
    assert confusion.clip_average_precision(scores, targets).tolist() == [1.0] * 19


def test_equal_values_of_a_list_keep_their_order() -> None:
    assert metrics.descending_order(np.array([0.1, 0.5, np.nan, 0.5, 0.9])).tolist() == [4, 1, 3, 0, 2]
    assert metrics.descending_order(np.array([[1, 2, 2], [3, 1, 3]])).tolist() == [[1, 2, 0], [0, 2, 1]]
