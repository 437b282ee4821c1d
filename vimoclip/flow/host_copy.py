"""Copies of results from a device to the CPU, without waiting for the device."""

from collections.abc import Callable

import numpy as np
import torch


def copy_to_host(tensor: torch.Tensor) -> Callable[[], np.ndarray]:
    """Copy a tensor to the CPU, and return a function that returns the copy.

    From a CUDA GPU, the copy into pinned memory is only queued; the function waits for it, and for no later work."""
    if tensor.device.type != "cuda":
        return tensor.cpu().numpy
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event(blocking=True)  # the waiting thread leaves its processor to the encoders
    copied.record()

    def fetch() -> np.ndarray:
        copied.synchronize()
        return pinned.numpy()

    return fetch
