"""Measure implementations alternately, in one process and on the same inputs, in several rounds."""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

from vimoclip.runtime import cost_estimate

PRODUCT_SHAPE, PRODUCTS = (2048, 1024, 2048), 8  # rows, inner, columns; products per call


@dataclass
class BenchmarkRow:
    """A row of the results. `what`: the measured operation; `plain`, `ours`, `bound`: medians in `unit`/s.

    `spread`: minimum and maximum ratio of the rounds; `memory_plain`, `memory_ours`: peak bytes above those before the
    call; `goal`: the target, as text. The fields are keys of the JSON file."""

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
    def bound_fraction(self) -> float | None:
        """Return `ours / bound`; None without a bound."""
        return self.ours / self.bound if self.ours and self.bound else None


def measure_rates(work: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return name -> units/s of each round. A callable does its work once and returns the number of units.

    Each round calls every callable once, every other round in reverse order. One warm-up round is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in work}
    for number in range(-1, rounds):
        for name in list(work)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            units = work[name]()
            if number >= 0:
                rates[name].append(units / (time.perf_counter() - started))
    return rates


def make_row(
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
) -> BenchmarkRow:
    """Return a row from the rates of `ours` and, if present, of `plain`."""
    plain, ours = rates.get("plain"), rates["ours"]
    result = BenchmarkRow(stage, what, unit, None, median(ours), None, None, bound, bound_name, *memory, goal, note)
    if plain:
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        result.plain, result.ratio, result.spread = (
            median(plain),
            median(ratios),
            (min(ratios), max(ratios)),
        )
    return result


def run_in_process(function: Callable[..., Any], *args: Any) -> Any:
    """Return the result of a call in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def measure_peak_memory(function: Callable[..., Any], *args: Any) -> int:
    """Return the peak bytes of a call in a new process, above those before the call."""
    return run_in_process(_peak_memory_of_call, function, *args)


def _peak_memory_of_call(function: Callable[..., Any], *args: Any) -> int:
    before = _resident_bytes()
    function(*args)
    return max(0, cost_estimate.peak_memory() - before)


def _resident_bytes() -> int:
    """Return the resident bytes of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def product_work(dtype: str = "float32") -> dict[str, Callable[[], float]]:
    """Return callables for `measure_rates`: matrix products, in FLOP, by the libraries that PyTorch has.

    The best of them is the limit of the machine: see `product_bound`."""
    import torch

    rows, inner, columns = PRODUCT_SHAPE
    a, b = (torch.randn(size, inner).to(getattr(torch, dtype)) for size in (rows, columns))

    def repeat(multiply: Callable[[], object]) -> float:
        for _ in range(PRODUCTS):
            multiply()
        return 2.0 * PRODUCTS * rows * inner * columns

    def by_onednn() -> object:
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")

    work = {f"products of {dtype}": lambda: repeat(lambda: torch.nn.functional.linear(a, b))}
    if torch.backends.mkldnn.is_available():
        work[f"products of {dtype} by oneDNN"] = lambda: repeat(by_onednn)
    return work


def product_bound(rates: Mapping[str, list[float]], dtype: str = "float32") -> float:
    """Return the FLOP/s of the faster library of `product_work`."""
    return max(median(values) for name, values in rates.items() if name.startswith(f"products of {dtype}"))


def memory_copy_rate(megabytes: int = 256) -> float:
    """Return the bytes/s of copying memory with one thread: the best of five repetitions."""
    import numpy as np

    source = np.ones(megabytes * 2**20, np.uint8)
    target, best = np.empty_like(source), 0.0
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        best = max(best, len(source) / (time.perf_counter() - started))
    return best
