"""Write a table of all finished runs: for each config the mean over seeds, the difference to RGB alone, and the
paper's number.

    python -m TFAM.table
Reads checkpoints/TFAM/<config>/seed<k>/ and, for the labels, the RGB embeddings of the evaluation split of each run.
Writes TFAM/results/table.csv and table.md. All metrics are fractions, from 0 to 1. The standard deviation over seeds
divides by n - 1, and is empty for one seed. Runs of one config with different settings (--set) or protocols have
separate rows. So have few-shot runs (seed<k>_shots<n>/): their learning curves are a section of table.md, and
few_shot.csv, which is also written to checkpoints/TFAM/, where evaluate.py finds it."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from TFAM.learning_curve import learning_curve_text, learning_curves, markdown_table, write_curves
from TFAM.run_bootstrap import METRICS, MetricDifference, MetricDifferences, RunBootstrap
from TFAM.run_groups import (
    PAPER_MAP_MICRO,
    RGB,
    STUDENT_NOTES,
    RunGroup,
    RunMetrics,
    group_runs,
    have_same_inputs,
    read_metrics,
)
from vimoclip import cli
from vimoclip.annotations.split_protocol import PROTOCOL_NOTES, ZERO_SHOT
from vimoclip.errors import UserError

COLUMNS = ["config", "seeds", "map_macro_mean", "map_macro_std", "map_micro_mean", "map_micro_std", "paper_map_micro"]
COLUMNS += ["protocol", *(f"{metric}_minus_rgb{end}" for metric in METRICS for end in ("", "_low", "_high"))]
COLUMNS += ["seconds", "parameters", "num_videos", "settings"]
MARKDOWN_COLUMNS = ["config", "seeds", "macro AP", "micro AP", "paper, micro AP", "macro over rgb", "micro over rgb"]
MARKDOWN_COLUMNS += ["time", "parameters", "clips", "protocol", "settings"]
INTERVAL_NOTE = (
    " With several seeds each resample draws seeds too; with one seed the interval does not include the variance "
    "between seeds."
)
INPUTS_NOTE = (
    "inputs=: a hash of the files and the model-selection split of the runs, if runs of one config differ in them."
)
# settings in which the configs of one experiment differ; all others must equal those of the RGB run
CONFIG_SPECIFIC_KEYS = {"model.fusion", "model.positions", "model.dropout", "model.classifier_dropout"}
CONFIG_SPECIFIC_KEYS |= {"training.batch_size", "data.motion"}
BOOTSTRAP_SEED = 0
KEYS_UNLIKE_PAPER = {"data.motion", "data.limit", "data.shots"}  # runs with these settings are not in the paper


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoints-dir", type=Path, default=Path("checkpoints"), help="folder that contains TFAM/<config>/seed<k>/"
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("TFAM/results"), help="folder of table.csv and table.md"
    )
    parser.add_argument(
        "--resamples",
        type=cli.non_negative_int,
        default=1000,
        help="bootstrap resamples for the intervals; 0: no intervals",
    )
    parser.add_argument(
        "--resample",
        choices=["clips", "sources"],
        default="clips",
        help="what the bootstrap draws: single clips, or whole sources with all their clips, of sources.csv of the "
        "runs' data set",
    )
    cli.add_report_argument(parser)
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Write the table; return the path of table.csv. Raises UserError if no run is finished."""
    args = build_parser().parse_args(argv)
    from vimoclip.io.atomic import write_text
    from vimoclip.io.csv import write_csv

    runs = [read_metrics(path) for path in sorted(args.checkpoints_dir.glob("TFAM/*/seed*/metrics.json"))]
    if not runs:
        raise UserError("has no finished run", "run TFAM/run_experiments.sh", path=args.checkpoints_dir / "TFAM")
    groups = group_runs(runs)
    bootstrap = RunBootstrap(args.resamples, BOOTSTRAP_SEED, args.resample)
    differences, messages = compare_to_rgb(groups, bootstrap)
    curves, curve_messages = learning_curves(groups, bootstrap)
    rows = [make_row(group, groups[group], differences.get(group, {})) for group in groups]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    text = format_markdown(rows) + "\n" + format_caption(groups, bootstrap, messages)
    text += learning_curve_text(curves, curve_messages, args.resamples, args.resample)
    markdown = write_text(args.output_dir / "table.md", text)
    table = write_csv(args.output_dir / "table.csv", COLUMNS, [[row[column] for column in COLUMNS] for row in rows])
    few_shot = write_curves(curves, [args.output_dir, args.checkpoints_dir / "TFAM"])
    print(text, f"wrote {', '.join(map(str, [table, *few_shot]))}", sep="", flush=True)
    cli.RunReport([table, markdown, *few_shot], done=len(runs), unit="run").write(args.report)
    return table


def compare_to_rgb(
    groups: Mapping[RunGroup, Sequence[RunMetrics]], bootstrap: RunBootstrap
) -> tuple[dict[RunGroup, MetricDifferences], list[str]]:
    """Return (differences by group, reasons why groups have no difference or no interval)."""
    differences: dict[RunGroup, MetricDifferences] = {}
    messages: list[str] = []
    for group, runs in groups.items():
        if group.config == RGB or group.protocol == ZERO_SHOT:
            continue
        missing = "difference to rgb"
        try:
            pairs = bootstrap.pair_runs(runs, _find_baseline(group, groups))
            values = {metric: mean(run[metric] - rgb[metric] for run, rgb in pairs) for metric in METRICS}
            differences[group] = {metric: MetricDifference(value) for metric, value in values.items()}
            missing = "interval"
            if bootstrap.resamples:
                differences[group] = bootstrap.intervals(pairs, values)
        except UserError as error:
            messages.append(f"{group.config}, {group.protocol_label}: no {missing}: {error}")
    return differences, list(dict.fromkeys(messages))


def _find_baseline(group: RunGroup, groups: Mapping[RunGroup, Sequence[RunMetrics]]) -> Sequence[RunMetrics]:
    """Return the runs of RGB alone to compare a group with, of any student. Raises UserError if there are none."""
    shared_settings = _shared_settings(groups[group])
    candidates = [
        runs
        for other, runs in groups.items()
        if (other.config, other.protocol) == (RGB, group.protocol)
        and runs[0]["fusion"] == RGB
        and _shared_settings(runs) == shared_settings
    ]
    if not candidates:
        raise UserError("no run of rgb has the same protocol and settings")
    candidates = [runs for runs in candidates if have_same_inputs(runs[0], groups[group][0])] or candidates
    settings = groups[group][0]["settings"].items()
    return max(candidates, key=lambda runs: sum(item in settings for item in runs[0]["settings"].items()))


def _shared_settings(runs: Sequence[RunMetrics]) -> dict[str, Any]:
    return {key: value for key, value in runs[0]["settings"].items() if key not in CONFIG_SPECIFIC_KEYS}


# --- rows and text


def make_row(group: RunGroup, runs: Sequence[RunMetrics], differences: MetricDifferences) -> dict[str, str]:
    """Return a row of table.csv: column -> text."""
    settings = " ".join(filter(None, (group.settings, f"inputs={group.inputs}" if group.inputs else "")))
    row = {"config": group.config, "seeds": str(len(runs)), "protocol": group.protocol_label, "settings": settings}
    for metric in METRICS:
        values = [run[metric] for run in runs]
        row[f"{metric}_mean"] = f"{mean(values):.4f}"
        row[f"{metric}_std"] = f"{stdev(values):.4f}" if len(values) > 1 else ""
        difference = differences.get(metric, (None, None, None))
        for suffix, number in zip(("", "_low", "_high"), difference, strict=True):
            row[f"{metric}_minus_rgb{suffix}"] = "" if number is None else f"{number:+.4f}"
    first = runs[0]
    is_in_paper = first["fusion"] == group.config and not first["settings"].keys() & KEYS_UNLIKE_PAPER
    paper = PAPER_MAP_MICRO.get(group.config) if is_in_paper else None
    times = [run["seconds"] for run in runs if run.get("seconds") is not None]
    return row | {
        "paper_map_micro": "" if paper is None else f"{paper:.4f}",
        "seconds": f"{mean(times):.1f}" if times else "",
        "parameters": _distinct_values(runs, "parameters"),
        "num_videos": _distinct_values(runs, "num_videos"),
    }


def _distinct_values(runs: Sequence[RunMetrics], key: str) -> str:
    """Return the runs' distinct values, in general one, separated by spaces."""
    return " ".join(map(str, sorted({run[key] for run in runs if key in run})))


def format_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the table in Markdown. A column combines several columns of table.csv."""
    return markdown_table(MARKDOWN_COLUMNS, [_markdown_cells(row) for row in rows])


def _markdown_cells(row: Mapping[str, str]) -> list[str]:
    cells = [row["config"], row["seeds"]]
    for metric in METRICS:
        std = row[f"{metric}_std"]
        cells.append(row[f"{metric}_mean"] + (f" ± {std}" if std else ""))
    cells.append(row["paper_map_micro"])
    for metric in METRICS:
        value, low, high = (row[f"{metric}_minus_rgb{suffix}"] for suffix in ("", "_low", "_high"))
        cells.append(f"{value} [{low}, {high}]" if low else value)
    seconds = f"{float(row['seconds']):.0f} s" if row["seconds"] else ""
    return [*cells, seconds, row["parameters"], row["num_videos"], row["protocol"], row["settings"]]


def format_caption(
    groups: Mapping[RunGroup, Sequence[RunMetrics]], bootstrap: RunBootstrap, messages: Sequence[str]
) -> str:
    """Return the text below the table: what the columns and protocols mean, and what could not be computed."""
    from vimoclip.metrics import METRIC_NAMES

    macro, micro = (METRIC_NAMES[metric].description for metric in METRICS)
    clips = _distinct_values([run for runs in groups.values() for run in runs], "num_videos").replace(" ", " or ")
    paragraphs = [
        f"Average precision on the {clips} clips of the evaluation split, as fractions of 1: mean ± standard deviation "
        f"over the seeds. macro AP: {macro.format(classes='classes')}, Animal Kingdom's own metric; micro AP: {micro}.",
        f"over rgb: the difference to config {RGB} of the same protocol and settings on the same clips, mean over the "
        "seeds that both have"
        + (
            f", with its 95 % interval: paired bootstrap over {bootstrap.over}, {bootstrap.resamples} resamples."
            if bootstrap.resamples
            else "."
        )
        + (INTERVAL_NOTE if bootstrap.resamples else ""),
        "paper: its Table 2, micro AP on Animal Kingdom, one seed, at the epoch that is best on the evaluation split, "
        "regardless of the settings here. time: of training, mean over seeds.",
        *(note for name, note in PROTOCOL_NOTES.items() if name in {group.protocol for group in groups}),
        *(note for name, note in STUDENT_NOTES.items() if any(name in g.student.split(", ") for g in groups)),
        *([INPUTS_NOTE] if any(group.inputs for group in groups) else []),
        "With training.checkpoint last, the epoch is the last one and was not selected.",
        *(html.escape(message, quote=False) for message in messages),
    ]
    return "".join(f"{paragraph}\n\n" for paragraph in paragraphs)


if __name__ == "__main__":
    cli.run(main)
