"""The loops as plain functions: one epoch of training, one pass of evaluation."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from TFAM.data import Batch, Pairs, collate
from vimoclip import metrics
from vimoclip.errors import TrainingError
from vimoclip.runtime import seeding
from vimoclip.runtime.device import autocast
from vimoclip.runtime.distributed import Group, share_of

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ALONE = Group()


class EpochOrder(Sampler[list[int]]):
    """This process's batches of each epoch's own order, whatever was computed before, without `skip` videos of it."""

    def __init__(self, length: int, seed: int, batch_size: int, group: Group = ALONE):
        self.length, self.seed, self.batch_size, self.group = length, seed, batch_size, group
        self.epoch = self.skip = 0

    def __len__(self) -> int:
        return -(-max(0, self.length - self.skip) // (self.batch_size * self.group.size))  # the last may be smaller

    def __iter__(self) -> Iterator[list[int]]:
        order = seeding.epoch_order(self.length, self.seed, self.epoch)[self.skip :]
        return iter(share_of(order, self.batch_size, self.group.rank, self.group.size))


def in_order(length: int, batch_size: int, group: Group = ALONE) -> list[list[int]]:
    """This process's batches of all videos: those of one process, dealt out in turn."""
    return [batch for batch in share_of(range(length), batch_size, group.rank, group.size) if batch]


def make_loader(pairs: Pairs, batches: EpochOrder | list[list[int]], workers: int) -> DataLoader[Any]:
    """Batches of all videos: none is dropped. The loader's own generator keeps it from the model's random numbers."""
    return DataLoader(
        pairs,
        batch_sampler=batches,
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
    group: Group = ALONE,
    seed: int = 0,
) -> float:
    """The mean loss over the epoch's videos; `on_step` is told each step's loss.

    `progress` counts on from what was done of the epoch before the loader's first batch. A step is of the batches that
    all of the group have at that moment. Raises TrainingError, naming the batch's videos, where a loss isn't finite."""
    model.train()
    progress = progress or Progress()
    for batch in loader:
        group.seed_step(seed, progress.videos)
        inputs = batch if batch.videos else blank(model)
        with autocast(device, precision):
            logits = model(*inputs.inputs(device))
        loss = loss_function(logits.float(), batch.labels.to(device)) if batch.videos else 0 * logits.float().sum()
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(_not_finite("the loss", batch.videos))
        done = group.gather((len(batch.videos), value))
        videos = sum(count for count, _ in done)
        optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel takes the mean over the processes, where that over all videos is meant
        scaler.scale(loss * (len(batch.videos) * group.size / videos)).backward()
        if grad_clip_norm is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip_norm)
        scaler.step(optimizer)
        scaler.update()
        total = sum(count * value for count, value in done)
        progress.steps += 1
        progress.loss += total
        progress.videos += videos
        on_step(total / videos)
    return progress.loss / progress.videos


def blank(model: torch.nn.Module) -> Batch:
    """A video of two zeros: where a process has none of a step, but others have, it must not stand aside."""
    bare: Any = getattr(model, "module", model)  # DistributedDataParallel's
    width = bare.projection_layer.out_features
    rgb, two, one = torch.zeros(1, 2, width), torch.tensor([2]), torch.tensor([1])
    return Batch([], rgb, two, rgb[:, 1:], one, torch.empty(0))


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    loader: Iterable[Batch],
    loss_function: Loss,
    device: torch.device,
    precision: str,
    group: Group = ALONE,
) -> dict[str, Any]:
    """Every video once: `videos`, their `probabilities` and `labels` (N, C), and the `metrics` computed from those.

    Of a group each process has its share (`in_order`), and gets the whole. Raises TrainingError, naming the batch's
    videos, for logits that aren't finite."""
    model.eval()
    # (video, logits, labels), by batch; arrays, as a row of a tensor takes all of it with it to the other processes
    batches: list[list[tuple[str, np.ndarray, np.ndarray]]] = []
    for batch in loader:
        with autocast(device, precision):
            logits = model(*batch.inputs(device)).float().cpu()
        if not logits.isfinite().all():
            raise TrainingError(_not_finite("a logit", batch.videos))
        batches.append(list(zip(batch.videos, logits.numpy(), batch.labels.numpy().copy(), strict=True)))
    gathered = group.gather(batches)
    # the i-th batch of a process is the (rank + i * size)-th of all
    rows = [row for turn in zip_longest(*gathered, fillvalue=[]) for of_one in turn for row in of_one]
    videos = [video for video, _, _ in rows]
    scores, targets = (torch.from_numpy(np.stack([row[column] for row in rows])) for column in (1, 2))
    probabilities = scores.sigmoid()
    return {
        "videos": videos,
        "probabilities": probabilities,
        "labels": targets,
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
