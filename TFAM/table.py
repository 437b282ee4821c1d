"""Write a table of all finished runs: for each config the mean over seeds, the difference to RGB alone, and the
paper's number.

    python -m TFAM.table
Reads checkpoints/TFAM/<config>/seed<k>/ and, for the labels, the RGB embeddings of the evaluation split of each run.
Writes TFAM/results/table.csv and table.md. All metrics are fractions, from 0 to 1. The standard deviation over seeds
divides by n - 1, and is empty for one seed. Runs of one config with different settings (--set) or protocols have
separate rows."""

import hashlib
import html
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from vimoclip import cli
from vimoclip.annotations.split_protocol import HELD_OUT, PROTOCOL_NOTES, ZERO_SHOT
from vimoclip.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from vimoclip.io.predictions_csv import PredictionsTable

RunMetrics = Mapping[str, Any]  # content of metrics.json, and `folder`: the run folder
RGB = "rgb"  # the config that others are compared with
METRICS = ("map_macro", "map_micro")
# settings in which the configs of one experiment differ; all others must equal those of the RGB run
CONFIG_SPECIFIC_KEYS = {"model.fusion", "model.positions", "model.dropout", "model.classifier_dropout"}
CONFIG_SPECIFIC_KEYS |= {"training.batch_size", "data.motion"}
COMPARED_INPUTS = ("rgb_train_h5", "rgb_val_h5", "rgb_test_h5", "selection")  # of metrics.json's inputs_sha256
# Table 2 of the paper, which does not say with which positions and dropout
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
MARKDOWN_COLUMNS = ["config", "seeds", "macro AP", "micro AP", "paper, micro AP", "macro over rgb", "micro over rgb"]
MARKDOWN_COLUMNS += ["time", "parameters", "clips", "protocol", "settings"]
STUDENT_NOTES = {
    "published": "student published: the epoch of the student was selected on the evaluation split, and it was trained "
    "on the model-selection split, so the numbers are too high.",
    "of another selection": "student of another selection: the student may have been trained on the model-selection "
    "split.",
    "unknown": "student unknown: the protocol of the student is not known.",
}
INTERVAL_NOTE = (
    " With several seeds each resample draws seeds too; with one seed the interval does not include the variance "
    "between seeds."
)
INPUTS_NOTE = (
    "inputs=: a hash of the files and the model-selection split of the runs, if runs of one config differ in them."
)
BOOTSTRAP_SEED = 0
KEYS_UNLIKE_PAPER = {"data.motion", "data.limit"}  # runs with these settings are not in the paper


class RunGroup(NamedTuple):
    """Key of the runs in one row of the table.

    `student`: a key of STUDENT_NOTES, or ""; `settings`: `key=value ...`; `inputs`:
    a hash of what the runs read, if runs of the same config and settings read different files."""

    config: str
    protocol: str
    student: str
    settings: str
    inputs: str = ""

    @property
    def protocol_label(self) -> str:
        """Return the protocol, and the student's if it differs."""
        return f"{self.protocol}, student {self.student}" if self.student else self.protocol


class MetricDifference(NamedTuple):
    """Mean difference to RGB alone over common seeds, and its interval (None if it could not be computed)."""

    value: float
    low: float | None = None
    high: float | None = None


MetricDifferences = dict[str, MetricDifference]  # by metric


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
    differences, messages = compare_to_rgb(groups, args.resamples, BOOTSTRAP_SEED)
    rows = [make_row(group, groups[group], differences.get(group, {})) for group in groups]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    text = format_markdown(rows) + "\n" + format_caption(groups, args.resamples, messages)
    markdown = write_text(args.output_dir / "table.md", text)
    table = write_csv(args.output_dir / "table.csv", COLUMNS, [[row[column] for column in COLUMNS] for row in rows])
    print(text, f"wrote {table}", sep="", flush=True)
    cli.RunReport([table, markdown], done=len(runs), unit="run").write(args.report)
    return table


def read_metrics(path: Path) -> dict[str, Any]:
    """Read metrics.json and add the run folder under the key `folder`. Raises UserError."""
    from vimoclip.io.yaml_json import read_json

    return read_json(path, "delete it and train again") | {"folder": path.parent}


def group_runs(runs: Iterable[RunMetrics]) -> dict[RunGroup, list[RunMetrics]]:
    """Group runs by config, protocol and settings; the paper's five configs first, in its order, then by name."""
    groups: dict[RunGroup, list[RunMetrics]] = defaultdict(list)
    for run in runs:
        settings = " ".join(f"{key}={value}" for key, value in sorted(run["settings"].items()))
        groups[RunGroup(run["config"], run["protocol"], student_remark(run), settings)].append(run)
    groups = split_by_inputs(groups)
    paper_order = list(PAPER_MAP_MICRO)

    def sort_key(group: RunGroup) -> tuple[int, RunGroup]:
        return (paper_order.index(group.config) if group.config in paper_order else len(paper_order)), group

    return {group: groups[group] for group in sorted(groups, key=sort_key)}


def student_remark(run: RunMetrics) -> str:
    """Return how the student of a held_out run's motion was not held out likewise, a key of STUDENT_NOTES; else ""."""
    uses_motion = run["fusion"] != RGB and run["settings"].get("data.motion") != "none"
    if run["protocol"] != HELD_OUT or not uses_motion:
        return ""
    if run["student_protocol"] != HELD_OUT:
        return run["student_protocol"] or "unknown"
    return "of another selection" if run.get("student_selection_agrees") is False else ""


def split_by_inputs(groups: Mapping[RunGroup, Sequence[RunMetrics]]) -> dict[RunGroup, list[RunMetrics]]:
    """Split groups whose runs read different files; `inputs` is then a hash of these."""
    result: dict[RunGroup, list[RunMetrics]] = defaultdict(list)
    for group, runs in groups.items():
        inputs = [json.dumps(run.get("inputs_sha256"), sort_keys=True) for run in runs]
        for run, run_inputs in zip(runs, inputs, strict=True):
            digest = hashlib.sha256(run_inputs.encode()).hexdigest()[:8] if len(set(inputs)) > 1 else ""
            result[group._replace(inputs=digest)].append(run)
    return result


# --- differences to RGB alone, on the same clips, with paired bootstrap intervals


def compare_to_rgb(
    groups: Mapping[RunGroup, Sequence[RunMetrics]], resamples: int, seed: int
) -> tuple[dict[RunGroup, MetricDifferences], list[str]]:
    """Return (differences by group, reasons why groups have no difference or no interval)."""
    bootstrap = RunBootstrap(resamples, seed)
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
            if resamples:
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


def have_same_inputs(first: RunMetrics, second: RunMetrics) -> bool:
    """Return whether two runs had the same training, model-selection and evaluation split, if both record them."""
    first_hashes, second_hashes = (run.get("inputs_sha256", {}) for run in (first, second))
    pairs = [(first_hashes.get(key), second_hashes.get(key)) for key in COMPARED_INPUTS]
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _shared_settings(runs: Sequence[RunMetrics]) -> dict[str, Any]:
    return {key: value for key, value in runs[0]["settings"].items() if key not in CONFIG_SPECIFIC_KEYS}


class RunBootstrap:
    """Average precision of runs on bootstrap resamples of their clips, the same resamples for all runs."""

    def __init__(self, resamples: int, seed: int):
        self.resamples, self.seed = resamples, seed
        self._tables: dict[Path, PredictionsTable] = {}
        self._values: dict[Path, dict[str, np.ndarray]] = {}  # by run folder

    def pair_runs(
        self, runs: Sequence[RunMetrics], baseline: Sequence[RunMetrics]
    ) -> list[tuple[RunMetrics, RunMetrics]]:
        """Return (run, RGB run) by common seed. Raises UserError if there is no such seed, or if clips differ."""
        baseline_by_seed = {run["seed"]: run for run in baseline}
        pairs = [(run, baseline_by_seed[run["seed"]]) for run in runs if run["seed"] in baseline_by_seed]
        if not pairs:
            raise UserError("they have no seed in common")
        paired = [run for pair in pairs for run in pair]
        clips = {
            frozenset(self._read_predictions(run).videos)
            for run in paired
            if (run["folder"] / "predictions.csv").is_file()
        }
        if len({run["num_videos"] for run in paired}) > 1 or len(clips) > 1:
            raise UserError("they have different clips")
        if not all(have_same_inputs(*pair) for pair in pairs):
            raise UserError("they have different labels, embeddings or model-selection splits")
        return pairs

    def intervals(
        self, pairs: Sequence[tuple[RunMetrics, RunMetrics]], values: Mapping[str, float]
    ) -> MetricDifferences:
        """Add intervals to mean differences; each resample also draws pairs. Raises UserError for unreadable runs."""
        import numpy as np

        from vimoclip import metrics

        resampled_pairs = [(self._resampled_values(run), self._resampled_values(rgb)) for run, rgb in pairs]
        # another seed, so that the draws are independent of those of clips
        drawn = np.random.default_rng([self.seed, 1]).integers(0, len(pairs), (self.resamples, len(pairs)))
        intervals = {}
        for metric, value in values.items():
            differences = np.stack([run[metric] - rgb[metric] for run, rgb in resampled_pairs])
            resampled = differences[drawn.T, np.arange(self.resamples)].mean(0)
            low, high = metrics.confidence_interval(resampled, value)
            intervals[metric] = MetricDifference(value, float(low), float(high))
        return intervals

    def _read_predictions(self, run: RunMetrics) -> "PredictionsTable":
        """Read a run's predictions once: 7 MB for 6,096 clips of 140 classes. Raises UserError."""
        from vimoclip.io import predictions_csv

        folder = run["folder"]
        if folder not in self._tables:
            self._tables[folder] = predictions_csv.read(folder / "predictions.csv")
        return self._tables[folder]

    def _resampled_values(self, run: RunMetrics) -> "dict[str, np.ndarray]":
        """Return (resamples,) values by metric. Raises UserError if predictions or labels can't be read."""
        import numpy as np

        from vimoclip import metrics

        folder = run["folder"]
        if folder not in self._values:
            table = self._read_predictions(run)
            order = np.argsort(np.array(table.videos))  # of all runs, so that weights belong to the same clips
            targets = read_labels(run, table.videos)[order]
            print(f"{folder}: {self.resamples} resamples of its clips", flush=True)
            weights = metrics.bootstrap_weights(len(order), self.resamples, self.seed)
            per_class, micro = (
                bootstrap(table.scores[order], targets, weights)
                for bootstrap in (metrics.bootstrap_ap_per_class, metrics.bootstrap_ap_micro)
            )
            self._values[folder] = {"map_macro": metrics.macro_average(per_class), "map_micro": micro}
        return self._values[folder]


def read_labels(run: RunMetrics, videos: Sequence[str]) -> "np.ndarray":
    """Return (N, C) bool labels from the file that the run was evaluated on. Raises UserError if it has changed."""
    import numpy as np

    from vimoclip.io.yaml_json import read_yaml
    from vimoclip.store import EmbeddingReader

    config_path, key = run["folder"] / "config.yaml", f"rgb_{run.get('reported_split', 'val')}_h5"
    try:
        path = Path(read_yaml(config_path)["data"][key])
    except (KeyError, TypeError):
        problem = "has no path of the evaluation split's file, whose labels are needed"
        raise UserError(problem, path=config_path) from None
    rgb = EmbeddingReader(path, "rgb")
    expected, current = run.get("inputs_sha256", {}).get(key), rgb.attributes.get("content_sha256")
    if expected and current != expected:
        raise UserError(f"has changed since {run['folder']} was evaluated on it", path=path)
    if missing := set(videos) - set(rgb.keys):
        raise UserError(f"{len(missing)} videos of {run['folder']} are not in it, like {min(missing)}", path=path)
    return np.stack([rgb.labels(video) > 0 for video in videos])


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
    # users choose config names: escape markup and column separators
    cells = [[html.escape(cell, quote=False).replace("|", "\\|") for cell in _markdown_cells(row)] for row in rows]
    lines = [" | ".join(row) for row in [MARKDOWN_COLUMNS, ["---"] * len(MARKDOWN_COLUMNS), *cells]]
    return "".join(f"| {line} |\n" for line in lines)


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


def format_caption(groups: Mapping[RunGroup, Sequence[RunMetrics]], resamples: int, messages: Sequence[str]) -> str:
    """Return the text below the table: what the columns and protocols mean, and what could not be computed."""
    from vimoclip.metrics import METRIC_NAMES

    macro, micro = (METRIC_NAMES[metric].description for metric in METRICS)
    clips = _distinct_values([run for runs in groups.values() for run in runs], "num_videos").replace(" ", " or ")
    paragraphs = [
        f"Average precision on the {clips} clips of the evaluation split, as fractions of 1: mean ± standard deviation "
        f"over the seeds. macro AP: {macro.format(classes='classes')}, Animal Kingdom's own metric; micro AP: {micro}.",
        f"over rgb: the difference to config {RGB} of the same protocol and settings on the same clips, mean over the "
        "seeds that both have"
        + (f", with its 95 % interval: paired bootstrap over clips, {resamples} resamples." if resamples else ".")
        + (INTERVAL_NOTE if resamples else ""),
        "paper: its Table 2, micro AP on Animal Kingdom, one seed, at the epoch that is best on the evaluation split, "
        "regardless of the settings here. time: of training, mean over seeds.",
        *(note for name, note in PROTOCOL_NOTES.items() if name in {group.protocol for group in groups}),
        *(note for name, note in STUDENT_NOTES.items() if name in {group.student for group in groups}),
        *([INPUTS_NOTE] if any(group.inputs for group in groups) else []),
        "With training.checkpoint last, the epoch is the last one and was not selected.",
        *(html.escape(message, quote=False) for message in messages),
    ]
    return "".join(f"{paragraph}\n\n" for paragraph in paragraphs)


if __name__ == "__main__":
    cli.run(main)
