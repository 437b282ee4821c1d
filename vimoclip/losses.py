"""Losses as pure functions of tensors."""

import torch
import torch.nn.functional as F

MIN_NORM = 1e-5


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over time of (B, L, ...) where mask (B, L) is true: (B, ...). Padding counts in neither sum nor number."""
    mask = mask.reshape(mask.shape + (1,) * (values.dim() - 2))
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp_min(1)


def distillation(predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """Mean over the segments of the mean over their frames of 1 - cos, or of the squared error (paper, eq. 4).

    predicted, target: (B, L, D); mask: (B, L), true for real frames; mode: cosine or mse."""
    if mode == "cosine":
        norms = predicted.norm(dim=-1).clamp_min(MIN_NORM) * target.norm(dim=-1).clamp_min(MIN_NORM)
        error = 1 - (predicted * target).sum(-1) / norms
    elif mode == "mse":
        error = (predicted - target).square().mean(-1)
    else:
        raise ValueError(f"unknown distillation loss {mode!r}")
    return masked_mean(error, mask).mean()


def classification(logits: torch.Tensor, labels: torch.Tensor, class_positive_weight: float) -> torch.Tensor:
    """Binary cross-entropy of (B, C) in which a positive weighs `class_positive_weight` + 1 (paper, eq. 5)."""
    weight = torch.full_like(logits, class_positive_weight + 1)
    return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)
