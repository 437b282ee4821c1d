"""Measure the speed of each stage, in comparison to a simple implementation and to the limit of the hardware.

    python -m benchmarks                    all stages, about 40 minutes on two cores
    python -m benchmarks start embedding    only these stages
    python -m benchmarks gpu                checks on one CUDA GPU, at most 9 minutes; not among "all stages"
Prints the processor and a table per stage, and writes all rows as JSON, beside those of other processors;
docs/performance.md explains it. Inputs are created once."""

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
GPU_STAGE = "gpu"  # has its own table and its own flags, so it runs alone
DEFAULT_ROUNDS, DEFAULT_MINUTES = 5, 8.0  # a check that starts last takes less than a minute


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "stages",
        nargs="*",
        metavar="stage",
        help=f"stages to measure: {', '.join(STAGES)}, or {GPU_STAGE} alone; default: all but {GPU_STAGE}",
    )
    rounds_help = f"repetitions of each measurement; default: {DEFAULT_ROUNDS}; not for {GPU_STAGE}"
    parser.add_argument("--rounds", type=cli.positive_int, default=None, help=rounds_help)
    inputs_help = f"folder of the inputs, about 1.5 GB; for {GPU_STAGE}, of temporary files"
    parser.add_argument("--inputs-dir", type=Path, default=Path("benchmarks/inputs.cache"), help=inputs_help)
    json_help = f"output file; default: benchmarks/results.json, for {GPU_STAGE} benchmarks/results_gpu.json"
    parser.add_argument("--json", type=Path, default=None, help=json_help)
    group = parser.add_argument_group(f"only for {GPU_STAGE}")
    minutes_help = f"no check starts later; default: {DEFAULT_MINUTES:g}"
    group.add_argument("--minutes", type=cli.positive_float, default=None, help=minutes_help)
    dry_run_help = "run at small sizes, with the CPU in the place of the GPU, to try the checks themselves"
    group.add_argument("--dry-run", action="store_true", help=dry_run_help)
    return parser


def main(argv: list[str] | None = None) -> "list[BenchmarkRow] | cli.RunReport":
    """Return the rows of the stages; for `gpu` a report with the checks that failed. Raises UserError."""
    args = build_parser().parse_args(argv)
    check_arguments(args)
    if args.stages == [GPU_STAGE]:
        from benchmarks import gpu

        json_path = args.json or Path("benchmarks/results_gpu.json")
        return gpu.run(args.inputs_dir, json_path, args.minutes or DEFAULT_MINUTES, args.dry_run)
    return run_stages(args)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError for unknown stages, and for flags that do not belong to them."""
    if unknown := [stage for stage in args.stages if stage not in (*STAGES, GPU_STAGE)]:
        raise UserError(f"{unknown[0]}: is not a stage", f"give some of {', '.join(STAGES)}, or {GPU_STAGE}")
    if GPU_STAGE in args.stages and len(args.stages) > 1:
        raise UserError(f"{GPU_STAGE} runs alone", "remove the other stages")
    unused = ("rounds",) if GPU_STAGE in args.stages else ("minutes", "dry_run")
    for name in unused:
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} has no effect on these stages", "remove the flag")


def run_stages(args: argparse.Namespace) -> list["BenchmarkRow"]:
    """Measure the stages, print a table of each, and write all rows."""
    from benchmarks.inputs import BenchmarkInputs

    print(describe_processor(), flush=True)
    rounds = args.rounds or DEFAULT_ROUNDS
    inputs, rows = BenchmarkInputs(args.inputs_dir), list["BenchmarkRow"]()
    for stage in args.stages or STAGES:
        print(f"== {stage}", flush=True)
        stage_rows = importlib.import_module(f"benchmarks.{stage}").run(inputs, rounds)
        print("\n".join(format_markdown(stage_rows)), flush=True)
        rows += stage_rows
    write_results(args.json or Path("benchmarks/results.json"), rows)
    return rows


def write_results(path: Path, rows: list["BenchmarkRow"]) -> None:
    """Write the rows of this machine as JSON; keep those of other machines, and of other stages."""
    import json

    from vimoclip.io import yaml_json
    from vimoclip.runtime import versions

    machine = {
        "processor": describe_processor(),
        "python": platform.python_version(),
        "versions": versions.package_versions(),
    }
    previous = json.loads(path.read_text()).get("results", []) if path.is_file() else []
    new = [asdict(row) | {"share": row.bound_fraction} for row in rows]
    yaml_json.write_json(path, {"results": merge_results(previous, machine, new)})
    print(f"wrote {path}")


def merge_results(
    results: list[dict[str, Any]], machine: dict[str, Any], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the results with these rows, which replace those of their stages on the same processor.

    Each entry of `results` has the `machine` and the `rows` of one processor."""
    stages = {row["stage"] for row in rows}
    others, kept = list[dict[str, Any]](), list[dict[str, Any]]()
    for entry in results:
        if entry["machine"]["processor"] != machine["processor"]:
            others.append(entry)
        else:
            kept += [row for row in entry["rows"] if row["stage"] not in stages]
    return [*others, {"machine": machine, "rows": kept + rows}]


def describe_processor() -> str:
    """Return number and model of the CPUs that this process may use, what selects kernels, and torch's threads."""
    import torch

    from vimoclip.runtime import processor

    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{cli.num_processors()} x {name} ({processor.describe()}); {torch.get_num_threads()} threads of PyTorch"


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
