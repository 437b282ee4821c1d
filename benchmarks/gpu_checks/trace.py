"""What the GPU does in a call, from the trace of PyTorch's profiler: kernels, launches and copies."""

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_checks.check import Limit, Measured, at_most
from benchmarks.gpu_checks.measure import count_synchronizations, synchronize

BUSY = "gpu_busy_share"
COPIES, SYNCHRONIZATIONS = "copies_per_frame", "synchronizations_per_batch"
# a copy also carries masks, labels and the like
PIPELINE_LIMITS: tuple[Limit, ...] = (
    at_most(SYNCHRONIZATIONS, 0, needs_gpu=True),
    at_most(COPIES, 1.05, needs_gpu=True),
)


class GpuTrace(NamedTuple):
    """`busy_seconds`: in which at least one kernel runs; `launches`: calls that start kernels, or a graph of them;
    `bytes_to_gpu`: copied from the host."""

    kernels: int
    launches: int
    busy_seconds: float
    bytes_to_gpu: int


class Recording(NamedTuple):
    """Result and seconds of a call, of these the processor time of the calling thread, and what the GPU did.

    `trace` is None on a CPU, and where the driver forbids PyTorch's profiler."""

    result: Any
    seconds: float
    thread_seconds: float
    trace: GpuTrace | None


def record_gpu(work: Callable[[], Any], device: torch.device) -> Recording:
    """Call `work`, and wait for the GPU."""
    synchronize(device)
    is_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA]) if is_gpu else nullcontext() as profiler:
        started, thread_started = time.perf_counter(), time.thread_time()
        result = work()
        thread_seconds = time.thread_time() - thread_started
        synchronize(device)
        seconds = time.perf_counter() - started
    if profiler is None:
        return Recording(result, seconds, thread_seconds, None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = summarize_trace(json.loads(path.read_bytes())["traceEvents"])
    return Recording(result, seconds, thread_seconds, trace if trace.kernels else None)


def pipeline_activity(
    work: Callable[[], Any], device: torch.device, seconds: float, batches: int, frame_bytes: float
) -> Measured:
    """Return what a call does per batch; `seconds`: of a call, without the profiler; `frame_bytes`: of all its frames.

    Nothing on a CPU; only synchronizations, if the driver forbids PyTorch's profiler."""
    if device.type != "cuda":
        return {}
    measured: Measured = {SYNCHRONIZATIONS: count_synchronizations(work) / batches}
    trace = record_gpu(work, device).trace
    if trace is not None:
        measured |= {"kernels_per_batch": trace.kernels / batches, "launches_per_batch": trace.launches / batches}
        measured |= {BUSY: trace.busy_seconds / seconds, COPIES: trace.bytes_to_gpu / frame_bytes}
    return measured


def summarize_trace(events: Iterable[Mapping[str, Any]]) -> GpuTrace:
    """Summarize the events of a trace, whose times are in microseconds."""
    kernels, launches, bytes_to_gpu = list[tuple[float, float]](), 0, 0
    for event in events:
        match event.get("cat"):
            case "kernel":
                kernels.append((event["ts"], event["ts"] + event["dur"]))
            case "gpu_memcpy" if "HtoD" in event["name"]:
                bytes_to_gpu += event["args"]["bytes"]
            case "cuda_runtime" | "cuda_driver":
                launches += "Launch" in event["name"]
    return GpuTrace(len(kernels), launches, length_of_union(kernels) / 1e6, bytes_to_gpu)


def length_of_union(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the length that (start, stop) intervals cover together: kernels of several streams overlap."""
    length, covered = 0.0, -float("inf")
    for start, stop in sorted(intervals):
        length += max(0.0, stop - max(start, covered))
        covered = max(covered, stop)
    return length
