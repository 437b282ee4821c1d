"""The processes of one run, on one machine or several: torch.distributed as torchrun starts it.

    torchrun --nproc-per-node 4 extract_embeddings.py
Without torchrun there is one process, and torch.distributed is not touched."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
# Until another process is given up, which may be at a long video. Where one dies torchrun ends all at once; this is for
# a node that falls silent.
PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class Group:
    """Process `rank` of `size`, the `local_rank`-th on its machine. Each method is called by all, in one order."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Any = None

    @property
    def main(self) -> bool:
        """Whether this is the process that prints, and writes what there is one of."""
        return self.rank == 0

    def seed_step(self, seed: int, number: int) -> None:
        """Random numbers of this process and step: so nobody's but rank 0's have to be saved to go on."""
        if self.rank:
            torch.manual_seed(((seed * 1_000_003 + number) * 65_537 + self.rank) % 2**63)  # torch takes 64 bits

    def barrier(self) -> None:
        """Wait for all."""
        self.gather(None)  # over gloo, on the CPU: dist.barrier would want to know a GPU

    def share(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def claim(self, items: Sequence[T], name: str) -> Iterator[T]:
        """Those of the items that fall to this process: each takes the next one when it is ready for it.

        So all end together, however unlike the items or the machines are. `items` and `name` are the same on all."""
        if self.size == 1:
            yield from items
            return
        while (number := self.store.add(f"claimed/{name}", 1) - 1) < len(items):
            yield items[number]


def share_of(order: Sequence[int], batch_size: int, rank: int, size: int) -> list[list[int]]:
    """The batches of one of `size` processes: of each `size * batch_size` items in this order its `batch_size`.

    As many on each rank; where the order ends some may be short, or empty."""
    step = batch_size * size
    first = rank * batch_size
    return [list(order[i + first : i + first + batch_size]) for i in range(0, len(order), step)]


@contextlib.contextmanager
def join() -> Iterator[Group]:
    """The group that torchrun's environment speaks of, left again behind the block; what others print is not shown."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Group()
        return
    store, rank, size = next(iter(dist.rendezvous("env://", timeout=PATIENCE)))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as quiet:
            if rank:
                quiet.enter_context(contextlib.redirect_stdout(nowhere))
            yield Group(rank, size, int(os.environ.get("LOCAL_RANK", 0)), store)
    finally:
        dist.destroy_process_group()
