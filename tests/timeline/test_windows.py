"""Positions of sliding windows."""

import pytest

from vimoclip.timeline.bouts import WindowGrid

Spans = list[tuple[float, float]]


@pytest.mark.parametrize(
    ("length", "stride", "seconds", "expected"),
    [
        (6.0, 3.0, 4.0, [(0, 4)]),
        (6.0, 3.0, 6.0, [(0, 6)]),
        (6.0, 3.0, 9.0, [(0, 6), (3, 9)]),
        (6.0, 3.0, 10.0, [(0, 6), (3, 9), (4, 10)]),
        (2.0, 5.0, 8.0, [(0, 2), (5, 7), (6, 8)]),  # gaps between windows
        (0.3, 0.1, 0.1 + 0.2, [(0, 0.3)]),  # 0.30000000000000004 s
        (0.6, 0.1, 0.7, [(0, 0.6), (0.1, 0.7)]),  # 0.1 + 0.6 is below 0.7
    ],
)
def test_windows_end_with_the_video(length: float, stride: float, seconds: float, expected: Spans) -> None:
    assert WindowGrid(length, stride).spans(seconds) == expected


def test_a_remainder_within_the_tolerance_has_no_window_of_its_own() -> None:
    grid = WindowGrid(2.0, 1.0)
    assert grid.last_span(3, 4.02, tolerance=0.02 + 1e-9) is None
    assert grid.last_span(3, 4.03, tolerance=0.02 + 1e-9) == (2.03, 4.03)
    assert grid.last_span(0, 1.5, tolerance=9.0) == (0, 1.5)
