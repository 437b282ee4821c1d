"""Data-parallel training of the student, with the same results as one process with the whole batch."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from vimoclip.moclip import MoCLIP
from vimoclip.moclip.dataset import SegmentBatch
from vimoclip.runtime.distributed import ProcessGroup

# frames per micro-batch on a CPU: ViT-B/32 on 4 x 29 frames then takes 0.48 of the memory and no more time
CPU_MICRO_BATCH_FRAMES = 32


class DistributedStudent:
    """Replica of the student in one process. Call it like the student in the forward passes that need gradients.

    `input_size`: (height, width). `seed` and the step determine the random numbers of all ranks but 0, so that their
    random state need not be saved."""

    def __init__(
        self,
        model: MoCLIP,
        group: ProcessGroup = ProcessGroup(),  # noqa: B008 - immutable
        input_size: tuple[int, int] = (0, 0),
        seed: int = 0,
    ):
        self.model, self.group, self.input_size, self.seed = model, group, input_size, seed
        self.ddp_model: nn.Module = model
        if self.group.size > 1:
            device = next(model.parameters()).device
            _freeze_unused_parameters(model, input_size)
            device_ids = [device] if device.type == "cuda" else None
            self.ddp_model = DistributedDataParallel(model, device_ids=device_ids, gradient_as_bucket_view=True)

    def __call__(self, images: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.ddp_model(images, mask)

    def seed_step(self, step: int) -> None:
        self.group.seed_step(self.seed, step)

    def gradient_sync(self, is_last: bool) -> AbstractContextManager[Any]:
        """Return the context of a micro-batch's two passes: only the step's last micro-batch all-reduces gradients."""
        if isinstance(self.ddp_model, DistributedDataParallel) and not is_last:
            return self.ddp_model.no_sync()
        return nullcontext()

    def zero_loss(self) -> torch.Tensor:
        """Return a loss with zero gradients, for a process that has no segment of a step when others have."""
        return _zero_loss(self.ddp_model, self.model, self.input_size)

    def broadcast_running_stats(self) -> None:
        """Copy rank 0's running means of batch normalisation to all processes."""
        buffers = [buffer for module in _batch_norm_layers(self.model) for buffer in module.buffers()]
        if self.group.size > 1 and buffers:
            rank0_buffers = self.group.broadcast([buffer.cpu() for buffer in buffers])
            for buffer, rank0_buffer in zip(buffers, rank0_buffers, strict=True):
                buffer.copy_(rank0_buffer)


def split_into_micro_batches(batch: SegmentBatch, size: int) -> Iterator[SegmentBatch]:
    """Yield micro-batches of at most `size` segments."""
    for start in range(0, len(batch.keys), size):
        rows = slice(start, start + size)
        tensors = (batch.flow[rows], batch.z_image[rows], batch.mask[rows], batch.labels[rows])
        yield SegmentBatch(*tensors, batch.keys[rows], [], batch.indices[rows])


def resolve_micro_batch_size(requested: int | None, model: nn.Module, batch_size: int, segment_length: int) -> int:
    """Return the segments per micro-batch; by default the whole batch on a GPU, CPU_MICRO_BATCH_FRAMES on a CPU.

    Return the whole batch if the model normalises over it, since micro-batches have other statistics."""
    if any(layer.training for layer in _batch_norm_layers(model)):
        return batch_size
    if requested:
        return requested
    is_cpu = next(model.parameters()).device.type == "cpu"
    return max(1, CPU_MICRO_BATCH_FRAMES // segment_length) if is_cpu else batch_size


def _batch_norm_layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _freeze_unused_parameters(model: MoCLIP, input_size: tuple[int, int]) -> None:
    """Freeze parameters that no loss depends on (some encoders have them): DistributedDataParallel waits for them."""
    was_training = [module.training for module in model.modules()]
    model.eval()  # draws no random numbers and leaves running means unchanged
    _zero_loss(model, model, input_size).backward()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and parameter.grad is not None)
        parameter.grad = None
    for module, training in zip(model.modules(), was_training, strict=True):
        module.training = training


def _zero_loss(forward: Any, model: MoCLIP, input_size: tuple[int, int]) -> torch.Tensor:
    """Return zero times the output for one black frame."""
    device = next(model.parameters()).device
    images = torch.zeros(1, 1, 3, *input_size, device=device)
    output = forward(images, torch.ones(1, 1, dtype=torch.bool, device=device))
    return 0 * (output.predicted.float().sum() + output.logits.float().sum())
