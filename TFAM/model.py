"""The fusion Transformer: a video's RGB and motion embeddings -> its logits (paper, section 3.3; published as TFAM).

Every variant has every parameter, named as published, so that one checkpoint layout serves them all."""

import math
from enum import StrEnum
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from TFAM.attention import Attention, Dropout
from vimoclip.errors import UserError
from vimoclip.runtime.onednn import linear


class Fusion(StrEnum):
    """What the layers see."""

    RGB = "rgb"
    MOTION = "motion"
    CONCAT_EMBEDDING = "concat_embedding"  # frame and flow side by side, 2D projected to D
    CONCAT_TIME = "concat_time"  # all frames, then all flows
    CROSS_ATTENTION = "cross_attention"  # frames ask, flows answer


class Pooling(StrEnum):
    """What the mean over time is taken over."""

    MASKED = "masked"  # real steps: a video's logits are the same alone and in any batch
    PADDED_MEAN = "padded_mean"  # padding too, as published: logits depend on the batch


class Steps(NamedTuple):
    """The steps of all videos of a batch, one behind the other: x (N, D), of which each video has so many.

    `real` (N,): which of them others may attend to, `real_lengths` how many of each video; all, where it is None."""

    x: torch.Tensor
    lengths: list[int]
    real: torch.Tensor | None
    real_lengths: list[int]

    def keys(self) -> torch.Tensor:
        """What is attended to."""
        return self.x if self.real is None else self.x[self.real]


class Linear(nn.Linear):
    """As nn.Linear, of (N, D)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)


class FusionLayer(nn.Module):
    """Post-norm layer: self-attention, then cross-attention where there is a second stream, then feed-forward."""

    def __init__(self, d_model: int, num_heads: int, dim_feedforward: int, dropout: float, attention_dropout: float):
        super().__init__()
        self.self_attn = Attention(d_model, num_heads, attention_dropout)
        self.cross_attn = Attention(d_model, num_heads, attention_dropout)
        self.ffn = nn.Sequential(
            Linear(d_model, dim_feedforward),
            nn.ReLU(),
            Dropout(dropout),
            Linear(dim_feedforward, d_model),
            Dropout(dropout),
        )
        self.norm_self = nn.LayerNorm(d_model)
        self.norm_cross = nn.LayerNorm(d_model)
        self.norm_ffn = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, steps: Steps, other: Steps | None = None) -> Steps:
        x = steps.x
        attended = self.self_attn(x, steps.lengths, steps.keys(), steps.real_lengths)
        x = self.norm_self(x + self.dropout(attended))
        if other is not None:
            attended = self.cross_attn(x, steps.lengths, other.keys(), other.real_lengths)
            x = self.norm_cross(x + self.dropout(attended))
        return steps._replace(x=self.norm_ffn(x + self.ffn(x)))  # the last dropout is the feed-forward's own


class FusionTransformer(nn.Module):
    """Logits of a video from its embeddings. Raises UserError where the heads don't divide the width."""

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
        of_attention = dropout if attention_dropout is None else attention_dropout
        self.projection_layer = nn.Linear(2 * d_model, d_model)
        self.layers = nn.ModuleList(
            FusionLayer(d_model, num_heads, dim_feedforward, dropout, of_attention) for _ in range(num_layers)
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
        """rgb (B, T, D), motion (B, T-1, D), zeros beyond each video's length (B,) -> logits (B, C).

        The concatenations need two frames a video. Raises ValueError where the variant needs motion and has none."""
        steps, other = self._streams(rgb, rgb_lengths, motion, motion_lengths)
        for layer in self.layers:
            steps = layer(steps, other)
        return self.classifier(torch.stack([video.mean(0) for video in steps.x.split(steps.lengths)]))

    def _streams(
        self,
        rgb: torch.Tensor,
        rgb_lengths: torch.Tensor,
        motion: torch.Tensor | None,
        motion_lengths: torch.Tensor | None,
    ) -> tuple[Steps, Steps | None]:
        """What the layers see; with cross-attention also the stream that they attend to."""
        rgb, rgb_padding = self._placed(rgb), padding_mask(rgb_lengths, rgb.shape[1])
        if self.fusion == Fusion.RGB:
            return self._packed(rgb, rgb_padding), None
        if motion is None or motion_lengths is None:
            raise ValueError(f"fusion {self.fusion} needs motion embeddings")
        motion, motion_padding = self._placed(motion), padding_mask(motion_lengths, motion.shape[1])
        if self.fusion == Fusion.MOTION:
            return self._packed(motion, motion_padding), None
        if self.fusion == Fusion.CROSS_ATTENTION:
            return self._packed(rgb, rgb_padding), self._packed(motion, motion_padding)
        if self.fusion == Fusion.CONCAT_EMBEDDING:
            # frame t with the flow that starts there; the flows' mask leaves out each video's last frame
            steps = self._packed(torch.cat([rgb[:, :-1], motion], -1), motion_padding)
            return steps._replace(x=linear(steps.x, self.projection_layer.weight, self.projection_layer.bias)), None
        if self.pooling == Pooling.MASKED:  # each video's own last frame goes, not the batch's last column
            rgb_padding = padding_mask(rgb_lengths - 1, rgb.shape[1])
        both = torch.cat([rgb[:, :-1], motion], 1)  # (B, 2(T-1), D)
        return self._packed(both, torch.cat([rgb_padding[:, :-1], motion_padding], 1)), None

    def _packed(self, x: torch.Tensor, padding: torch.Tensor) -> Steps:
        """(B, S, D) without its padding; with it where the mean is to be over that too, though nobody attends to it."""
        lengths = (~padding).sum(1).tolist()
        if self.pooling == Pooling.MASKED:
            return Steps(x[~padding], lengths, None, lengths)
        return Steps(x.flatten(0, 1), [x.shape[1]] * len(x), ~padding.flatten(), lengths)

    def _placed(self, x: torch.Tensor) -> torch.Tensor:
        if self.normalize_inputs:
            x = F.normalize(x, dim=-1) * math.sqrt(x.shape[-1])
        return x + sinusoids(x.shape[1], x.shape[2], x.device).to(x.dtype) if self.positions else x


def padding_mask(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """(B,) lengths -> (B, steps), true beyond each length."""
    return torch.arange(steps, device=lengths.device)[None] >= lengths[:, None]


def sinusoids(steps: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """(steps, width) sinusoidal positions from 0: sine in even columns, cosine in odd ones (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, width, 2, device=device).float() * (-math.log(10000.0) / width))
    angles = torch.arange(steps, device=device).float()[:, None] * rates
    table = torch.zeros(steps, width, device=device)
    table[:, 0::2] = torch.sin(angles)
    table[:, 1::2] = torch.cos(angles)[:, : width // 2]
    return table


def shape_of(state: dict[str, torch.Tensor]) -> dict[str, int]:
    """What the tensors of a state dict say about their model; the number of heads isn't among it."""
    if "classifier.4.weight" not in state or "layers.0.ffn.0.weight" not in state:
        return {}
    return {
        "d_model": state["layers.0.ffn.0.weight"].shape[1],
        "dim_feedforward": state["layers.0.ffn.0.weight"].shape[0],
        "num_layers": len({key.split(".")[1] for key in state if key.startswith("layers.")}),
        "num_classes": state["classifier.4.weight"].shape[0],
    }
