"""Attention among the steps of each video, whose videos lie one behind the other in one matrix, without padding."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from vimoclip.runtime.onednn import linear

CHUNK = 2**20  # attention weights at a time: what stays in a core's cache


class Attention(nn.MultiheadAttention):
    """torch's own, with its parameters under their names, over packed videos."""

    def __init__(self, d_model: int, num_heads: int, dropout: float):
        super().__init__(d_model, num_heads, dropout, batch_first=True)

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, x_lengths: Sequence[int], other: torch.Tensor, other_lengths: Sequence[int]
    ) -> torch.Tensor:
        """x (N, D): its videos' steps, each asks the steps of the same video in other (M, D) -> (N, D)."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        if other is x:
            queries, keys, values = linear(x, weight, bias).split(width, -1)
        else:
            queries = linear(x, weight[:width], bias[:width])
            keys, values = linear(other, weight[width:], bias[width:]).split(width, -1)
        heads = [part.unflatten(-1, (self.num_heads, -1)) for part in (queries, keys, values)]  # (N, H, D/H)
        attend = _one_by_one if x.device.type == "cpu" else _padded
        dropout = self.dropout if self.training else 0.0
        attended = attend(heads[0], heads[1], heads[2], x_lengths, other_lengths, dropout)
        return linear(attended.flatten(-2), self.out_proj.weight, self.out_proj.bias)


def _one_by_one(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    lengths: Sequence[int],
    other_lengths: Sequence[int],
    dropout: float,
) -> torch.Tensor:
    """A video after the other: on a CPU nothing is gained by doing several at once."""
    asked = zip(
        queries.split(list(lengths)), keys.split(list(other_lengths)), values.split(list(other_lengths)), strict=True
    )
    attended = []
    for parts in asked:
        q, k, v = (part.transpose(0, 1) for part in parts)  # (H, T, D/H)
        if dropout:
            with torch.autocast("cpu", enabled=False):  # its products are of float32
                out = _DroppedAttention.apply(q.float(), k.float(), v.float(), dropout).to(v.dtype)
        else:
            out = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        attended.append(out.transpose(0, 1))
    return torch.cat(attended)


def _padded(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    lengths: Sequence[int],
    other_lengths: Sequence[int],
    dropout: float,
) -> torch.Tensor:
    """All videos at once, padded only here: on a GPU the number of kernels counts."""
    q = pad_sequence(queries.split(list(lengths)), batch_first=True).transpose(1, 2)  # (B, H, T, D/H)
    k, v = (pad_sequence(part.split(list(other_lengths)), batch_first=True).transpose(1, 2) for part in (keys, values))
    steps = torch.arange(k.shape[2], device=k.device)
    real = steps[None] < torch.tensor(list(other_lengths), device=k.device)[:, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None], dropout_p=dropout).transpose(1, 2)
    return torch.cat([video[:length] for video, length in zip(out, lengths, strict=True)])


class _DroppedAttention(torch.autograd.Function):
    """softmax(q k' / sqrt(d)), of which a share is dropped, times v: (H, T, d), (H, S, d), (H, S, d) -> (H, T, d).

    Only what was kept is remembered, a byte a weight; the weights are computed again in the backward pass (Dao et al.,
    FlashAttention, 2022, section 3.1 has the formulas). Dropping with torch's own attention takes 3 times as long."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
        kept, scale = keep((q.shape[0], q.shape[1], k.shape[1]), dropout)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        for chunk in _heads(q, k):
            weights = _weights(q[chunk], k[chunk]).mul_(kept[chunk])
            torch.bmm(weights, v[chunk], out=out[chunk])
        out.mul_(scale)
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, kept, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, kept, out = ctx.saved_tensors
        grad = grads[0].contiguous()
        of_q, of_k, of_v = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
        sums = (grad * out).sum(-1, keepdim=True)  # (H, T, 1)
        for chunk in _heads(q, k):
            weights = _weights(q[chunk], k[chunk])
            dropped = weights * kept[chunk]
            torch.bmm(dropped.transpose(1, 2), grad[chunk], out=of_v[chunk])
            of_weights = torch.bmm(grad[chunk], v[chunk].transpose(1, 2)).mul_(dropped).mul_(ctx.scale)
            of_weights.addcmul_(weights, sums[chunk], value=-1)
            torch.bmm(of_weights, k[chunk], out=of_q[chunk])
            torch.bmm(of_weights.transpose(1, 2), q[chunk], out=of_k[chunk])
        root = q.shape[-1] ** -0.5
        return of_q.mul_(root), of_k.mul_(root), of_v.mul_(ctx.scale), None


def _heads(q: torch.Tensor, k: torch.Tensor) -> list[slice]:
    """As many heads at a time as there is room for."""
    step = max(1, CHUNK // (q.shape[1] * k.shape[1]))
    return [slice(start, start + step) for start in range(0, q.shape[0], step)]


def _weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return torch.bmm(q, k.transpose(1, 2)).mul_(q.shape[-1] ** -0.5).softmax(-1)


def keep(shape: Sequence[int], dropout: float) -> tuple[torch.Tensor, float]:
    """(bool: what isn't dropped; what the rest is multiplied with). The share is a multiple of 1/65536.

    From 16 random bits an element, a quarter of what torch's Bernoulli draws."""
    threshold = min(round(dropout * 2**16), 2**16 - 1)  # of a share just below 1 something stays
    count = 1
    for size in shape:
        count *= size
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    return (bits[:count] >= threshold - 2**15).view(*shape), 2**16 / (2**16 - threshold)


class Dropout(nn.Module):
    """As nn.Dropout, whose random numbers cost more than the products beside them on a CPU."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.share):
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.share)
        kept, scale = keep(x.shape, self.share)
        return x * kept * scale
