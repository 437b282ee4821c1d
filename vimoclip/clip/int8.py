"""Towers that have no shortcut of their own, in 8 bits: their linear layers and convolutions, one by one."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vimoclip.clip import linear_kernels

LEAST_INPUTS = 32  # of an output: below, as for the three colours of pixels, 8 bits lose much and gain nothing


class Int8Linear(nn.Module):
    """A linear layer in 8 bits."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias  # some towers ask for their type
        self._multiply = linear_kernels.int8(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._multiply(x)


class Int8Convolution(nn.Module):
    """A convolution in 8 bits, as a matrix product over the patches: each has a scale of its own."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer
        self._multiply = linear_kernels.int8(
            layer.weight.detach().flatten(1), None if layer.bias is None else layer.bias.detach()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer: Any = self.layer
        size = x.shape[2:]
        high, wide = (
            (size[i] + 2 * layer.padding[i] - layer.dilation[i] * (layer.kernel_size[i] - 1) - 1) // layer.stride[i] + 1
            for i in range(2)
        )
        patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
        return self._multiply(patches).transpose(1, 2).unflatten(2, (high, wide))


def quantize(tower: nn.Module) -> nn.Module:
    """Replace, in place, what 8 bits do well; attention that takes its weights by itself stays as it is."""
    for name, layer in list(tower.named_children()):
        if isinstance(tower, nn.MultiheadAttention) or (isinstance(layer, nn.Linear) and _is_asked(tower)):
            continue
        if type(layer) is nn.Linear:
            setattr(tower, name, Int8Linear(layer))
        elif type(layer) is nn.Conv2d and _is_plain(layer):
            setattr(tower, name, Int8Convolution(layer))
        else:
            quantize(layer)
    return tower


def _is_asked(tower: nn.Module) -> bool:
    """open_clip's attention over a ResNet's last map hands its layers' weights to a function."""
    return type(tower).__name__ == "AttentionPool2d"


def _is_plain(layer: nn.Conv2d) -> bool:
    usual = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return usual and layer.weight[0].numel() >= LEAST_INPUTS
