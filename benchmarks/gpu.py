"""`python -m benchmarks gpu`: checks of every stage on one CUDA GPU, against the CPU where results must agree.

`run` runs all checks; `check.run_check` runs one of `all_checks`, with a CheckContext that several checks may share."""

import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_checks import chain, encoders, flow, fusion, machine, processes, stages, summary, training
from benchmarks.gpu_checks.check import FAIL, PASS, SEED, SKIP, Check, CheckContext, CheckResult, Measured, run_check
from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.io import yaml_json
from vimoclip.runtime import versions
from vimoclip.runtime.device import select_device, select_precision

REPOSITORY = Path(__file__).resolve().parents[1]
COLUMNS = ("check", "what", "measured", "limit", "status", "seconds")


def all_checks() -> list[Check]:
    """Return all checks in their order: results first, rates last, as late checks are skipped if time is short.

    Estimate for an RTX 3090: three minutes for the results, one for processes, two for rates, one for whole stages."""
    return [
        *machine.CHECKS,
        *encoders.CHECKS,
        *flow.CHECKS,
        *fusion.CHECKS,
        *chain.CHECKS,
        *training.CHECKS,
        *processes.CHECKS,
        *encoders.RATE_CHECKS,
        flow.SHARE_CHECK,
        *fusion.RATE_CHECKS,
        *training.RATE_CHECKS,
        *stages.CHECKS,
        *summary.CHECKS,
        *flow.RATE_CHECKS,
    ]


def run(
    folder: Path, json_path: Path, minutes: float, dry_run: bool, checks: Sequence[Check] | None = None
) -> cli.RunReport:
    """Run the checks (default: all), print a table, and write the results as JSON after each check.

    Returns a report with the checks that failed. Raises UserError without a CUDA GPU, unless `dry_run`."""
    if not (dry_run or torch.cuda.is_available()):
        raise UserError(
            "gpu: this machine has no CUDA GPU that PyTorch can use", "--dry-run runs the checks on the CPU"
        )
    device = select_device("cpu" if dry_run else "cuda")
    header = describe_machine(device, dry_run)
    print("\n".join(f"{name}: {value}" for name, value in header.items()))
    print(format_row(COLUMNS), format_row(["---"] * len(COLUMNS)), sep="\n", flush=True)
    cli.require_creatable_folder(folder, "--inputs-dir")
    for needed in (folder, json_path.parent):
        needed.mkdir(parents=True, exist_ok=True)
    report = cli.RunReport([json_path], unit="check")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        context = CheckContext(device, Path(temporary).resolve(), minutes, dry_run)  # scripts run in other folders
        for check in all_checks() if checks is None else checks:
            result = run_check(check, context)
            print(format_result(result), flush=True)
            write_results(json_path, header, context.results.values())
            report.done += result.status == PASS
            report.skipped |= {check.name: result.reason} if result.status == SKIP else {}
            report.failed |= {check.name: result.reason} if result.status == FAIL else {}
    print(f"{report.done} passed, {len(report.skipped)} skipped, {len(report.failed)} failed; wrote {json_path}")
    return report


def describe_machine(device: torch.device, dry_run: bool) -> dict[str, Any]:
    """Return card, driver, processor, versions, commit and seed."""
    from benchmarks.__main__ import describe_processor

    described: dict[str, Any] = (
        {"mode": "dry run: the CPU takes the place of the GPU, sizes are small"} if dry_run else {}
    )
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        described |= {
            "card": properties.name,
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "driver": first_output_line(query),
            "cuda": torch.version.cuda,
        }
    return described | {
        "processor": describe_processor(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions.package_versions(),
        "commit": first_output_line(["git", "rev-parse", "HEAD"]),
        "automatic_precision": select_precision("auto", device),
        "seed": SEED,
    }


def first_output_line(command: list[str]) -> str | None:
    """Return the first line that a command prints in the repository, None if it can't be run."""
    if not shutil.which(command[0]):
        return None
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    return result.stdout.partition("\n")[0] if result.returncode == 0 else None


def write_results(path: Path, header: dict[str, Any], results: Iterable[CheckResult]) -> None:
    checks = []
    for result in results:
        measured = {name: finite_or_text(value) for name, value in result.measured.items()}
        checks.append(asdict(result) | {"measured": measured})
    yaml_json.write_json(path, {"machine": header, "checks": checks})


def finite_or_text(value: float | str) -> float | str:
    """Return a number as it is, and NaN or infinity as text, since JSON has no such numbers."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def format_result(result: CheckResult) -> str:
    """Return a row of the table."""
    status = f"{result.status}: {result.reason}" if result.reason else result.status
    cells = [result.check, result.what, format_measured(result.measured), result.limit, status, f"{result.seconds:.1f}"]
    return format_row(cell.replace("|", "/") for cell in cells)


def format_measured(measured: Measured) -> str:
    values = {key: value if isinstance(value, str) else f"{value:.4g}" for key, value in measured.items()}
    if "min_centered_cosine" in values:  # four digits would be 1
        values |= {key: f"{measured[key]:.7f}" for key in ("min_cosine", "min_centered_cosine")}
    return ", ".join(f"{key} {value}" for key, value in values.items())


def format_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
