"""Measure each stage beside the plain way of doing it, and beside what this machine could do at most.

    python -m benchmarks                    all stages, about 40 minutes on two cores
    python -m benchmarks start embedding    some
Prints a table and writes it as JSON; docs/performance.md says how to read it. Inputs are made once and kept."""

import argparse
import importlib
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from benchmarks.harness import Row

STAGES = ("start", "reading", "embedding", "flow", "training", "fusion", "scale", "evaluation", "int8_demo")


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"of {', '.join(STAGES)}; default: all")
    parser.add_argument("--rounds", type=cli.positive_int, default=5, help="how often each is measured")
    parser.add_argument("--inputs-dir", type=Path, default=Path("benchmarks/inputs.cache"), help="gets about 1.5 GB")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results.json"), help="where the figures go")
    return parser


def main(argv: list[str] | None = None) -> list["Row"]:
    args = build_parser().parse_args(argv)
    if unknown := [stage for stage in args.stages if stage not in STAGES]:
        raise UserError(f"{unknown[0]}: there is no such stage", f"there are {', '.join(STAGES)}")
    from benchmarks.inputs import Inputs

    inputs, rows = Inputs(args.inputs_dir), list["Row"]()
    for stage in args.stages or STAGES:
        print(f"== {stage}", flush=True)
        measured = importlib.import_module(f"benchmarks.{stage}").run(inputs, args.rounds)
        print("\n".join(line(row) for row in measured), flush=True)
        rows += measured
    print("\n" + "\n".join(table(rows)))
    write(args.json, rows)
    return rows


def write(path: Path, rows: list["Row"]) -> None:
    """Add to what was measured before of other stages, on the same machine or not: each row says which."""
    import json

    from vimoclip.io import yaml_json
    from vimoclip.runtime import versions

    machine = {"processor": processor(), "python": platform.python_version(), "versions": versions.versions()}
    known: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.is_file() else []
    new = [asdict(row) | {"share": row.share} for row in rows]
    stages = {row["stage"] for row in new}
    yaml_json.write_json(path, {"machine": machine, "rows": [row for row in known if row["stage"] not in stages] + new})
    print(f"wrote {path}")


def processor() -> str:
    """Its name, where the system says it, and how many of its processors this process may use."""
    import os

    named = [text for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith("model name")]
    name = named[0].partition(":")[2].strip() if named else platform.processor()
    return f"{len(os.sched_getaffinity(0))} x {name}"


def table(rows: list["Row"]) -> list[str]:
    """As Markdown."""
    head = ["stage", "what", "plain", "ours", "ratio (spread)", "bound", "share", "peak memory, plain and ours", "goal"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        memory = [f"{m / 1e6:.0f} MB" for m in (row.memory_plain, row.memory_ours) if m is not None]
        lines.append(
            [
                row.stage,
                row.what + (f" ({row.note})" if row.note else ""),
                number(row.plain, row.unit),
                number(row.ours, row.unit),
                ratio(row),
                f"{number(row.bound, row.unit)} ({row.bound_name})" if row.bound else "",
                f"{row.share:.0%}" if row.share else "",
                ", ".join(memory),
                row.goal,
            ]
        )
    return [f"| {' | '.join(cells)} |" for cells in lines]


def line(row: "Row") -> str:
    """One row in words."""
    return f"{row.what}: {number(row.ours, row.unit)}, {ratio(row) or '-'} (goal: {row.goal or '-'}) {row.note}"


def ratio(row: "Row") -> str:
    """Ours against plain."""
    if not row.ratio or not row.spread:
        return ""
    return f"{row.ratio:.2f} ({row.spread[0]:.2f} to {row.spread[1]:.2f})"


def number(value: float | None, unit: str) -> str:
    """Of units a second."""
    return "" if value is None else f"{value:,.3g} {unit}/s" if value < 1000 else f"{value:,.0f} {unit}/s"


if __name__ == "__main__":
    cli.run(main)
