"""Measure the speed of each stage, in comparison to a simple implementation and to the limit of the hardware.

    python -m benchmarks                    all stages, about 40 minutes on two cores
    python -m benchmarks start embedding    only these stages
Prints a table per stage and writes all rows as JSON; docs/performance.md explains it. Inputs are created once."""

import argparse
import importlib
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from benchmarks.harness import BenchmarkRow

STAGES = ("start", "reading", "embedding", "flow", "training", "fusion", "scale", "int8_demo")


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "stages", nargs="*", metavar="stage", help=f"stages to measure: {', '.join(STAGES)}; default: all"
    )
    parser.add_argument("--rounds", type=cli.positive_int, default=5, help="repetitions of each measurement")
    parser.add_argument(
        "--inputs-dir", type=Path, default=Path("benchmarks/inputs.cache"), help="folder of the inputs, about 1.5 GB"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results.json"), help="output file")
    return parser


def main(argv: list[str] | None = None) -> list["BenchmarkRow"]:
    args = build_parser().parse_args(argv)
    if unknown := [stage for stage in args.stages if stage not in STAGES]:
        raise UserError(f"{unknown[0]}: is not a stage", f"give some of {', '.join(STAGES)}")
    from benchmarks.inputs import BenchmarkInputs

    inputs, rows = BenchmarkInputs(args.inputs_dir), list["BenchmarkRow"]()
    for stage in args.stages or STAGES:
        print(f"== {stage}", flush=True)
        stage_rows = importlib.import_module(f"benchmarks.{stage}").run(inputs, args.rounds)
        print("\n".join(format_markdown(stage_rows)), flush=True)
        rows += stage_rows
    write_results(args.json, rows)
    return rows


def write_results(path: Path, rows: list["BenchmarkRow"]) -> None:
    """Write the rows as JSON; keep the rows of other stages that the file already contains."""
    import json

    from vimoclip.io import yaml_json
    from vimoclip.runtime import versions

    machine = {
        "processor": processor_name(),
        "python": platform.python_version(),
        "versions": versions.package_versions(),
    }
    previous: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.is_file() else []
    new = [asdict(row) | {"share": row.bound_fraction} for row in rows]
    stages = {row["stage"] for row in new}
    yaml_json.write_json(
        path, {"machine": machine, "rows": [row for row in previous if row["stage"] not in stages] + new}
    )
    print(f"wrote {path}")


def processor_name() -> str:
    """Return `<number of CPUs that this process may use> x <CPU model>`."""
    import os

    model_lines = [text for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith("model name")]
    name = model_lines[0].partition(":")[2].strip() if model_lines else platform.processor()
    return f"{len(os.sched_getaffinity(0))} x {name}"


def format_markdown(rows: list["BenchmarkRow"]) -> list[str]:
    """Return the lines of a Markdown table."""
    header = [
        "stage",
        "what",
        "plain",
        "ours",
        "ratio (spread)",
        "bound",
        "share",
        "peak memory, plain and ours",
        "goal",
    ]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        memory = [f"{m / 1e6:.0f} MB" for m in (row.memory_plain, row.memory_ours) if m is not None]
        lines.append(
            [
                row.stage,
                row.what + (f" ({row.note})" if row.note else ""),
                format_rate(row.plain, row.unit),
                format_rate(row.ours, row.unit),
                format_ratio(row),
                f"{format_rate(row.bound, row.unit)} ({row.bound_name})" if row.bound else "",
                f"{row.bound_fraction:.0%}" if row.bound_fraction else "",
                ", ".join(memory),
                row.goal,
            ]
        )
    return [f"| {' | '.join(cells)} |" for cells in lines]


def format_ratio(row: "BenchmarkRow") -> str:
    """Return our rate divided by the plain one, with its spread."""
    if not row.ratio or not row.spread:
        return ""
    return f"{row.ratio:.2f} ({row.spread[0]:.2f} to {row.spread[1]:.2f})"


def format_rate(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.3g} {unit}/s" if value < 1000 else f"{value:,.0f} {unit}/s"


if __name__ == "__main__":
    cli.run(main)
