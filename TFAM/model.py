"""The fusion Transformer: RGB and motion embeddings of a video -> logits (paper, section 3.3; published as TFAM).

Every variant has all parameters, under the published names, so that one checkpoint layout serves all variants."""

import math
from enum import StrEnum
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from TFAM.attention import FastDropout, PackedAttention
from vimoclip.errors import UserError
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
    """The tokens of a batch's videos, packed one video after the other.

    With `key_mask` None, all tokens are keys, and `key_lengths` equals `lengths`."""

    x: torch.Tensor  # (N, D)
    lengths: list[int]  # tokens per video
    key_mask: torch.Tensor | None  # (N,) bool: true for tokens that may be attended to
    key_lengths: list[int]  # such tokens per video

    def keys(self) -> torch.Tensor:
        """Return the tokens that may be attended to."""
        return self.x if self.key_mask is None else self.x[self.key_mask]


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
            FastDropout(dropout),
            OneDNNLinear(dim_feedforward, d_model),
            FastDropout(dropout),
        )
        self.norm_self = nn.LayerNorm(d_model)
        self.norm_cross = nn.LayerNorm(d_model)
        self.norm_ffn = nn.LayerNorm(d_model)
        self.dropout = FastDropout(dropout)

    def forward(self, tokens: PackedTokens, context: PackedTokens | None = None) -> PackedTokens:
        x = tokens.x
        attended = self.self_attn(x, tokens.lengths, tokens.keys(), tokens.key_lengths)
        x = self.norm_self(x + self.dropout(attended))
        if context is not None:
            attended = self.cross_attn(x, tokens.lengths, context.keys(), context.key_lengths)
            x = self.norm_cross(x + self.dropout(attended))
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
                f"model.num_heads is {num_heads}, which doesn't divide the embeddings' width {d_model}",
                "give --set model.num_heads=N with an N that does",
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

    def forward(
        self,
        rgb: torch.Tensor,
        rgb_lengths: torch.Tensor,
        motion: torch.Tensor | None = None,
        motion_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits (B, C). rgb (B, T, D), motion (B, T-1, D): zero beyond each video's length (B,).

        The concatenations need at least two frames a video. Raises ValueError if the variant needs motion and it is
        None."""
        tokens, context = self._pack_streams(rgb, rgb_lengths, motion, motion_lengths)
        for layer in self.layers:
            tokens = layer(tokens, context)
        return self.classifier(torch.stack([video.mean(0) for video in tokens.x.split(tokens.lengths)]))

    def _pack_streams(
        self,
        rgb: torch.Tensor,
        rgb_lengths: torch.Tensor,
        motion: torch.Tensor | None,
        motion_lengths: torch.Tensor | None,
    ) -> tuple[PackedTokens, PackedTokens | None]:
        """Return (input of the layers, context of cross-attention or None)."""
        rgb, rgb_padding = self._preprocess(rgb), padding_mask(rgb_lengths, rgb.shape[1])
        if self.fusion == Fusion.RGB:
            return self._pack(rgb, rgb_padding), None
        if motion is None or motion_lengths is None:
            raise ValueError(f"fusion {self.fusion} needs motion embeddings")
        motion, motion_padding = self._preprocess(motion), padding_mask(motion_lengths, motion.shape[1])
        if self.fusion == Fusion.MOTION:
            return self._pack(motion, motion_padding), None
        if self.fusion == Fusion.CROSS_ATTENTION:
            return self._pack(rgb, rgb_padding), self._pack(motion, motion_padding)
        if self.fusion == Fusion.CONCAT_EMBEDDING:
            # frame t with the flow from t to t + 1; the motion mask drops each video's last frame
            tokens = self._pack(torch.cat([rgb[:, :-1], motion], -1), motion_padding)
            return tokens._replace(x=linear(tokens.x, self.projection_layer.weight, self.projection_layer.bias)), None
        if self.pooling == Pooling.MASKED:  # drop each video's own last frame, not the last column of the batch
            rgb_padding = padding_mask(rgb_lengths - 1, rgb.shape[1])
        frames_then_flows = torch.cat([rgb[:, :-1], motion], 1)  # (B, 2(T-1), D)
        return self._pack(frames_then_flows, torch.cat([rgb_padding[:, :-1], motion_padding], 1)), None

    def _pack(self, x: torch.Tensor, padding: torch.Tensor) -> PackedTokens:
        """Pack (B, S, D) without padding; with PADDED_MEAN padding stays, but is masked as a key."""
        lengths = (~padding).sum(1).tolist()
        if self.pooling == Pooling.MASKED:
            return PackedTokens(x[~padding], lengths, None, lengths)
        return PackedTokens(x.flatten(0, 1), [x.shape[1]] * len(x), ~padding.flatten(), lengths)

    def _preprocess(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize and add positions, as configured."""
        if self.normalize_inputs:
            x = F.normalize(x, dim=-1) * math.sqrt(x.shape[-1])
        if self.positions:
            x = x + sinusoidal_positions(x.shape[1], x.shape[2], x.device).to(x.dtype)
        return x


def padding_mask(lengths: torch.Tensor, max_length: int) -> torch.Tensor:
    """Return (B, max_length) bool from (B,) lengths, true beyond each length."""
    return torch.arange(max_length, device=lengths.device)[None] >= lengths[:, None]


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
