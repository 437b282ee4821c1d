"""Flow by ptlflow's models, RAFT first of all."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vimoclip.errors import UserError
from vimoclip.flow.opencv import METHODS_WITHOUT_WEIGHTS
from vimoclip.flow.padding import pad_to_min_side
from vimoclip.io.checkpoint_loading import force_weights_only, load_tensors

MIN_SIDE = 128  # RAFT halves 1/8 of the size three times, and gives NaN where less than two pixels are left
CPU_BATCH_SIZE = 1  # at a time: a batch of 8 takes longer a pair, as it leaves the processor's cache


class PTLFlowModel:
    """A ptlflow model: n + 1 frames -> (n, H, W, 2) float32 in pixels; on a GPU all n pairs in one batch."""

    def __init__(
        self,
        name: str,
        checkpoint: str | None,
        iters: int | None,
        device: torch.device,
        autocast: Callable[[], Any] = contextlib.nullcontext,
    ):
        ptlflow = _import_ptlflow()
        _model_reference(ptlflow, name)
        if file := _find_checkpoint_file(ptlflow, name, checkpoint):
            load_tensors(file)  # before ptlflow opens it: 0.4.0 would run what a pickle says
        try:
            with _suppress_output(), force_weights_only():
                model = ptlflow.get_model(name, ckpt_path=checkpoint)
        except Exception as error:  # whatever ptlflow and torch.load raise for a file that is no checkpoint of it
            raise UserError(f"{name} with {checkpoint}: can't be loaded by ptlflow: {_first_line(error)}") from error
        if iters is not None:
            if not hasattr(model, "iters"):
                raise UserError(f"--iters {iters}: {name} has no iterations", "leave it out")
            model.iters = iters
        if name == "raft":
            _upsample_last_only(model)
        self.model, self.device, self.autocast = model.to(device).eval(), device, autocast

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return self.on_device(frames).permute(0, 2, 3, 1).cpu().numpy()

    @torch.inference_mode()
    def on_device(self, frames: np.ndarray) -> torch.Tensor:
        """(n + 1, H, W, 3) uint8 frames -> (n, 2, H, W) float32, where the model is."""
        height, width = frames.shape[1:3]
        images = self._upload(pad_to_min_side(frames, MIN_SIDE)).permute(0, 3, 1, 2)
        images = images.flip(1).float() / 255  # ptlflow's models take BGR in 0..1
        pairs = torch.stack([images[:-1], images[1:]], dim=1).contiguous()  # [n, 2, 3, H, W]
        with self.autocast():
            some = pairs.split(CPU_BATCH_SIZE if self.device.type == "cpu" else len(pairs))
            flow = torch.cat([self.model({"images": part})["flows"][:, 0].float() for part in some])
        return flow[..., :height, :width]

    def _upload(self, frames: np.ndarray) -> torch.Tensor:
        """As bytes, a quarter of floats, and without waiting for what the GPU is at."""
        tensor = torch.from_numpy(np.ascontiguousarray(frames))
        pinned = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return pinned.to(self.device, non_blocking=True)


def _upsample_last_only(model: Any) -> None:
    """RAFT brings each iteration's flow to full size, for its loss. Here only the last one's: the same flow in 0.91
    of the processor time at 398x224 and 12 iterations."""
    mask, upsample, done = model.update_block.mask.forward, model.upsample_flow, 0

    def begin(*_: Any) -> None:
        nonlocal done
        done = 0

    def last_mask(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal done
        done += 1
        return mask(hidden) if done >= model.iters else hidden.new_empty(0)

    def last_upsample(flow: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        count, _, height, width = flow.shape
        return (
            upsample(flow, weights) if weights.numel() else flow.new_zeros(()).expand(count, 2, 8 * height, 8 * width)
        )

    model.register_forward_pre_hook(begin)
    model.update_block.mask.forward, model.upsample_flow = last_mask, last_upsample


def missing_download(method: str, checkpoint: str | None) -> dict[str, str] | None:
    """`url`, `what` and `hint` of a checkpoint that ptlflow would have to download, or None."""
    if method in METHODS_WITHOUT_WEIGHTS or checkpoint is None or Path(checkpoint).exists():
        return None
    ptlflow = _import_ptlflow()
    urls = getattr(_model_reference(ptlflow, method), "pretrained_checkpoints", {})
    if checkpoint not in urls:
        raise UserError(
            f"{checkpoint}: is neither a file nor a checkpoint of {method} (it has: {', '.join(urls) or 'none'})",
            "give one with --ckpt-path",
        )
    target = _download_path(urls[checkpoint])
    if target.exists():
        return None
    hint = f"put it at {target}, or name a file with --ckpt-path"
    return {"url": urls[checkpoint], "what": f"the checkpoint {checkpoint} of {method}", "hint": hint}


def _download_path(url: str) -> Path:
    """Where ptlflow puts what it downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _find_checkpoint_file(ptlflow: Any, name: str, checkpoint: str | None) -> Path | None:
    """The file that a checkpoint is in, None where there is none yet."""
    if checkpoint is None:
        return None
    url = getattr(_model_reference(ptlflow, name), "pretrained_checkpoints", {}).get(checkpoint, checkpoint)
    places = (Path(checkpoint), _download_path(url))
    return next((place for place in places if place.is_file()), None)


def _model_reference(ptlflow: Any, name: str) -> Any:
    try:
        return ptlflow.get_model_reference(name)
    except ValueError:
        names = ", ".join((*METHODS_WITHOUT_WEIGHTS, *ptlflow.get_model_names()))
        raise UserError(f"--model {name}: there is no such flow method", f"there are {names}") from None


@lru_cache(maxsize=1)
def _import_ptlflow() -> Any:
    with _suppress_output():
        try:
            import ptlflow
            from loguru import logger
        except ImportError as error:
            raise UserError(
                f"ptlflow can't be imported ({error})", "pip install ptlflow, or use --model dis"
            ) from error
        logger.disable("ptlflow")
    return ptlflow


@contextlib.contextmanager
def _suppress_output() -> Iterator[None]:
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
