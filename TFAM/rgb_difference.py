"""How much better than RGB alone: differences of average precision on the same clips, with paired intervals."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from vimoclip.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from vimoclip.io.predictions_csv import Table

Run = Mapping[str, Any]  # metrics.json, with `folder`, where it lies
RGB, ZERO_SHOT = "rgb", "zero_shot"
METRICS = ("map_macro", "map_micro")
# by these the configs of one experiment differ; in all others a run must agree with the RGB run it is compared with
OWN_TO_A_CONFIG = {"model.fusion", "model.positions", "model.dropout", "model.classifier_dropout"}
OWN_TO_A_CONFIG |= {"training.batch_size", "data.motion"}
SAME_INPUTS = ("rgb_train_h5", "rgb_val_h5", "rgb_test_h5", "selection")  # of metrics.json's inputs_sha256


class Group(NamedTuple):
    """What the runs of a row share; `settings` as `key=value ...`."""

    config: str
    protocol: str
    settings: str


class Difference(NamedTuple):
    """To RGB alone: mean over the seeds that both have; `low` to `high`: its interval, None where it can't be had."""

    value: float
    low: float | None = None
    high: float | None = None


Differences = dict[str, Difference]  # by metric


def compare(
    groups: Mapping[Group, Sequence[Run]], resamples: int, seed: int
) -> tuple[dict[Group, Differences], list[str]]:
    """(differences of each group to RGB alone, lines that say why others have none, or no interval)."""
    bootstrap = Bootstrap(resamples, seed)
    found: dict[Group, Differences] = {}
    notes: list[str] = []
    for group, runs in groups.items():
        if group.config == RGB or group.protocol == ZERO_SHOT:
            continue
        try:
            found[group] = _difference(runs, _baseline(group, groups), bootstrap)
        except UserError as error:
            notes.append(f"{group.config}, {group.protocol}: no difference to rgb: {error}")
        else:
            notes += [f"{group.config}, {group.protocol}: no interval: {why}" for why in bootstrap.take_reasons()]
    return found, list(dict.fromkeys(notes))


def _baseline(group: Group, groups: Mapping[Group, Sequence[Run]]) -> Sequence[Run]:
    """The runs of RGB alone that a group is compared with. Raises UserError where there are none.

    RGB alone has no student, so whose the other runs' is doesn't matter."""
    shared = _shared(groups[group])
    candidates = [
        runs
        for other, runs in groups.items()
        if (other.config, other.protocol) == (RGB, group.protocol.split(",")[0])
        and runs[0]["fusion"] == RGB
        and _shared(runs) == shared
    ]
    if not candidates:
        raise UserError("there is no run of rgb of the same protocol and settings")
    candidates = [runs for runs in candidates if same_inputs(runs[0], groups[group][0])] or candidates
    own = groups[group][0]["settings"].items()
    return max(candidates, key=lambda runs: sum(item in own for item in runs[0]["settings"].items()))


def same_inputs(one: Run, other: Run) -> bool:
    """Whether two runs learnt from, chose on and report the same clips, as far as both say it."""
    ours, theirs = (run.get("inputs_sha256", {}) for run in (one, other))
    return all(None in (ours.get(key), theirs.get(key)) or ours[key] == theirs[key] for key in SAME_INPUTS)


def _shared(runs: Sequence[Run]) -> dict[str, Any]:
    return {key: value for key, value in runs[0]["settings"].items() if key not in OWN_TO_A_CONFIG}


def _difference(runs: Sequence[Run], baseline: Sequence[Run], bootstrap: "Bootstrap") -> Differences:
    """Raises UserError where the two have no seed, or not the clips, in common."""
    theirs = {run["seed"]: run for run in baseline}
    pairs = [(run, theirs[run["seed"]]) for run in runs if run["seed"] in theirs]
    if not pairs:
        raise UserError("they have no seed in common")
    bootstrap.check_same_clips([run for pair in pairs for run in pair])
    if not all(same_inputs(*pair) for pair in pairs):
        raise UserError("they are of other labels, embeddings or selection clips")
    found = {}
    for metric in METRICS:
        value = mean(ours[metric] - rgb[metric] for ours, rgb in pairs)
        found[metric] = Difference(value, *bootstrap.interval(pairs, metric, value))
    return found


class Bootstrap:
    """Average precisions of runs on resamples of their clips, the same for all runs of the same clips.

    What can't be had is None, and `take_reasons` says why."""

    def __init__(self, resamples: int, seed: int):
        self.resamples, self.seed = resamples, seed
        self._tables: dict[Path, Table] = {}
        self._of_run: dict[Path, dict[str, np.ndarray] | str] = {}  # or why there is none
        self._reasons: list[str] = []

    def take_reasons(self) -> list[str]:
        """Those since this was asked last, each once."""
        reasons, self._reasons = self._reasons, []
        return list(dict.fromkeys(reasons))

    def check_same_clips(self, runs: Iterable[Run]) -> None:
        """Raise UserError where runs are of other clips, as far as that can be told."""
        runs = list(runs)
        clips = {frozenset(self._read(run).videos) for run in runs if (run["folder"] / "predictions.csv").is_file()}
        if len({run["num_videos"] for run in runs}) > 1 or len(clips) > 1:
            raise UserError("they are of other clips")

    def _read(self, run: Run) -> "Table":
        """A run's predictions, read once: those of 6,096 clips of 140 classes are 7 MB. Raises UserError."""
        from vimoclip.io import predictions_csv

        folder = run["folder"]
        if folder not in self._tables:
            self._tables[folder] = predictions_csv.read(folder / "predictions.csv")
        return self._tables[folder]

    def interval(
        self, pairs: Sequence[tuple[Run, Run]], metric: str, value: float
    ) -> tuple[float | None, float | None]:
        """Of the mean over pairs of runs of the differences of a metric; of several, each resample draws pairs too."""
        import numpy as np

        from vimoclip import metrics

        if not self.resamples:
            return None, None
        values = [(self._resampled(ours), self._resampled(rgb)) for ours, rgb in pairs]
        differences = [ours[metric] - rgb[metric] for ours, rgb in values if ours and rgb]
        if len(differences) < len(pairs):
            return None, None
        # [.., 1]: not the numbers that clips are drawn with
        pairs_drawn = np.random.default_rng([self.seed, 1]).integers(0, len(pairs), (self.resamples, len(pairs)))
        resampled = np.stack(differences)[pairs_drawn.T, np.arange(self.resamples)].mean(0)
        low, high = metrics.interval(resampled, value=value)
        return float(low), float(high)

    def _resampled(self, run: Run) -> "dict[str, np.ndarray] | None":
        folder = run["folder"]
        if folder not in self._of_run:
            print(f"{folder}: {self.resamples} resamples of its clips", flush=True)
            try:
                self._of_run[folder] = self._compute(run)
            except UserError as error:
                self._of_run[folder] = str(error)
        found = self._of_run[folder]
        if isinstance(found, str):
            self._reasons.append(found)
            return None
        return found

    def _compute(self, run: Run) -> "dict[str, np.ndarray]":
        import numpy as np

        from vimoclip import metrics

        table = self._read(run)
        order = np.argsort(np.array(table.videos))  # so that two runs' weights are of the same clips
        targets = labels(run, table.videos)[order]
        weights = metrics.draw_weights(len(order), self.resamples, self.seed)
        found = metrics.resampled_precisions(table.scores[order], targets, weights)
        return {"map_macro": metrics.macro(found.per_class), "map_micro": found.micro}


def labels(run: Run, videos: Sequence[str]) -> "np.ndarray":
    """(N, C) bool, of the file that the run itself was evaluated on. Raises UserError where that is gone."""
    import numpy as np

    from vimoclip.io.yaml_json import read_yaml
    from vimoclip.store import Reader

    where, key = run["folder"] / "config.yaml", f"rgb_{run.get('reported_split', 'val')}_h5"
    try:
        path = Path(read_yaml(where)["data"][key])
    except (KeyError, TypeError):
        raise UserError(f"{where}: doesn't name the file of the reported clips, whose labels are needed") from None
    rgb = Reader(path, "rgb")
    learnt, now = run.get("inputs_sha256", {}).get(key), rgb.attributes.get("content_sha256")
    if learnt and now != learnt:
        raise UserError(f"is not what {run['folder']} was evaluated on", path=path)
    if missing := set(videos) - set(rgb.keys):
        raise UserError(f"{len(missing)} videos of {run['folder']} are not in it, like {min(missing)}", path=path)
    return np.stack([rgb.labels(video) > 0 for video in videos])
