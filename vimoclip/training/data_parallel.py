"""Data-parallel optimizer steps, with the same results as one process that has all items of a step."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training.losses import LossMeter
from vimoclip.training.train_state import TrainState

# Calls the function it is given, a model's forward pass, on a dummy input; returns zero times the sum of its outputs
ZeroLoss = Callable[[Callable[..., Any]], torch.Tensor]


class ModelReplica:
    """Replica of a model in one process. Call it like the model in the forward passes that need gradients."""

    def __init__(
        self,
        state: TrainState,
        zero_loss: ZeroLoss,
        group: ProcessGroup = ProcessGroup(),  # noqa: B008 - immutable
    ):
        self.state, self.zero_loss, self.group = state, zero_loss, group
        self.forward: nn.Module = state.model
        if group.size > 1:
            _freeze_unused_parameters(state.model, zero_loss)
            device = next(state.model.parameters()).device
            device_ids = [device] if device.type == "cuda" else None
            self.forward = DistributedDataParallel(state.model, device_ids=device_ids, gradient_as_bucket_view=True)

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    @contextmanager
    def step(self, count: int) -> Iterator["TrainStep"]:
        """Take an optimizer step at the end of the block, in which `TrainStep.backward` adds up gradients.

        `count`: items of this process; a process without items takes part with zero gradients. There is no step if no
        process has items. Afterwards `losses` of the step are those of all processes."""
        step = TrainStep(self, count, sum(self.group.gather(count)))
        self.state.optimizer.zero_grad(set_to_none=True)
        yield step
        if not step.num_items:
            return
        if not count:
            self.state.scaler.scale(self.zero_loss(self.forward)).backward()
        self.state.update()
        losses = self.group.gather(step.losses.sums)
        step.losses = LossMeter()
        for rank_sums in losses:
            step.losses.add(rank_sums)

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
        self.replica, self.remaining, self.num_items, self.losses = replica, count, num_items, LossMeter()

    def micro_batch(self, count: int) -> AbstractContextManager[Any]:
        """Return the context of both passes over `count` of the items: only those of the last all-reduce gradients."""
        self.remaining -= count
        forward = self.replica.forward
        return forward.no_sync() if self.remaining and isinstance(forward, DistributedDataParallel) else nullcontext()

    def backward(self, losses: Mapping[str, torch.Tensor], count: int) -> None:
        """Add the gradient of "loss", a mean over `count` items, to that of the mean over all items of the step."""
        # times the number of processes, over which DistributedDataParallel averages gradients
        loss = losses["loss"] * (count * self.replica.group.size / self.num_items)
        self.replica.state.scaler.scale(loss).backward()
        self.losses.add({name: float(value.detach()) * count for name, value in losses.items()} | {"count": count})


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
