"""The table of all finished runs: the mean over seeds of each config, its difference to RGB alone, the paper's number.

    python -m TFAM.table
Reads checkpoints/TFAM/<config>/seed<k>/ and, for the labels, the val file that each run names; writes
TFAM/results/table.csv and table.md. All numbers are fractions of 1, the paper's too. The standard deviation is that of
a sample, and empty for one seed. Runs of one config that were made with different settings (--set), or protocols, are
rows of their own."""

import hashlib
import html
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from TFAM.rgb_difference import METRICS, RGB, Differences, Group, Run, compare
from vimoclip import cli
from vimoclip.errors import UserError

# Table 2 of the paper; it doesn't say which positions and dropout the numbers are of
PAPER_MAP_MICRO = {
    "rgb": 0.7583,
    "motion": 0.5105,
    "concat_embedding": 0.7456,
    "concat_time": 0.7699,
    "cross_attention": 0.7709,
}
COLUMNS = ["config", "seeds", "map_macro_mean", "map_macro_std", "map_micro_mean", "map_micro_std", "paper_map_micro"]
COLUMNS += ["protocol", *(f"{metric}_minus_rgb{end}" for metric in METRICS for end in ("", "_low", "_high"))]
COLUMNS += ["seconds", "parameters", "num_videos", "settings"]
SHOWN = [
    "config",
    "seeds",
    "macro AP",
    "micro AP",
    "paper, micro AP",
    "macro over rgb",
    "micro over rgb",
    "time",
    "parameters",
]
SHOWN += ["clips", "protocol", "settings"]
PROTOCOLS = {
    "held_out": "held_out: epochs were chosen on selection clips, which were kept out of training; the clips that are "
    "reported were read once, at the end.",
    "published": "published: epochs were chosen on the very clips that are reported, which flatters the numbers.",
    "three_splits": "three_splits: epochs were chosen on the val clips; the test clips, which are those reported, "
    "were read once, at the end.",
    "zero_shot": "zero_shot: CLIP alone, by the actions' words; no clip was learnt from, and no epoch chosen.",
    "held_out, student published": "held_out, student published: the student whose motion was read chose its epoch on "
    "the clips that are reported, and learnt from the selection clips, which flatters the numbers.",
    "held_out, student of other selection clips": "held_out, student of other selection clips: the student whose "
    "motion was read may have learnt from the clips on which epochs were chosen.",
    "held_out, student unknown": "held_out, student unknown: the motion doesn't say on which clips its student was "
    "trained and chosen.",
}
INTERVALS = (
    " Of several seeds each resample draws seeds too; of one seed the interval is of the clips alone, and what another "
    "seed would change is not in it."
)
SPLIT_UP = (
    "inputs=: runs of one config that learnt from other files, or chose on other clips, are rows of their own; the "
    "mark is a hash of what they read."
)
SEED = 0  # of the resamples
PUBLISHED, HELD_OUT = "published", "held_out"
NOT_THE_PAPERS = {"data.motion", "data.limit"}  # controls, and runs on a part of the clips, are none of the paper's


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoints-dir", type=Path, default=Path("checkpoints"), help="holds TFAM/<config>/seed<k>/"
    )
    parser.add_argument("--output-dir", type=Path, default=Path("TFAM/results"), help="gets table.csv and table.md")
    parser.add_argument(
        "--resamples", type=cli.count, default=1000, help="of the clips, for the intervals; 0: no intervals"
    )
    return parser


def main(argv: list[str] | None = None) -> Path:
    """The path of table.csv. Raises UserError where no run is finished."""
    args = build_parser().parse_args(argv)
    from vimoclip.io.atomic import write_text
    from vimoclip.io.csv import write_csv

    runs = [read_metrics(path) for path in sorted(args.checkpoints_dir.glob("TFAM/*/seed*/metrics.json"))]
    if not runs:
        raise UserError(
            "holds no finished run", "bash TFAM/run_experiments.sh makes them", path=args.checkpoints_dir / "TFAM"
        )
    groups = in_groups(runs)
    differences, notes = compare(groups, args.resamples, SEED)
    rows = [make_row(group, groups[group], differences.get(group, {})) for group in groups]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    text = markdown(rows) + "\n" + caption(groups, args.resamples, notes)
    write_text(args.output_dir / "table.md", text)
    table = write_csv(args.output_dir / "table.csv", COLUMNS, [[row[column] for column in COLUMNS] for row in rows])
    print(text, f"wrote {table}", sep="", flush=True)
    return table


def read_metrics(path: Path) -> dict[str, Any]:
    """metrics.json, and in `folder` where it lies. Raises UserError."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) | {"folder": path.parent}
    except ValueError:
        raise UserError("is not JSON", "delete it and run its config again", path=path) from None


def in_groups(runs: Iterable[Run]) -> dict[Group, list[Run]]:
    """Runs by config, protocol and settings: the paper's five first, in its order, then the others by name.

    Runs from before there were protocols are published ones."""
    groups: dict[Group, list[Run]] = defaultdict(list)
    for run in runs:
        changed = " ".join(f"{key}={value}" for key, value in sorted(run["settings"].items()))
        groups[Group(run["config"], protocol_of(run), changed)].append(run)
    groups = by_inputs(groups)
    order = list(PAPER_MAP_MICRO)

    def place(group: Group) -> tuple[int, Group]:
        return (order.index(group.config) if group.config in order else len(order)), group

    return {group: groups[group] for group in sorted(groups, key=place)}


def protocol_of(run: Run) -> str:
    """The run's protocol and, where it is held out but the student whose motion it reads is not, that."""
    protocol = run.get("protocol") or PUBLISHED
    reads_motion = run["fusion"] != RGB and run["settings"].get("data.motion") != "none"
    if protocol != HELD_OUT or not reads_motion or "student_protocol" not in run:
        return protocol
    if run["student_protocol"] != protocol:
        return f"{protocol}, student {run['student_protocol'] or 'unknown'}"
    other = run.get("student_selection_agrees") is False
    return f"{protocol}, student of other selection clips" if other else protocol


def by_inputs(groups: Mapping[Group, Sequence[Run]]) -> dict[Group, list[Run]]:
    """Each group in as many as there are inputs that its runs learnt from; of several the settings say which."""
    found: dict[Group, list[Run]] = defaultdict(list)
    for group, runs in groups.items():
        inputs = [json.dumps(run.get("inputs_sha256"), sort_keys=True) for run in runs]
        for run, of_run in zip(runs, inputs, strict=True):
            mark = f" inputs={hashlib.sha256(of_run.encode()).hexdigest()[:8]}" if len(set(inputs)) > 1 else ""
            found[group._replace(settings=(group.settings + mark).strip())].append(run)
    return found


def make_row(group: Group, runs: Sequence[Run], differences: Differences) -> dict[str, str]:
    """Column -> text, as table.csv has it."""
    row = {"config": group.config, "seeds": str(len(runs)), "protocol": group.protocol, "settings": group.settings}
    for metric in METRICS:
        values = [run[metric] for run in runs]
        row[f"{metric}_mean"] = f"{mean(values):.4f}"
        row[f"{metric}_std"] = f"{stdev(values):.4f}" if len(values) > 1 else ""
        of_rgb = differences.get(metric, (None, None, None))
        for end, number in zip(("", "_low", "_high"), of_rgb, strict=True):
            row[f"{metric}_minus_rgb{end}"] = "" if number is None else f"{number:+.4f}"
    first = runs[0]
    of_paper = first["fusion"] == group.config and not first["settings"].keys() & NOT_THE_PAPERS
    paper = PAPER_MAP_MICRO.get(group.config) if of_paper else None
    times = [run["seconds"] for run in runs if run.get("seconds") is not None]
    return row | {
        "paper_map_micro": "" if paper is None else f"{paper:.4f}",
        "seconds": f"{mean(times):.1f}" if times else "",
        "parameters": _all(runs, "parameters"),
        "num_videos": _all(runs, "num_videos"),
    }


def _all(runs: Sequence[Run], key: str) -> str:
    """The values that runs have; one, as a rule."""
    return " ".join(map(str, sorted({run[key] for run in runs if key in run})))


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """table.md's own columns, which hold what several of table.csv do."""
    # names of configs are their users': no markup, no new column
    shown = [[html.escape(cell, quote=False).replace("|", "\\|") for cell in _cells(row)] for row in rows]
    lines = [" | ".join(row) for row in [SHOWN, ["---"] * len(SHOWN), *shown]]
    return "".join(f"| {line} |\n" for line in lines)


def _cells(row: Mapping[str, str]) -> list[str]:
    cells = [row["config"], row["seeds"]]
    for metric in METRICS:
        spread = row[f"{metric}_std"]
        cells.append(row[f"{metric}_mean"] + (f" ± {spread}" if spread else ""))
    cells.append(row["paper_map_micro"])
    for metric in METRICS:
        value, low, high = (row[f"{metric}_minus_rgb{end}"] for end in ("", "_low", "_high"))
        cells.append(f"{value} [{low}, {high}]" if low else value)
    seconds = f"{float(row['seconds']):.0f} s" if row["seconds"] else ""
    return [*cells, seconds, row["parameters"], row["num_videos"], row["protocol"], row["settings"]]


def caption(groups: Mapping[Group, Sequence[Run]], resamples: int, notes: Sequence[str]) -> str:
    """What the table's columns say, the protocols in it, and what is missing."""
    clips = _all([run for runs in groups.values() for run in runs], "num_videos").replace(" ", " or ")
    paragraphs = [
        f"Average precision on the {clips} clips that are reported, as fractions of 1: mean ± standard deviation over "
        "the seeds. macro AP is the mean over the classes that have a positive, Animal Kingdom's own metric; micro AP "
        "pools all pairs of clip and class.",
        f"over rgb: the difference to config {RGB} of the same protocol and settings on the same clips, mean over the "
        "seeds that both have"
        + (f", with its 95 % interval: paired bootstrap over clips, {resamples} resamples." if resamples else ".")
        + (INTERVALS if resamples else ""),
        "paper: its Table 2, micro AP on Animal Kingdom, one seed, at the epoch that is best on the clips that are "
        "reported; it stands beside its configs, whatever settings they were given here. time: of training, "
        "the mean over seeds.",
        *(PROTOCOLS[name] for name in sorted({group.protocol for group in groups}) if name in PROTOCOLS),
        *([SPLIT_UP] if any("inputs=" in group.settings for group in groups) else []),
        "Where training.checkpoint is last the epoch is the last one, and none was chosen.",
        *(html.escape(note, quote=False) for note in notes),
    ]
    return "".join(f"{paragraph}\n\n" for paragraph in paragraphs)


if __name__ == "__main__":
    cli.run(main)
