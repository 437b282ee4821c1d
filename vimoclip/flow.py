"""The only user of ptlflow and of OpenCV's flow: pairs of frames -> flow -> colour frames.

`load` gives a function from n + 1 neighbouring frames to n colour frames: frame t shows the motion from t to t + 1."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from vimoclip import UserError, VideoError
from vimoclip.strangers import load_tensors, tensors_only

WITHOUT_WEIGHTS = ("dis", "farneback", "frame_diff")
NORMALIZATIONS = ("frame", "linear", "log")
LOG_KNEE = 0.02  # log: m0 as a share of the largest motion; below it the scale is nearly linear
TABLE_SIDE = 1023  # odd, so that no motion has a cell of its own
LEARNED_MIN_SIDE = 128  # RAFT halves 1/8 of the size three times, and gives NaN where less than two pixels are left
OPENCV_MIN_SIDE = 32  # DIS refuses pictures smaller than its patches


@lru_cache(maxsize=1)
def color_table() -> np.ndarray:
    """(S, S, 3) uint8: the colour of flow (u, v) at [v, u], each from -1 to 1 over the side.

    The wheel of Baker et al. (2011), drawn by torchvision's `flow_to_image`; corners outside the unit circle are
    never looked up."""
    from torchvision.utils import flow_to_image

    half = TABLE_SIDE // 2
    axis = torch.arange(-half, half + 1) / half
    flow = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
    # torchvision divides by the largest vector, which must be 1 here; the corners are pulled onto the circle
    flow = flow / flow.norm(dim=0).clamp_min(1)
    return np.ascontiguousarray(flow_to_image(flow).permute(1, 2, 0).numpy())


def to_color(flow: np.ndarray, normalization: str = "frame", flow_max: float = 0.05) -> np.ndarray:
    """(n, H, W, 2) flow in pixels -> (n, H, W, 3) uint8.

    frame: a frame's own largest vector has full colour (published); linear: `flow_max`, a fraction of the diagonal
    per frame step, has; log: log(1 + m/m0) / log(1 + m_max/m0), so that both slow and fast motion show."""
    magnitude = np.sqrt(np.square(flow).sum(-1, keepdims=True))  # [n, H, W, 1]
    if normalization == "frame":
        scale = 1 / np.maximum(magnitude.max(axis=(1, 2, 3), keepdims=True), np.finfo(np.float32).eps)
    else:
        largest = flow_max * math.hypot(*flow.shape[1:3])
        target = magnitude / largest
        if normalization == "log":
            target = np.log1p(target / LOG_KNEE) / math.log1p(1 / LOG_KNEE)
        scale = np.minimum(target, 1) / np.maximum(magnitude, np.finfo(np.float32).eps)
    half = (TABLE_SIDE - 1) / 2
    cells = np.rint(flow * scale * half + half).astype(np.int32)
    return color_table().reshape(-1, 3)[cells[..., 1] * TABLE_SIDE + cells[..., 0]]


def frame_difference(frames: np.ndarray) -> np.ndarray:
    """(n + 1, H, W, 3) uint8 -> (n, H, W, 3): the absolute difference of neighbouring grey frames, as grey."""
    grey = _grey(frames).astype(np.int16)
    difference = np.abs(np.diff(grey, axis=0)).astype(np.uint8)
    return np.repeat(difference[..., None], 3, axis=-1)


def opencv_flow(method: str) -> Callable[[np.ndarray], np.ndarray]:
    """`dis` (Kroeger et al., 2016) or `farneback` (2003): n + 1 frames -> (n, H, W, 2) float32 in pixels."""
    if method == "dis":
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        between = lambda a, b: dis.calc(a, b, None)  # noqa: E731
    else:
        # pyramid of 5 levels at half size each, windows of 15 pixels, 3 rounds, neighbourhoods of 5: OpenCV's example
        between = lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 5, 15, 3, 5, 1.2, 0)  # noqa: E731

    def flow(frames: np.ndarray) -> np.ndarray:
        height, width = frames.shape[1:3]
        grey = _grey(_padded(frames, OPENCV_MIN_SIDE))
        return np.stack([between(a, b) for a, b in pairwise(grey)])[:, :height, :width]

    return flow


class LearnedFlow:
    """A ptlflow model: n + 1 frames -> (n, H, W, 2) float32 in pixels, all n pairs in one batch."""

    def __init__(
        self,
        name: str,
        checkpoint: str | None,
        iters: int | None,
        device: torch.device,
        autocast: Callable[[], Any] = contextlib.nullcontext,
    ):
        ptlflow = _ptlflow()
        _known(ptlflow, name)
        if file := _file(ptlflow, name, checkpoint):
            load_tensors(file)  # before ptlflow opens it: 0.4.0 would run what a pickle says
        try:
            with _quiet(), tensors_only():
                model = ptlflow.get_model(name, ckpt_path=checkpoint)
        except Exception as error:  # whatever ptlflow and torch.load raise for a file that is no checkpoint of it
            raise UserError(f"{name} with {checkpoint}: can't be loaded by ptlflow: {_first_line(error)}") from error
        if iters is not None:
            if not hasattr(model, "iters"):
                raise UserError(f"--iters {iters}: {name} has no iterations; leave it out")
            model.iters = iters
        self.model, self.device, self.autocast = model.to(device).eval(), device, autocast

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        height, width = frames.shape[1:3]
        bgr = np.ascontiguousarray(_padded(frames, LEARNED_MIN_SIDE)[..., ::-1])  # ptlflow's models take BGR in 0..1
        images = torch.from_numpy(bgr).to(self.device).permute(0, 3, 1, 2).float() / 255
        pairs = torch.stack([images[:-1], images[1:]], dim=1).contiguous()  # [n, 2, 3, H, W]
        with self.autocast():
            flow = self.model({"images": pairs})["flows"][:, 0]
        return flow.float().permute(0, 2, 3, 1).cpu().numpy()[:, :height, :width]


def load(
    method: str,
    checkpoint: str | None,
    iters: int | None,
    normalization: str,
    flow_max: float,
    device: torch.device,
    autocast: Callable[[], Any] = contextlib.nullcontext,
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from (n + 1, H, W, 3) uint8 frames to (n, H, W, 3) colour frames. Raises UserError."""
    if iters is not None and method in WITHOUT_WEIGHTS:
        raise UserError(f"--iters {iters}: {method} has no iterations; leave it out")
    if method == "frame_diff":
        return frame_difference
    flow = (
        opencv_flow(method) if method in WITHOUT_WEIGHTS else LearnedFlow(method, checkpoint, iters, device, autocast)
    )

    def render(frames: np.ndarray) -> np.ndarray:
        vectors = flow(frames)
        if not np.isfinite(vectors).all():
            raise VideoError(f"{method} gives flow that is not finite at size {frames.shape[1:3]}")
        return to_color(vectors, normalization, flow_max)

    return render


def missing_download(method: str, checkpoint: str | None) -> dict[str, str] | None:
    """`url`, `what` and `cure` of a checkpoint that ptlflow would have to download, or None."""
    if method in WITHOUT_WEIGHTS or checkpoint is None or Path(checkpoint).exists():
        return None
    ptlflow = _ptlflow()
    urls = getattr(_known(ptlflow, method), "pretrained_checkpoints", {})
    if checkpoint not in urls:
        raise UserError(
            f"{checkpoint}: is neither a file nor a checkpoint of {method} (it has: {', '.join(urls) or 'none'}); "
            "give one with --ckpt-path"
        )
    target = _download(urls[checkpoint])
    if target.exists():
        return None
    cure = f"put it at {target}, or name a file with --ckpt-path"
    return {"url": urls[checkpoint], "what": f"the checkpoint {checkpoint} of {method}", "cure": cure}


def _download(url: str) -> Path:
    """Where ptlflow puts what it downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _file(ptlflow: Any, name: str, checkpoint: str | None) -> Path | None:
    """The file that a checkpoint is in, None where there is none yet."""
    if checkpoint is None:
        return None
    url = getattr(_known(ptlflow, name), "pretrained_checkpoints", {}).get(checkpoint, checkpoint)
    places = (Path(checkpoint), _download(url))
    return next((place for place in places if place.is_file()), None)


def _known(ptlflow: Any, name: str) -> Any:
    try:
        return ptlflow.get_model_reference(name)
    except ValueError:
        names = ", ".join((*WITHOUT_WEIGHTS, *ptlflow.get_model_names()))
        raise UserError(f"--model {name}: there is no such flow method; there are {names}") from None


@lru_cache(maxsize=1)
def _ptlflow() -> Any:
    with _quiet():
        try:
            import ptlflow
            from loguru import logger
        except ImportError as error:
            raise UserError(f"ptlflow can't be imported ({error}); pip install ptlflow, or use --model dis") from error
        logger.disable("ptlflow")
    return ptlflow


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep ptlflow's chatter (warnings, prints and log lines about optional parts) from the user."""
    level = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def _grey(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def _padded(frames: np.ndarray, side: int) -> np.ndarray:
    """At least `side` pixels high and wide, by repeating the last row and column."""
    height, width = frames.shape[1:3]
    extra = max(0, side - height), max(0, side - width)
    return np.pad(frames, ((0, 0), (0, extra[0]), (0, extra[1]), (0, 0)), mode="edge") if any(extra) else frames


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
