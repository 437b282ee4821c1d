"""What --dry-run says of a stage's cost: from a probe of some seconds on this machine.

    python -m vimoclip.runtime.cost_estimate < what_several_dry_runs_said
Prints the sum of what they said, in days and terabytes."""

import contextlib
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PROBE_SECONDS = 3.0
UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86400, "bytes": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_TIME = r"about ([\d a-z]+) for \d+ [a-z ]+ at \S+ [a-z ]+/s|\d+ [a-z ]+, too few to tell how long they take"
_COST = re.compile(rf"(?:{_TIME}); ([\d.]+ \w+) of disk")


def rate(work: Iterator[float], seconds: float | None = None) -> float | None:
    """Units/s of a generator that does work and yields how many units it did; None where there is too little of it.

    Its first item is not counted, as much is done once; it is closed after so many seconds (default: 3)."""
    units, started = 0.0, 0.0
    try:
        for number, done in enumerate(work):
            if not number:
                started = time.monotonic()
                continue
            units += done
            if time.monotonic() - started >= (PROBE_SECONDS if seconds is None else seconds):
                break
    finally:
        if hasattr(work, "close"):
            work.close()
    return units / (time.monotonic() - started) if units else None


def memory() -> int:
    """The most memory that this process has had so far, in bytes; 0 where the system doesn't say."""
    with contextlib.suppress(OSError):  # not by getrusage: there a child begins with what its parent had
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe(units: float, unit: str, rate: float | None, disk: float, memory: float) -> str:
    """One line: how long so many units take at this rate (units/s), and what they need of disk and memory (bytes)."""
    if rate is None:
        time_needed = f"{units:.0f} {unit}s, too few to tell how long they take"
    else:
        time_needed = f"about {duration(units / rate)} for {units:.0f} {unit}s at {rate:.3g} {unit}s/s"
    return f"{time_needed}; {size(disk)} of disk, {size(memory)} of memory"


def duration(seconds: float) -> str:
    """In words: 40 s, 12 min, 3 h 20 min, 2 days 4 h."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} days {hours % 24} h"


def size(count: float) -> str:
    """Bytes in words: 850 KB, 3.2 MB, 1.5 GB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def total(lines: Iterable[str]) -> str:
    """The sum of what `describe` said in some of these lines."""
    seconds = taken = 0.0
    stages = short = 0
    for found in filter(None, map(_COST.search, lines)):
        stages += 1
        short += found[1] is None
        seconds += _value(found[1] or "0 s")
        taken += _value(found[2])
    few = f"; {short} of them have too little to do to tell their time" if short else ""
    return f"in sum {seconds / 86400:.2g} days and {taken / 1e12:.2g} TB for {stages} dry runs{few}"


def _value(words: str) -> float:
    """Seconds or bytes of what `duration` or `size` put in words."""
    numbers, units = words.split()[::2], words.split()[1::2]
    return sum(float(number) * UNITS[unit] for number, unit in zip(numbers, units, strict=True))


if __name__ == "__main__":
    print(total(sys.stdin))
