"""Multi-head attention within each video of a batch, whose videos are packed one after the other, without padding."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from vimoclip.runtime.onednn import linear

WEIGHTS_PER_CHUNK = 2**20  # attention weights computed at a time: they stay in a core's cache


class PackedAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention over packed videos; parameters and their names are those of the parent class."""

    def __init__(self, d_model: int, num_heads: int, dropout: float):
        super().__init__(d_model, num_heads, dropout, batch_first=True)

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, lengths: Sequence[int], context: torch.Tensor, context_lengths: Sequence[int]
    ) -> torch.Tensor:
        """Return (N, D). x (N, D): queries; context (M, D): keys and values of the same videos; lengths: per video."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        if context is x:
            queries, keys, values = linear(x, weight, bias).split(width, -1)
        else:
            queries = linear(x, weight[:width], bias[:width])
            keys, values = linear(context, weight[width:], bias[width:]).split(width, -1)
        q, k, v = (
            projected.unflatten(-1, (self.num_heads, -1)) for projected in (queries, keys, values)
        )  # (N, H, D/H)
        attend = _attend_per_video if x.device.type == "cpu" else _attend_padded
        attended = attend(q, k, v, lengths, context_lengths, self.dropout if self.training else 0.0)
        return linear(attended.flatten(-2), self.out_proj.weight, self.out_proj.bias)


def _attend_per_video(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    lengths: Sequence[int],
    context_lengths: Sequence[int],
    dropout: float,
) -> torch.Tensor:
    """Compute the attention of one video at a time: on a CPU, batching saves nothing."""
    videos = zip(
        queries.split(list(lengths)),
        keys.split(list(context_lengths)),
        values.split(list(context_lengths)),
        strict=True,
    )
    attended = []
    for video in videos:
        q, k, v = (tokens.transpose(0, 1) for tokens in video)  # (H, T, D/H)
        if dropout:
            with torch.autocast("cpu", enabled=False):  # the autograd function computes in float32
                out = _AttentionWithDropout.apply(q.float(), k.float(), v.float(), dropout).to(v.dtype)
        else:
            out = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        attended.append(out.transpose(0, 1))
    return torch.cat(attended)


def _attend_padded(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    lengths: Sequence[int],
    context_lengths: Sequence[int],
    dropout: float,
) -> torch.Tensor:
    """Compute the attention of all videos at once, padded: on a GPU the number of kernel launches dominates."""
    q = pad_sequence(queries.split(list(lengths)), batch_first=True).transpose(1, 2)  # (B, H, T, D/H)
    k, v = (
        pad_sequence(tokens.split(list(context_lengths)), batch_first=True).transpose(1, 2) for tokens in (keys, values)
    )
    positions = torch.arange(k.shape[2], device=k.device)
    key_mask = positions[None] < torch.tensor(list(context_lengths), device=k.device)[:, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask[:, None, None], dropout_p=dropout).transpose(1, 2)
    return torch.cat([video[:length] for video, length in zip(out, lengths, strict=True)])


class _AttentionWithDropout(torch.autograd.Function):
    """dropout(softmax(q k' / sqrt(d))) v: (H, T, d), (H, S, d), (H, S, d) -> (H, T, d).

    Saves the dropout mask, one byte a weight, and computes the weights again in the backward pass (formulas: Dao et
    al., FlashAttention, 2022, section 3.1). On a CPU, torch's attention with dropout takes 3 times as long."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
        mask, scale = dropout_mask((q.shape[0], q.shape[1], k.shape[1]), dropout)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        for chunk in _head_chunks(q, k):
            weights = _attention_weights(q[chunk], k[chunk]).mul_(mask[chunk])
            torch.bmm(weights, v[chunk], out=out[chunk])
        out.mul_(scale)
        ctx.scale = scale
        ctx.save_for_backward(q, k, v, mask, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, mask, out = ctx.saved_tensors
        grad_out = grads[0].contiguous()
        grad_q, grad_k, grad_v = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
        row_sums = (grad_out * out).sum(-1, keepdim=True)  # (H, T, 1)
        for chunk in _head_chunks(q, k):
            weights = _attention_weights(q[chunk], k[chunk])
            dropped = weights * mask[chunk]
            torch.bmm(dropped.transpose(1, 2), grad_out[chunk], out=grad_v[chunk])
            grad_scores = torch.bmm(grad_out[chunk], v[chunk].transpose(1, 2)).mul_(dropped).mul_(ctx.scale)
            grad_scores.addcmul_(weights, row_sums[chunk], value=-1)
            torch.bmm(grad_scores, k[chunk], out=grad_q[chunk])
            torch.bmm(grad_scores.transpose(1, 2), q[chunk], out=grad_k[chunk])
        qk_scale = q.shape[-1] ** -0.5
        return grad_q.mul_(qk_scale), grad_k.mul_(qk_scale), grad_v.mul_(ctx.scale), None


def _head_chunks(q: torch.Tensor, k: torch.Tensor) -> list[slice]:
    """Return slices of heads, with at most WEIGHTS_PER_CHUNK attention weights each (at least one head)."""
    step = max(1, WEIGHTS_PER_CHUNK // (q.shape[1] * k.shape[1]))
    return [slice(start, start + step) for start in range(0, q.shape[0], step)]


def _attention_weights(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return torch.bmm(q, k.transpose(1, 2)).mul_(q.shape[-1] ** -0.5).softmax(-1)


def dropout_mask(shape: Sequence[int], p: float) -> tuple[torch.Tensor, float]:
    """Return (bool tensor, true where an element is kept; the factor for kept elements). p is rounded to 1/65536.

    Draws 16 random bits an element on the CPU, a quarter of what torch's Bernoulli draws."""
    threshold = min(round(p * 2**16), 2**16 - 1)  # for p just below 1 some elements are kept
    count = 1
    for size in shape:
        count *= size
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    return (bits[:count] >= threshold - 2**15).view(*shape), 2**16 / (2**16 - threshold)


class FastDropout(nn.Module):
    """nn.Dropout; on the CPU with `dropout_mask`, as torch's random numbers would cost more than the matmuls."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.p):
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        mask, scale = dropout_mask(x.shape, self.p)
        return x * mask * scale
