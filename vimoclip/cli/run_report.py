"""The result of a run: outputs, status of each video, estimate of --dry-run; as text and as JSON for `--report`."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vimoclip.cli.input_checks import is_main_process, require_creatable_folder
from vimoclip.errors import UserError, escape_line

REPORT_SCHEMA = 1
_REPORT_KEYS = {"schema", "done", "already", "failed"}  # by which a report is recognised


@dataclass(frozen=True)
class CostEstimate:
    """Cost of the remaining work of a run, as --dry-run estimates it.

    `rate`: units per second; None if there was too little work to measure it. `disk_bytes`: of the output;
    `memory_bytes`: peak resident memory of this process; `gpu_memory_bytes`: peak memory that it has reserved on a
    CUDA GPU, 0 without one."""

    units: float
    unit: str
    rate: float | None
    disk_bytes: float
    memory_bytes: float
    gpu_memory_bytes: float = 0.0

    @property
    def seconds(self) -> float | None:
        """Duration of the work; None if the rate is unknown."""
        return 0.0 if not self.units else self.units / self.rate if self.rate else None

    def __str__(self) -> str:
        if self.rate is None or self.seconds is None:
            duration = f"{self.units:.0f} {self.unit}s, too few to estimate the time"
        else:
            work = f"{self.units:.0f} {self.unit}s at {self.rate:.3g} {self.unit}s/s"
            duration = f"about {format_duration(self.seconds)} for {work}"
        gpu = f", {format_bytes(self.gpu_memory_bytes)} of GPU memory" if self.gpu_memory_bytes else ""
        memory = f"{format_bytes(self.memory_bytes)} of memory"
        return f"{duration}; {format_bytes(self.disk_bytes)} of disk, {memory}{gpu}"


def add_estimates(estimates: Sequence[CostEstimate]) -> CostEstimate:
    """Return the total of one or more estimates in one unit, at the mean of the measured rates."""
    measured = [(estimate.units, estimate.seconds) for estimate in estimates if estimate.units and estimate.seconds]
    seconds = sum(seconds for _, seconds in measured)
    return CostEstimate(
        sum(estimate.units for estimate in estimates),
        estimates[0].unit,
        sum(units for units, _ in measured) / seconds if measured else None,
        sum(estimate.disk_bytes for estimate in estimates),
        max(estimate.memory_bytes for estimate in estimates),
        max(estimate.gpu_memory_bytes for estimate in estimates),
    )


@dataclass
class RunReport:
    """The outputs of a run and the status of each video, in this run and earlier ones.

    `done`: number finished in this run; `already_done`: before; `partial`, `skipped`, `failed`: video -> reason;
    `changed`: finished, but the source file was replaced since; `not_retried`: number that failed in an earlier run.
    For --dry-run, `pending`: number to do; `estimate`: their cost, None if it can't be estimated yet. `unit`: what is
    counted."""

    outputs: list[Path] = field(default_factory=list)
    manifests: list[Path] = field(default_factory=list)
    done: int = 0
    already_done: int = 0
    partial: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    not_retried: int = 0
    pending: int | None = None
    estimate: CostEstimate | None = None
    unit: str = "video"

    def merge(self, other: "RunReport") -> None:
        """Add the results of another process or output."""
        for item in fields(self):
            value, added = getattr(self, item.name), getattr(other, item.name)
            if isinstance(value, dict):
                setattr(self, item.name, {**value, **added})
            elif isinstance(value, int | list) and added is not None:
                setattr(self, item.name, value + added)

    def clear(self) -> None:
        """Reset all fields."""
        self.__dict__.update(vars(RunReport()))

    def print(self) -> None:
        """Print the counts, a line per video with a problem, and the outputs."""
        statuses = {"partial": self.partial, "skipped": self.skipped, "failed": self.failed}
        counts = [f"{len(reasons)} {status}" for status, reasons in statuses.items()]
        print(f"{self.done} done, {self.already_done} done already, {', '.join(counts)}", flush=True)
        for status, reasons in statuses.items():
            for video, reason in reasons.items():
                print(escape_line(f"  {status}: {video}: {reason}"))
        for video in self.changed:
            change = f"{video}: was replaced after it was processed; --overwrite processes all videos again"
            print(escape_line(f"  changed: {change}"))
        if self.not_retried:
            print(f"{self.not_retried} failed in an earlier run; --retry-failed tries them again")
        for path in dict.fromkeys((*self.outputs, *filter(Path.exists, self.manifests))):
            print(f"wrote {path}", flush=True)

    def write(self, path: Path | None) -> None:
        """Write the report as JSON on rank 0, if there is a path. Raises OSError."""
        if path is None or not is_main_process():
            return
        from vimoclip.io import yaml_json  # imports yaml, which --help doesn't need

        estimate = self.estimate
        content = vars(self) | {
            "schema": REPORT_SCHEMA,
            "outputs": [str(output) for output in dict.fromkeys(self.outputs)],
            "already": self.already_done,
            "estimate": asdict(estimate) | {"seconds": estimate.seconds} if estimate else None,
        }
        del content["manifests"], content["already_done"]
        yaml_json.write_json(path, content)


class _ReportAction(argparse.Action):
    """Store the path of the report, and delete that of an earlier run, so that a run that ends early leaves none."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        remove_old_report(values)
        setattr(namespace, self.dest, values)


def add_report_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--report",
        action=_ReportAction,
        type=Path,
        default=None,
        metavar="FILE",
        help="write a summary of the run as JSON: what was finished, what was skipped or failed, and why",
    )


def remove_old_report(path: Path | None) -> None:
    """Delete the report of an earlier run, so that a run that ends early leaves none.

    Raises UserError if the path is something else than a report or an empty file, OSError if it can't be deleted."""
    if path is not None and is_main_process():
        require_creatable_folder(path.parent, "--report")
        if os.path.lexists(path) and not _is_report(path):
            raise UserError("is not a report of a run", "name another file with --report", path=path)
        path.unlink(missing_ok=True)


def _is_report(path: Path) -> bool:
    """Return whether a path is a report or an empty file; false for links and devices."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        if file.read(1) not in (b"", b"{"):  # a large file of another kind is not read
            return False
    try:
        return path.stat().st_size == 0 or json.loads(path.read_bytes()).keys() >= _REPORT_KEYS
    except (ValueError, RecursionError):
        return False


def read_estimate(path: Path) -> CostEstimate | None:
    """Return the estimate in a report; None if it has none."""
    estimate = json.loads(path.read_bytes())["estimate"]
    names = {field.name for field in fields(CostEstimate)}  # a report of an earlier version has no gpu_memory_bytes
    return estimate and CostEstimate(**{name: value for name, value in estimate.items() if name in names})


def format_duration(seconds: float) -> str:
    """Format a duration like 40 s, 12 min, 3 h 20 min, 2 days 4 h."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} days {hours % 24} h"


def format_bytes(count: float) -> str:
    """Format a size like 850 KB, 3.2 MB, 1.5 GB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
