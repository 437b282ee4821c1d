"""The loops as plain functions: one epoch of training, one pass of evaluation."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Sampler

from TFAM.data import Batch, Pairs, collate
from vimoclip import TrainingError, metrics, runs

LOSSES = {"bce": F.binary_cross_entropy_with_logits}
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class EpochOrder(Sampler[int]):
    """Each epoch's own order, whatever was computed before it, without the first `skip` videos."""

    def __init__(self, length: int, seed: int):
        self.length, self.seed, self.epoch, self.skip = length, seed, 0, 0

    def __len__(self) -> int:
        return max(0, self.length - self.skip)  # the last batch may be smaller

    def __iter__(self) -> Iterator[int]:
        return iter(runs.epoch_order(self.length, self.seed, self.epoch)[self.skip :])


def make_loader(pairs: Pairs, batch_size: int, workers: int, order: EpochOrder | None = None) -> DataLoader[Any]:
    """Batches of all videos: none is dropped. The loader's own generator keeps it from the model's random numbers."""
    return DataLoader(
        pairs,
        batch_size,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


@dataclass
class Progress:
    """How far an epoch is: steps done, the sum of their videos' losses, and how many videos these were."""

    steps: int = 0
    loss: float = 0.0
    videos: int = 0


def train_one_epoch(
    model: torch.nn.Module,
    loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    loss_function: Loss,
    device: torch.device,
    precision: str,
    grad_clip_norm: float | None = None,
    on_step: Callable[[float], None] = lambda loss: None,
    progress: Progress | None = None,
) -> float:
    """The mean loss over the epoch's videos; `on_step` is told each step's loss.

    `progress` counts on from what was done of the epoch before the loader's first batch. Raises TrainingError, naming
    the batch's videos, for a loss that isn't finite."""
    model.train()
    progress = progress or Progress()
    for batch in loader:
        with runs.autocast(device, precision):
            logits = model(*batch.inputs(device))
        loss = loss_function(logits.float(), batch.labels.to(device))
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(_not_finite("the loss", batch.videos))
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if grad_clip_norm is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip_norm)
        scaler.step(optimizer)
        scaler.update()
        progress.steps += 1
        progress.loss += value * len(batch.videos)
        progress.videos += len(batch.videos)
        on_step(value)
    return progress.loss / progress.videos


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, loader: Iterable[Batch], loss_function: Loss, device: torch.device, precision: str
) -> dict[str, Any]:
    """Every video once: `videos`, their `probabilities` (N, C), and the `metrics` computed from those.

    Raises TrainingError, naming the batch's videos, for logits that aren't finite."""
    model.eval()
    videos: list[str] = []
    logits, labels = [], []
    for batch in loader:
        with runs.autocast(device, precision):
            logits.append(model(*batch.inputs(device)).float().cpu())
        if not logits[-1].isfinite().all():
            raise TrainingError(_not_finite("a logit", batch.videos))
        videos += batch.videos
        labels.append(batch.labels)
    scores, targets = torch.cat(logits), torch.cat(labels)
    probabilities = scores.sigmoid()
    return {
        "videos": videos,
        "probabilities": probabilities,
        "metrics": {
            "loss": float(loss_function(scores, targets)),
            "map_macro": metrics.map_macro(probabilities, targets),
            "map_micro": metrics.map_micro(probabilities, targets),
            "classes_with_a_positive": int((targets > 0).any(0).sum()),
            "num_videos": len(videos),
        },
    }


def _not_finite(what: str, videos: list[str]) -> str:
    return (
        f"{what} is not finite in the batch of {', '.join(videos)}; look for NaN in their embeddings, "
        "or try a smaller training.lr, training.grad_clip_norm=1 or --precision fp32"
    )
