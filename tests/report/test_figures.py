"""Confusions, clips' average precision and precision-recall curves against scikit-learn and numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, confusion_matrix

from vimoclip.report import examples, figures

few_examples = settings(max_examples=50, deadline=None)
tied = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])  # few values, so that many are equal


def test_confusion_counts_with_several_labels() -> None:
    scores = np.array([[0.9, 0.8, 0.1, 0.0], [0.9, 0.1, 0.8, 0.0], [0.2, 0.3, 0.4, 0.1], [0.0, 0.0, 0.0, 1.0]])
    targets = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    expected = np.zeros((4, 4), int)
    expected[0] = [2, 0, 1, 0]  # predicted in the first two; the third is confused with class 2
    expected[1] = [0, 1, 1, 0]  # the second clip is predicted as 0, a label, and as 2 instead of 1
    assert np.array_equal(figures.confusion_counts(scores, targets), expected)


@pytest.mark.filterwarnings("ignore:A single label")
@few_examples
@given(st.data())
def test_confusion_counts_with_one_label_equal_the_confusion_matrix(data: st.DataObject) -> None:
    count, classes = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 6))
    labels = data.draw(arrays(int, count, elements=st.integers(0, classes - 1)))
    scores = data.draw(arrays(float, (count, classes), elements=st.floats(0, 1)))
    result = figures.confusion_counts(scores, np.eye(classes, dtype=bool)[labels])
    assert np.array_equal(result, confusion_matrix(labels, scores.argmax(axis=1), labels=range(classes)))


def test_confused_with_lists_the_most_frequent_confusions() -> None:
    scores = np.array([[0.1, 0.9, 0.2]] * 3 + [[0.1, 0.2, 0.9]] * 2 + [[0.9, 0.1, 0.1]])
    targets = np.eye(3, dtype=bool)[[0] * 6]
    result = figures.confused_with(["a", "b", "c"], scores, targets)
    assert result["a"] == (1, ["b (3)", "c (2)"])
    assert result["b"] == (0, [])


@few_examples
@given(arrays(float, (6, 5), elements=tied), arrays(bool, (6, 5)))
def test_clip_average_precision_equals_sklearn(scores: np.ndarray, targets: np.ndarray) -> None:
    for result, row, labels in zip(examples.clip_average_precision(scores, targets), scores, targets, strict=True):
        assert np.isnan(result) if not labels.any() else result == pytest.approx(average_precision_score(labels, row))


@few_examples
@given(arrays(float, 30, elements=tied), arrays(bool, 30))
def test_the_area_of_the_curve_is_average_precision(scores: np.ndarray, targets: np.ndarray) -> None:
    curve = figures.precision_recall_curve(scores, targets)
    if targets.any():
        assert (np.diff(curve.recall, prepend=0) > 0).all() and curve.recall[-1] == 1
        area = (np.diff(curve.recall, prepend=0) * curve.precision).sum()
        assert area == pytest.approx(average_precision_score(targets, scores))
    else:
        assert not len(curve.recall)


def test_micro_and_macro_curve() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.3], [0.2, 0.2]])
    targets = np.array([[1, 0], [0, 0], [0, 1]], bool)
    micro, macro = figures.micro_curve(scores, targets), figures.macro_curve(scores, targets)
    # pooled: 0.9 right, 0.8 wrong, 0.3 wrong, then two scores of 0.2 of which one is right
    assert micro.recall == pytest.approx([0.5, 1]) and micro.precision == pytest.approx([1, 2 / 5])
    assert macro.precision == pytest.approx(np.full(101, (1 + 1 / 2) / 2))  # 1 for the first class, 1/2 for the second


def test_a_long_curve_is_sampled_at_even_recalls() -> None:
    curve = figures.PrecisionRecallCurve(np.linspace(0.001, 1, 1000), np.linspace(1, 0.5, 1000))
    thinned = figures.thin_curve(curve)
    assert len(thinned.recall) == 101
    assert thinned.recall[50] == 0.5 and thinned.precision[50] == pytest.approx(curve.precision[499])
    assert figures.thin_curve(thinned) is thinned


def test_best_and_worst_clips_are_disjoint_and_varied() -> None:
    targets = np.eye(3, dtype=bool)[[0, 0, 0, 1, 2, 2]]
    scores = np.where(targets, 0.9, 0.1)
    scores[1] = [0.99, 0.01, 0.01]  # the lowest loss of three clips of class 0, all with an AP of 1
    scores[2] = [0.98, 0.02, 0.02]
    scores[3] = [0.05, 0.95, 0.05]
    scores[5] = [0.9, 0.5, 0.1]  # the only clip with an AP below 1
    best, worst = examples.best_and_worst(scores, targets, 2)
    assert best == [1, 3] and worst == [5]
    best, worst = examples.best_and_worst(scores, targets, 100)
    assert best == [1, 3, 2] and worst == [5]  # no other has an AP below 1
    targets[4] = False  # a clip without labels has no AP
    best, worst = examples.best_and_worst(scores, targets, 100)
    assert 4 not in best + worst
