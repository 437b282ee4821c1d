"""Training and evaluation loops of the fusion Transformer."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from TFAM.data import ClipFeatures, FusionBatch, PairedEmbeddings, collate
from vimoclip import metrics
from vimoclip.errors import TrainingError
from vimoclip.runtime import seeding
from vimoclip.runtime.device import autocast
from vimoclip.runtime.distributed import ProcessGroup, rank_batches

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SINGLE_PROCESS = ProcessGroup()


class EpochBatchSampler(Sampler[list[int]]):
    """Batches of this process in a random order that depends on the seed and `epoch` only.

    The first `skip` videos of the order are omitted: a resumed epoch has trained on them already."""

    def __init__(self, length: int, seed: int, batch_size: int, group: ProcessGroup = SINGLE_PROCESS):
        self.length, self.seed, self.batch_size, self.group = length, seed, batch_size, group
        self.epoch = self.skip = 0

    def __len__(self) -> int:
        return -(-max(0, self.length - self.skip) // (self.batch_size * self.group.size))  # the last may be smaller

    def __iter__(self) -> Iterator[list[int]]:
        order = seeding.epoch_permutation(self.length, self.seed, self.epoch)[self.skip :]
        return iter(rank_batches(order, self.batch_size, self.group.rank, self.group.size))


def sequential_batches(length: int, batch_size: int, group: ProcessGroup = SINGLE_PROCESS) -> list[list[int]]:
    """Return the batches of this process in file order: batch i goes to rank i % size. Empty batches are dropped."""
    return [batch for batch in rank_batches(range(length), batch_size, group.rank, group.size) if batch]


def make_loader(
    dataset: PairedEmbeddings, batches: EpochBatchSampler | list[list[int]], num_workers: int
) -> DataLoader[Any]:
    """Return a DataLoader over `batches`. Its own generator leaves the global random state unchanged."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        collate_fn=partial(collate, pooling=dataset.pooling),
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )


@dataclass
class EpochProgress:
    """Progress within an epoch, over all processes. last.pth holds it under these field names."""

    steps: int = 0
    loss: float = 0.0  # sum over videos
    videos: int = 0


def train_one_epoch(
    model: torch.nn.Module,
    loader: Iterable[FusionBatch],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    loss_function: LossFunction,
    device: torch.device,
    precision: str,
    grad_clip_norm: float | None = None,
    after_step: Callable[[float], None] = lambda loss: None,
    progress: EpochProgress | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    seed: int = 0,
) -> float:
    """Train on the loader's batches and return the mean loss over the epoch's videos.

    `progress`: of the part of the epoch before the loader's first batch, updated in place. `after_step`: called with
    the mean loss of each step, over all processes. Raises TrainingError with the names of the batch's videos if a loss
    is not finite."""
    model.train()
    progress = progress or EpochProgress()
    for batch in loader:
        group.seed_step(seed, progress.videos)
        inputs = batch if batch.videos else dummy_batch(model)
        with autocast(device, precision):
            logits = model(*inputs.model_inputs(device))
        loss = loss_function(logits.float(), batch.labels.to(device)) if batch.videos else 0 * logits.float().sum()
        loss_value = loss.item()
        if not math.isfinite(loss_value):
            raise _non_finite_error("the loss", batch.videos)
        counts_and_losses = group.gather((len(batch.videos), loss_value))
        num_videos = sum(count for count, _ in counts_and_losses)
        optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel averages gradients over processes; the factor makes it the mean over videos
        scaler.scale(loss * (len(batch.videos) * group.size / num_videos)).backward()
        if grad_clip_norm is not None:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip_norm)
        scaler.step(optimizer)
        scaler.update()
        loss_sum = sum(count * value for count, value in counts_and_losses)
        progress.steps += 1
        progress.loss += loss_sum
        progress.videos += num_videos
        after_step(loss_sum / num_videos)
    return progress.loss / progress.videos


def dummy_batch(model: torch.nn.Module) -> FusionBatch:
    """Return one video of two zero frames: a process without videos must still take part in DDP's collectives."""
    unwrapped: Any = getattr(model, "module", model)  # of DistributedDataParallel
    rgb = torch.zeros(2, unwrapped.projection_layer.out_features)
    clip = ClipFeatures("", rgb, rgb[1:], torch.empty(0))
    return collate([clip], unwrapped.pooling)


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    loader: Iterable[FusionBatch],
    loss_function: LossFunction,
    device: torch.device,
    precision: str,
    group: ProcessGroup = SINGLE_PROCESS,
) -> dict[str, Any]:
    """Evaluate all videos; return `videos`, `probabilities` (N, C), `labels` (N, C) and `metrics`, on every rank.

    Each process has the batches of `sequential_batches`. Raises TrainingError with the names of the batch's videos if
    logits are not finite."""
    model.eval()
    # per batch: (video, logits, labels); in NumPy, as a pickled row of a tensor carries the tensor's whole storage
    local_batches: list[list[tuple[str, np.ndarray, np.ndarray]]] = []
    for batch in loader:
        with autocast(device, precision):
            logits = model(*batch.model_inputs(device)).float().cpu()
        if not logits.isfinite().all():
            raise _non_finite_error("a logit", batch.videos)
        local_batches.append(list(zip(batch.videos, logits.numpy(), batch.labels.numpy().copy(), strict=True)))
    batches_of_ranks = group.gather(local_batches)
    # batch i of a rank is batch rank + i * size of all
    rows = [row for batches in zip_longest(*batches_of_ranks, fillvalue=[]) for batch in batches for row in batch]
    videos = [video for video, _, _ in rows]
    all_logits, labels = (torch.from_numpy(np.stack([row[column] for row in rows])) for column in (1, 2))
    probabilities = all_logits.sigmoid()
    return {
        "videos": videos,
        "probabilities": probabilities,
        "labels": labels,
        "metrics": {
            "loss": float(loss_function(all_logits, labels)),
            "map_macro": metrics.map_macro(probabilities, labels),
            "map_micro": metrics.map_micro(probabilities, labels),
            "classes_with_a_positive": int((labels > 0).any(0).sum()),
            "num_videos": len(videos),
        },
    }


def _non_finite_error(quantity: str, videos: list[str]) -> TrainingError:
    return TrainingError(
        f"{quantity} is not finite in the batch of {', '.join(videos)}",
        "look for NaN in their embeddings, or try a smaller training.lr, training.grad_clip_norm=1 or --precision fp32",
    )
