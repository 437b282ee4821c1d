"""Loss functions of MoCLIP and TFAM, and their running means."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from vimoclip.errors import TrainingError

MIN_NORM = 1e-5


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean over time of (B, L, ...) where mask (B, L) is true, as (B, ...); zero if no element is true."""
    mask = mask.reshape(mask.shape + (1,) * (values.dim() - 2))
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp_min(1)


def distillation_loss(predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """Return the mean over segments of the mean over their frames of 1 - cos, or of the squared error (paper, eq. 4).

    predicted, target: (B, L, D); mask: (B, L), true for real frames; mode: cosine or mse."""
    if mode == "cosine":
        norms = predicted.norm(dim=-1).clamp_min(MIN_NORM) * target.norm(dim=-1).clamp_min(MIN_NORM)
        error = 1 - (predicted * target).sum(-1) / norms
    else:
        error = (predicted - target).square().mean(-1)
    return masked_mean(error, mask).mean()


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, class_positive_weight: float) -> torch.Tensor:
    """Return the binary cross-entropy of (B, C) with positive weight `class_positive_weight` + 1 (paper, eq. 5)."""
    weight = torch.full_like(logits, class_positive_weight + 1)
    return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)


def focal_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean of -(1 - p_t)^2 log p_t, with p_t the probability of the true label, in float32.

    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, without alpha: its 0.25 was tuned for boxes, and gives
    positives a third of the weight of negatives."""
    from torchvision.ops import sigmoid_focal_loss

    return sigmoid_focal_loss(logits.float(), targets.float(), alpha=-1, gamma=2, reduction="mean")


def asymmetric_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean of -(1 - p) log p for positives, -q^4 log(1 - q) for negatives, q = max(p - 0.05, 0), in float32.

    Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021, with the defaults of the
    authors' code (gamma_pos 1, gamma_neg 4, clip 0.05). Unlike that code, it is a mean and not a sum, and the gradient
    includes the two factors before the logarithms."""
    logits, targets = logits.float(), targets.float()
    probability = logits.sigmoid()
    shifted = (probability - 0.05).clamp_min(0)
    positive = (1 - probability) * F.logsigmoid(logits)
    negative = shifted**4 * torch.log1p(-shifted)  # shifted is 0.95 at most
    return -(targets * positive + (1 - targets) * negative).mean()


# functions of (logits, targets), both (B, C), by the value of TFAM's `training.loss`
MULTI_LABEL_LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "bce": F.binary_cross_entropy_with_logits,
    "focal": focal_loss,
    "asymmetric": asymmetric_loss,
}


class LossMeter:
    """Running means of losses over items.

    `sums`: total by loss, and "count"; plain Python, so that a run can resume within an epoch."""

    def __init__(self, sums: Mapping[str, float] | None = None):
        self._sums = dict(sums or {})

    @property
    def sums(self) -> dict[str, float]:
        return self._sums

    @property
    def count(self) -> float:
        """Number of items."""
        return self.sums.get("count", 0)

    def add(self, sums: Mapping[str, float]) -> None:
        """Add losses summed over "count" items."""
        for name, total in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + total

    def means(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.sums.items() if name != "count"}


def check_finite(values: torch.Tensor, name: str, videos: Sequence[str], hint: str) -> None:
    """Raise TrainingError with the names of the batch's videos if a value is not finite."""
    if not torch.isfinite(values).all():
        raise TrainingError(f"{name} is not finite at videos {', '.join(dict.fromkeys(videos))}", hint)
