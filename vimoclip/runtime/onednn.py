"""Matrix products of float32 on a CPU by oneDNN: `linear`, and `by_onednn` for modules that are not ours.

PyTorch leaves them to MKL, which on AMD's processors reaches less than half of what these can do: 210 to 470 GFLOP/s
for 1,200 rows of 512 by 2,048, forwards and backwards (2 cores, AVX-512). Values are the same but for rounding."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

_AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """(n, in), (out, in), (out,) -> (n, out), as torch.nn.functional.linear."""
    if not _ours(x, weight) or torch.is_autocast_enabled(x.device.type):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def by_onednn(device: torch.device) -> AbstractContextManager[Any]:
    """Within it every product of float32 matrices is oneDNN's, also in the backward pass, whatever module it is of."""
    return _Instead() if device.type == "cpu" and _AVAILABLE else nullcontext()


def _ours(a: torch.Tensor, b: torch.Tensor) -> bool:
    return _AVAILABLE and a.device.type == "cpu" and a.dtype == b.dtype == torch.float32 and a.numel() * b.numel() > 0


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x @ weight.T + bias."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        of_x = _product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        of_weight = _product(grad.t(), x.t()) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, grad.sum(0)


class _Instead(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (product := _PRODUCTS.get(func)) and not kwargs and _ours(args[-2], args[-1]):
            return product(*args)
        return func(*args, **(kwargs or {}))


_PRODUCTS: dict[Any, Callable[..., torch.Tensor]] = {
    torch.ops.aten.mm.default: lambda a, b: _product(a, b.t()),
    torch.ops.aten.addmm.default: lambda bias, a, b: (
        _product(a, b.t(), bias.contiguous())
        if bias.dim() == 1 and len(bias) == b.shape[1]
        else torch.ops.aten.addmm.default(bias, a, b)
    ),
}
