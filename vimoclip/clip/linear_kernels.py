"""Linear layers with fixed weights: F.linear, oneDNN's packed weights, or int8; and towers of int8 layers."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vimoclip.errors import UserError

LinearFunction = Callable[[torch.Tensor], torch.Tensor]  # (..., K) -> (..., N)
LinearFactory = Callable[[torch.Tensor, torch.Tensor | None], LinearFunction]  # weight (N, K), bias (N,)
INT8_MAX, ZERO_POINT = 127, 128  # activations are quantized to 1 .. 255, with zero at 128
MIN_INPUTS = 32  # per output: with fewer, as for the three colour channels, int8 is inaccurate and not faster


def plain_linear(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> LinearFunction:
    """F.linear for input on a device and of a dtype, by default those of the weight."""
    weight = weight.to(device=device, dtype=dtype)
    bias = None if bias is None else bias.to(device=device, dtype=dtype)
    return lambda x: F.linear(x, weight, bias)


def packed_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearFunction:
    """float32 with weights prepacked in oneDNN's layout: on AMD 2.4 times as fast as `plain_linear` at 800 rows."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.float().contiguous())
    bias = None if bias is None else bias.float().contiguous()
    return lambda x: torch.ops.mkldnn._linear_pointwise(x.contiguous(), packed, bias, "none", [], "")


def int8_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> LinearFunction:
    """int8 weights with one scale per output, int8 activations with one scale per row, computed at run time.

    One scale for all rows would make a frame depend on its batch.
    Activations are stored unsigned, as oneDNN has no fast kernel for signed ones (over 60 s instead of 10 ms).
    Raises UserError without oneDNN."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        raise UserError("--precision int8: this PyTorch has no oneDNN, which it needs", "omit the flag")
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


# --- int8 layers for encoders that fast_vit.py does not support


class Int8Linear(nn.Module):
    """An int8 linear layer."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias  # some towers read their dtype
        self._linear = int8_linear(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._linear(x)


class Int8Conv2d(nn.Module):
    """An int8 convolution, computed as a matrix product over patches with one scale per patch."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer
        self._linear = int8_linear(
            layer.weight.detach().flatten(1), None if layer.bias is None else layer.bias.detach()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer: Any = self.layer
        size = x.shape[2:]
        height, width = (
            (size[i] + 2 * layer.padding[i] - layer.dilation[i] * (layer.kernel_size[i] - 1) - 1) // layer.stride[i] + 1
            for i in range(2)
        )
        patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
        return self._linear(patches).transpose(1, 2).unflatten(2, (height, width))


def quantize(module: nn.Module) -> nn.Module:
    """Replace linear layers and convolutions in place, unless their parent passes their weights to a function."""
    if (
        isinstance(module, nn.MultiheadAttention) or type(module).__name__ == "AttentionPool2d"
    ):  # of open_clip's ResNets
        return module
    for name, layer in list(module.named_children()):
        if type(layer) is nn.Linear:
            setattr(module, name, Int8Linear(layer))
        elif type(layer) is nn.Conv2d and _is_quantizable(layer):
            setattr(module, name, Int8Conv2d(layer))
        else:
            quantize(layer)
    return module


def _is_quantizable(layer: nn.Conv2d) -> bool:
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return plain and layer.weight[0].numel() >= MIN_INPUTS
