"""From frames to colour frames, by as many threads as torch is given."""

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from vimoclip.errors import UserError, VideoError
from vimoclip.flow.opencv import DEFAULT_PRESET, MIN_SIDE, PRESETS, frame_difference, grey, pair_flow
from vimoclip.flow.padding import WITHOUT_WEIGHTS, padded
from vimoclip.flow.ptlflow_model import LearnedFlow
from vimoclip.flow.visualization import device_color, draw

Render = Callable[[np.ndarray], np.ndarray]


def load(
    method: str,
    checkpoint: str | None,
    iters: int | None,
    normalization: str,
    flow_max: float,
    device: torch.device,
    autocast: Callable[[], Any] = contextlib.nullcontext,
    preset: str | None = None,
) -> Render:
    """A function from (n + 1, H, W, 3) uint8 frames to (n, H, W, 3) colour frames; `preset`: of dis. Raises UserError.

    Its results are the same for any number of threads (torch's: OMP_NUM_THREADS)."""
    if iters is not None and method in WITHOUT_WEIGHTS:
        raise UserError(f"--iters {iters}: {method} has no iterations", "leave it out")
    if preset is not None and method != "dis":
        raise UserError(f"--dis-preset {preset}: {method} has no presets", "leave it out, or give --model dis")
    if preset is not None and preset not in PRESETS:
        raise UserError(f"--dis-preset {preset}: there is no such preset", f"there are {', '.join(PRESETS)}")
    scale = normalization, flow_max
    if method == "frame_diff":
        return frame_difference
    if method in WITHOUT_WEIGHTS:
        return _telling(method, _drawn_by_opencv(method, preset or DEFAULT_PRESET, *scale))
    return _telling(method, _drawn_by_model(LearnedFlow(method, checkpoint, iters, device, autocast), *scale))


def _drawn_by_opencv(method: str, preset: str, normalization: str, flow_max: float) -> Render:
    between, pool = pair_flow(method, preset), ThreadPoolExecutor(torch.get_num_threads(), "flow")

    def render(frames: np.ndarray) -> np.ndarray:
        count, height, width = len(frames) - 1, *frames.shape[1:3]
        colors = np.empty((count, height, width, 3), np.uint8)

        def work(first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
            draw(between(first, second)[:height, :width], out, normalization, flow_max)

        _all(
            pool.submit(work, a, b, out)
            for (a, b), out in zip(pairwise(grey(padded(frames, MIN_SIDE))), colors, strict=True)
        )
        return colors

    return render


def _drawn_by_model(model: LearnedFlow, normalization: str, flow_max: float) -> Render:
    pool = ThreadPoolExecutor(torch.get_num_threads(), "colours")

    def render(frames: np.ndarray) -> np.ndarray:
        if model.device.type != "cpu":
            return device_color(model.on_device(frames), normalization, flow_max).cpu().numpy()
        vectors = model(frames)
        colors = np.empty((*vectors.shape[:3], 3), np.uint8)
        _all(pool.submit(draw, flow, out, normalization, flow_max) for flow, out in zip(vectors, colors, strict=True))
        return colors

    return render


def _all(futures: Iterable[Any]) -> None:
    """Wait for all; raises the first one's error, if any."""
    for future in list(futures):
        future.result()


def _telling(method: str, render: Render) -> Render:
    def told(frames: np.ndarray) -> np.ndarray:
        try:
            return render(frames)
        except FloatingPointError:
            raise VideoError(f"{method} gives flow that is not finite at size {frames.shape[1:3]}") from None

    return told
