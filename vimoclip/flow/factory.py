"""Build the function that renders consecutive frames as images of their optical flow."""

from collections.abc import Callable, Iterable, Iterator
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
from vimoclip.runtime.device import FetchFunction, autocast, copy_to_host


class FlowRenderer:
    """Function from (n + 1, H, W, 3) uint8 frames to (n, H, W, 3) uint8 flow images.

    `launch` takes the frames and returns a function that returns the images. On a CUDA GPU it does not wait for them;
    on other devices that function computes them."""

    def __init__(self, launch: Callable[[np.ndarray], FetchFunction]):
        self.launch = launch

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return self.launch(frames)()

    def render_batches(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the images of each batch of at least two frames, after the launch of the next: a GPU is never idle."""
        fetch: FetchFunction | None = None
        for frames in batches:
            if len(frames) < 2:
                continue
            previous, fetch = fetch, self.launch(frames)
            if previous:
                yield previous()
        if fetch:
            yield fetch()


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
    """Return the renderer of a method. Raises UserError.

    `preset`: of OpenCV's DIS. Uses torch's number of threads (OMP_NUM_THREADS), which does not change the result."""
    if iters is not None and method in METHODS_WITHOUT_WEIGHTS:
        raise UserError(f"--iters {iters}: {method} has no iterations", "omit the flag")
    if preset is not None and method != "dis":
        raise UserError(f"--dis-preset {preset}: {method} has no presets", "omit the flag, or give --model dis")
    if preset is not None and preset not in DIS_PRESETS:
        raise UserError(f"--dis-preset {preset}: is not a preset", f"give one of {', '.join(DIS_PRESETS)}")
    if method == "frame_diff":
        return FlowRenderer(lambda frames: partial(frame_difference, frames))
    if method in METHODS_WITHOUT_WEIGHTS:
        render = _opencv_renderer(method, preset or DEFAULT_DIS_PRESET, normalization, flow_max)
        return _with_video_error(method, lambda frames: partial(render, frames), "")
    model = PTLFlowModel(method, checkpoint, iters, device, partial(autocast, device, precision))
    # fp16 has a small range of numbers
    hint = "use --precision fp32" if precision == "fp16" else ""
    return _with_video_error(method, _ptlflow_launcher(model, normalization, flow_max), hint)


def _opencv_renderer(
    method: str, preset: str, normalization: str, flow_max: float
) -> Callable[[np.ndarray], np.ndarray]:
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


def _ptlflow_launcher(
    model: PTLFlowModel, normalization: str, flow_max: float
) -> Callable[[np.ndarray], FetchFunction]:
    pool = ThreadPoolExecutor(torch.get_num_threads(), "colours")
    to_color = partial(flow_to_color_torch, normalization=normalization, flow_max=flow_max)

    def render_on_cpu(frames: np.ndarray) -> np.ndarray:
        vectors = model(frames)
        colors = np.empty((*vectors.shape[:3], 3), np.uint8)
        list(pool.map(partial(flow_to_color_into, normalization=normalization, flow_max=flow_max), vectors, colors))
        return colors

    def launch(frames: np.ndarray) -> FetchFunction:
        if model.device.type == "cpu":
            return partial(render_on_cpu, frames)
        fetches = [(copy_to_host(colors), copy_to_host(largest)) for colors, largest in model.compute(frames, to_color)]

        def fetch() -> np.ndarray:
            images = [(fetch_colors(), fetch_largest()) for fetch_colors, fetch_largest in fetches]
            if not all(np.isfinite(largest).all() for _, largest in images):
                raise FloatingPointError("flow that is not finite")
            return images[0][0] if len(images) == 1 else np.concatenate([colors for colors, _ in images])

        return fetch

    return launch


def _with_video_error(method: str, launch: Callable[[np.ndarray], FetchFunction], hint: str) -> FlowRenderer:
    def launch_checked(frames: np.ndarray) -> FetchFunction:
        fetch, size = launch(frames), frames.shape[1:3]

        def checked_fetch() -> np.ndarray:
            try:
                return fetch()
            except FloatingPointError:
                raise VideoError(f"flow of {method} is not finite at size {size}", hint) from None

        return checked_fetch

    return FlowRenderer(launch_checked)
