"""Results of a device, fetched while it computes the next ones: reading them at once would wait for its queue."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from vimoclip.errors import TrainingError
from vimoclip.runtime.device import FetchFunction, copy_to_host
from vimoclip.training.losses import LossMeter

T = TypeVar("T")
FiniteCheck = Callable[[torch.Tensor], None]  # raises TrainingError, with the names of the batch's videos


def delay_by_one(items: Iterable[T]) -> Iterator[T]:
    """Yield each item after the next one has been made, so that its results can be fetched without a pause."""
    previous: list[T] = []
    for item in items:
        yield from previous
        previous = [item]
    yield from previous


class _Part(NamedTuple):
    """Losses of one backward pass: means over `num_items` items."""

    values: torch.Tensor  # (names,), on the device
    fetch: FetchFunction
    num_items: int
    check: FiniteCheck | None


class StepLosses(LossMeter):
    """Losses of one optimizer step over the items of all processes.

    The first access to `sums` waits for the device. It raises TrainingError if a loss is not finite: the weights are
    invalid from this step on."""

    def __init__(self) -> None:
        super().__init__()
        self._names: Sequence[str] = ()
        self._parts: list[_Part] = []
        self._fetch_total: FetchFunction | None = None  # of all processes: losses by name, and the number of items

    def add_part(self, losses: Mapping[str, torch.Tensor], count: int, check: FiniteCheck | None = None) -> None:
        """Add the losses of a backward pass: means over `count` items of this process. `check` is for the first."""
        self._names = list(losses)
        values = torch.stack([loss.detach() for loss in losses.values()])
        self._parts.append(_Part(values, copy_to_host(values), count, check))

    def reduce(self, names: Sequence[str], device: torch.device) -> None:
        """Add up the losses of all processes on the device, in float64. All of them must call this.

        `names`: of the losses, also for a process that has none."""
        self._names = names
        total = torch.zeros(len(names) + 1, dtype=torch.float64, device=device)
        for part in self._parts:
            total[:-1] += part.values.double() * part.num_items
            total[-1] += part.num_items
        dist.all_reduce(total)
        self._fetch_total = copy_to_host(total)

    @property
    def sums(self) -> dict[str, float]:
        for part in self._parts:
            values = torch.from_numpy(part.fetch())
            if part.check is not None:
                part.check(values[0])
            if self._fetch_total is None:
                sums = {name: value * part.num_items for name, value in zip(self._names, values.tolist(), strict=True)}
                self.add(sums | {"count": part.num_items})
        self._parts.clear()
        if self._fetch_total is not None:
            total, self._fetch_total = self._fetch_total(), None
            if not np.isfinite(total[0]):
                raise TrainingError("the loss of another process is not finite")
            self._sums = dict(zip((*self._names, "count"), total.tolist(), strict=True))
        return self._sums
