"""Which part of the host limits a stage, and how many processors feed the GPU."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_checks.check import Limit, Measured, at_least
from benchmarks.gpu_checks.trace import BUSY
from vimoclip import video
from vimoclip.video.decoder import VideoDecoder

GOAL = 0.9
TOO_FEW_PROCESSORS = "host_limit"  # key of the text that excuses a GPU that is not busy
EXTRA_PROCESSORS = 2  # for Python, and for the system
MAIN_THREAD = "the main thread (Python, launching of kernels)"
# of a GPU that waits for the host
BUSY_LIMIT: Limit = at_least(BUSY, GOAL, needs_gpu=True, excuse=TOO_FEW_PROCESSORS)


def diagnose(
    busy_share: float, gpu_rate: float, parts: Mapping[str, float], main_rate: float, processors: int, unit: str
) -> Measured:
    """Return what limits a stage in which the GPU is not busy for GOAL of the time, {} if it is.

    `gpu_rate`: items/s of the GPU alone; `parts`: items/s of one processor in each part that threads or processes
    share; `main_rate`: of the one thread that launches kernels. The text excuses the stage if this machine has too
    few processors for the parts; otherwise the code is at fault, which does not use them."""
    if busy_share >= GOAL:
        return {}
    rate = combined_rate(parts)  # of one processor that does all parts
    if not parts or main_rate < min(gpu_rate, rate * max(1, processors - EXTRA_PROCESSORS)):
        text = f"{MAIN_THREAD} {main_rate:,.0f} {unit}/s, the GPU {gpu_rate:,.0f}; more processors do not help"
        return {"note": f"host is the limit: {text}"}
    slowest = min(parts, key=lambda name: parts[name])
    needed = math.ceil(gpu_rate / rate) + EXTRA_PROCESSORS
    text = f"host is the limit: {slowest} {parts[slowest]:,.0f} {unit}/s per processor, all parts {rate:,.0f}, the GPU "
    text += f"{gpu_rate:,.0f}; {needed} processors would do, here are {processors}"
    return {TOO_FEW_PROCESSORS if processors < needed else "note": text, "processors_needed": float(needed)}


def combined_rate(parts: Mapping[str, float]) -> float:
    """Return the items/s of one processor that does all parts; infinite without parts."""
    seconds = sum(1 / rate for rate in parts.values())
    return 1 / seconds if seconds else math.inf


def processor_rate(work: Callable[[], float]) -> float:
    """Return the units per second of processor time, of all threads, of a call that returns its number of units.

    The first call is not counted."""
    work()
    started = time.process_time()
    units = work()
    return units / max(time.process_time() - started, 1e-9)


def rates_of_parts(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the rate of each part from its seconds per item, without parts that take no time."""
    return {name: 1 / value for name, value in seconds.items() if value > 0}


def count_frames(step: Callable[[np.ndarray], object], frames: np.ndarray) -> float:
    """Call `step` with the frames; return their number."""
    step(frames)
    return float(len(frames))


def video_parts(
    path: Path,
    steps: Mapping[str, Callable[[np.ndarray], object]],
    shorter_sides: tuple[int | None, ...] = (None,),
    batch_size: int = 32,
) -> dict[str, float]:
    """Return the frames per second of processor time of each part of reading a video: see video.VideoReader.

    `steps`: what threads do with (n, H, W, 3) frames then, by name."""

    def count(batches: Iterable[Any]) -> float:
        return float(sum(len(batch.frames) for batch in batches))

    decode = processor_rate(lambda: float(sum(1 for _ in VideoDecoder(path, *shorter_sides))))
    read = processor_rate(lambda: count(video.VideoReader(path, batch_size, shorter_sides=shorter_sides)))
    frames = next(iter(video.VideoReader(path, batch_size, shorter_sides=shorter_sides))).frames
    seconds = {"decoding": 1 / decode, "conversion to RGB": 1 / read - 1 / decode}
    for name, step in steps.items():
        seconds[name] = 1 / processor_rate(partial(count_frames, step, frames))
    return rates_of_parts(seconds)
