"""Batches and optimizer steps of several processes, with the same results as one that has all items of a step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler

from vimoclip.runtime import seeding
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training.checkpoint import TrainState
from vimoclip.training.late_fetch import FiniteCheck, StepLosses

# Calls the function it is given, a model's forward pass, on a dummy input; returns zero times the sum of its outputs
ZeroLoss = Callable[[Callable[..., Any]], torch.Tensor]


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
    batches: EpochBatchSampler | Sequence[list[int]],
    num_workers: int,
    device: torch.device,
    persistent_workers: bool = False,
) -> DataLoader[Any]:
    """Return a DataLoader over `batches` for a model on `device`. `dataset`: with a method `collate`.

    `num_workers`: at most, since a worker per batch is enough.
    Its own generator leaves the global random state unchanged: a run that resumes within an epoch starts the workers
    once more than an uninterrupted run."""
    num_workers = min(num_workers, len(batches))
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        persistent_workers=persistent_workers and num_workers > 0,
        collate_fn=dataset.collate,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )


class ModelReplica:
    """Replica of a model in one process. Call it like the model in the forward passes that need gradients.

    `loss_names`: of the losses of `TrainStep.backward`, in their order; only several processes need them."""

    def __init__(
        self,
        state: TrainState,
        group: ProcessGroup = ProcessGroup(),  # noqa: B008 - immutable
        zero_loss: ZeroLoss = lambda forward: torch.zeros(()),  # a single process needs none
        loss_names: Sequence[str] = (),
    ):
        self.state, self.group, self.zero_loss, self.loss_names = state, group, zero_loss, loss_names
        self.forward: nn.Module = state.model
        if group.size > 1:
            _freeze_unused_parameters(state.model, zero_loss)
            # without device_ids, which would copy inputs that are meant to stay on the CPU
            self.forward = DistributedDataParallel(state.model, gradient_as_bucket_view=True)

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    @contextmanager
    def step(self, count: int) -> Iterator["TrainStep"]:
        """Take an optimizer step at the end of the block, in which `TrainStep.backward` adds up gradients.

        `count`: items of this process; a process without items takes part with zero gradients. There is no step if no
        process has items. Afterwards `losses` of the step are those of all processes; they are not fetched yet."""
        step = TrainStep(self, count, sum(self.group.gather(count)))
        self.state.optimizer.zero_grad(set_to_none=True)
        yield step
        if not step.num_items:
            return
        if not count:
            self.state.scaler.scale(self.zero_loss(self.forward)).backward()
        self.state.update()
        if self.group.size > 1:
            step.losses.reduce(self.loss_names, next(self.state.model.parameters()).device)

    def broadcast_running_stats(self) -> None:
        """Copy rank 0's running means of batch normalisation to all processes."""
        buffers = [buffer for layer in batch_norm_layers(self.state.model) for buffer in layer.buffers()]
        if self.group.size > 1 and buffers:
            rank0_buffers = self.group.broadcast([buffer.cpu() for buffer in buffers])
            for buffer, rank0_buffer in zip(buffers, rank0_buffers, strict=True):
                buffer.copy_(rank0_buffer)


class TrainStep:
    """One step over `num_items` items, `count` of them in this process. `losses`: of this process, later of all."""

    def __init__(self, replica: ModelReplica, count: int, num_items: int):
        self.replica, self.remaining, self.num_items = replica, count, num_items
        self.losses = StepLosses()

    def micro_batch(self, count: int) -> AbstractContextManager[Any]:
        """Return the context of both passes over `count` of the items: only those of the last all-reduce gradients."""
        self.remaining -= count
        forward = self.replica.forward
        return forward.no_sync() if self.remaining and isinstance(forward, DistributedDataParallel) else nullcontext()

    def backward(self, losses: Mapping[str, torch.Tensor], count: int, check: FiniteCheck | None = None) -> None:
        """Add the gradient of "loss", a mean over `count` items, to that of the mean over all items of the step.

        `check` is called with "loss" when `losses` are read."""
        # times the number of processes, over which DistributedDataParallel averages gradients
        loss = losses["loss"] * (count * self.replica.group.size / self.num_items)
        self.losses.add_part(losses, count, check)
        self.replica.state.scaler.scale(loss).backward()


def batch_norm_layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _freeze_unused_parameters(model: nn.Module, zero_loss: ZeroLoss) -> None:
    """Freeze parameters that no loss depends on: DistributedDataParallel waits for their gradients."""
    was_training = [module.training for module in model.modules()]
    model.eval()  # draws no random numbers and leaves running means unchanged
    zero_loss(model).backward()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and parameter.grad is not None)
        parameter.grad = None
    for module, training in zip(model.modules(), was_training, strict=True):
        module.training = training
