"""Ways to multiply by fixed weights: plainly, packed for this CPU, in 8 bits. Each makes a function from weights."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from vimoclip.errors import UserError

Linear = Callable[[torch.Tensor], torch.Tensor]  # (..., K) -> (..., N)
MakeLinear = Callable[[torch.Tensor, torch.Tensor | None], Linear]  # weight (N, K), bias (N,)
HALF, MIDDLE = 127, 128  # values go to 1 .. 255 around the middle


def plain(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """As the module itself does it: on any device, under autocast, and in a graph that is written to a file."""
    return lambda x: F.linear(x, weight, bias)


def can_pack() -> bool:
    """Whether this PyTorch has oneDNN with its packed weights (on x86 and some ARM)."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def packed(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """float32 with the weights laid out once as oneDNN wants them: 2.4 times as fast as `plain` at 800 rows."""
    stored = torch.ops.mkldnn._reorder_linear_weight(weight.float().contiguous())
    bias = None if bias is None else bias.float().contiguous()
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.contiguous(), stored, bias, "none", [], "")


def int8(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """8 bits times 8 bits: weights with a scale an output, values with a scale a row, found as they come.

    A scale for all rows, as ONNX Runtime's dynamic quantisation has it, would let a frame depend on its batch. Values
    are stored unsigned: oneDNN has no fast signed ones (over 60 s, not 10 ms). Raises UserError without oneDNN."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        raise UserError("--precision int8: this PyTorch has no oneDNN for it", "leave the flag out")
    weight = weight.float()
    scale = (weight.abs().amax(1) / HALF).clamp(min=1e-12)
    whole = (weight / scale[:, None]).round().to(torch.int8).contiguous()
    stored, zeros = torch.ops.onednn.qlinear_prepack(whole, None), torch.zeros(len(weight), dtype=torch.int64)

    def multiply(x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        step = (torch.linalg.vector_norm(rows, torch.inf, 1, keepdim=True) / HALF).clamp_(min=1e-12)
        values = torch.div(rows, step).add_(MIDDLE + 0.5).to(torch.uint8)
        out = torch.ops.onednn.qlinear_pointwise(
            values, 1.0, MIDDLE, stored, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        out = out * step if bias is None else torch.addcmul(bias, out, step, out=out)
        return out.view(*x.shape[:-1], -1)

    return multiply
