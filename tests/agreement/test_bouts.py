"""Bouts of two codings matched by their overlap: worked by hand, and against an optimal assignment."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from vimoclip.agreement.bouts import clip, match, subtract, to_microseconds
from vimoclip.timeline.bouts import Span

Spans = list[Span]


def matched(coded: Spans, predicted: Spans, overlap: float = 0.5) -> set[tuple[int, int]]:
    i, j = match(to_microseconds(coded), to_microseconds(predicted), overlap)
    return set(zip(i.tolist(), j.tolist(), strict=True))


@pytest.mark.parametrize(
    ("coded", "predicted", "pairs"),
    [
        ([(0, 10)], [(0, 5)], {(0, 0)}),  # exactly half
        ([(0, 10)], [(0, 4.999999)], set()),
        ([(0, 4), (6, 10)], [(0, 10)], set()),  # 0.4 each
        ([(0, 5), (5, 10)], [(0, 10)], {(0, 0)}),  # exactly half of two: the earlier one
        ([(0, 3), (4, 10)], [(0, 10)], {(1, 0)}),  # 0.3 and 0.6
        ([(0, 10)], [(0, 1), (2, 9)], {(0, 1)}),
        ([(0, 2), (4, 6)], [(0, 2), (4, 6)], {(0, 0), (1, 1)}),
        ([(0, 2)], [(2, 4)], set()),  # they touch
        ([], [(0, 1)], set()),
        ([(0, 1)], [], set()),
    ],
)
def test_bouts_match_from_half_of_their_union(coded: Spans, predicted: Spans, pairs: set[tuple[int, int]]) -> None:
    assert matched(coded, predicted) == pairs


def test_best_overlap_is_matched_first() -> None:
    """(0, 4) with (0, 10) has 0.4, (4, 10) with (0, 10) has 0.6, and (4, 10) with (10, 16) nothing."""
    assert matched([(0, 4), (4, 10)], [(0, 10), (10, 16)], 0.3) == {(1, 0)}
    # the middle predicted bout has 1/3 and 4/10; without the order it would take the first
    assert matched([(0, 4), (4, 10)], [(0, 2), (2, 8)], 0.2) == {(0, 0), (1, 1)}


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.6, 0.7, 0.9])
def test_an_overlap_of_exactly_the_setting_counts(overlap: float) -> None:
    assert matched([(0, 1)], [(0, overlap)], overlap) == {(0, 0)}


def test_bouts_that_only_touch_never_match() -> None:
    assert matched([(2, 4)], [(0, 2), (4, 6)], overlap=0.0) == set()


def spans_of(cuts: list[int]) -> Spans:
    """Spans between every second cut and the next one."""
    ordered = sorted(set(cuts))
    return [(float(start), float(stop)) for start, stop in zip(ordered[::2], ordered[1::2], strict=False)]


CODINGS = st.lists(st.integers(0, 60), max_size=24).map(spans_of)


@given(CODINGS, CODINGS, st.sampled_from([0.51, 0.6, 0.8]))
def test_matching_above_half_is_the_optimal_assignment(coded: Spans, predicted: Spans, overlap: float) -> None:
    """Above half a bout can't match two, so that the assignment with most matches is unique."""
    ratios = np.zeros((len(coded), len(predicted)))
    for i, a in enumerate(coded):
        for j, b in enumerate(predicted):
            intersection = min(a[1], b[1]) - max(a[0], b[0])
            ratios[i, j] = max(0.0, intersection) / (max(a[1], b[1]) - min(a[0], b[0]))
    rows, columns = linear_sum_assignment(ratios >= overlap, maximize=True)
    expected = {(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if ratios[i, j] >= overlap}
    assert matched(coded, predicted, overlap) == expected


@given(CODINGS, CODINGS)
def test_spans_are_cut_like_sets_of_seconds(spans: Spans, others: Spans) -> None:
    def seconds(spans: np.ndarray) -> list[int]:
        return [second for start, stop in spans // 1_000_000 for second in range(start, stop)]

    first, second = to_microseconds(spans), to_microseconds(others)
    assert seconds(clip(first, second)) == sorted({*seconds(first)} & {*seconds(second)})
    assert seconds(subtract(first, second)) == sorted({*seconds(first)} - {*seconds(second)})
    assert seconds(subtract(first, np.concatenate([second, second[::-1]]))) == seconds(subtract(first, second))
