"""Differences of average precision between runs and RGB alone, on the same clips, with paired bootstrap intervals."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from vimoclip.annotations.split_protocol import ZERO_SHOT
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


class RunGroup(NamedTuple):
    """Key of the runs in one row of the table.

    `student`: a key of table.STUDENT_NOTES, or ""; `settings`: `key=value ...`; `inputs`:
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
        try:
            differences[group] = _paired_difference(runs, _find_baseline(group, groups), bootstrap)
        except UserError as error:
            messages.append(f"{group.config}, {group.protocol_label}: no difference to rgb: {error}")
        else:
            failures = bootstrap.pop_failures()
            messages += [f"{group.config}, {group.protocol_label}: no interval: {reason}" for reason in failures]
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
    """Return whether two runs trained on, chose on and evaluated the same clips, if both record them."""
    first_hashes, second_hashes = (run.get("inputs_sha256", {}) for run in (first, second))
    pairs = [(first_hashes.get(key), second_hashes.get(key)) for key in COMPARED_INPUTS]
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _shared_settings(runs: Sequence[RunMetrics]) -> dict[str, Any]:
    return {key: value for key, value in runs[0]["settings"].items() if key not in CONFIG_SPECIFIC_KEYS}


def _paired_difference(
    runs: Sequence[RunMetrics], baseline: Sequence[RunMetrics], bootstrap: "RunBootstrap"
) -> MetricDifferences:
    """Return the differences over common seeds. Raises UserError if there is no such seed, or if clips differ."""
    baseline_by_seed = {run["seed"]: run for run in baseline}
    pairs = [(run, baseline_by_seed[run["seed"]]) for run in runs if run["seed"] in baseline_by_seed]
    if not pairs:
        raise UserError("they have no seed in common")
    bootstrap.check_same_clips([run for pair in pairs for run in pair])
    if not all(have_same_inputs(*pair) for pair in pairs):
        raise UserError("they have different labels, embeddings or selection clips")
    differences = {}
    for metric in METRICS:
        value = mean(run[metric] - rgb[metric] for run, rgb in pairs)
        differences[metric] = MetricDifference(value, *bootstrap.interval(pairs, metric, value))
    return differences


class RunBootstrap:
    """Average precision of runs on bootstrap resamples of their clips, the same resamples for all runs.

    A run whose predictions or labels can't be read has no values; `pop_failures` returns the reasons."""

    def __init__(self, resamples: int, seed: int):
        self.resamples, self.seed = resamples, seed
        self._tables: dict[Path, PredictionsTable] = {}
        self._values: dict[Path, dict[str, np.ndarray] | UserError] = {}  # by run folder
        self._failures: list[str] = []

    def pop_failures(self) -> list[str]:
        """Return the distinct reasons of failures since the last call."""
        failures, self._failures = self._failures, []
        return list(dict.fromkeys(failures))

    def check_same_clips(self, runs: Iterable[RunMetrics]) -> None:
        """Raise UserError if the runs' predictions are of different clips, or of different numbers of clips."""
        runs = list(runs)
        clips = {
            frozenset(self._read_predictions(run).videos)
            for run in runs
            if (run["folder"] / "predictions.csv").is_file()
        }
        if len({run["num_videos"] for run in runs}) > 1 or len(clips) > 1:
            raise UserError("they have different clips")

    def _read_predictions(self, run: RunMetrics) -> "PredictionsTable":
        """Read a run's predictions once: 7 MB for 6,096 clips of 140 classes. Raises UserError."""
        from vimoclip.io import predictions_csv

        folder = run["folder"]
        if folder not in self._tables:
            self._tables[folder] = predictions_csv.read(folder / "predictions.csv")
        return self._tables[folder]

    def interval(
        self, pairs: Sequence[tuple[RunMetrics, RunMetrics]], metric: str, value: float
    ) -> tuple[float | None, float | None]:
        """Return the interval of the mean difference over (run, RGB run) pairs; each resample also draws pairs."""
        import numpy as np

        from vimoclip import metrics

        if not self.resamples:
            return None, None
        values = [(self._resampled_values(run), self._resampled_values(rgb)) for run, rgb in pairs]
        differences = [run[metric] - rgb[metric] for run, rgb in values if run and rgb]
        if len(differences) < len(pairs):
            return None, None
        # another seed, so that the draws are independent of those of clips
        drawn_pairs = np.random.default_rng([self.seed, 1]).integers(0, len(pairs), (self.resamples, len(pairs)))
        resampled = np.stack(differences)[drawn_pairs.T, np.arange(self.resamples)].mean(0)
        low, high = metrics.confidence_interval(resampled, value)
        return float(low), float(high)

    def _resampled_values(self, run: RunMetrics) -> "dict[str, np.ndarray] | None":
        """Return (resamples,) values by metric, or record the failure and return None."""
        folder = run["folder"]
        if folder not in self._values:
            print(f"{folder}: {self.resamples} resamples of its clips", flush=True)
            try:
                self._values[folder] = self._resample(run)
            except UserError as error:
                self._values[folder] = error
        values = self._values[folder]
        if isinstance(values, UserError):
            self._failures.append(str(values))
            return None
        return values

    def _resample(self, run: RunMetrics) -> "dict[str, np.ndarray]":
        import numpy as np

        from vimoclip import metrics

        table = self._read_predictions(run)
        order = np.argsort(np.array(table.videos))  # same order for all runs, so that weights belong to the same clips
        targets = read_labels(run, table.videos)[order]
        weights = metrics.bootstrap_weights(len(order), self.resamples, self.seed)
        per_class, micro = (
            bootstrap(table.scores[order], targets, weights)
            for bootstrap in (metrics.bootstrap_ap_per_class, metrics.bootstrap_ap_micro)
        )
        return {"map_macro": metrics.macro_average(per_class), "map_micro": micro}


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
