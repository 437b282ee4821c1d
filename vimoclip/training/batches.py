"""Batches of the processes of a run, and the DataLoader that reads them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from vimoclip.runtime import seeding
from vimoclip.runtime.distributed import ProcessGroup


def rank_batches(order: Sequence[int], batch_size: int, group: ProcessGroup) -> list[list[int]]:
    """Return this process's batches: its `batch_size` of each `group.size * batch_size` items in this order.

    Every process has the same number of batches; the last may be short or empty."""
    first = group.rank * batch_size
    return [list(order[i + first : i + first + batch_size]) for i in range(0, len(order), batch_size * group.size)]


def sequential_batches(length: int, batch_size: int, group: ProcessGroup) -> list[list[int]]:
    """Return this process's batches in file order: batch i goes to rank i % size. Empty batches are dropped."""
    return [batch for batch in rank_batches(range(length), batch_size, group) if batch]


class EpochBatchSampler(Sampler[list[int]]):
    """Batches of this process in a random order that depends on the seed and `epoch` only.

    The first `skip` items of the order are omitted: a resumed epoch has trained on them already."""

    def __init__(self, length: int, seed: int, batch_size: int, group: ProcessGroup):
        self.length, self.seed, self.batch_size, self.group = length, seed, batch_size, group
        self.epoch = self.skip = 0

    def __len__(self) -> int:
        return -(-max(0, self.length - self.skip) // (self.batch_size * self.group.size))  # the last may be smaller

    def __iter__(self) -> Iterator[list[int]]:
        order = seeding.epoch_permutation(self.length, self.seed, self.epoch)[self.skip :]
        return iter(rank_batches(order, self.batch_size, self.group))


def make_loader(
    dataset: Any,
    batches: Sampler[list[int]] | Sequence[list[int]],
    num_workers: int,
    device: torch.device,
    persistent_workers: bool = False,
) -> DataLoader[Any]:
    """Return a DataLoader over `batches` for a model on `device`. `dataset`: with a method `collate`.

    Its own generator leaves the global random state unchanged: a run that resumes within an epoch starts the workers
    once more than an uninterrupted run."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        persistent_workers=persistent_workers and num_workers > 0,
        collate_fn=dataset.collate,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
