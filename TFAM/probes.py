"""Probes, the baselines of the fusion Transformer: simple classifiers of the same embeddings; and every model by name.

Padding never counts, also with the pooling padded_mean."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from TFAM.model import FusionTransformer, PackedAttention, attention_kernels, check_num_heads
from TFAM.model import shape_from_state_dict as transformer_shape
from TFAM.packing import Fusion, PackedTokens


class LinearProbe(nn.Module):
    """Logits of a video from the mean of its frames, of its flows, or both: a linear function (TFAM/probe_fit.py)."""

    def __init__(self, d_model: int, num_classes: int, fusion: str):
        super().__init__()
        self.fusion = Fusion(fusion)
        num_streams = len(stream_names(self.fusion))
        self.center: torch.Tensor
        self.register_buffer("center", torch.zeros(num_streams, d_model))  # mean of the training videos
        self.classifier = nn.Linear(num_streams * d_model, num_classes)

    def absent(self, stream: str) -> torch.Tensor:
        """Return a CPU's (D,), the embedding with which a stream does not change the logits."""
        names = stream_names(self.fusion)
        return self.center[names.index(stream)].cpu() if stream in names else torch.zeros(self.center.shape[1])

    def forward(self, rgb: PackedTokens, motion: PackedTokens | None = None) -> torch.Tensor:
        """Return logits (B, C) in float32. Raises ValueError if motion is used and None."""
        with torch.autocast(rgb.x.device.type, enabled=False):  # saves no time, and these are scikit-learn's numbers
            return self.classifier((stream_means(self.fusion, rgb, motion) - self.center).flatten(1))


class AttentiveProbe(nn.Module):
    """Logits of a video from what one learned query attends to among all its frames and flows.

    Each stream has its LayerNorm, whose bias tells the streams apart. No layers: tokens don't see each other. Raises
    UserError if num_heads does not divide d_model."""

    def __init__(self, d_model: int, num_classes: int, num_heads: int, dropout: float):
        super().__init__()
        check_num_heads(d_model, num_heads)
        self.fusion = Fusion.PROBE_ATTENTIVE
        self.norms = nn.ModuleDict({name: nn.LayerNorm(d_model) for name in stream_names(self.fusion)})
        self.query = nn.Parameter(torch.randn(1, d_model) * d_model**-0.5)
        self.attention = PackedAttention(d_model, num_heads, dropout)
        self.classifier = nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, num_classes))

    def forward(self, rgb: PackedTokens, motion: PackedTokens | None = None) -> torch.Tensor:
        """Return logits (B, C). Raises ValueError if motion is None."""
        streams = [
            real_tokens(tokens._replace(x=self.norms[name](tokens.x)))
            for name, tokens in used_streams(self.fusion, rgb, motion).items()
        ]
        videos = [torch.cat(parts) for parts in zip(*streams, strict=True)]
        lengths = [len(video) for video in videos]
        ones = [1] * len(videos)
        queries = PackedTokens(self.query.expand(len(videos), -1), ones, None, ones)
        with attention_kernels(rgb.x.device):
            attended = self.attention(queries, PackedTokens(torch.cat(videos), lengths, None, lengths))
        return self.classifier(attended)


def stream_names(fusion: Fusion) -> list[str]:
    """Return the names of the streams that a model uses: rgb, motion."""
    return [name for name, is_used in (("rgb", fusion.uses_rgb), ("motion", fusion.uses_motion)) if is_used]


def used_streams(fusion: Fusion, rgb: PackedTokens, motion: PackedTokens | None) -> dict[str, PackedTokens]:
    """Return the streams of a batch that a model uses. Raises ValueError if one is None."""
    streams = {"rgb": rgb, "motion": motion}
    used = {name: tokens for name in stream_names(fusion) if (tokens := streams[name]) is not None}
    if len(used) < len(stream_names(fusion)):
        raise ValueError(f"fusion {fusion} needs motion embeddings")
    return used


def real_tokens(tokens: PackedTokens) -> list[torch.Tensor]:
    """Return the tokens of each video, (T, D), without padding, which is at the end."""
    return [video[:count] for video, count in zip(tokens.videos(), tokens.key_lengths, strict=True)]


def stream_means(fusion: Fusion, rgb: PackedTokens, motion: PackedTokens | None) -> torch.Tensor:
    """Return the mean embeddings of each video, (B, S, D), of the S streams that a model uses. Raises ValueError."""
    streams = used_streams(fusion, rgb, motion).values()
    videos = zip(*map(real_tokens, streams), strict=True)
    return torch.stack([torch.stack([tokens.mean(0) for tokens in video]) for video in videos])


def model_settings(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `model` of a config from that of a checkpoint, which has the sizes of its data too."""
    return {key: value for key, value in saved.items() if key not in ("d_model", "num_classes")}


def build_model(config: Mapping[str, Any]) -> FusionTransformer | LinearProbe | AttentiveProbe:
    """Return the model that a run's section `model` describes, with `d_model` and `num_classes`. Raises UserError."""
    fusion, sizes = Fusion(config["fusion"]), (config["d_model"], config["num_classes"])
    if fusion.is_linear_probe:
        return LinearProbe(*sizes, fusion)
    if fusion.is_probe:
        dropout = config.get("attention_dropout")
        return AttentiveProbe(*sizes, config["num_heads"], config["dropout"] if dropout is None else dropout)
    return FusionTransformer(**config)


def shape_from_state_dict(state: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Return the sizes that a state dict determines, without num_heads; empty for another project's state dict."""
    if "center" in state and "classifier.bias" in state:
        return {"d_model": state["center"].shape[1], "num_classes": len(state["classifier.bias"])}
    if "query" in state and "classifier.1.bias" in state:
        return {"d_model": state["query"].shape[1], "num_classes": len(state["classifier.1.bias"])}
    return transformer_shape(dict(state))
