"""Predictions to evaluate, from a TFAM run folder or a CSV, matched to the videos and classes of the annotations."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vimoclip.annotations import Annotations, stem
from vimoclip.annotations.split_protocol import HELD_OUT, PUBLISHED
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv, yaml_json
from vimoclip.io.names import list_some, normalize_name
from vimoclip.io.predictions_csv import PredictionsTable
from vimoclip.io.text import read_text
from vimoclip.metrics.score_calibration import sigmoid

ROUNDING = 2.0**-7  # how far a probability may be outside 0..1: a step of bfloat16, the coarsest type, above 1

WITHOUT_MOTION = ("rgb", "probe_rgb")  # values of `fusion` of runs that read no motion


@dataclass(frozen=True)
class PredictionSource:
    """A file of predictions, and the fields of its run's metrics.json. Excluded videos: video -> reason."""

    path: Path
    title: str
    protocol: str | None = None  # None for a CSV; a run always has one
    epoch_chosen_by: str | None = None
    student_protocol: str | None = None
    student_caveat: str | None = None
    selection_path: Path | None = None  # predictions of the model-selection split
    excluded_videos: Mapping[str, str] = field(default_factory=dict)
    excluded_selection_videos: Mapping[str, str] = field(default_factory=dict)
    dataset_dir: Path | None = None  # the folder of the run's data set
    split: str = "val"  # the evaluation split of a run
    training_clips: frozenset[str] | None = None  # of a few-shot run

    @property
    def is_run(self) -> bool:
        """Return whether the predictions are a run's, and therefore probabilities."""
        return self.protocol is not None


class TrainingCounts(NamedTuple):
    """`positives` (C,): number of training videos of each class; `num_videos`: number of training videos."""

    positives: np.ndarray
    num_videos: int


def open_predictions(path: Path, selection_path: Path | None = None) -> PredictionSource:
    """Return the source of a run folder or a CSV. `selection_path` replaces a run's own selection predictions.

    Raises UserError unless a folder is a finished run."""
    if not path.is_dir():
        return PredictionSource(path, path.name, selection_path=selection_path)
    predictions_path, metrics_path = path / "predictions.csv", path / "metrics.json"
    if not (predictions_path.is_file() and metrics_path.is_file()):
        missing = metrics_path.name if predictions_path.is_file() else predictions_path.name
        raise UserError(
            f"is not a finished run of TFAM ({missing} is missing)",
            "finish it with the same command, or give a CSV of predictions",
            path=path,
        )
    run_metrics = yaml_json.read_json(metrics_path, "delete it and run its config again")
    own_selection_path, clips_path = path / "selection_predictions.csv", path / "training_clips.txt"
    protocol = run_metrics.get("protocol") or PUBLISHED  # null: a published checkpoint was evaluated
    return PredictionSource(
        path=predictions_path,
        title="/".join(path.absolute().parts[-2:]),
        protocol=protocol,
        epoch_chosen_by=run_metrics.get("epoch_chosen_by"),
        student_protocol=run_metrics.get("student_protocol"),
        student_caveat=student_caveat(run_metrics, protocol),
        selection_path=selection_path or (own_selection_path if own_selection_path.is_file() else None),
        excluded_videos=run_metrics.get("left_out_videos") or {},
        excluded_selection_videos=run_metrics.get("selection_left_out_videos") or {},
        dataset_dir=_dataset_dir(path / "config.yaml"),
        split=run_metrics.get("reported_split") or "val",
        training_clips=frozenset(read_text(clips_path).splitlines()) if clips_path.is_file() else None,
    )


def student_caveat(run_metrics: Mapping[str, Any], protocol: str) -> str | None:
    """Return a sentence if the student of a run used clips that it must not use, or may have; else None.

    These are the evaluation split, the model-selection split of a held-out run, and the clips beyond the shots of a
    few-shot run."""
    if run_metrics.get("fusion") in WITHOUT_MOTION or (run_metrics.get("settings") or {}).get("data.motion") == "none":
        return None
    if protocol == HELD_OUT:
        if "student_protocol" in run_metrics and run_metrics["student_protocol"] is None:
            return "It is unknown which clips the student of this run's motion was trained on and selected on."
        if run_metrics.get("student_protocol") == PUBLISHED:
            return (
                "The student of this run's motion was selected on the evaluation split (protocol published), so these "
                "numbers are too high."
            )
        if run_metrics.get("student_selection_agrees") is False:
            return "The student of this run's motion may have been trained on this run's model-selection split."
    if run_metrics.get("student_has_more_labels"):
        return (
            "The student of this few-shot run's motion was trained on labels of more clips than the run, or it is not "
            "known on which, so these numbers are too high for so few labels."
        )
    return None


def _dataset_dir(config_path: Path) -> Path | None:
    data = yaml_json.read_yaml(config_path).get("data", {}) if config_path.is_file() else {}
    embeddings = (data.get("rgb_val_h5") or data.get("rgb_test_h5")) if isinstance(data, dict) else None
    return Path(embeddings).parent.parent if isinstance(embeddings, str) else None


class Scores(NamedTuple):
    """(N, C) probabilities of N videos. `notes`: sentences about how they were read."""

    videos: list[str]
    probabilities: np.ndarray
    notes: list[str]


def read_scores(
    path: Path, data: Annotations, expected: Sequence[str], logits: bool, optional: Collection[str], is_run: bool
) -> Scores:
    """Read the scores of the `expected` videos with predictions, in their order, by class.

    Probabilities that are off by rounding are taken as 0 or 1. `is_run`: a run's, which are no logits. Raises UserError
    for a missing video that is not in `optional`, and for scores that are not probabilities."""
    table = predictions_csv.read(path, logits)
    columns, rows = match_classes(path, table, data.classes), match_videos(path, table, expected, optional)
    videos, scores = list(rows), table.scores[list(rows.values())][:, columns]
    is_outside, is_invalid = (scores < 0) | (scores > 1), (scores < -ROUNDING) | (scores > 1 + ROUNDING)
    if logits:
        return Scores(videos, sigmoid(scores), _logit_notes(path, scores, not is_invalid.any()))

    def list_scores(selected: np.ndarray) -> str:
        places = zip(*selected.nonzero(), strict=True)
        return list_some(f"{videos[n]}, {data.classes[c]}: {scores[n, c]:.9g}" for n, c in places)

    if is_invalid.any():
        problem = f"{int(is_invalid.sum())} scores are not probabilities ({list_scores(is_invalid)})"
        logits_hint = "; a run has no logits" if is_run else ", or --logits for logits"
        raise UserError(problem, f"give probabilities from 0 to 1{logits_hint}", path=path)
    notes = []
    if is_outside.any():
        count = f"{int(is_outside.sum())} probabilities ({list_scores(is_outside)})"
        notes.append(f"{path.name}: {count} are below 0 or above 1 by rounding, and are taken as 0 or 1.")
    return Scores(videos, scores.clip(0, 1), notes)


def _logit_notes(path: Path, logits: np.ndarray, resemble_probabilities: bool) -> list[str]:
    notes = []
    if logits.size and resemble_probabilities:
        notes.append(
            f"{path.name}: all scores are between 0 and 1, like probabilities, but --logits reads them as logits."
        )
    distinct = np.unique(logits)
    if lost := len(distinct) - len(np.unique(sigmoid(distinct))):
        notes.append(
            f"{path.name}: {lost} different logits are the same probability in float64, so their order is lost (of "
            f"logits up to {distinct[-1]:.9g})."
        )
    return notes


def match_classes(path: Path, table: PredictionsTable, classes: Sequence[str]) -> list[int]:
    """Return the column of each class, by its name or, if all headers are integers, by its id. Raises UserError."""
    column_by_name = {normalize_name(name): column for column, name in enumerate(table.classes)}
    if len(column_by_name) < len(table.classes):
        problem = "two of its columns have names that differ only in Unicode's form"
        raise UserError(problem, "give each class one column", path=path)
    names = list(map(normalize_name, classes))
    if not set(names) & set(column_by_name) and all(name.isdecimal() for name in column_by_name):
        if len({int(name) for name in column_by_name}) < len(column_by_name):
            raise UserError(
                f"two of the columns have the same class id ({list_some(sorted(column_by_name))})",
                "give each class one column",
                path=path,
            )
        column_by_name = {str(int(name)): column for name, column in column_by_name.items()}
        names = [str(i) for i in range(len(classes))]
    missing = [name for name in names if name not in column_by_name]
    unknown = [name for name in column_by_name if name not in set(names)]
    for problem, mismatched in (("classes have no column", missing), ("columns match no class", unknown)):
        if mismatched:
            raise UserError(
                f"{len(mismatched)} {problem} ({list_some(mismatched)})",
                f"give one column for each of the {len(classes)} classes of the annotations, named by class name or id",
                path=path,
            )
    return [column_by_name[name] for name in names]


def match_videos(
    path: Path, table: PredictionsTable, expected: Sequence[str], optional: Collection[str]
) -> dict[str, int]:
    """Return expected video -> row, matched by file name with or without the extension. Raises UserError."""
    # the names of two videos may have the same form NFC, and are then exact
    by_name = {normalize_name(name): video for video in expected for name in (stem(video), video)}
    by_name |= {stem(video): video for video in expected}
    expected_set, optional_set = set(expected), set(optional)
    rows: dict[str, int] = {}
    unknown, duplicates = [], []
    for row, name in enumerate(table.videos):
        video = name if name in expected_set else by_name.get(name) or by_name.get(normalize_name(name))
        if video is None:
            unknown.append(name)
        elif video in rows:
            duplicates.append(name)
        else:
            rows[video] = row
    missing = [video for video in expected if video not in rows and video not in optional_set]
    names_by_problem = {
        "have no predictions": missing,
        "are unknown": unknown,
        "are duplicated": duplicates,
    }
    problems = [f"{len(names)} {problem} ({list_some(names)})" for problem, names in names_by_problem.items() if names]
    if problems:
        problem = f"its clips are not the {len(expected)} clips to evaluate: {'; '.join(problems)}"
        hint = "give one prediction per clip, or the annotations and --split that the predictions were made for"
        if not unknown and not duplicates:
            hint += "; --allow-missing excludes clips without predictions"
        raise UserError(problem, hint, path=path)
    return {video: rows[video] for video in expected if video in rows}


def multi_hot_matrix(data: Annotations, split: str, videos: Sequence[str]) -> np.ndarray:
    """Return (N, C) bool labels."""
    return np.array([data.multi_hot(split, video) for video in videos]).reshape(len(videos), -1) > 0


def training_counts(data: Annotations, source: PredictionSource) -> TrainingCounts | None:
    """Return class counts of the clips that a source was trained on; None if there is none.

    These are the drawn clips of a few-shot run, else the training split without the model-selection split."""
    excluded = set(data.selection if source.protocol == HELD_OUT else ())
    drawn = source.training_clips
    videos = [v for v in data.splits.get("train", {}) if v not in excluded and (drawn is None or v in drawn)]
    if not videos:
        return None
    return TrainingCounts(multi_hot_matrix(data, "train", videos).sum(0), len(videos))
