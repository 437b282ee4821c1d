"""Write a table of all finished runs: for each config the mean over seeds, the differences to RGB alone and to the best
probe, and the paper's number.

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

from TFAM.learning_curve import learning_curve_text, learning_curves, markdown_table, write_curves
from TFAM.run_bootstrap import METRICS, TOP1_METRICS, MetricDifference, MetricDifferences, RunBootstrap
from TFAM.run_differences import VERDICTS, Groups, ProbeComparison, compare_to_config, compare_to_probes
from TFAM.run_groups import PAPER_MAP_MICRO, RGB, STUDENT_NOTES, RunGroup, RunMetrics, group_runs, read_metrics
from vimoclip import cli
from vimoclip.annotations.split_protocol import PROTOCOL_NOTES
from vimoclip.errors import UserError

COLUMNS = ["config", "seeds", "map_macro_mean", "map_macro_std", "map_micro_mean", "map_micro_std", "paper_map_micro"]
COLUMNS += ["protocol", *(f"{metric}_minus_rgb{end}" for metric in METRICS for end in ("", "_low", "_high"))]
COLUMNS += ["seconds", "parameters", "num_videos", "settings", "students", "best_probe", "map_macro_minus_probe"]
COLUMNS += ["map_macro_minus_probe_low", "map_macro_minus_probe_high", "better_than_probe"]
INTERVAL_COLUMNS = [f"{metric}_{end}" for metric in METRICS for end in ("low", "high")]
INTERVAL_COLUMNS += [f"{metric}_{end}" for metric in TOP1_METRICS for end in ("mean", "std", "low", "high")]
COLUMNS += INTERVAL_COLUMNS
MARKDOWN_COLUMNS = ["config", "seeds", "macro AP", "micro AP", "paper, micro AP", "macro over rgb", "micro over rgb"]
MARKDOWN_COLUMNS += ["macro over the best probe", "time", "parameters", "clips", "protocol", "settings"]
TOP1_COLUMNS = ["config", "seeds", "top-1", "mean per-class top-1", "clips", "protocol", "settings"]
INTERVAL_NOTE = (
    " With several seeds each resample draws seeds too; with one seed the interval does not include the variance "
    "between seeds."
)
INPUTS_NOTE = (
    "inputs=: a hash of the files and the model-selection split of the runs, if runs of one config differ in them."
)
PROBE_NOTE = (
    "over the best probe: the difference in macro AP to the probe that has the highest, with the same interval. Probes "
    "are simple classifiers on the same embeddings. The best one is selected on these clips, which favours the probe. "
    "Not clearly better: the interval includes 0, so that a simple classifier may be as good. Not better: no part of "
    "it is above 0."
)
STUDENTS_NOTE = "students: the seed of a run is also that of its student, so that ± has the spread of both trainings."
INIT_NOTE = (
    "training.init=: a hash of the weights that the runs started from (--init). These were trained on labels of other "
    "clips, which may be in the evaluation split here. "
)
BOOTSTRAP_SEED = 0
KEYS_UNLIKE_PAPER = {"data.motion", "data.limit", "data.shots", "training.init"}  # of runs that the paper has not


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoints-dir", type=Path, default=Path("checkpoints"), help="folder that contains TFAM/<config>/seed<k>/"
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("TFAM/results"), help="folder of table.csv and table.md"
    )
    add_resample_arguments(parser)
    cli.add_report_argument(parser)
    return parser


def add_resample_arguments(parser: cli.Parser) -> None:
    """Add --resamples and --resample."""
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
        help="what the bootstrap draws: single clips, or whole sources with all their clips, of sources.csv of each "
        "run's data set",
    )


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
    differences, messages = compare_to_config(groups, bootstrap)
    probes, probe_messages = compare_to_probes(groups, bootstrap)
    curves = learning_curves(groups, bootstrap)
    values, value_messages = compute_intervals(groups, bootstrap)
    rows = [
        make_row(group, groups[group], differences.get(group, {}), probes.get(group)) | values[group]
        for group in groups
    ]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    messages = list(dict.fromkeys([*messages, *probe_messages, *value_messages]))
    text = format_markdown(rows) + "\n" + format_caption(groups, bootstrap, messages, has_probes=bool(probes))
    text += format_top1(rows, bootstrap)
    text += learning_curve_text(curves, args.resamples, args.resample)
    markdown = write_text(args.output_dir / "table.md", text)
    table = write_csv(args.output_dir / "table.csv", COLUMNS, [[row[column] for column in COLUMNS] for row in rows])
    few_shot = write_curves(curves, [args.output_dir, args.checkpoints_dir / "TFAM"])
    print(text, f"wrote {', '.join(map(str, [table, *few_shot]))}", sep="", flush=True)
    cli.RunReport([table, markdown, *few_shot], done=len(runs), unit="run").write(args.report)
    return table


def compute_intervals(groups: Groups, bootstrap: RunBootstrap) -> tuple[dict[RunGroup, dict[str, str]], list[str]]:
    """Return (INTERVAL_COLUMNS of each group, empty where not defined; reasons of missing values)."""
    columns: dict[RunGroup, dict[str, str]] = {}
    messages: list[str] = []
    for group, runs in groups.items():
        row = columns[group] = dict.fromkeys(INTERVAL_COLUMNS, "")
        try:
            metrics = METRICS + (TOP1_METRICS if all(map(bootstrap.has_one_label_per_clip, runs)) else ())
            for metric in metrics:
                values = [bootstrap.value(run, metric) for run in runs]
                if metric in TOP1_METRICS:
                    row |= mean_and_std(metric, values)
                if bootstrap.resamples:
                    bounds = bootstrap.mean_interval(runs, metric)
                    row |= {f"{metric}_{end}": f"{b:.4f}" for end, b in zip(("low", "high"), bounds, strict=True)}
        except UserError as error:
            missing = "interval" if bootstrap.resamples else "top-1 accuracy"
            messages.append(f"{group.config}, {group.protocol_label}: no {missing}: {error}")
    return columns, messages


# --- rows and text


def make_row(
    group: RunGroup, runs: Sequence[RunMetrics], differences: MetricDifferences, probe: ProbeComparison | None
) -> dict[str, str]:
    """Return a row of table.csv, without the columns of `compute_intervals`: column -> text."""
    settings = " ".join(filter(None, (group.settings, f"inputs={group.inputs}" if group.inputs else "")))
    row = {"config": group.config, "seeds": str(len(runs)), "protocol": group.protocol_label, "settings": settings}
    for metric in METRICS:
        row |= mean_and_std(metric, [run[metric] for run in runs])
        row |= difference_columns(f"{metric}_minus_rgb", differences.get(metric))
    row |= difference_columns("map_macro_minus_probe", probe.difference if probe else None)
    first = runs[0]
    is_in_paper = first["fusion"] == group.config and not first["settings"].keys() & KEYS_UNLIKE_PAPER
    paper = PAPER_MAP_MICRO.get(group.config) if is_in_paper else None
    times = [run["seconds"] for run in runs if run.get("seconds") is not None]
    return row | {
        "paper_map_micro": "" if paper is None else f"{paper:.4f}",
        "seconds": f"{mean(times):.1f}" if times else "",
        "parameters": _distinct_values(runs, "parameters"),
        "num_videos": _distinct_values(runs, "num_videos"),
        "students": str(_num_students(runs) or ""),
        "best_probe": probe.probe if probe else "",
        "better_than_probe": probe.is_better if probe else "",
    }


def _num_students(runs: Sequence[RunMetrics]) -> int:
    """Return the number of different files of motion embeddings, of those that record a hash."""
    return len(set(filter(None, (run.get("inputs_sha256", {}).get("motion_h5") for run in runs))))


def mean_and_std(metric: str, values: Sequence[float]) -> dict[str, str]:
    """Return the columns of mean and standard deviation over the seeds, which is empty for one seed."""
    std = f"{stdev(values):.4f}" if len(values) > 1 else ""
    return {f"{metric}_mean": f"{mean(values):.4f}", f"{metric}_std": std}


def difference_columns(name: str, difference: MetricDifference | None) -> dict[str, str]:
    """Return the columns of a difference and its interval, empty if they are missing."""
    numbers = difference or (None, None, None)
    return {
        f"{name}{suffix}": "" if number is None else f"{number:+.4f}"
        for suffix, number in zip(("", "_low", "_high"), numbers, strict=True)
    }


def _distinct_values(runs: Sequence[RunMetrics], key: str) -> str:
    """Return the runs' distinct values, in general one, separated by spaces."""
    return " ".join(map(str, sorted({run[key] for run in runs if key in run})))


def format_markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the table in Markdown. A column combines several columns of table.csv; an empty column is left out."""
    table = [dict(zip(MARKDOWN_COLUMNS, _markdown_cells(row), strict=True)) for row in rows]
    optional = {"macro over the best probe"}
    columns = [name for name in MARKDOWN_COLUMNS if name not in optional or any(cells[name] for cells in table)]
    return markdown_table(columns, [[cells[name] for name in columns] for cells in table])


def _markdown_cells(row: Mapping[str, str]) -> list[str]:
    students = f" ({row['students']} students)" if row["students"] not in ("", "1") else ""
    cells = [row["config"], row["seeds"] + students]
    cells += [row[f"{metric}_mean"] + (f" ± {std}" if (std := row[f"{metric}_std"]) else "") for metric in METRICS]
    cells.append(row["paper_map_micro"])
    cells += [format_difference(row, f"{metric}_minus_rgb") for metric in METRICS]
    verdict = f", **{text}**" if (text := VERDICTS[row["better_than_probe"]]) else ""
    over_probe = format_difference(row, "map_macro_minus_probe")
    cells.append(f"{over_probe} ({row['best_probe']}){verdict}" if over_probe else "")
    seconds = f"{float(row['seconds']):.0f} s" if row["seconds"] else ""
    return [*cells, seconds, row["parameters"], row["num_videos"], row["protocol"], row["settings"]]


def format_difference(row: Mapping[str, str], name: str) -> str:
    """Return a difference and its interval as one cell of the Markdown table."""
    value, low, high = (row[f"{name}{suffix}"] for suffix in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]" if low else value


def format_top1(rows: Sequence[Mapping[str, str]], bootstrap: RunBootstrap) -> str:
    """Return the section about top-1 accuracy in Markdown; "" if clips have several labels or none."""
    single_label = [row for row in rows if row["top1_mean"]]
    if not single_label:
        return ""
    cells = []
    for row in single_label:
        numbers = []
        for metric in TOP1_METRICS:
            mean_value, std, low, high = (row[f"{metric}_{end}"] for end in ("mean", "std", "low", "high"))
            numbers.append(mean_value + (f" ± {std}" if std else "") + (f" [{low}, {high}]" if low else ""))
        cells.append([row["config"], row["seeds"], *numbers, row["num_videos"], row["protocol"], row["settings"]])
    interval = (
        f"; in brackets the 95 % interval, bootstrap over {bootstrap.over} and seeds, {bootstrap.resamples} resamples"
        if bootstrap.resamples
        else ""
    )
    return (
        f"## Top-1 accuracy\n\n{markdown_table(TOP1_COLUMNS, cells)}\nEach clip has exactly one label. top-1: fraction "
        "of clips whose highest score is their label. mean per-class top-1: mean over classes of the accuracy on their "
        f"clips. Mean ± standard deviation over the seeds{interval}.\n\n"
    )


def format_caption(
    groups: Groups, bootstrap: RunBootstrap, messages: Sequence[str], *, has_probes: bool = False
) -> str:
    """Return the text below the table: what the columns and protocols mean, and what could not be computed."""
    from vimoclip.metrics import METRIC_NAMES

    over, resamples = bootstrap.over, bootstrap.resamples
    macro, micro = (METRIC_NAMES[metric].description for metric in METRICS)
    runs = [run for group_runs in groups.values() for run in group_runs]
    clips = _distinct_values(runs, "num_videos").replace(" ", " or ")
    models = {run["settings"]["training.init"]: run["init"]["name"] for run in runs if run.get("init")}
    paragraphs = [
        f"Average precision on the {clips} clips of the evaluation split, as fractions of 1: mean ± standard deviation "
        f"over the seeds. macro AP: {macro.format(classes='classes')}, Animal Kingdom's own metric; micro AP: {micro}.",
        f"over rgb: the difference to config {RGB} of the same protocol and settings on the same clips, mean over the "
        "seeds that both have"
        + (f", with its 95 % interval: paired bootstrap over {over}, {resamples} resamples." if resamples else ".")
        + (INTERVAL_NOTE if resamples else ""),
        *([PROBE_NOTE] if has_probes else []),
        "paper: its Table 2, micro AP on the splits of Animal Kingdom's authors, one seed, at the epoch that is best "
        "on the evaluation split, regardless of the data and settings here. time: of training, mean over seeds.",
        *(note for name, note in PROTOCOL_NOTES.items() if name in {group.protocol for group in groups}),
        *(note for name, note in STUDENT_NOTES.items() if any(name in g.student.split(", ") for g in groups)),
        *([STUDENTS_NOTE] if any(_num_students(runs) > 1 for runs in groups.values()) else []),
        *([INIT_NOTE + html.escape("; ".join(f"{key}: {name}" for key, name in models.items()))] if models else []),
        *([INPUTS_NOTE] if any(group.inputs for group in groups) else []),
        "With training.checkpoint last, the epoch is the last one and was not selected.",
        *(html.escape(message, quote=False) for message in messages),
    ]
    return "".join(f"{paragraph}\n\n" for paragraph in paragraphs)


if __name__ == "__main__":
    cli.run(main)
