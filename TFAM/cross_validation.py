"""Write a table of a cross-validation: average precision of the out-of-fold predictions of all folds, pooled.

    python -m TFAM.cross_validation --checkpoints-dirs checkpoints/mine/fold* -o TFAM/results/mine
Each folder has the runs of one fold, TFAM/<config>/seed<k>/, of a data set that prepare_dataset.py --fold K/N made.
Writes table.csv and table.md, and for each config and seed <config>/seed<k>/predictions.csv with the clips of all
folds. evaluate.py reads these with --annotations-dir <output folder>/annotations, in which all clips are the val split.
A config and seed that is not finished in every fold has no row, and a warning names it."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from TFAM.learning_curve import TITLES, markdown_table
from TFAM.pooled_folds import (
    PooledBootstrap,
    chance_level,
    describe_missing_clips,
    find_runs,
    mean_of_folds,
    pool_runs,
    write_annotations,
)
from TFAM.run_bootstrap import METRICS, MetricDifferences
from TFAM.run_differences import compare_to_config
from TFAM.run_groups import RGB, STUDENT_NOTES, RunGroup, RunMetrics, group_runs
from TFAM.table import (
    BOOTSTRAP_SEED,
    INPUTS_NOTE,
    INTERVAL_NOTE,
    add_resample_arguments,
    compute_intervals,
    difference_columns,
    format_difference,
    mean_and_std,
)
from vimoclip import cli
from vimoclip.annotations.split_protocol import PROTOCOL_NOTES

PERMUTATIONS = 200
COLUMNS = ["config", "seeds", "folds", "num_videos", "share_of_positives", "baseline", "protocol", "settings"]
METRIC_COLUMNS = ["mean", "std", "low", "high", "chance", "mean_of_folds", "mean_of_folds_chance"]
METRIC_COLUMNS += ["minus_baseline", "minus_baseline_low", "minus_baseline_high"]
COLUMNS += [f"{metric}_{name}" for metric in METRICS for name in METRIC_COLUMNS]
POOLED_NOTE = (
    "Each clip has the score of the fold in which it was not trained on, and average precision is of all clips in one "
    "ranking: it also compares scores of different models. mean of the folds: each fold's own average precision, if "
    "each fold has a positive and a negative clip of every class. Chance is higher for fewer clips."
)
CHANCE_NOTE = (
    "chance: the expected average precision of a random ranking, which is above the share of positives; micro AP of "
    f"several actions: mean of {PERMUTATIONS} random permutations of the clips' labels. "
    "A model that ignores the clips is below it if its score follows the share of positives of the training clips, "
    "which is lower for a fold that has more of them."
)
PERFECT_NOTE = (
    "A ranking without an error has an average precision of 1 on every resample, so that its interval has no width. It "
    "doesn't follow that other clips would be ranked without an error."
)
TRAINING_NOTE = "Intervals are of these models and this division into folds; training again on others may differ more."


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoints-dirs",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="one folder for each fold, which contains TFAM/<config>/seed<k>/",
    )
    parser.add_argument("--output-dir", "-o", type=Path, required=True, help="folder of the table and predictions")
    parser.add_argument("--baseline", default=RGB, metavar="CONFIG", help="config that the others are compared with")
    add_resample_arguments(parser)
    cli.add_report_argument(parser)
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Write the table; return the path of table.csv. Raises UserError if the runs are not of folds of one data set."""
    args = build_parser().parse_args(argv)
    from vimoclip.io.atomic import write_text
    from vimoclip.io.csv import write_csv

    complete, missing = find_runs(args.checkpoints_dirs)
    runs = [pool_runs(folds, args.output_dir / name) for name, folds in complete.items()]
    for run in runs[1:]:
        first, other = ({"classes": pooled["classes"]} for pooled in (runs[0], run))
        cli.check_settings_match(first, other, str(runs[0]["folder"]), str(run["folder"]), "name folds of one data set")
    messages = [f"{path}: {reason}" for path, reason in missing.items()]
    messages += [line for run in runs for line in describe_missing_clips(run)]
    messages = list(dict.fromkeys(messages))
    for message in messages:
        print(f"warning: {message}", flush=True)
    bootstrap = PooledBootstrap(args.resamples, BOOTSTRAP_SEED, args.resample)
    for run in runs:
        run |= {metric: bootstrap.value(run, metric) for metric in METRICS}
    write_annotations(runs, args.output_dir / "annotations")
    groups = group_runs(runs)
    differences, difference_messages = compare_to_config(groups, bootstrap, args.baseline)
    intervals, interval_messages = compute_intervals(groups, bootstrap)
    rows = [
        make_row(group, groups[group], differences.get(group, {}), intervals[group], args.baseline) for group in groups
    ]
    messages += [*difference_messages, *interval_messages]
    text = format_markdown(rows, runs[0]["classes"], args.baseline) + "\n"
    text += format_caption(groups, rows, bootstrap, list(dict.fromkeys(messages)))
    table = write_csv(args.output_dir / "table.csv", COLUMNS, [[row[column] for column in COLUMNS] for row in rows])
    markdown = write_text(args.output_dir / "table.md", text)
    print(text, f"wrote {table}", sep="", flush=True)
    outputs = [table, markdown, *(run["folder"] / "predictions.csv" for run in runs)]
    cli.RunReport(outputs, done=len(runs), skipped=missing, unit="run").write(args.report)
    return table


def make_row(
    group: RunGroup,
    runs: Sequence[RunMetrics],
    differences: MetricDifferences,
    intervals: Mapping[str, str],
    baseline: str,
) -> dict[str, str]:
    """Return a row of table.csv: column -> text, empty where not defined."""
    settings = " ".join(filter(None, (group.settings, f"inputs={group.inputs}" if group.inputs else "")))
    labels = list(runs[0]["labels"].values())
    row = {
        "config": group.config,
        "seeds": str(len(runs)),
        "folds": str(len(runs[0]["folds"])),
        "num_videos": str(len(labels)),
        "share_of_positives": f"{mean(float(row.mean()) for row in labels):.4f}",
        "baseline": baseline if differences else "",
        "protocol": group.protocol_label,
        "settings": settings,
    }
    draws = PERMUTATIONS, BOOTSTRAP_SEED
    for metric in METRICS:
        row |= mean_and_std(metric, [run[metric] for run in runs])
        row |= {f"{metric}_{end}": intervals[f"{metric}_{end}"] for end in ("low", "high")}
        of_folds = [found for run in runs if (found := mean_of_folds(run, metric, *draws))]
        means = map(mean, zip(*of_folds, strict=True)) if len(of_folds) == len(runs) else None
        values = [f"{value:.4f}" for value in means] if means else ["", ""]
        row[f"{metric}_mean_of_folds"], row[f"{metric}_mean_of_folds_chance"] = values
        chances = [chance_level(run, list(run["labels"]), metric, *draws) for run in runs]
        row[f"{metric}_chance"] = f"{mean(chances):.4f}"
        row |= difference_columns(f"{metric}_minus_baseline", differences.get(metric))
    return row


def format_markdown(rows: Sequence[Mapping[str, str]], classes: Sequence[str], baseline: str) -> str:
    """Return the table in Markdown; with one class, whose macro and micro AP are equal, it has one AP."""
    titles = TITLES if len(classes) > 1 else {METRICS[0]: f"AP of {classes[0]}"}
    header = ["config", "seeds"]
    for title in titles.values():
        header += [title, f"over {baseline}" if len(classes) == 1 else f"{title} over {baseline}", "chance"]
        header.append("mean of the folds")
    cells = []
    for row in rows:
        line = [row["config"], row["seeds"]]
        for metric in titles:
            value, std, low, high = (row[f"{metric}_{end}"] for end in ("mean", "std", "low", "high"))
            line.append(value + (f" ± {std}" if std else "") + (f" [{low}, {high}]" if low else ""))
            line.append(format_difference(row, f"{metric}_minus_baseline"))
            of_folds, of_folds_chance = row[f"{metric}_mean_of_folds"], row[f"{metric}_mean_of_folds_chance"]
            line += [row[f"{metric}_chance"], f"{of_folds} (chance {of_folds_chance})" if of_folds else ""]
        cells.append(
            [*line, *(row[key] for key in ("share_of_positives", "num_videos", "folds", "protocol", "settings"))]
        )
    return markdown_table([*header, "positives", "clips", "folds", "protocol", "settings"], cells)


def format_caption(
    groups: Mapping[RunGroup, Sequence[RunMetrics]],
    rows: Sequence[Mapping[str, str]],
    bootstrap: PooledBootstrap,
    messages: Sequence[str],
) -> str:
    """Return the text below the table: what the columns mean, and what could not be computed."""
    over, resamples = bootstrap.over, bootstrap.resamples
    is_perfect = any(row[f"{metric}_low"] == "1.0000" for row in rows for metric in METRICS)
    paragraphs = [
        "Average precision of out-of-fold predictions, as fractions of 1: mean ± standard deviation over the seeds"
        + (f" [95 % interval: bootstrap over {over}, {resamples} resamples]." if resamples else ".")
        + (INTERVAL_NOTE if resamples else ""),
        POOLED_NOTE,
        CHANCE_NOTE,
        *([PERFECT_NOTE] if is_perfect else []),
        TRAINING_NOTE,
        *(note for name, note in PROTOCOL_NOTES.items() if name in {group.protocol for group in groups}),
        *(note for name, note in STUDENT_NOTES.items() if any(name in g.student.split(", ") for g in groups)),
        *([INPUTS_NOTE] if any(group.inputs for group in groups) else []),
        *(html.escape(message, quote=False) for message in messages),
    ]
    return "".join(f"{paragraph}\n\n" for paragraph in paragraphs)


if __name__ == "__main__":
    cli.run(main)
