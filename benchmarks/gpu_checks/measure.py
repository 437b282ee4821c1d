"""Measurements on a GPU: seconds, synchronizations, casts of weights, differences of results."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Work = Callable[[], object]
CAST_OPERATORS = (torch.ops.aten.to, torch.ops.aten._to_copy)  # the first in inference mode


def synchronize(device: torch.device) -> None:
    """Wait until the GPU has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(work: Work, device: torch.device, seconds: float = 1.0) -> float:
    """Return the mean seconds of a call, after one that is not counted. Calls for about `seconds`, at least once."""
    time_calls(work, device, 0.0)
    return time_calls(work, device, seconds)


def time_calls(work: Work, device: torch.device, seconds: float) -> float:
    """Return the mean seconds of a call, from the first call on. Calls for about `seconds`, at least once."""
    synchronize(device)
    calls, started = 0, time.perf_counter()
    while True:
        work()
        synchronize(device)
        calls, elapsed = calls + 1, time.perf_counter() - started
        if elapsed >= seconds:
            return elapsed / calls


def count_synchronizations(work: Work) -> int:
    """Return how often a call waits for the GPU, as PyTorch warns of it."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


def count_weight_casts(work: Work) -> int:
    """Return how many tensors that exist before a call are cast to another floating point format in it."""
    with _CastCounter() as counter:
        work()
    return counter.casts


class _CastCounter(TorchDispatchMode):
    """Counts casts of floating point tensors whose memory was not allocated within the context."""

    def __init__(self) -> None:
        super().__init__()
        self.casts, self._allocated = 0, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_cast = func.overloadpacket in CAST_OPERATORS and result.dtype != args[0].dtype
        if is_cast and args[0].is_floating_point():
            self.casts += args[0].untyped_storage().data_ptr() not in self._allocated
        inputs = {_address(value) for value in args}
        outputs = result if isinstance(result, (tuple, list)) else [result]
        self._allocated |= {_address(value) for value in outputs} - (inputs - self._allocated)  # without views
        return result


def _address(value: Any) -> int:
    """Return the address of a tensor's memory; 0 for oneDNN's packed weights and for what is no tensor."""
    has_storage = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return value.untyped_storage().data_ptr() if has_storage else 0


def embedding_agreement(reference: torch.Tensor, embeddings: torch.Tensor) -> dict[str, float | str]:
    """Return the least cosines of (n, D) embeddings, as they are and after subtracting the reference's mean.

    Embeddings of one model have a common part, which hides errors; without it unequal frames have cosines near 0."""
    reference, embeddings, mean = reference.double(), embeddings.double(), reference.double().mean(0)
    cosine = torch.nn.functional.cosine_similarity
    return {
        "min_cosine": cosine(reference, embeddings).min().item(),
        "min_centered_cosine": cosine(reference - mean, embeddings - mean).min().item(),
    }


def relative_difference(values: list[float], reference: list[float]) -> float:
    """Return the largest difference of two lists of numbers, relative to the reference; NaN if one has NaN."""
    pairs = zip(values, reference, strict=True)
    return float(torch.tensor([abs(a - b) / abs(b) for a, b in pairs], dtype=torch.float64).max())
