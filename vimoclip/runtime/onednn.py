"""Route float32 matmuls on AMD's CPUs through oneDNN: `linear`, and `use_onednn` for other modules.

PyTorch uses MKL, which is slower there (see `processor.multiplies_float32_by_onednn`). Values differ only by
rounding."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from vimoclip.runtime import processor

_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_used() -> bool:
    """Return whether oneDNN multiplies float32 matrices on this machine's CPU."""
    return _AVAILABLE and processor.multiplies_float32_by_onednn()


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Compute torch.nn.functional.linear: (n, in), (out, in), (out,) -> (n, out)."""
    if not _is_supported(x, weight) or torch.is_autocast_enabled(x.device.type):
        return F.linear(x, weight, bias)
    return _LinearFunction.apply(x, weight, bias)


def use_onednn(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which oneDNN computes all float32 matmuls on the CPU, also of the backward pass."""
    return _OneDNNMode() if device.type == "cpu" and is_used() else nullcontext()


def _is_supported(a: torch.Tensor, b: torch.Tensor) -> bool:
    return is_used() and a.device.type == "cpu" and a.dtype == b.dtype == torch.float32 and a.numel() * b.numel() > 0


def _matmul(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Compute x @ weight.T + bias."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _matmul(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_x = _matmul(grad, weight.t()) if ctx.needs_input_grad[0] else None
        grad_weight = _matmul(grad.t(), x.t()) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad.sum(0)


class _OneDNNMode(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (matmul := _REPLACEMENTS.get(func)) and not kwargs and _is_supported(args[-2], args[-1]):
            return matmul(*args)
        return func(*args, **(kwargs or {}))


_REPLACEMENTS: dict[Any, Callable[..., torch.Tensor]] = {
    torch.ops.aten.mm.default: lambda a, b: _matmul(a, b.t()),
    torch.ops.aten.addmm.default: lambda bias, a, b: (
        _matmul(a, b.t(), bias.contiguous())
        if bias.dim() == 1 and len(bias) == b.shape[1]
        else torch.ops.aten.addmm.default(bias, a, b)
    ),
}
