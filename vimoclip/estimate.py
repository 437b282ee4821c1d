"""What --dry-run says of a stage's cost: from a probe of some seconds on this machine."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROBE_SECONDS = 3.0


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
