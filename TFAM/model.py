"""The fusion Transformer: RGB and motion embeddings of a video -> logits (paper, section 3.3; published as TFAM).

Every variant has all parameters, under the published names, so that one checkpoint layout serves all variants."""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from vimoclip.errors import UserError
from vimoclip.runtime.device import copy_to_device
from vimoclip.runtime.onednn import linear


class Fusion(StrEnum):
    """Input of the layers."""

    RGB = "rgb"
    MOTION = "motion"
    CONCAT_EMBEDDING = "concat_embedding"  # frame and flow concatenated along the width, projected from 2D to D
    CONCAT_TIME = "concat_time"  # all frames, then all flows
    CROSS_ATTENTION = "cross_attention"  # RGB frames are queries, motion keys and values


class Pooling(StrEnum):
    """Tokens that the mean over time includes."""

    MASKED = "masked"  # without padding: logits do not depend on the batch
    PADDED_MEAN = "padded_mean"  # with padding, as published: logits depend on the batch


class PackedTokens(NamedTuple):
    """Tokens of B videos, one video after the other."""

    x: torch.Tensor  # (N, D)
    lengths: list[int]  # tokens per video
    key_mask: torch.Tensor | None  # (N,) bool: false for padding, which is no key of attention; None: no padding
    key_lengths: list[int]  # keys per video

    def videos(self) -> tuple[torch.Tensor, ...]:
        """Return the tokens of each video: (T, D)."""
        return self.x.split(self.lengths)

    def keys(self) -> torch.Tensor:
        """Return the tokens that are no padding."""
        return self.x if self.key_mask is None else self.x[self.key_mask]

    def to(self, device: torch.device) -> "PackedTokens":
        """Return the tokens on a device."""
        key_mask = None if self.key_mask is None else copy_to_device(self.key_mask, device)
        return self._replace(x=copy_to_device(self.x, device), key_mask=key_mask)


def pack(videos: Sequence[torch.Tensor], pooling: str = Pooling.MASKED) -> PackedTokens:
    """Pack (T, D) embeddings of each video. PADDED_MEAN first pads all videos to the longest with zeros."""
    lengths = [len(video) for video in videos]
    if pooling == Pooling.MASKED:
        return PackedTokens(torch.cat(list(videos)), lengths, None, lengths)
    padded = pad_sequence(list(videos), batch_first=True)  # (B, T, D)
    key_mask = torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]
    return PackedTokens(padded.flatten(0, 1), [padded.shape[1]] * len(lengths), key_mask.flatten(), lengths)


class PackedAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention within each video of a packed batch; its parameters and their names are the parent's."""

    def forward(self, x: PackedTokens, context: PackedTokens) -> torch.Tensor:  # type: ignore[override]
        """Return (N, D). x: queries; context: keys and values of the same videos."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
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
        dropout = self.dropout if self.training else 0.0
        # one video at a time: padding to the longest video costs more than fewer calls save
        attended = [attend(*video, dropout) for video in zip(q, k, v, strict=True)]
        return linear(torch.cat(attended).flatten(-2), self.out_proj.weight, self.out_proj.bias)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
    """Return softmax(q k' / sqrt(d)) v of one video: (T, H, d), (S, H, d), (S, H, d) -> (T, H, d)."""
    q, k, v = (tokens.transpose(0, 1)[None] for tokens in (q, k, v))  # (1, H, T, d)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)[0].transpose(0, 1)


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
        return tokens._replace(x=self.norm_ffn(x + self.ffn(x)))  # ffn ends with its own dropout


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
        if d_model % num_heads:
            raise UserError(
                f"model.num_heads is {num_heads}, which does not divide the embeddings' width {d_model}",
                "use --set model.num_heads=N with a divisor",
            )
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
        tokens, context = self._fuse(rgb, motion)
        for layer in self.layers:
            tokens = layer(tokens, context)
        return self.classifier(torch.stack([video.mean(0) for video in tokens.videos()]))

    def _fuse(self, rgb: PackedTokens, motion: PackedTokens | None) -> tuple[PackedTokens, PackedTokens | None]:
        """Return (input of the layers, context of cross-attention or None)."""
        rgb = self._preprocess(rgb)
        if self.fusion == Fusion.RGB:
            return rgb, None
        if motion is None:
            raise ValueError(f"fusion {self.fusion} needs motion embeddings")
        motion = self._preprocess(motion)
        if self.fusion == Fusion.MOTION:
            return motion, None
        if self.fusion == Fusion.CROSS_ATTENTION:
            return rgb, motion
        if self.fusion == Fusion.CONCAT_EMBEDDING:  # frame t with the flow from t to t + 1; the last frame has none
            pairs = torch.cat([torch.cat([video[:-1] for video in rgb.videos()]), motion.x], -1)
            return motion._replace(x=linear(pairs, self.projection_layer.weight, self.projection_layer.bias)), None
        return concat_time(rgb, motion), None

    def _preprocess(self, tokens: PackedTokens) -> PackedTokens:
        """Normalize and add positions, as configured."""
        x = tokens.x
        if self.normalize_inputs:
            x = F.normalize(x, dim=-1) * math.sqrt(x.shape[-1])
        if self.positions:
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
