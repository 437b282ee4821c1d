"""Inference of open_clip's vision transformer when only its pooled class token is needed.

Differences from the tower's own forward, all exact up to rounding:
- The last block computes the class token only, which attends to all tokens.
- Division by 255 and normalization are folded into the patch embedding, LayerScale into the layer before it.
- QuickGELU's factor is folded into the layers around it: x sigmoid(1.702 x) = silu(1.702 x) / 1.702, which is one pass
  over memory instead of three."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import nn

from vimoclip.clip.linear_kernels import LinearFactory, LinearFunction
from vimoclip.clip.preprocess import Preprocess

QUICK_GELU_FACTOR = 1.702
SUPPORTED_ACTIVATIONS = (nn.GELU, QuickGELU)


def is_supported(visual: nn.Module) -> bool:
    """Return whether `FoldedViT` can replace a tower; it can't replace timm's towers, ResNets and attention poolers."""
    if type(visual) is not VisionTransformer:
        return False
    blocks = getattr(visual.transformer, "resblocks", ())
    standard_blocks = all(
        type(block) is ResidualAttentionBlock and type(block.mlp.gelu) in SUPPORTED_ACTIVATIONS for block in blocks
    )
    class_token = visual.attn_pool is None and visual.pool_type == "tok" and visual.proj is not None
    return standard_blocks and class_token and isinstance(visual.patch_dropout, nn.Identity) and len(blocks) > 0


class FoldedViT(nn.Module):
    """Preprocessed images (n, 3, S, S) uint8 -> embeddings (n, D).

    All tensors are of `dtype` and on `device`, also the products of the linear layers, which `make_linear` creates from
    their float32 weights. Build it again after a change of `visual`, whose weights are copied in part."""

    def __init__(
        self,
        visual: Any,
        preprocess: Preprocess,
        make_linear: LinearFactory,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.dtype = dtype
        self.patch_size, self.grid_size = visual.patch_size, visual.grid_size
        # pixels around zero: otherwise the rounding of weights to half precision has twice the effect
        self.pixel_offset = 0 if dtype == torch.float32 else 128
        self.patch_embed = make_linear(*_fold_normalization(visual.conv1, preprocess, self.pixel_offset))
        position = visual.positional_embedding.detach()
        self.class_token = (visual.class_embedding.detach() + position[0]).to(device, dtype)
        self.patch_positions = position[1:].to(device, dtype)

        def copy_norm(norm: nn.Module) -> nn.Module:
            return copy.deepcopy(norm).to(device, dtype)

        self.ln_pre, self.ln_post = copy_norm(visual.ln_pre), copy_norm(visual.ln_post)
        blocks = visual.transformer.resblocks
        self.blocks = [_fold_block(block, make_linear, copy_norm, block is blocks[-1]) for block in blocks]
        self.proj = make_linear(visual.proj.detach().t().contiguous(), None)

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        tokens = self._embed_patches(prepared)
        tokens = torch.cat([self.class_token.expand(len(tokens), 1, -1), tokens + self.patch_positions], 1)
        tokens = self.ln_pre(tokens)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        return self.proj(self.ln_post(self.blocks[-1](tokens)[:, 0]))

    def _embed_patches(self, prepared: torch.Tensor) -> torch.Tensor:
        (height, width), (rows, columns) = self.patch_size, self.grid_size
        patches = prepared.view(-1, 3, rows, height, columns, width).permute(0, 2, 4, 1, 3, 5)
        pixels = patches.reshape(-1, rows * columns, 3 * height * width).to(self.dtype)
        return self.patch_embed(pixels.sub_(self.pixel_offset) if self.pixel_offset else pixels)


@dataclass(frozen=True)
class FoldedBlock:
    """A residual attention block. The last block of a tower computes the first token only.

    qkv: one layer for query, key and value; in the last block one for the query, one for key and value."""

    norm1: nn.Module
    norm2: nn.Module
    qkv: tuple[LinearFunction, ...]
    out_proj: LinearFunction
    fc1: LinearFunction
    act: Callable[[torch.Tensor], torch.Tensor]
    fc2: LinearFunction
    num_heads: int

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(tokens)
        if len(self.qkv) == 1:
            query, key, value = self._split_heads(self.qkv[0](normed), 3)
        else:
            tokens = tokens[:, :1]
            (query,) = self._split_heads(self.qkv[0](normed[:, :1]), 1)
            key, value = self._split_heads(self.qkv[1](normed), 2)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.out_proj(attended)
        return tokens + self.fc2(self.act(self.fc1(self.norm2(tokens))))

    def _split_heads(self, projected: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """(n, L, parts * D) -> `parts` tensors of (n, heads, L, D / heads)."""
        return projected.unflatten(2, (parts, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _fold_block(
    block: Any, make_linear: LinearFactory, copy_norm: Callable[[nn.Module], nn.Module], is_last: bool
) -> FoldedBlock:
    attention, width = block.attn, block.attn.embed_dim
    weight, bias = attention.in_proj_weight.detach(), attention.in_proj_bias.detach()
    row_slices = [slice(width), slice(width, None)] if is_last else [slice(None)]
    factor = QUICK_GELU_FACTOR if isinstance(block.mlp.gelu, QuickGELU) else 1.0
    fc1, fc2 = block.mlp.c_fc, block.mlp.c_proj
    return FoldedBlock(
        norm1=copy_norm(block.ln_1),
        norm2=copy_norm(block.ln_2),
        qkv=tuple(make_linear(weight[rows], bias[rows]) for rows in row_slices),
        out_proj=make_linear(*_fold_layer_scale(attention.out_proj, block.ls_1)),
        fc1=make_linear(fc1.weight.detach() * factor, fc1.bias.detach() * factor),
        act=(lambda x: F.silu(x, inplace=True)) if factor != 1 else block.mlp.gelu,
        fc2=make_linear(*_fold_layer_scale(fc2, block.ls_2, 1 / factor)),
        num_heads=attention.num_heads,
    )


def _fold_layer_scale(
    linear: nn.Linear, layer_scale: Any, weight_factor: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (times `weight_factor`) and bias of a linear layer followed by a LayerScale."""
    weight, bias = linear.weight.detach() * weight_factor, linear.bias.detach()
    if isinstance(layer_scale, nn.Identity):
        return weight, bias
    return weight * layer_scale.gamma.detach()[:, None], bias * layer_scale.gamma.detach()


def _fold_normalization(
    conv: nn.Conv2d, preprocess: Preprocess, pixel_offset: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (N, 3 * P * P) and bias (N,) of the patch embedding for pixels in 0..255 minus an offset."""
    kernel = conv.weight.detach().cpu().double()  # on the CPU, as Apple's GPUs have no float64
    mean, std = preprocess.mean.double(), preprocess.std.double()
    weight, bias = kernel / (255 * std), -(kernel * ((mean - pixel_offset / 255) / std)).sum((1, 2, 3))
    return weight.flatten(1).to(conv.weight), bias.to(conv.weight)
