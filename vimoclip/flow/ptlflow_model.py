"""Optical flow by the models of ptlflow, such as RAFT (Teed and Deng 2020)."""

import contextlib
import functools
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from vimoclip.cli import format_bytes
from vimoclip.errors import DeviceMemoryError, UserError, VideoError, first_line, is_out_of_memory
from vimoclip.flow import ptlflow_patches
from vimoclip.flow.opencv import METHODS_WITHOUT_WEIGHTS, pad_to_min_side
from vimoclip.io.checkpoint_loading import force_weights_only, load_tensors
from vimoclip.runtime.device import InputStream, cast_layers, copy_to_device, measure_memory, usable_memory

MIN_SIDE = 128  # pixels; RAFT halves 1/8 of the size three times and gives NaN below two pixels
OWNED_MEMORY = 0.8  # of a GPU: if a pair does not fit into as much, it is too large
DTYPE_ERRORS = ("dtype", "scalar type", "not implemented for", "should be the same")  # in texts of PyTorch
CPU_BATCH_SIZE = 1  # pairs; a batch of 8 takes longer per pair, as it does not fit into the processor's cache
Result = TypeVar("Result")


class PTLFlowModel:
    """A ptlflow model: (n + 1, H, W, 3) uint8 frames -> (n, H, W, 2) float32 flow in pixels.

    On a GPU, batches are as large as its free memory allows, at most n pairs. The constructor raises UserError."""

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
            if not isinstance(getattr(model, "iters", None), int):  # ccmr has several numbers
                raise UserError(f"--iters {iters}: {name} has no single number of iterations", "omit the flag")
            model.iters = iters
        if name in ("raft", "raft_small"):
            ptlflow_patches.encode_flow_in_half(model)
            with autocast():
                if torch.is_autocast_enabled(device.type):
                    cast_layers(model, torch.get_autocast_dtype(device.type))
        if name == "raft":
            ptlflow_patches.upsample_last_only(model)
        if name == "dpflow":  # its `forward` catches the error of too little memory, and then computes otherwise
            model.forward = model.forward_flow
        self.name, self.model, self.device, self.autocast = name, model.to(device).eval(), device, autocast
        self._input_stream = InputStream(device)
        self._batch_sizes: dict[torch.Size, int] = {}  # pairs per batch, by the shape of a pair

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return self.on_device(frames).permute(0, 2, 3, 1).cpu().numpy()

    def on_device(self, frames: np.ndarray) -> torch.Tensor:
        """(n + 1, H, W, 3) uint8 frames -> (n, 2, H, W) float32 flow in pixels, on the model's device.

        Raises the errors of `compute`."""
        return torch.cat(self.compute(frames, lambda flow: flow))

    @torch.no_grad()  # not inference_mode, in which autocast casts a weight again at each use
    def compute(self, frames: np.ndarray, convert: Callable[[torch.Tensor], Result]) -> list[Result]:
        """(n + 1, H, W, 3) uint8 frames -> `convert` of the (m, 2, H, W) float32 flow of each batch of pairs.

        Does not wait for a CUDA GPU. Raises VideoError if the device has too little memory for a pair,
        DeviceMemoryError if other programs use it."""
        height, width = frames.shape[1:3]
        padded = torch.from_numpy(np.ascontiguousarray(pad_to_min_side(frames, MIN_SIDE)))
        with self._input_stream.use():
            images = copy_to_device(padded, self.device).permute(0, 3, 1, 2)
        self._input_stream.join(images)

        def compute_batch(start: int, pairs: int) -> Result:
            return convert(self._compute_batch(images[start : start + pairs + 1])[..., :height, :width])

        with self.autocast():
            return self._compute_batches(compute_batch, len(images) - 1, images.shape[1:])

    def _compute_batches(
        self, compute_batch: Callable[[int, int], Result], total_pairs: int, size: torch.Size
    ) -> list[Result]:
        """Return the results of `compute_batch` (first pair, number of pairs), for batches of all pairs.

        The first pair of a new size is computed alone, to measure its memory. A batch that does not fit, for example
        because another process has taken memory, is halved."""
        results, start = list[Result](), 0
        while start < total_pairs:
            is_measured = size in self._batch_sizes
            pairs = min(self._batch_sizes[size], total_pairs - start) if is_measured else 1
            compute = functools.partial(compute_batch, start, pairs)
            try:
                if is_measured:
                    result = compute()
                else:
                    result, self._batch_sizes[size] = self._compute_and_choose_batch_size(compute, size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    self._check_dtype_error(error)
                    raise
                if pairs == 1:
                    raise self._too_little_memory(size) from None
            else:
                results.append(result)
                start += pairs
                continue
            torch.cuda.empty_cache()  # here, where the error no longer keeps the tensors of its frames
            self._batch_sizes[size] = pairs // 2
            print(f"flow of {size[-1]}x{size[-2]} frames: out of memory; the pair batch size is now {pairs // 2}")
        return results

    def _compute_batch(self, images: torch.Tensor) -> torch.Tensor:
        scaled = images.flip(1).float() / 255  # ptlflow's models take BGR in 0..1
        pairs = torch.stack([scaled[:-1], scaled[1:]], dim=1).contiguous()  # [n, 2, 3, H, W]
        return self.model({"images": pairs})["flows"][:, 0].float()

    def _compute_and_choose_batch_size(self, compute: Callable[[], Result], size: torch.Size) -> tuple[Result, int]:
        """Return the result of a pair, and the pairs per batch: on a CUDA GPU as many as fit, by this pair's memory."""
        if self.device.type != "cuda":
            return compute(), CPU_BATCH_SIZE if self.device.type == "cpu" else sys.maxsize
        result, memory = measure_memory(compute, self.device)
        usable = usable_memory(self.device)
        batch_size = max(1, int(usable // max(memory, 1)))
        memories = f"{format_bytes(memory)} a pair, {format_bytes(usable)} are free"
        print(f"flow of {size[-1]}x{size[-2]} frames: pair batch size at most {batch_size} ({memories})", flush=True)
        return result, batch_size

    def _check_dtype_error(self, error: RuntimeError) -> None:
        """Raise UserError for a model that mixes dtypes under autocast, such as craft."""
        if torch.is_autocast_enabled(self.device.type) and any(text in str(error) for text in DTYPE_ERRORS):
            raise UserError(
                f"{self.name} fails in half precision: {first_line(error)}", "use --precision fp32"
            ) from error

    def _too_little_memory(self, size: torch.Size) -> Exception:
        """Return the error for a pair that does not fit: of the video, or of the run if others use the memory."""
        what = f"flow of {size[-1]}x{size[-2]} frames needs more memory than"
        if self._owns_memory():
            hint = "use flow of a smaller size (extract_flows.py --size), and a student that is trained on it"
            return VideoError(f"{what} {self.device} has", hint)
        hint = "end them (nvidia-smi lists them), and run the same command again"
        return DeviceMemoryError(f"{what} other programs leave free on {self.device}", hint)

    def _owns_memory(self) -> bool:
        """Return whether other processes use little of the device's memory."""
        if self.device.type != "cuda":
            return True
        free, total = torch.cuda.mem_get_info(self.device)
        return free + torch.cuda.memory_reserved(self.device) > OWNED_MEMORY * total


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


@functools.lru_cache(maxsize=1)
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
        ptlflow_patches.patch_modules()
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
