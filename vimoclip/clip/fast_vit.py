"""A vision transformer's class token and nothing else: what open_clip's tower computes, for inference only.

Its last block asks for one token alone; scaling of pixels and normalisation are in the weights of the patch embedding,
QuickGELU's factor in those around it (x sigmoid(1.702 x) is silu(1.702 x) / 1.702: one pass over memory, not three)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import nn

from vimoclip.clip.linear_kernels import Linear, MakeLinear
from vimoclip.clip.preprocess import Preprocess

QUICK = 1.702
ACTIVATIONS = (nn.GELU, QuickGELU)


def is_known(visual: nn.Module) -> bool:
    """Whether `ClassToken` computes what this tower does; timm's towers, ResNets and poolers are left to themselves."""
    if type(visual) is not VisionTransformer:
        return False
    blocks = getattr(visual.transformer, "resblocks", ())
    usual = all(type(block) is ResidualAttentionBlock and type(block.mlp.gelu) in ACTIVATIONS for block in blocks)
    pooled = visual.attn_pool is None and visual.pool_type == "tok" and visual.proj is not None
    return usual and pooled and isinstance(visual.patch_dropout, nn.Identity) and len(blocks) > 0


class ClassToken(nn.Module):
    """(n, 3, S, S) uint8 prepared -> (n, D). `linear` makes its matrix products; weights are those of now."""

    def __init__(self, visual: Any, preprocess: Preprocess, linear: MakeLinear):
        super().__init__()
        self.patch_size, self.grid = visual.patch_size, visual.grid_size
        self.embed = linear(*_patch_weights(visual.conv1, preprocess))
        position = visual.positional_embedding.detach()
        self.first, self.others = (visual.class_embedding.detach() + position[0]), position[1:]
        self.before, self.after = visual.ln_pre, visual.ln_post
        blocks = visual.transformer.resblocks
        self.blocks = [_block(block, linear, block is blocks[-1]) for block in blocks]
        self.norms = nn.ModuleList(norm for block in self.blocks for norm in (block.norm_attention, block.norm_mlp))
        self.project = linear(visual.proj.detach().t().contiguous(), None)

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        tokens = self._patches(prepared)
        tokens = torch.cat([self.first.expand(len(tokens), 1, -1), tokens + self.others], 1)
        tokens = self.before(tokens)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        return self.project(self.after(self.blocks[-1](tokens)[:, 0]))

    def _patches(self, prepared: torch.Tensor) -> torch.Tensor:
        (high, wide), (down, across) = self.patch_size, self.grid
        cut = prepared.view(-1, 3, down, high, across, wide).permute(0, 2, 4, 1, 3, 5)
        return self.embed(cut.reshape(-1, down * across, 3 * high * wide).float())


@dataclass(frozen=True)
class Block:
    """A residual block; the last one is for the first token alone, which asks all others."""

    norm_attention: nn.Module
    norm_mlp: nn.Module
    ask: tuple[Linear, ...]  # query, key and value in one; of the last block query, then key and value
    out: Linear
    up: Linear
    act: Callable[[torch.Tensor], torch.Tensor]
    down: Linear
    heads: int

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        normed = self.norm_attention(tokens)
        if len(self.ask) == 1:
            query, key, value = self._heads(self.ask[0](normed), 3)
        else:
            tokens = tokens[:, :1]
            (query,) = self._heads(self.ask[0](normed[:, :1]), 1)
            key, value = self._heads(self.ask[1](normed), 2)
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(seen)
        return tokens + self.down(self.act(self.up(self.norm_mlp(tokens))))

    def _heads(self, joined: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """(n, L, parts * D) -> `parts` of (n, heads, L, D / heads)."""
        return joined.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _block(block: Any, linear: MakeLinear, last: bool) -> Block:
    attention, width = block.attn, block.attn.embed_dim
    weight, bias = attention.in_proj_weight.detach(), attention.in_proj_bias.detach()
    parts = [slice(width), slice(width, None)] if last else [slice(None)]
    quick = QUICK if isinstance(block.mlp.gelu, QuickGELU) else 1.0
    up, down = block.mlp.c_fc, block.mlp.c_proj
    return Block(
        norm_attention=block.ln_1,
        norm_mlp=block.ln_2,
        ask=tuple(linear(weight[rows], bias[rows]) for rows in parts),
        out=linear(*_scaled(attention.out_proj, block.ls_1)),
        up=linear(up.weight.detach() * quick, up.bias.detach() * quick),
        act=(lambda x: F.silu(x, inplace=True)) if quick != 1 else block.mlp.gelu,
        down=linear(*_scaled(down, block.ls_2, 1 / quick)),
        heads=attention.num_heads,
    )


def _scaled(module: nn.Linear, scale: Any, factor: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight, times `factor`, and bias of a linear layer, with the LayerScale behind it."""
    weight, bias = module.weight.detach() * factor, module.bias.detach()
    if isinstance(scale, nn.Identity):
        return weight, bias
    return weight * scale.gamma.detach()[:, None], bias * scale.gamma.detach()


def _patch_weights(conv: nn.Conv2d, preprocess: Preprocess) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3 * P * P) and (N,): of the patch embedding, for pixels of 0..255 instead of normalised ones."""
    kernel = conv.weight.detach().double()
    mean, std = preprocess.mean.to(kernel), preprocess.std.to(kernel)
    weight, bias = kernel / (255 * std), -(kernel * (mean / std)).sum((1, 2, 3))
    return weight.flatten(1).to(conv.weight.dtype), bias.to(conv.weight.dtype)
