"""Optical flow by the models of ptlflow, such as RAFT (Teed and Deng 2020)."""

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

from vimoclip.errors import UserError, first_line
from vimoclip.flow.opencv import METHODS_WITHOUT_WEIGHTS, pad_to_min_side
from vimoclip.io.checkpoint_loading import force_weights_only, load_tensors

MIN_SIDE = 128  # pixels; RAFT halves 1/8 of the size three times and gives NaN below two pixels
CPU_BATCH_SIZE = 1  # pairs; a batch of 8 takes longer per pair, as it does not fit into the processor's cache


class PTLFlowModel:
    """A ptlflow model: (n + 1, H, W, 3) uint8 frames -> (n, H, W, 2) float32 flow in pixels.

    On a GPU all n pairs are one batch. The constructor raises UserError."""

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
            load_tensors(file)  # refuses pickled code, which ptlflow 0.4.0 would run
        try:
            with _suppress_output(), force_weights_only():
                model = ptlflow.get_model(name, ckpt_path=checkpoint)
        except Exception as error:  # ptlflow and torch.load raise many types for a wrong file
            raise UserError(f"{name} with {checkpoint}: ptlflow can't load it: {first_line(error)}") from error
        if iters is not None:
            if not hasattr(model, "iters"):
                raise UserError(f"--iters {iters}: {name} has no iterations", "omit the flag")
            model.iters = iters
        if name == "raft":
            _upsample_last_only(model)
        self.model, self.device, self.autocast = model.to(device).eval(), device, autocast

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return self.on_device(frames).permute(0, 2, 3, 1).cpu().numpy()

    @torch.inference_mode()
    def on_device(self, frames: np.ndarray) -> torch.Tensor:
        """(n + 1, H, W, 3) uint8 frames -> (n, 2, H, W) float32 flow in pixels, on the model's device."""
        height, width = frames.shape[1:3]
        images = self._upload(pad_to_min_side(frames, MIN_SIDE)).permute(0, 3, 1, 2)
        images = images.flip(1).float() / 255  # ptlflow's models take BGR in 0..1
        pairs = torch.stack([images[:-1], images[1:]], dim=1).contiguous()  # [n, 2, 3, H, W]
        with self.autocast():
            batches = pairs.split(CPU_BATCH_SIZE if self.device.type == "cpu" else len(pairs))
            flow = torch.cat([self.model({"images": batch})["flows"][:, 0].float() for batch in batches])
        return flow[..., :height, :width]

    def _upload(self, frames: np.ndarray) -> torch.Tensor:
        """Copy uint8 frames to the device; on a GPU from pinned memory and without waiting for its queue."""
        tensor = torch.from_numpy(np.ascontiguousarray(frames))
        pinned = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return pinned.to(self.device, non_blocking=True)


def _upsample_last_only(model: Any) -> None:
    """Upsample the flow of RAFT's last iteration only; the others are needed for its training loss.

    Gives the same flow in 0.91 of the processor time, at 398x224 and 12 iterations."""
    mask, upsample, iteration = model.update_block.mask.forward, model.upsample_flow, 0

    def reset(*_: Any) -> None:
        nonlocal iteration
        iteration = 0

    def last_mask(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal iteration
        iteration += 1
        return mask(hidden) if iteration >= model.iters else hidden.new_empty(0)

    def last_upsample(flow: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        count, _, height, width = flow.shape
        return (
            upsample(flow, weights) if weights.numel() else flow.new_zeros(()).expand(count, 2, 8 * height, 8 * width)
        )

    model.register_forward_pre_hook(reset)
    model.update_block.mask.forward, model.upsample_flow = last_mask, last_upsample


def missing_download(method: str, checkpoint: str | None) -> dict[str, str] | None:
    """Return `url`, `name` and `hint` of a checkpoint that ptlflow would download, or None. Raises UserError."""
    if method in METHODS_WITHOUT_WEIGHTS or checkpoint is None or Path(checkpoint).exists():
        return None
    ptlflow = _import_ptlflow()
    urls = getattr(_model_reference(ptlflow, method), "pretrained_checkpoints", {})
    if checkpoint not in urls:
        raise UserError(
            f"{checkpoint}: is neither a file nor a checkpoint of {method} (checkpoints: {', '.join(urls) or 'none'})",
            "give one with --ckpt-path",
        )
    target = _download_path(urls[checkpoint])
    if target.exists():
        return None
    hint = f"put it at {target}, or give a file with --ckpt-path"
    return {"url": urls[checkpoint], "name": f"the checkpoint {checkpoint} of {method}", "hint": hint}


def _download_path(url: str) -> Path:
    """Return the path to which ptlflow downloads a URL."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def _find_checkpoint_file(ptlflow: Any, name: str, checkpoint: str | None) -> Path | None:
    """Return the local file of a checkpoint, or None if it must be downloaded."""
    if checkpoint is None:
        return None
    url = getattr(_model_reference(ptlflow, name), "pretrained_checkpoints", {}).get(checkpoint, checkpoint)
    candidates = (Path(checkpoint), _download_path(url))
    return next((path for path in candidates if path.is_file()), None)


def _model_reference(ptlflow: Any, name: str) -> Any:
    try:
        return ptlflow.get_model_reference(name)
    except ValueError:
        names = ", ".join((*METHODS_WITHOUT_WEIGHTS, *ptlflow.get_model_names()))
        raise UserError(f"--model: {name} is not a flow model", f"give one of {names}") from None


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
    """Suppress the warnings, prints and log lines of ptlflow about its optional dependencies."""
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
