"""Selection of the device and the precision that a model runs on."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from vimoclip.errors import UserError


def select_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device for auto, cpu, cuda, cuda:1 or mps. Raises UserError if it is not available.

    Processes on one machine use different GPUs if there are enough."""
    local_gpu = f"cuda:{local_rank % max(1, torch.cuda.device_count())}"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device(local_gpu)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    name = local_gpu if name == "cuda" and local_rank else name
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: is not a device", "give auto, cpu, cuda, cuda:1 or mps") from None
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= available.get(device.type, 0):
        raise UserError(f"--device {name}: is not available on this machine", "give auto or cpu")
    return device


def select_precision(name: str, device: torch.device) -> str:
    """Resolve auto to bf16 on a GPU with hardware support, else to fp32.

    On a CPU, bf16 and int8 must be requested: without AMX bf16 may be several times slower, and the results of a
    default run would depend on the processor."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the autocast context of a precision; for int8 the encoder quantizes itself, without autocast."""
    if precision in ("fp32", "int8"):
        return nullcontext()
    return torch.autocast(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
