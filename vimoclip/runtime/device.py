"""Selection of the device and the precision that a model runs on, and the memory of a GPU."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from vimoclip.errors import UserError
from vimoclip.runtime import processor

FetchFunction = Callable[[], np.ndarray]  # waits for an array of a device
HALF_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
FP16_CAPABILITY = (7, 0)  # compute capability of the first GPUs on which fp16 is faster than fp32 (V100)
USABLE_MEMORY = 0.9  # of the free memory: the allocator's blocks don't fill it completely


def select_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device for auto, cpu, cuda, cuda:1 or mps, prepared for use. Raises UserError if it is not available.

    Processes on one machine use different GPUs if there are enough."""
    device = _find_device(name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # otherwise copies from pinned memory open the first GPU in every process
        torch.backends.cudnn.allow_tf32 = False  # convolutions in fp32 would have the precision of TF32 by default
    return device


def _find_device(name: str, local_rank: int) -> torch.device:
    local_gpu = f"cuda:{local_rank % max(1, torch.cuda.device_count())}"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device(local_gpu)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(local_gpu if name == "cuda" else name)
    except RuntimeError:
        raise UserError(f"--device {name}: is not a device", "give auto, cpu, cuda, cuda:1 or mps") from None
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= available.get(device.type, 0):
        raise UserError(f"--device {name}: is not available on this machine", "give auto or cpu")
    return device


def select_precision(name: str, device: torch.device) -> str:
    """Resolve auto: on a CUDA GPU bf16 or else fp16, if its hardware computes in it; on other devices fp32.

    On a CPU, bf16 and int8 must be requested: without AMX bf16 may be several times slower, and the results of a
    default run would depend on the processor."""
    if name != "auto":
        return name
    if device.type != "cuda":
        return "fp32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16" if torch.cuda.get_device_capability(device) >= FP16_CAPABILITY else "fp32"


def describe_precision(precision: str, device: torch.device) -> str:
    """Return the precision of an encoder, with a faster one if the CPU has one."""
    fastest = processor.fast_precision()
    if device.type != "cpu" or fastest in ("fp32", precision):
        return precision
    return f"{precision} (this processor is faster with --precision {fastest})"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the autocast context of a precision; for int8 the encoder quantizes itself, without autocast."""
    return torch.autocast(device.type, HALF_DTYPES[precision]) if precision in HALF_DTYPES else nullcontext()


def cast_layers(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast the layers that autocast computes in `dtype`, in place, so that it doesn't cast their weights per batch."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | _ConvNd | nn.MultiheadAttention):
            for parameter in layer.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
    return module


@contextmanager
def allow_tf32(allowed: bool) -> Iterator[None]:
    """Let CUDA multiply float32 matrices in TF32, with 11 bits of each number, or not.

    The setting is global: call it in the thread that launches kernels."""
    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, allowed
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def copy_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device, unless it is there; to a CUDA GPU from pinned memory, without waiting for its queue.

    On Apple's GPUs, a copy that does not wait may read memory that is reused already (issue 189690 of PyTorch)."""
    if tensor.is_cuda:
        return tensor.to(device)
    is_cuda = device.type == "cuda"
    return (tensor.pin_memory() if is_cuda else tensor).to(device, non_blocking=is_cuda)


def copy_to_pinned(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a CPU tensor of any strides into contiguous pinned memory, from where a copy to a CUDA GPU does not wait."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor)


def copy_to_host(tensor: torch.Tensor) -> FetchFunction:
    """Copy a tensor to the CPU, and return a function that returns the copy.

    From a CUDA GPU, the copy into pinned memory is only queued; the function waits for it, and for no later work."""
    if tensor.device.type != "cuda":
        return tensor.cpu().numpy
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event(blocking=True)  # the waiting thread leaves its processor to the others
    copied.record(torch.cuda.current_stream(tensor.device))

    def fetch() -> np.ndarray:
        copied.synchronize()
        return pinned.numpy()

    return fetch


class InputStream:
    """A stream of a CUDA GPU on which inputs are copied and prepared while the GPU computes; no stream elsewhere."""

    def __init__(self, device: torch.device):
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def use(self) -> AbstractContextManager[Any]:
        """Return a context whose operations run on this stream."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def join(self, tensor: torch.Tensor) -> None:
        """Let the current stream wait until this stream has written `tensor`; the CPU does not wait."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._stream)
            tensor.record_stream(current)  # its memory is not used again before the current stream has read it


# --- memory of a CUDA GPU


def processes_per_gpu() -> int:
    """Return the number of torchrun's processes on this machine that share a GPU."""
    return math.ceil(int(os.environ.get("LOCAL_WORLD_SIZE", 1)) / max(1, torch.cuda.device_count()))


def usable_memory(device: torch.device) -> float:
    """Return the bytes of a CUDA GPU that this process may still allocate, with a reserve for fragmentation."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return USABLE_MEMORY * (torch.cuda.mem_get_info(device)[0] / processes_per_gpu() + unused)


def total_memory(device: torch.device) -> float:
    """Return the memory in bytes of a CUDA GPU, or of the machine; infinity if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # not on Windows
        return math.inf


def measure_memory(function: Callable[[], Any], device: torch.device) -> tuple[Any, int]:
    """Return the result of a call, and the peak of the bytes that it allocates on a CUDA GPU."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = function()
    return result, torch.cuda.max_memory_allocated(device) - before


def peak_gpu_memory() -> int:
    """Return the peak bytes that this process has reserved on its CUDA GPU; 0 if it uses none."""
    return torch.cuda.max_memory_reserved() if torch.cuda.is_initialized() else 0
