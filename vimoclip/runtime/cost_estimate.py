"""Estimate time and disk space for --dry-run from a few seconds of work, or add up the estimates of several dry runs.

    python -m vimoclip.runtime.cost_estimate REPORT...
Prints the sum of the estimates in the reports (`--report`) in days and terabytes."""

import contextlib
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vimoclip.cli import CostEstimate, Parser, format_bytes, read_estimate

PROBE_SECONDS = 3.0
# Frames and flows that TFAM computes at once: 2 to 4 GB for the backward pass in float32. The videos of a larger batch
# are computed in parts, one after the other.
PART_TOKENS = 2**14
# Memory of a frame or flow in a training step of TFAM: float32, width 512, 4 layers. Of a longer video than PART_TOKENS
# the backward pass computes much again.
TOKEN_BYTES, LONG_TOKEN_BYTES = 250_000, 100_000


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


def estimate_cost(units: float, unit: str, rate: float | None, disk_bytes: float) -> CostEstimate:
    """Return the estimate for `units` at `rate` (units/s), with the peak memory of this process so far."""
    from vimoclip.runtime.device import peak_gpu_memory  # imports torch, which --help doesn't need

    return CostEstimate(units, unit, rate, disk_bytes, peak_memory(), peak_gpu_memory())


def fusion_step_memory(tokens: int, width: int = 512, layers: int = 4) -> float:
    """Return about how many bytes a training step of TFAM needs for a video of so many frames and flows."""
    size = max(min(tokens, PART_TOKENS) * TOKEN_BYTES, tokens * LONG_TOKEN_BYTES)
    return size * width / 512 * layers / 4


def describe_longest_clip(frames: Mapping[str, int], memory: float) -> str:
    """Return a line about the longest video; `frames` by video, `memory`: bytes of a step with the longest."""
    longest = max(frames, key=lambda video: frames[video])
    median = statistics.median(frames.values())
    text = (
        f"the longest clip, {longest}, has {frames[longest]} frames (median {median:g}): a training step of TFAM with "
        f"it needs about {format_bytes(memory)} of memory"
    )
    if frames[longest] <= PART_TOKENS / 2:
        return text
    remedy = "cut it into clips (prepare_dataset.py), or extract with --max-frames or a lower --fps"
    return f"{text}, and its time grows with the square of the length; {remedy}"


def sum_reports(paths: Iterable[Path]) -> str:
    """Return one line with the sum of the estimates in JSON reports of dry runs."""
    estimates = [estimate for estimate in map(read_estimate, paths) if estimate is not None]
    seconds = sum(estimate.seconds or 0.0 for estimate in estimates)
    disk_bytes = sum(estimate.disk_bytes for estimate in estimates)
    without_time = sum(estimate.seconds is None for estimate in estimates)
    note = f"; {without_time} of them without an estimated time" if without_time else ""
    return f"in total {seconds / 86400:.2g} days and {disk_bytes / 1e12:.2g} TB for {len(estimates)} dry runs{note}"


if __name__ == "__main__":
    parser = Parser(description=__doc__)
    parser.add_argument("reports", type=Path, nargs="*", metavar="REPORT", help="files of --report")
    print(sum_reports(parser.parse_args().reports))
