"""One or several trained TFAMs as the classifier of windows in `predict.py`: the mean of their scores."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from TFAM.predictor import FusionPredictor
from vimoclip import cli
from vimoclip.check.compatibility import check_encoder
from vimoclip.errors import UserError
from vimoclip.io.names import list_some, normalize_name
from vimoclip.prediction import WindowFeatures, WindowScores
from vimoclip.video import geometry_of, recorded_geometry

STREAMS = ("rgb", "motion")
HINT = "give runs that were trained on the same data"


class FusionEnsemble:
    """The mean over the scores of one or several runs.

    `classes`: in the order of the first run; those of the others are matched by name. `inputs`: as in FusionPredictor,
    of each stream that any run uses; `paths`: the first run that uses it. Raises UserError for a run that is given
    twice, and for runs that differ in classes, frames, encoders, or in whether they are calibrated."""

    def __init__(self, runs: Sequence[FusionPredictor]):
        for first, second in combinations(runs, 2):
            _check_compatible(first, second)
        self.runs, self.classes = runs, runs[0].classes
        columns = [[_class_names(run).index(name) for name in _class_names(runs[0])] for run in runs]
        self._members = list(zip(runs, columns, strict=True))
        users = {stream: [run for run in runs if run.inputs[stream]] for stream in STREAMS}
        self.inputs = {stream: found[0].inputs[stream] if found else None for stream, found in users.items()}
        self.paths = {stream: found[0].path for stream, found in users.items() if found}

    def __call__(self, windows: Sequence[WindowFeatures]) -> WindowScores:
        """Return the mean of the scores; of several runs also their sample standard deviation."""
        scores = np.stack([run(windows)[:, columns] for run, columns in self._members])
        return WindowScores(scores.mean(axis=0), scores.std(axis=0, ddof=1) if len(scores) > 1 else None)

    @property
    def has_two_streams(self) -> bool:
        """Whether a run uses both streams."""
        return any(run.has_two_streams for run in self.runs)

    def score_streams(self, windows: Sequence[WindowFeatures]) -> np.ndarray:
        """Return (2, n, C): see FusionPredictor; the mean over the runs that use both streams.

        A run of one stream is left out, as it has no score by the other one."""
        members = [(run, columns) for run, columns in self._members if run.has_two_streams]
        return np.mean([run.score_streams(windows)[..., columns] for run, columns in members], axis=0)

    def thresholds(self) -> np.ndarray:
        """Return (C,) means of the runs' thresholds."""
        return np.mean([run.thresholds()[columns] for run, columns in self._members], axis=0)

    def positives(self) -> dict[str, int]:
        """Return the number of clips on which calibration and threshold of a class rest, of the run with the fewest.

        Empty if the runs are not calibrated."""
        found = [run.calibration.positives[columns] for run, columns in self._members if run.calibration]
        return dict(zip(self.classes, np.min(found, axis=0).tolist(), strict=True)) if found else {}

    def metadata(self) -> dict[str, Any]:
        """Return what results record of the model, without paths: runs, weights, encoders, sampling and geometry.

        With several runs `tfam`, `tfam_weights_sha256` and `calibration` are lists. `calibration` is None for raw
        scores, also for those that the method `none` leaves as they are."""
        rgb, motion = self.inputs["rgb"] or {}, self.inputs["motion"] or {}
        methods = [run.calibration.method for run in self.runs if run.calibration]
        by_run: dict[str, list[Any]] = {
            "tfam": [run.name for run in self.runs],
            "tfam_weights_sha256": [run.weights_sha256 for run in self.runs],
            "calibration": methods if set(methods) - {"none"} else [None],
        }
        return {
            "zero_shot": False,
            **{key: values if len(values) > 1 else values[0] for key, values in by_run.items()},
            "clip_model": rgb.get("clip_model"),
            "clip_weights_sha256": rgb.get("weights_sha256"),
            "student_weights_sha256": motion.get("weights_sha256"),
            "flow": motion.get("student", {}).get("flow"),
            "sampling": (rgb or motion).get("sampling"),
            "geometry": geometry_of(rgb or motion).as_dict(),
        }


def _class_names(run: FusionPredictor) -> list[str]:
    return [normalize_name(name) for name in run.classes]


def _check_compatible(first: FusionPredictor, second: FusionPredictor) -> None:
    """Raise UserError unless the scores of two runs can be averaged."""
    if first.weights_sha256 == second.weights_sha256:
        raise UserError(f"is the same model as {first.path}", "give each run once", path=second.path)
    if different := sorted(set(_class_names(first)) ^ set(_class_names(second))):
        raise UserError(f"only one of {first.path} and {second.path} has these classes: {list_some(different)}", HINT)
    for stream in STREAMS:
        names = [f"the {stream} embeddings of {run.path}" for run in (first, second)]
        check_encoder(first.inputs[stream] or {}, second.inputs[stream] or {}, *names)
    cli.check_settings_match(_frames(first), _frames(second), str(first.path), str(second.path), HINT)
    for run, other in ((first, second), (second, first)):
        if run.calibration and not other.calibration:
            problem = f"has no calibration, but {run.path} has one"
            raise UserError(problem, "use --raw for scores without calibration, or give other runs", path=other.path)


def _frames(run: FusionPredictor) -> dict[str, Any]:
    """Return which frames a run was trained on, and their geometry."""
    attributes = run.inputs["rgb"] or run.inputs["motion"] or {}
    return {"sampling": attributes.get("sampling"), "geometry": recorded_geometry(attributes)}
