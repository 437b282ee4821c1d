"""int8 quantization, layer by layer, of towers that `fast_vit` doesn't support."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vimoclip.clip import linear_kernels

MIN_INPUTS = 32  # per output: with fewer, as for the three colour channels, int8 is inaccurate and not faster


class Int8Linear(nn.Module):
    """An int8 linear layer."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias  # some towers read their dtype
        self._linear = linear_kernels.int8_linear(
            layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._linear(x)


class Int8Conv2d(nn.Module):
    """An int8 convolution, computed as a matrix product over patches with one scale per patch."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer
        self._linear = linear_kernels.int8_linear(
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
    """Replace linear layers and convolutions in place; layers whose weights the parent reads itself are kept."""
    for name, layer in list(module.named_children()):
        if isinstance(module, nn.MultiheadAttention) or (isinstance(layer, nn.Linear) and _passes_weights_on(module)):
            continue
        if type(layer) is nn.Linear:
            setattr(module, name, Int8Linear(layer))
        elif type(layer) is nn.Conv2d and _is_quantizable(layer):
            setattr(module, name, Int8Conv2d(layer))
        else:
            quantize(layer)
    return module


def _passes_weights_on(module: nn.Module) -> bool:
    """Return whether a module passes its layers' weights to a function, as open_clip's attention pool of ResNets."""
    return type(module).__name__ == "AttentionPool2d"


def _is_quantizable(layer: nn.Conv2d) -> bool:
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return plain and layer.weight[0].numel() >= MIN_INPUTS
