"""Bouts, compared with those on a fine grid of time and with examples computed by hand."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vimoclip.timeline import Bout, find_bouts

GRID_STEP = 0.125  # seconds; all edges between windows of whole seconds are multiples of it
MORE_EXAMPLES = settings(max_examples=150, deadline=None)


@st.composite
def find_bouts_arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of find_bouts: windows of whole seconds, few different scores, lengths in quarters of seconds."""
    starts = np.cumsum([0, *draw(st.lists(st.integers(1, 3), max_size=15))]).astype(float)
    stops = starts + draw(st.integers(1, 7))
    rows, classes = len(starts), draw(st.integers(1, 3))
    return {
        "starts": starts,
        "stops": stops,
        "scores": draw(arrays(float, (rows, classes), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))),
        "thresholds": np.array([0.25, 0.5, 0.75])[:classes],
        "classes": ("a", "b", "c")[:classes],
        "seconds": float(stops[-1]) + draw(st.sampled_from([0, 0.5])),
        "min_length": draw(st.integers(0, 16)) / 4,
        "max_gap": draw(st.integers(0, 16)) / 4,
    }


def bouts_on_a_grid(given: dict[str, Any], column: int) -> list[tuple[float, float, float]]:
    """Return the bouts of a class, from the score at each step of the grid."""
    times = np.arange(0, given["seconds"], GRID_STEP) + GRID_STEP / 2
    window = np.abs(times[:, None] - (given["starts"] + given["stops"]) / 2).argmin(axis=1)
    high = [bool(given["scores"][w, column] >= given["thresholds"][column]) for w in window]
    for value, most in ((False, given["max_gap"] + GRID_STEP / 2), (True, given["min_length"] - GRID_STEP / 2)):
        for first, last in runs_of(high, value):
            inside = value or (first > 0 and last < len(high))  # a gap has a bout on both sides
            if inside and (last - first) * GRID_STEP < most and last - first < len(high):
                high[first:last] = [not value] * (last - first)
    found = []
    for first, last in runs_of(high, True):
        mean = given["scores"][np.unique(window[first:last]), column].mean()
        found.append((first * GRID_STEP, last * GRID_STEP, mean))
    return found


def runs_of(values: list[bool], value: bool) -> list[tuple[int, int]]:
    changes = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
    return [(a, b) for a, b in pairwise(changes) if a < b and values[a] == value]


@MORE_EXAMPLES
@given(find_bouts_arguments())
def test_bouts_equal_those_on_a_fine_time_grid(given: dict[str, Any]) -> None:
    found = find_bouts(**given)
    for column, name in enumerate(given["classes"]):
        mine = [bout[1:] for bout in found if bout.action == name]
        assert np.array(mine) == pytest.approx(np.array(bouts_on_a_grid(given, column)))


@MORE_EXAMPLES
@given(find_bouts_arguments())
def test_bouts_respect_min_length_and_max_gap(given: dict[str, Any]) -> None:
    found = find_bouts(**given)
    assert list(found) == sorted(found, key=lambda bout: (bout.start, bout.action))
    for bout in found:
        assert 0 <= bout.start < bout.stop <= given["seconds"]
        assert bout.stop - bout.start >= min(given["min_length"], given["seconds"])
        assert 0 <= bout.score <= 1
    for name in given["classes"]:
        mine = [bout for bout in found if bout.action == name]
        assert all(b.start - a.stop > given["max_gap"] for a, b in pairwise(mine))


def test_bout_computed_by_hand() -> None:
    starts = np.arange(0, 5.0)  # windows of 2 s every second: their middles are 1, 2, 3, 4, 5
    scores = np.array([[0.1, 0.9, 0.3, 0.6, 0.2]]).T
    arguments: dict[str, Any] = {"thresholds": np.array([0.5]), "classes": ["drinking"], "seconds": 6.0}
    assert find_bouts(starts, starts + 2, scores, **arguments, max_gap=0.5) == (
        Bout("drinking", 1.5, 2.5, 0.9),
        Bout("drinking", 3.5, 4.5, 0.6),
    )
    (joined,) = find_bouts(starts, starts + 2, scores, **arguments)
    assert joined[:3] == ("drinking", 1.5, 4.5) and joined.score == pytest.approx(0.6)
    assert find_bouts(starts, starts + 2, scores, **arguments, max_gap=0.5, min_length=1.01) == ()


def test_short_video_can_be_one_bout() -> None:
    whole = np.array([0.0]), np.array([0.48]), np.array([[0.7, 0.2]]), np.array([0.5, 0.5]), ("a", "b"), 0.48
    assert find_bouts(*whole) == (Bout("a", 0.0, 0.48, 0.7),)
    unknown = np.array([[np.nan, 0.2]]), np.array([0.5, np.nan])  # no score, no threshold
    assert find_bouts(*whole[:2], *unknown, *whole[4:]) == ()
