"""A check on a GPU: one measurement with its limits, the line of its result, and the state that checks share."""

import gc
import io
import math
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from vimoclip.runtime import seeding
from vimoclip.runtime.device import select_precision

if TYPE_CHECKING:
    from benchmarks.gpu_checks.dataset import GeneratedDataset
    from benchmarks.gpu_checks.stage_inputs import StageInputs

T = TypeVar("T")
SEED = 49
COLLECTED_BYTES = 200e6
PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"
Measured = dict[str, float | str]  # name with unit -> value; "note": text


@dataclass(frozen=True)
class Limit:
    """Bound of a measured value. `dry_run_bound`: of a CPU against itself. `needs_gpu`: a dry run lacks the value.

    `excuse`: name of a measured text, with which a value beyond the bound passes."""

    key: str
    bound: float
    is_maximum: bool
    dry_run_bound: float
    needs_gpu: bool = False
    excuse: str = ""

    def text(self, dry_run: bool) -> str:
        bound = self.dry_run_bound if dry_run else self.bound
        unless = f", unless {self.excuse}" if self.excuse else ""
        return f"{self.key} {'at most' if self.is_maximum else 'at least'} {bound:g}{unless}"

    def holds(self, measured: Mapping[str, float | str], dry_run: bool) -> bool:
        """Return whether the value was measured, is a number and is within the bound."""
        if (dry_run and self.needs_gpu) or self.excuse in measured:
            return True
        value, bound = float(measured.get(self.key, math.nan)), self.dry_run_bound if dry_run else self.bound
        return value <= bound if self.is_maximum else value >= bound


def at_most(key: str, bound: float, dry_run: float | None = None, needs_gpu: bool = False) -> Limit:
    return Limit(key, bound, True, bound if dry_run is None else dry_run, needs_gpu)


def at_least(key: str, bound: float, dry_run: float | None = None, needs_gpu: bool = False, excuse: str = "") -> Limit:
    return Limit(key, bound, False, bound if dry_run is None else dry_run, needs_gpu, excuse)


@dataclass(frozen=True)
class Check:
    """`measure` returns the values of one line; it may raise anything, which fails the line, or CheckSkipped."""

    name: str
    what: str
    measure: Callable[["CheckContext"], Measured]
    limits: tuple[Limit, ...] = ()
    needs_gpu: bool = False


class CheckSkipped(Exception):
    """The check can't be made here; the text is the reason."""


class CheckFailed(Exception):
    """The check failed; the text is the reason."""


@dataclass
class CheckResult:
    """A line of the results. `limit`: the limits in words; `reason`: why the check failed or was skipped."""

    check: str
    what: str
    status: str
    limit: str
    seconds: float
    measured: Measured = field(default_factory=dict)
    reason: str = ""


@dataclass
class CheckContext:
    """State that checks share. `folder`: for temporary files; `minutes`: after which no check starts.

    With `dry_run` the CPU takes the place of the GPU, and sizes are small."""

    device: torch.device
    folder: Path
    minutes: float = math.inf
    dry_run: bool = False
    results: dict[str, CheckResult] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def precision(self) -> str:
        """Precision that the scripts select."""
        return select_precision("auto", self.device)

    def require_fast(self, precision: str) -> None:
        """Raise CheckSkipped for bf16 on a GPU that emulates it."""
        is_gpu = self.device.type == "cuda"
        if precision == "bf16" and is_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise CheckSkipped("this GPU has no bf16")

    def seconds_left(self) -> float:
        return self.minutes * 60 - (time.monotonic() - self.started)

    def pick(self, size: T, dry_run: T) -> T:
        """Return `size`, or the smaller one of a dry run."""
        return dry_run if self.dry_run else size

    @cached_property
    def dataset(self) -> "GeneratedDataset":
        """Data set of short clips, from which the scripts create everything else at first use."""
        from benchmarks.gpu_checks.dataset import GeneratedDataset

        return GeneratedDataset(self.folder / "dataset", self.device, self.dry_run)

    @cached_property
    def stage_inputs(self) -> "StageInputs":
        """Clips from which whole stages are measured."""
        from benchmarks.gpu_checks.stage_inputs import StageInputs

        return StageInputs(self.folder / "stages", self.dry_run)

    def value(self, check: str, key: str) -> float | None:
        """Return a value that an earlier check measured, None if there is none."""
        result = self.results.get(check)
        value = result.measured.get(key) if result else None
        return None if value is None else float(value)


def run_check(check: Check, context: CheckContext) -> CheckResult:
    """Run a check and return its line, which is also added to the results of the context. Raises nothing."""
    started = time.monotonic()
    measured: Measured = {}
    try:
        if check.needs_gpu and context.dry_run:
            raise CheckSkipped("needs a CUDA GPU")
        if context.seconds_left() <= 0:
            raise CheckSkipped(f"the {context.minutes:g} minutes of --minutes are over")
        measured = _measure(check, context)
        exceeded = [limit.text(context.dry_run) for limit in check.limits if not limit.holds(measured, context.dry_run)]
        status, reason = (FAIL, "not " + ", ".join(exceeded)) if exceeded else (PASS, "")
    except CheckSkipped as skipped:
        status, reason = SKIP, str(skipped)
    except (Exception, SystemExit) as error:  # the other checks still run
        text = (str(error).strip().splitlines() or [""])[0]
        status, reason = FAIL, text if isinstance(error, CheckFailed) else f"{type(error).__name__}: {text}"
    limit_text = "; ".join(limit.text(context.dry_run) for limit in check.limits)
    seconds = time.monotonic() - started
    context.results[check.name] = CheckResult(check.name, check.what, status, limit_text, seconds, measured, reason)
    return context.results[check.name]


def _measure(check: Check, context: CheckContext) -> Measured:
    """Return the measured values, with the peak of the GPU's memory."""
    seeding.seed_everything(SEED)
    is_gpu = context.device.type == "cuda"
    if is_gpu:
        if torch.cuda.memory_allocated(context.device) > COLLECTED_BYTES:
            gc.collect()  # takes 0.3 s; ptlflow's models are in reference cycles
        torch.cuda.empty_cache()  # so that a check has all the memory
        torch.cuda.reset_peak_memory_stats(context.device)
    with redirect_stdout(io.StringIO()):  # what the scripts print would interrupt the table
        measured = check.measure(context)
    if is_gpu:  # reserved, which stays after the peaks that flow and training reset
        measured["peak_memory_gb"] = torch.cuda.max_memory_reserved(context.device) / 1e9
    return measured
