"""Run folders and what is in them: checkpoints, seeds, metrics, TensorBoard; and the device that a run computes on."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from vimoclip.errors import UserError


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """auto, cpu, cuda, cuda:1, mps -> a device that is there. Raises UserError.

    Of several processes on one machine each gets a GPU of its own, where there are as many."""
    own = f"cuda:{local_rank % max(1, torch.cuda.device_count())}"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device(own)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    name = own if name == "cuda" and local_rank else name
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: is not a device", "give auto, cpu, cuda, cuda:1 or mps") from None
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        raise UserError(f"--device {name}: there is none on this machine", "give auto or cpu")
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """auto -> bf16 on a GPU that computes in it, else fp32; on a CPU bf16 and int8 are only taken where asked for.

    (Without AMX bf16 may be several times slower there, and what a run gives would depend on the processor.)"""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which a model runs in `precision` (fp32, bf16, fp16; int8 is the encoder's own doing)."""
    if precision in ("fp32", "int8"):
        return nullcontext()
    return torch.autocast(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
