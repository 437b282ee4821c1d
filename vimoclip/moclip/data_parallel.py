"""The student in several processes: torch's DistributedDataParallel, fed so that they learn as one would."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from vimoclip.moclip import MoCLIP
from vimoclip.moclip.dataset import Batch
from vimoclip.runtime.distributed import Group

MICRO_FRAMES = 32  # on a CPU: ViT-B/32 on 4 x 29 frames takes 0.48 of the memory so, and no more time


class Replicas:
    """The copies of a student, one a process, that learn as one. Called like the student, where gradients are needed.

    `size`: (height, width) of its input; `seed`: from which the random numbers of the others than rank 0 come, step by
    step, so that no state of theirs has to be saved."""

    def __init__(self, model: MoCLIP, group: Group = Group(), size: tuple[int, int] = (0, 0), seed: int = 0):  # noqa: B008
        self.bare, self.group, self.size, self.seed = model, group, size, seed
        self.module: nn.Module = model
        if self.group.size > 1:
            device = next(model.parameters()).device
            _exclude_unused(model, size)
            ids = [device] if device.type == "cuda" else None
            self.module = DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    def __call__(self, images: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.module(images, mask)

    def begin_step(self, number: int) -> None:
        """Random numbers of this process and step."""
        self.group.seed_step(self.seed, number)

    def exchanging(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward: gradients are exchanged with the step's last part."""
        if isinstance(self.module, DistributedDataParallel) and not last:
            return self.module.no_sync()
        return nullcontext()

    def blank(self) -> torch.Tensor:
        """A loss of 0: gives gradients of 0 where this process has no segment of a step, but others have."""
        return _blank(self.module, self.bare, self.size)

    def share_statistics(self) -> None:
        """Rank 0's running means, which each process has of its own batches, for all."""
        own = [buffer for module in _norms(self.bare) for buffer in module.buffers()]
        if self.group.size > 1 and own:
            for mine, shared in zip(own, self.group.share([buffer.cpu() for buffer in own]), strict=True):
                mine.copy_(shared)


def parts(batch: Batch, size: int) -> Iterator[Batch]:
    """A batch in micro-batches of so many segments."""
    for start in range(0, len(batch.keys), size):
        part = slice(start, start + size)
        tensors = (batch.flow[part], batch.z_image[part], batch.mask[part], batch.labels[part])
        yield Batch(*tensors, batch.keys[part], [], batch.indices[part])


def micro_batch_size(given: int | None, model: nn.Module, batch_size: int, flows: int) -> int:
    """Segments (of so many flows) that go through a model at once; by default few on a CPU, all on a GPU.

    All also where the model normalises over the batch: of a part of it that would be something else."""
    if any(norm.training for norm in _norms(model)):
        return batch_size
    few = max(1, MICRO_FRAMES // flows) if next(model.parameters()).device.type == "cpu" else batch_size
    return given or few


def _norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def _exclude_unused(model: MoCLIP, size: tuple[int, int]) -> None:
    """Freeze what no loss depends on (parts of some towers): DistributedDataParallel would wait for its gradient."""
    was_training = [module.training for module in model.modules()]
    model.eval()  # draws no random number, moves no running mean
    _blank(model, model, size).backward()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and parameter.grad is not None)
        parameter.grad = None
    for module, training in zip(model.modules(), was_training, strict=True):
        module.training = training


def _blank(forward: Any, model: MoCLIP, size: tuple[int, int]) -> torch.Tensor:
    """A loss of 0, of one black frame."""
    device = next(model.parameters()).device
    output = forward(torch.zeros(1, 1, 3, *size, device=device), torch.ones(1, 1, dtype=torch.bool, device=device))
    return 0 * (output.predicted.float().sum() + output.logits.float().sum())
