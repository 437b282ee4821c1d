"""The fusion Transformer: RGB and motion embeddings of a video -> logits (paper, section 3.3; published as TFAM).

Every variant has all parameters, under the published names, so that one checkpoint layout serves all variants."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from TFAM.packing import Fusion, Layout, PackedTokens, Padding, Pooling, join_layouts, make_paddings, pads_videos
from vimoclip.errors import UserError
from vimoclip.runtime.cost_estimate import PART_TOKENS
from vimoclip.runtime.onednn import linear

# Products of queries with keys, over all heads, that an attention with dropout on a CPU computes at once and keeps for
# the backward pass (400 MB): 8 videos of 700 frames. More are computed in chunks, and again in the backward pass, which
# takes a third longer.
MAX_PRODUCTS = 2**25


def check_num_heads(d_model: int, num_heads: int) -> None:
    """Raise UserError if num_heads does not divide d_model."""
    if d_model % num_heads:
        raise UserError(
            f"model.num_heads is {num_heads}, which does not divide the embeddings' width {d_model}",
            "use --set model.num_heads=N with a divisor",
        )


class PackedAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention within each video of a packed batch; its parameters and their names are the parent's."""

    def forward(self, x: PackedTokens, context: PackedTokens) -> torch.Tensor:  # type: ignore[override]
        """Return (N, D). x: queries; context: keys and values of the same videos."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        dropout = self.dropout if self.training else 0.0
        if x.padding is not None and context.padding is not None:
            return self._attend_together(x, context, x.padding, context.padding, dropout)
        keys = context.keys()
        if keys is x.x:
            projected = linear(keys, weight, bias).split(width, -1)
        else:
            q = linear(x.x, weight[:width], bias[:width])
            projected = q, *linear(keys, weight[width:], bias[width:]).split(width, -1)
        q, k, v = (
            tokens.unflatten(-1, (self.num_heads, -1)).split(lengths)  # (T, H, D/H) of each video
            for tokens, lengths in zip(projected, (x.lengths, context.key_lengths, context.key_lengths), strict=True)
        )
        # one video at a time: padding to the longest video costs more than fewer calls save
        keeps_products = dropout > 0 and torch.is_grad_enabled() and x.x.device.type != "cuda"
        num_products = self.num_heads * int(np.dot(x.lengths, context.key_lengths))
        attend_to = attend_in_chunks if keeps_products and num_products > MAX_PRODUCTS else attend
        attended = [attend_to(*video, dropout) for video in zip(q, k, v, strict=True)]
        return linear(torch.cat(attended).flatten(-2), self.out_proj.weight, self.out_proj.bias)

    def _attend_together(
        self, x: PackedTokens, context: PackedTokens, padding: Padding, context_padding: Padding, dropout: float
    ) -> torch.Tensor:
        """Return the result of `forward`, from one call of attention for all videos."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        if context.x is x.x:
            q, k, v = padding.pad(linear(x.x, weight, bias)).split(width, -1)
        else:
            sizes = [width, 2 * width]
            (weight_q, weight_kv), (bias_q, bias_kv) = weight.split(sizes), bias.split(sizes)
            q = padding.pad(linear(x.x, weight_q, bias_q))
            k, v = context_padding.pad(linear(context.x, weight_kv, bias_kv)).split(width, -1)
        q, k, v = (tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for tokens in (q, k, v))  # (B, H, T, d)
        attended = F.scaled_dot_product_attention(q, k, v, context_padding.key_bias, dropout)
        return linear(padding.pack(attended.transpose(1, 2).flatten(2)), self.out_proj.weight, self.out_proj.bias)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
    """Return softmax(q k' / sqrt(d)) v of one video: (T, H, d), (S, H, d), (S, H, d) -> (T, H, d)."""
    q, k, v = (tokens.transpose(0, 1)[None] for tokens in (q, k, v))  # (1, H, T, d)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)[0].transpose(0, 1)


def attend_in_chunks(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
    """Return the result of `attend`, for at most MAX_PRODUCTS at once, which the backward pass computes again.

    With dropout PyTorch's attention on a CPU keeps all T x S products, three times: 120 GB for 36,000 frames."""
    chunks = q.split(max(1, MAX_PRODUCTS // (k.shape[0] * k.shape[1])))
    return torch.cat([checkpoint(attend, chunk, k, v, dropout, use_reentrant=False) for chunk in chunks])


def attention_kernels(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which attention on a CUDA GPU isn't computed by cuDNN.

    PyTorch prefers it on an H100, where it takes about 30 ms of the CPU's time for every new length of a batch."""
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(kernels) if device.type == "cuda" else nullcontext()


class OneDNNLinear(nn.Linear):
    """nn.Linear for (N, D) input, through oneDNN on the CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)


class FusionLayer(nn.Module):
    """Post-norm layer: self-attention, cross-attention if there is a second stream, feed-forward."""

    def __init__(self, d_model: int, num_heads: int, dim_feedforward: int, dropout: float, attention_dropout: float):
        super().__init__()
        self.self_attn = PackedAttention(d_model, num_heads, attention_dropout)
        self.cross_attn = PackedAttention(d_model, num_heads, attention_dropout)
        self.ffn = nn.Sequential(
            OneDNNLinear(d_model, dim_feedforward),
            nn.ReLU(),
            nn.Dropout(dropout),
            OneDNNLinear(dim_feedforward, d_model),
            nn.Dropout(dropout),
        )
        self.norm_self = nn.LayerNorm(d_model)
        self.norm_cross = nn.LayerNorm(d_model)
        self.norm_ffn = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: PackedTokens, context: PackedTokens | None = None) -> PackedTokens:
        x = self.norm_self(tokens.x + self.dropout(self.self_attn(tokens, tokens)))
        if context is not None:
            x = self.norm_cross(x + self.dropout(self.cross_attn(tokens._replace(x=x), context)))
        if len(x) <= PART_TOKENS or not torch.is_grad_enabled():
            return tokens._replace(x=self._feed_forward(x))
        # the hidden values of one long video would take most of the memory: the backward pass computes them again
        parts = [checkpoint(self._feed_forward, part, use_reentrant=False) for part in x.split(PART_TOKENS)]
        return tokens._replace(x=torch.cat(parts))

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm_ffn(x + self.ffn(x))  # ffn ends with its own dropout


class FusionTransformer(nn.Module):
    """Logits of a video from its embeddings. Raises UserError if num_heads does not divide d_model."""

    def __init__(
        self,
        d_model: int,
        num_classes: int,
        fusion: str,
        positions: bool,
        pooling: str,
        num_heads: int,
        num_layers: int,
        dim_feedforward: int,
        dropout: float,
        classifier_dropout: float,
        normalize_inputs: bool = False,
        attention_dropout: float | None = None,
    ):
        super().__init__()
        check_num_heads(d_model, num_heads)
        self.fusion, self.positions, self.pooling = Fusion(fusion), positions, Pooling(pooling)
        self.normalize_inputs = normalize_inputs
        attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.projection_layer = nn.Linear(2 * d_model, d_model)
        self.layers = nn.ModuleList(
            FusionLayer(d_model, num_heads, dim_feedforward, dropout, attention_dropout) for _ in range(num_layers)
        )
        self.classifier = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, d_model // 2),
            nn.GELU(),
            nn.Dropout(classifier_dropout),
            nn.Linear(d_model // 2, num_classes),
        )

    def forward(self, rgb: PackedTokens, motion: PackedTokens | None = None) -> torch.Tensor:
        """Return logits (B, C). The concatenations need at least two frames a video.

        Raises ValueError if the variant needs motion and it is None, or `pack` got another pooling."""
        if (rgb.key_mask is None) != (self.pooling == Pooling.MASKED):
            raise ValueError(f"the batch is not packed for pooling {self.pooling}")
        if motion is None and self.fusion != Fusion.RGB:
            raise ValueError(f"fusion {self.fusion} needs motion embeddings")
        fuse = self._fuse_padded if pads_videos(rgb.x.device, rgb.lengths) else self._fuse
        tokens, context = fuse(rgb, motion)
        with attention_kernels(rgb.x.device):
            for layer in self.layers:
                tokens = layer(tokens, context)
        if tokens.padding is None:
            return self.classifier(torch.stack([video.mean(0) for video in tokens.videos()]))
        return self.classifier(tokens.padding.pad(tokens.x).sum(1) / tokens.padding.lengths)

    def _fuse(self, rgb: PackedTokens, motion: PackedTokens | None) -> tuple[PackedTokens, PackedTokens | None]:
        """Return (input of the layers, context of cross-attention or None)."""
        rgb = self._preprocess(rgb)
        if motion is None or self.fusion == Fusion.RGB:
            return rgb, None
        motion = self._preprocess(motion)
        if self.fusion == Fusion.MOTION:
            return motion, None
        if self.fusion == Fusion.CROSS_ATTENTION:
            return rgb, motion
        if self.fusion == Fusion.CONCAT_EMBEDDING:
            return self._project_pairs(torch.cat([video[:-1] for video in rgb.videos()]), motion), None
        return concat_time(rgb, motion), None

    def _fuse_padded(self, rgb: PackedTokens, motion: PackedTokens | None) -> tuple[PackedTokens, PackedTokens | None]:
        """Return the result of `_fuse`, with paddings. What depends on the lengths only is computed here, once."""
        device, dtype = rgb.x.device, rgb.x.dtype
        is_half = torch.is_autocast_enabled(device.type)
        if motion is None or self.fusion == Fusion.RGB:
            streams = [rgb]
        else:
            streams = [motion] if self.fusion == Fusion.MOTION else [rgb, motion]
        layouts, rows = [Layout.of(stream) for stream in streams], np.empty(0, np.int64)
        if self.fusion in (Fusion.CONCAT_EMBEDDING, Fusion.CONCAT_TIME):
            rows, layouts = join_layouts(layouts, self.fusion, rgb.key_mask is not None)
        attention_dtype = torch.get_autocast_dtype(device.type) if is_half else dtype
        paddings, row_index = make_paddings(layouts, rows, device, attention_dtype)
        longest = max(padding.shape[1] for padding in paddings)
        table = sinusoidal_positions(longest, rgb.x.shape[1], device).to(dtype) if self.positions else None
        inputs = [
            self._preprocess(stream._replace(padding=padding), table)
            for stream, padding in zip(streams, paddings, strict=False)
        ]
        if self.fusion == Fusion.CONCAT_EMBEDDING:
            return self._project_pairs(inputs[0].x.index_select(0, row_index), inputs[1]), None
        if self.fusion == Fusion.CONCAT_TIME:
            joined = torch.cat([stream.x for stream in inputs]).index_select(0, row_index)
            return PackedTokens(joined, layouts[2].lengths.tolist(), None, [], paddings[2]), None
        return inputs[0], inputs[1] if self.fusion == Fusion.CROSS_ATTENTION else None

    def _project_pairs(self, frames: torch.Tensor, motion: PackedTokens) -> PackedTokens:
        """Project frame t with the flow from t to t + 1; the last frame has none."""
        pairs = torch.cat([frames, motion.x], -1)
        return motion._replace(x=linear(pairs, self.projection_layer.weight, self.projection_layer.bias))

    def _preprocess(self, tokens: PackedTokens, table: torch.Tensor | None = None) -> PackedTokens:
        """Normalize and add positions, as configured. `table`: of positions, where tokens have paddings."""
        x = tokens.x
        if self.normalize_inputs:
            x = F.normalize(x, dim=-1) * math.sqrt(x.shape[-1])
        if table is not None and tokens.padding is not None:
            x = x + table.index_select(0, tokens.padding.positions)
        elif self.positions:
            table = sinusoidal_positions(max(tokens.lengths), x.shape[1], x.device).to(x.dtype)
            x = x + torch.cat([table[:length] for length in tokens.lengths])
        return tokens._replace(x=x)


def concat_time(rgb: PackedTokens, motion: PackedTokens) -> PackedTokens:
    """Return the frames of each video without the last one, then its flows."""

    def join(frames: torch.Tensor, flows: torch.Tensor) -> torch.Tensor:
        videos = zip(frames.split(rgb.lengths), flows.split(motion.lengths), strict=True)
        return torch.cat([part for frame, flow in videos for part in (frame[:-1], flow)])

    lengths = [2 * length for length in motion.lengths]
    if rgb.key_mask is None or motion.key_mask is None:
        return PackedTokens(join(rgb.x, motion.x), lengths, None, lengths)
    # as published, a padded video keeps its own last frame: padding is dropped in its place
    counts = zip(rgb.key_lengths, motion.lengths, motion.key_lengths, strict=True)
    key_lengths = [min(frames, most) + flows for frames, most, flows in counts]
    return PackedTokens(join(rgb.x, motion.x), lengths, join(rgb.key_mask, motion.key_mask), key_lengths)


def sinusoidal_positions(length: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """Return (length, width) sinusoidal positions: sine in even columns, cosine in odd ones (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, width, 2, device=device).float() * (-math.log(10000.0) / width))
    angles = torch.arange(length, device=device).float()[:, None] * rates
    table = torch.zeros(length, width, device=device)
    table[:, 0::2] = torch.sin(angles)
    table[:, 1::2] = torch.cos(angles)[:, : width // 2]
    return table


def shape_from_state_dict(state: dict[str, torch.Tensor]) -> dict[str, int]:
    """Return the sizes that a state dict determines, without num_heads; empty for another model's state dict."""
    if "classifier.4.weight" not in state or "layers.0.ffn.0.weight" not in state:
        return {}
    return {
        "d_model": state["layers.0.ffn.0.weight"].shape[1],
        "dim_feedforward": state["layers.0.ffn.0.weight"].shape[0],
        "num_layers": len({key.split(".")[1] for key in state if key.startswith("layers.")}),
        "num_classes": state["classifier.4.weight"].shape[0],
    }
