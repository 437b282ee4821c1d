"""Measured rates, the text of estimates, and the sum of the reports of several dry runs."""

import re
import tempfile
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimoclip.cli import run_report
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
    parts = run_report.format_duration(value).split()
    seconds = sum(float(n) * units[unit] for n, unit in zip(parts[::2], parts[1::2], strict=True))
    assert seconds == pytest.approx(value, rel=0.21, abs=1)  # 149 s are 2 min
    number, unit = run_report.format_bytes(value).split()
    scale = {"bytes": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert float(number) * scale == pytest.approx(value, rel=0.06, abs=0.51)


costs = st.tuples(st.floats(1, 1e9), st.floats(0, 1e15), st.sampled_from(["frame", "video", "segment"]), st.booleans())


@given(st.lists(costs, max_size=6))
def test_a_plan_sums_the_estimates_of_the_dry_runs(stages: list[tuple[float, float, str, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.json" for i in range(len(stages) + 1)]
        for path, (seconds, disk, unit, has_rate) in zip(paths, stages, strict=False):
            estimate = run_report.CostEstimate(seconds * 7, unit, 7.0 if has_rate else None, disk, 3e9)
            run_report.RunReport(estimate=estimate).write(path)
        run_report.RunReport().write(paths[-1])  # a stage that can't be estimated
        text = cost_estimate.sum_reports(paths)
    days, terabytes, count, *without_time = re.findall(r"\d[\d.e+-]*", text)
    assert int(count) == len(stages)
    assert float(days) == pytest.approx(
        sum(seconds for seconds, _, _, has_rate in stages if has_rate) / 86400, rel=0.06, abs=1e-9
    )
    assert float(terabytes) == pytest.approx(sum(disk for _, disk, _, _ in stages) / 1e12, rel=0.06, abs=1e-9)
    assert int((without_time or ["0"])[0]) == sum(not has_rate for *_, has_rate in stages)
