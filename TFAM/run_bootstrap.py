"""Average precision of finished runs on bootstrap resamples of their clips or sources, and differences of runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from TFAM.run_groups import RunMetrics, have_same_inputs, pairs_by_seed
from vimoclip.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from vimoclip.io.predictions_csv import PredictionsTable
    from vimoclip.store import EmbeddingReader

METRICS = ("map_macro", "map_micro")
TOP1_METRICS = ("top1", "mean_per_class_top1")  # if each clip has exactly one label


class MetricDifference(NamedTuple):
    """Mean difference to a baseline over common seeds, and its interval (None if it could not be computed)."""

    value: float
    low: float | None = None
    high: float | None = None


MetricDifferences = dict[str, MetricDifference]  # by metric


class RunBootstrap:
    """Average precision of runs on bootstrap resamples, the same resamples for all runs.

    `over`: what is drawn, "clips" or whole "sources", of sources.csv of each run's data set."""

    def __init__(self, resamples: int, seed: int, over: str = "clips"):
        self.resamples, self.seed, self.over = resamples, seed, over
        self._tables: dict[Path, PredictionsTable] = {}
        self._values: dict[Path, dict[str, np.ndarray]] = {}  # by run folder

    def pair_runs(
        self, runs: Sequence[RunMetrics], baseline: Sequence[RunMetrics]
    ) -> list[tuple[RunMetrics, RunMetrics]]:
        """Return (run, baseline run) by common seed. Raises UserError if there is no such seed, or if clips differ."""
        pairs = pairs_by_seed(runs, baseline)
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
        resampled_pairs = [(self.resampled_values(run), self.resampled_values(rgb)) for run, rgb in pairs]
        intervals = {}
        for metric, value in values.items():
            differences = [run[metric] - rgb[metric] for run, rgb in resampled_pairs]
            intervals[metric] = MetricDifference(value, *self._interval_of_mean(differences, value))
        return intervals

    def mean_interval(self, runs: Sequence[RunMetrics], metric: str) -> tuple[float, float]:
        """Return the interval of the mean of a metric over runs, within 0..1; each resample also draws runs.

        Raises UserError."""
        if len({frozenset(self._read_predictions(run).videos) for run in runs}) > 1:
            raise UserError("its runs have different clips")
        values = [self.resampled_values(run)[metric] for run in runs]
        low, high = self._interval_of_mean(values, mean(self.value(run, metric) for run in runs))
        return max(low, 0.0), min(high, 1.0)

    def value(self, run: RunMetrics, metric: str) -> float:
        """Return a metric of all clips. Raises UserError if predictions or labels are needed and can't be read."""
        return run[metric] if metric in run else float(self._all_values(run)[metric][0])

    def has_one_label_per_clip(self, run: RunMetrics) -> bool:
        """Return whether top-1 accuracy is defined. Raises UserError if predictions or labels can't be read."""
        return TOP1_METRICS[0] in self._all_values(run)

    def _interval_of_mean(self, resampled: "Sequence[np.ndarray]", value: float) -> tuple[float, float]:
        """Return the interval of the mean `value` of runs or pairs; `resampled`: (resamples,) values of each."""
        import numpy as np

        from vimoclip import metrics

        # another seed, so that the draws are independent of those of clips
        drawn = np.random.default_rng([self.seed, 1]).integers(0, len(resampled), (self.resamples, len(resampled)))
        means = np.stack(resampled)[drawn.T, np.arange(self.resamples)].mean(0)
        return metrics.confidence_interval(means, value)

    def clips_sha256(self, run: RunMetrics) -> str:
        """Return a hash of the names of the clips that a run was evaluated on. Raises UserError."""
        from vimoclip.training import run_folder

        return run_folder.digest(sorted(self._read_predictions(run).videos))

    def _read_predictions(self, run: RunMetrics) -> "PredictionsTable":
        """Read a run's predictions once: 7 MB for 6,096 clips of 140 classes. Raises UserError."""
        from vimoclip.io import predictions_csv

        folder = run["folder"]
        if folder not in self._tables:
            self._tables[folder] = predictions_csv.read(folder / "predictions.csv")
        return self._tables[folder]

    def resampled_values(self, run: RunMetrics) -> "dict[str, np.ndarray]":
        """Return (resamples,) values by metric. Raises UserError if predictions, labels or sources can't be read, and
        for too few sources."""
        found = self._all_values(run)
        if len(found[METRICS[0]]) <= self.resamples:
            from vimoclip.evaluation.resampling import MIN_SOURCES

            raise UserError(f"intervals over sources need at least {MIN_SOURCES} sources")
        return {metric: values[1:] for metric, values in found.items()}

    def _all_values(self, run: RunMetrics) -> "dict[str, np.ndarray]":
        """Return (1 + resamples,) values by metric: of all clips, then of the resamples."""
        import numpy as np

        from vimoclip import metrics

        folder = run["folder"]
        if folder not in self._values:
            table = self._read_predictions(run)
            order = np.argsort(np.array(table.videos))  # of all runs, so that weights belong to the same clips
            scores, targets = table.scores[order], self.read_labels(run, table.videos)[order]
            if self.resamples:
                print(f"{folder}: {self.resamples} resamples of its {self.over}", flush=True)
            resamples = self._draw(run, [table.videos[i] for i in order])
            weights = np.concatenate([np.ones((1, len(order)), resamples.dtype), resamples])
            per_class, micro = (
                bootstrap(scores, targets, weights)
                for bootstrap in (metrics.bootstrap_ap_per_class, metrics.bootstrap_ap_micro)
            )
            values = {"map_macro": metrics.macro_average(per_class), "map_micro": micro}
            if (targets.sum(1) == 1).all():
                values["top1"] = metrics.weighted_mean(metrics.precision_at_k(scores, targets, 1), weights)
                values["mean_per_class_top1"] = metrics.mean_per_class_top1(scores, targets, weights)
            self._values[folder] = values
        return self._values[folder]

    def read_labels(self, run: RunMetrics, videos: Sequence[str]) -> "np.ndarray":
        """Return (N, C) bool labels. Raises UserError if they can't be read or have changed."""
        return read_labels(run, videos)

    def read_sources(self, run: RunMetrics) -> Mapping[str, str]:
        """Return the source by clip. Raises UserError if they can't be read."""
        return read_sources(run)

    def _draw(self, run: RunMetrics, videos: Sequence[str]) -> "np.ndarray":
        """Return (resamples, N) weights; none for too few sources. Raises UserError for unknown sources."""
        from vimoclip import metrics
        from vimoclip.evaluation import resampling

        if not self.resamples or self.over == resampling.CLIPS:
            return metrics.bootstrap_weights(len(videos), self.resamples, self.seed)
        sources = resampling.source_indices(self.read_sources(run), videos)
        return resampling.source_weights(sources, self.resamples, self.seed)


def read_sources(run: RunMetrics) -> dict[str, str]:
    """Return the source by clip, of the data set of a run. Raises UserError if they can't be read."""
    from vimoclip.evaluation import resampling
    from vimoclip.io.yaml_json import read_yaml

    data = read_yaml(run["folder"] / "config.yaml").get("data")
    return resampling.read_sources(Path((data or {}).get("annotations_dir") or "dataset/annotations"))


def read_labels(run: RunMetrics, videos: Sequence[str]) -> "np.ndarray":
    """Return (N, C) bool labels from the file that the run was evaluated on. Raises UserError if it has changed."""
    import numpy as np

    key = f"rgb_{run.get('reported_split', 'val')}_h5"
    rgb = open_split(run, key)
    path = rgb.path
    expected, current = run.get("inputs_sha256", {}).get(key), rgb.attributes.get("content_sha256")
    if expected and current != expected:
        raise UserError(f"has changed since {run['folder']} was evaluated on it", path=path)
    if missing := set(videos) - set(rgb.keys):
        raise UserError(f"{len(missing)} videos of {run['folder']} are not in it, like {min(missing)}", path=path)
    return np.stack([rgb.labels(video) > 0 for video in videos])


def open_split(run: RunMetrics, key: str) -> "EmbeddingReader":
    """Open the RGB embeddings of a split of a run's data set. `key`: of the section data. Raises UserError."""
    from vimoclip.io.yaml_json import read_yaml
    from vimoclip.store import EmbeddingReader

    config_path = run["folder"] / "config.yaml"
    try:
        path = Path(read_yaml(config_path)["data"][key])
    except (KeyError, TypeError):
        raise UserError(f"has no data.{key}, the file of clips and labels that are needed", path=config_path) from None
    return EmbeddingReader(path, "rgb")
