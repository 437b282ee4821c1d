"""Measuring two ways of doing one thing: in one process, on the same inputs, in turn, several times."""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from vimoclip.runtime import cost_estimate


@dataclass
class Row:
    """A line of the table. `plain`, `ours`, `bound`: medians, in `unit`/s; `spread`: of the rounds' ratios.

    `memory_plain`, `memory_ours`: the most bytes beside what the process had before. `goal`: what is to be reached."""

    stage: str
    what: str
    unit: str
    plain: float | None = None
    ours: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    bound: float | None = None
    bound_name: str = ""
    memory_plain: int | None = None
    memory_ours: int | None = None
    goal: str = ""
    note: str = ""

    @property
    def share(self) -> float | None:
        """Of the bound, that is reached."""
        return self.ours / self.bound if self.ours and self.bound else None


def in_turn(work: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Name -> units/s of each round. A callable does its work once and says how many units that was.

    A round takes each once, every other round from the last to the first; one round before them is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in work}
    for number in range(-1, rounds):
        for name in list(work)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            units = work[name]()
            if number >= 0:
                rates[name].append(units / (time.perf_counter() - started))
    return rates


def row(
    stage: str,
    what: str,
    unit: str,
    rates: Mapping[str, list[float]],
    *,
    bound: float | None = None,
    bound_name: str = "",
    memory: tuple[int | None, int | None] = (None, None),
    goal: str = "",
    note: str = "",
) -> Row:
    """A line from what `in_turn` measured of `ours` and, where there is one, of `plain`."""
    plain, ours = rates.get("plain"), rates["ours"]
    made = Row(stage, what, unit, None, median(ours), None, None, bound, bound_name, *memory, goal, note)
    if plain:
        ratios = [mine / theirs for mine, theirs in zip(ours, plain, strict=True)]
        made.plain, made.ratio, made.spread = median(plain), median(ours) / median(plain), (min(ratios), max(ratios))
    return made


def peak_memory(function: Callable[..., Any], *args: Any) -> int:
    """The most bytes that a call takes in a process of its own, beside what that had before it."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell_memory, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__} ended without a result, see above") from None
    finally:
        process.join()


def _tell_memory(sender: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    before = _resident()
    function(*args)
    sender.send(max(0, cost_estimate.memory() - before))
    sender.close()


def _resident() -> int:
    """Bytes that this process has in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def products(rows: int = 2048, inner: int = 1024, columns: int = 2048, times: int = 8) -> Callable[[], float]:
    """Work for `in_turn`: products of float32 matrices by oneDNN, in FLOP; what the machine can do at that moment."""
    import torch

    a, b = torch.randn(rows, inner), torch.randn(columns, inner)

    def work() -> float:
        for _ in range(times):
            torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return 2.0 * times * rows * inner * columns

    return work


def matmul_rate(seconds: float = 1.0) -> float:
    """FLOP/s of such products, now; the best of several."""
    work, best, until = products(), 0.0, time.perf_counter() + seconds
    work()
    while time.perf_counter() < until:
        started = time.perf_counter()
        best = max(best, work() / (time.perf_counter() - started))
    return best


def copy_rate(megabytes: int = 256) -> float:
    """Bytes/s of copying memory, now, by one thread."""
    import numpy as np

    source = np.ones(megabytes * 2**20, np.uint8)
    target, best = np.empty_like(source), 0.0
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        best = max(best, len(source) / (time.perf_counter() - started))
    return best
