"""Linear layers with fixed weights: F.linear, oneDNN's packed weights, or int8. Each factory returns a function."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from vimoclip.errors import UserError

LinearFunction = Callable[[torch.Tensor], torch.Tensor]  # (..., K) -> (..., N)
LinearFactory = Callable[[torch.Tensor, torch.Tensor | None], LinearFunction]  # weight (N, K), bias (N,)
INT8_MAX, ZERO_POINT = 127, 128  # activations are quantized to 1 .. 255, with zero at 128


def plain_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearFunction:
    """F.linear, for any device and autocast."""
    return lambda x: F.linear(x, weight, bias)


def can_pack_weights() -> bool:
    """Return whether this PyTorch has oneDNN with prepacked weights (on x86 and some ARM)."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def packed_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearFunction:
    """float32 with weights prepacked in oneDNN's layout: 2.4 times as fast as `plain_linear` at 800 rows."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.float().contiguous())
    bias = None if bias is None else bias.float().contiguous()
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, bias, "none", [], "")


def int8_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearFunction:
    """int8 weights with one scale per output, int8 activations with one scale per row, computed at run time.

    One scale for all rows would make a frame depend on its batch.
    Activations are stored unsigned, as oneDNN has no fast kernel for signed ones (over 60 s instead of 10 ms).
    Raises UserError without oneDNN."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        raise UserError("--precision int8: this PyTorch has no oneDNN for it", "leave the flag out")
    weight = weight.float()
    weight_scale = (weight.abs().amax(1) / INT8_MAX).clamp(min=1e-12)
    quantized = (weight / weight_scale[:, None]).round().to(torch.int8).contiguous()
    packed = torch.ops.onednn.qlinear_prepack(quantized, None)
    zero_points = torch.zeros(len(weight), dtype=torch.int64)

    def linear(x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        scale = (torch.linalg.vector_norm(rows, torch.inf, 1, keepdim=True) / INT8_MAX).clamp_(min=1e-12)
        values = torch.div(rows, scale).add_(ZERO_POINT + 0.5).to(torch.uint8)
        out = torch.ops.onednn.qlinear_pointwise(
            values, 1.0, ZERO_POINT, packed, weight_scale, zero_points, None, 1.0, 0, torch.float32, "none", [], ""
        )
        out = out * scale if bias is None else torch.addcmul(bias, out, scale, out=out)
        return out.view(*x.shape[:-1], -1)

    return linear
