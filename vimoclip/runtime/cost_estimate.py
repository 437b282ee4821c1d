"""Cost estimates for --dry-run, from a probe of a few seconds on this machine.

    python -m vimoclip.runtime.cost_estimate < output_of_several_dry_runs
Prints the sum of the estimates in days and terabytes."""

import contextlib
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PROBE_SECONDS = 3.0
UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400, "bytes": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_TIME_PATTERN = r"about ([\d a-z]+) for \d+ [a-z ]+ at \S+ [a-z ]+/s|\d+ [a-z ]+, too few to tell how long they take"
_ESTIMATE_PATTERN = re.compile(rf"(?:{_TIME_PATTERN}); ([\d.]+ \w+) of disk")


def measure_rate(steps: Iterator[float], seconds: float | None = None) -> float | None:
    """Return units/s of a generator that yields the number of units of each step, None if it ends too early.

    The first step includes one-time setup and isn't counted. The generator is closed after `seconds` (default 3)."""
    units, start = 0.0, 0.0
    try:
        for step, count in enumerate(steps):
            if not step:
                start = time.monotonic()
                continue
            units += count
            if time.monotonic() - start >= (PROBE_SECONDS if seconds is None else seconds):
                break
    finally:
        if hasattr(steps, "close"):
            steps.close()
    return units / (time.monotonic() - start) if units else None


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes, 0 if the system does not report it."""
    with contextlib.suppress(OSError):  # not getrusage on Linux, where a child starts with its parent's value
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def format_estimate(units: float, unit: str, rate: float | None, disk: float, memory: float) -> str:
    """Return one line: the time for `units` at `rate` (units/s), and the disk space and memory (bytes)."""
    if rate is None:
        duration = f"{units:.0f} {unit}s, too few to tell how long they take"
    else:
        duration = f"about {format_duration(units / rate)} for {units:.0f} {unit}s at {rate:.3g} {unit}s/s"
    return f"{duration}; {format_bytes(disk)} of disk, {format_bytes(memory)} of memory"


def format_duration(seconds: float) -> str:
    """Format a duration like 40 s, 12 min, 3 h 20 min, 2 days 4 h."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} days {hours % 24} h"


def format_bytes(count: float) -> str:
    """Format a size like 850 KB, 3.2 MB, 1.5 GB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def sum_estimates(lines: Iterable[str]) -> str:
    """Return one line with the sum of the `format_estimate` lines among these."""
    seconds = disk = 0.0
    estimates = without_time = 0
    for match in filter(None, map(_ESTIMATE_PATTERN.search, lines)):
        estimates += 1
        without_time += match[1] is None
        seconds += _parse_quantity(match[1] or "0 s")
        disk += _parse_quantity(match[2])
    note = f"; {without_time} of them have too little to do to tell their time" if without_time else ""
    return f"in sum {seconds / 86400:.2g} days and {disk / 1e12:.2g} TB for {estimates} dry runs{note}"


def _parse_quantity(text: str) -> float:
    """Return the seconds or bytes in a text of `format_duration` or `format_bytes`."""
    numbers, units = text.split()[::2], text.split()[1::2]
    return sum(float(number) * UNITS[unit] for number, unit in zip(numbers, units, strict=True))


if __name__ == "__main__":
    print(sum_estimates(sys.stdin))
