"""The processes of one run on one or several machines: torch.distributed, as torchrun starts it.

    torchrun --nproc-per-node 4 extract_embeddings.py
Without torchrun there is one process, and torch.distributed is not initialized."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from vimoclip.errors import UserError
from vimoclip.runtime.device import processes_per_gpu

T = TypeVar("T")
# Timeout of collectives. It must exceed the time for the longest video. torchrun ends all processes as soon as one
# dies, so it only matters for a machine that no longer responds.
TIMEOUT = timedelta(days=2)
_group_numbers = itertools.count()  # of the groups that this process has joined


@dataclass(frozen=True)
class ProcessGroup:
    """Process `rank` of `size`, `local_rank` on its machine. All ranks must call its methods in the same order."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, which prints and writes the files that exist once."""
        return self.rank == 0

    def seed_step(self, seed: int, step: int) -> None:
        """Seed a training step on all ranks but 0, so that checkpoints hold the random state of rank 0 only."""
        if self.rank:
            torch.manual_seed(((seed * 1_000_003 + step) * 65_537 + self.rank) % 2**63)  # torch takes 64 bits

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.gather(None)  # over gloo on the CPU; dist.barrier needs a GPU

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, ordered by rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def claim(self, items: Sequence[T], name: str) -> Iterator[T]:
        """Yield items from a shared work queue: each rank takes the next item when it is free.

        `items` and `name` must be the same on all ranks."""
        if self.size == 1:
            yield from items
            return
        while (index := self.store.add(f"claimed/{name}", 1) - 1) < len(items):
            yield items[index]


def select_backend(device_name: str) -> str:
    """Return the backend of torch.distributed for `--device`: NCCL if no two processes share a GPU, else gloo.

    NCCL refuses two processes on one GPU."""
    has_own_gpu = device_name in ("auto", "cuda") and torch.cuda.is_available() and processes_per_gpu() == 1
    return "cpu:gloo,cuda:nccl" if has_own_gpu else "gloo"


@contextlib.contextmanager
def init_process_group(device_name: str = "auto") -> Iterator[ProcessGroup]:
    """Join the group of torchrun's environment for the block; stdout of all ranks but 0 is discarded.

    `device_name`: value of `--device`."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield ProcessGroup()
        return
    store, rank, size = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    # torchrun keeps the store: without a prefix a second group would connect to addresses of the first
    store = dist.PrefixStore(f"group{next(_group_numbers)}", store)
    store.set(f"backend/{rank}", select_backend(device_name))
    backends = {store.get(f"backend/{other}").decode() for other in range(size)}  # machines may differ
    backend = "gloo" if "gloo" in backends else backends.pop()
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        with open(os.devnull, "w") as devnull, contextlib.ExitStack() as redirect:
            if rank:
                redirect.enter_context(contextlib.redirect_stdout(devnull))
            yield ProcessGroup(rank, size, int(os.environ.get("LOCAL_RANK", 0)), store)
    except UserError as error:
        with contextlib.suppress(RuntimeError):  # the process that holds the store has ended: print the error
            error.is_duplicate = False
            error.is_duplicate = store.add(f"error/{error}", 1) > 1
        raise
    finally:
        dist.destroy_process_group()
