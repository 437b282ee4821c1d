"""Measured rates, and the text of estimates."""

from collections.abc import Iterator
from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimoclip.runtime import cost_estimate


def test_measure_rate_skips_the_first_step_and_closes_the_generator() -> None:
    closed = []

    def steps(count: int) -> Iterator[float]:
        try:
            yield from chain([1000.0], repeat(1.0, count))
        finally:
            closed.append(count)

    assert cost_estimate.measure_rate(steps(0)) is None
    assert (cost_estimate.measure_rate(steps(10**9), seconds=0.05) or 0) > 100
    assert closed == [0, 10**9]


@given(st.floats(0, 1e9))
def test_formatted_durations_and_sizes_are_close_to_their_value(value: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600, "days": 86400}
    parts = cost_estimate.format_duration(value).split()
    seconds = sum(float(n) * units[unit] for n, unit in zip(parts[::2], parts[1::2], strict=True))
    assert seconds == pytest.approx(value, rel=0.21, abs=1)  # 149 s are 2 min
    number, unit = cost_estimate.format_bytes(value).split()
    scale = {"bytes": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert float(number) * scale == pytest.approx(value, rel=0.06, abs=0.51)
