"""The table of all finished runs: the mean over seeds of each config, beside the paper's number.

    python -m TFAM.table
Reads checkpoints/TFAM/<config>/seed<k>/metrics.json; writes TFAM/results/table.csv and table.md. All numbers are
fractions of 1, the paper's too. The standard deviation is that of a sample, and empty for one seed. Runs of one config
that were made with different settings (--set) are rows of their own."""

import html
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from vimoclip import UserError, cli

# Table 2 of the paper; it doesn't say which positions and dropout the numbers are of
PAPER_MAP_MICRO = {
    "rgb": 0.7583,
    "motion": 0.5105,
    "concat_embedding": 0.7456,
    "concat_time": 0.7699,
    "cross_attention": 0.7709,
}
COLUMNS = ["config", "seeds", "map_macro_mean", "map_macro_std", "map_micro_mean", "map_micro_std", "paper_map_micro"]
COLUMNS += ["num_videos", "settings"]


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoints-dir", type=Path, default=Path("checkpoints"), help="holds TFAM/<config>/seed<k>/"
    )
    parser.add_argument("--output-dir", type=Path, default=Path("TFAM/results"), help="gets table.csv and table.md")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """The path of table.csv. Raises UserError where no run is finished."""
    args = build_parser().parse_args(argv)
    from vimoclip.files import write_text
    from vimoclip.runs import write_csv

    runs = [read_metrics(path) for path in sorted(args.checkpoints_dir.glob("TFAM/*/seed*/metrics.json"))]
    if not runs:
        raise UserError(
            f"{args.checkpoints_dir / 'TFAM'}: holds no finished run; bash TFAM/run_experiments.sh makes them"
        )
    rows = make_rows(runs)
    # names of configs are their users': no markup, no new column
    shown = [[html.escape(cell, quote=False).replace("|", "\\|") for cell in row] for row in rows]
    lines = [" | ".join(row) for row in [COLUMNS, ["---"] * len(COLUMNS), *shown]]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    write_text(args.output_dir / "table.md", "".join(f"| {line} |\n" for line in lines))
    table = write_csv(args.output_dir / "table.csv", COLUMNS, rows)
    print((args.output_dir / "table.md").read_text(encoding="utf-8"), f"wrote {table}", sep="", flush=True)
    return table


def read_metrics(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path}: is not JSON; delete it and run its config again") from None


def make_rows(runs: list[dict[str, Any]]) -> list[list[str]]:
    """A row for each config and settings: the paper's five first, in its order, then the others by name."""
    groups = defaultdict(list)
    for run in runs:
        changed = " ".join(f"{key}={value}" for key, value in sorted(run["settings"].items()))
        groups[run["config"], changed].append(run)
    order = list(PAPER_MAP_MICRO)

    def place(group: tuple[str, str]) -> tuple[int, str, str]:
        config, changed = group
        return (order.index(config) if config in order else len(order), config, changed)

    return [make_row(config, changed, groups[config, changed]) for config, changed in sorted(groups, key=place)]


def make_row(config: str, changed: str, group: list[dict[str, Any]]) -> list[str]:
    row = [config, str(len(group))]
    for metric in ("map_macro", "map_micro"):
        values = [run[metric] for run in group]
        row += [f"{mean(values):.4f}", f"{stdev(values):.4f}" if len(values) > 1 else ""]
    paper = (
        PAPER_MAP_MICRO.get(config)
        if group[0]["fusion"] == config and "data.motion" not in group[0]["settings"]
        else None
    )
    videos = sorted({run["num_videos"] for run in group})
    return [*row, "" if paper is None else f"{paper:.4f}", " ".join(map(str, videos)), changed]


if __name__ == "__main__":
    cli.run(main)
