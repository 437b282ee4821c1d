"""Build the function that renders consecutive frames as images of their optical flow."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from vimoclip.errors import UserError, VideoError
from vimoclip.flow.opencv import (
    DEFAULT_DIS_PRESET,
    DIS_PRESETS,
    METHODS_WITHOUT_WEIGHTS,
    MIN_SIDE,
    frame_difference,
    make_pair_flow,
    pad_to_min_side,
    to_grayscale,
)
from vimoclip.flow.ptlflow_model import PTLFlowModel
from vimoclip.flow.visualization import flow_to_color_into, flow_to_color_torch
from vimoclip.runtime.device import autocast

FlowRenderer = Callable[[np.ndarray], np.ndarray]


def load_renderer(
    method: str,
    checkpoint: str | None,
    iters: int | None,
    normalization: str,
    flow_max: float,
    device: torch.device,
    precision: str = "fp32",
    preset: str | None = None,
) -> FlowRenderer:
    """Return a function from (n + 1, H, W, 3) uint8 frames to (n, H, W, 3) uint8 flow images. Raises UserError.

    `preset`: of OpenCV's DIS. Uses torch's number of threads (OMP_NUM_THREADS), which does not change the result."""
    if iters is not None and method in METHODS_WITHOUT_WEIGHTS:
        raise UserError(f"--iters {iters}: {method} has no iterations", "omit the flag")
    if preset is not None and method != "dis":
        raise UserError(f"--dis-preset {preset}: {method} has no presets", "omit the flag, or give --model dis")
    if preset is not None and preset not in DIS_PRESETS:
        raise UserError(f"--dis-preset {preset}: is not a preset", f"give one of {', '.join(DIS_PRESETS)}")
    if method == "frame_diff":
        return frame_difference
    if method in METHODS_WITHOUT_WEIGHTS:
        render = _opencv_renderer(method, preset or DEFAULT_DIS_PRESET, normalization, flow_max)
    else:
        model = PTLFlowModel(method, checkpoint, iters, device, partial(autocast, device, precision))
        render = _ptlflow_renderer(model, normalization, flow_max)
    # fp16 has a small range of numbers
    hint = "use --precision fp32" if precision == "fp16" and method not in METHODS_WITHOUT_WEIGHTS else ""
    return _with_video_error(method, render, hint)


def _opencv_renderer(method: str, preset: str, normalization: str, flow_max: float) -> FlowRenderer:
    pair_flow, pool = make_pair_flow(method, preset), ThreadPoolExecutor(torch.get_num_threads(), "flow")

    def render(frames: np.ndarray) -> np.ndarray:
        count, height, width = len(frames) - 1, *frames.shape[1:3]
        colors = np.empty((count, height, width, 3), np.uint8)

        def work(first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
            flow_to_color_into(pair_flow(first, second)[:height, :width], out, normalization, flow_max)

        grey = to_grayscale(pad_to_min_side(frames, MIN_SIDE))
        list(pool.map(work, grey[:-1], grey[1:], colors))  # list: raises the error of a thread
        return colors

    return render


def _ptlflow_renderer(model: PTLFlowModel, normalization: str, flow_max: float) -> FlowRenderer:
    pool = ThreadPoolExecutor(torch.get_num_threads(), "colours")

    def render(frames: np.ndarray) -> np.ndarray:
        if model.device.type != "cpu":
            return flow_to_color_torch(model.on_device(frames), normalization, flow_max).cpu().numpy()
        vectors = model(frames)
        colors = np.empty((*vectors.shape[:3], 3), np.uint8)
        list(pool.map(partial(flow_to_color_into, normalization=normalization, flow_max=flow_max), vectors, colors))
        return colors

    return render


def _with_video_error(method: str, render: FlowRenderer, hint: str) -> FlowRenderer:
    def checked_render(frames: np.ndarray) -> np.ndarray:
        try:
            return render(frames)
        except FloatingPointError:
            raise VideoError(f"flow of {method} is not finite at size {frames.shape[1:3]}", hint) from None

    return checked_render
