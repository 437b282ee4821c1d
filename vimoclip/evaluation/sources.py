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
    own_selection_path = path / "selection_predictions.csv"
    protocol = run_metrics.get("protocol") or PUBLISHED  # null: a published checkpoint was evaluated
    return PredictionSource(
        path=predictions_path,
        title="/".join(path.absolute().parts[-2:]),
        protocol=protocol,
        epoch_chosen_by=run_metrics.get("epoch_chosen_by"),
        student_protocol=run_metrics.get("student_protocol"),
        student_caveat=student_caveat(run_metrics) if protocol == HELD_OUT else None,
        selection_path=selection_path or (own_selection_path if own_selection_path.is_file() else None),
        excluded_videos=run_metrics.get("left_out_videos") or {},
        excluded_selection_videos=run_metrics.get("selection_left_out_videos") or {},
        dataset_dir=_dataset_dir(path / "config.yaml"),
        split=run_metrics.get("reported_split") or "val",
    )


def student_caveat(run_metrics: Mapping[str, Any]) -> str | None:
    """Return a sentence if the student of a held-out run used the evaluation split, or may have; else None."""
    if run_metrics.get("fusion") == "rgb" or (run_metrics.get("settings") or {}).get("data.motion") == "none":
        return None
    if "student_protocol" in run_metrics and run_metrics["student_protocol"] is None:
        return "It is unknown which clips the student of this run's motion was trained on and selected on."
    if run_metrics.get("student_protocol") == PUBLISHED:
        return (
            "The student of this run's motion was selected on the evaluation split (protocol published), so these "
            "numbers are too high."
        )
    if run_metrics.get("student_selection_agrees") is False:
        return "The student of this run's motion may have been trained on this run's model-selection split."
    return None


def _dataset_dir(config_path: Path) -> Path | None:
    data = yaml_json.read_yaml(config_path).get("data", {}) if config_path.is_file() else {}
    embeddings = (data.get("rgb_val_h5") or data.get("rgb_test_h5")) if isinstance(data, dict) else None
    return Path(embeddings).parent.parent if isinstance(embeddings, str) else None


def read_scores(
    path: Path, data: Annotations, expected: Sequence[str], logits: bool, optional: Collection[str]
) -> tuple[list[str], np.ndarray]:
    """Return (videos, (N, C) probabilities) of the `expected` videos with predictions, in their order.

    Columns are in the order of the classes. Raises UserError for a missing video that is not in `optional`, and for
    scores that are not probabilities."""
    table = predictions_csv.read(path)
    columns, rows = match_classes(path, table, data.classes), match_videos(path, table, expected, optional)
    scores = table.scores[list(rows.values())][:, columns]
    if logits:
        scores = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
    if (invalid := (scores < 0) | (scores > 1)).any():
        videos = list(rows)
        listed = list_some(
            f"{videos[n]}, {data.classes[c]}: {scores[n, c]:.4g}" for n, c in zip(*invalid.nonzero(), strict=True)
        )
        raise UserError(
            f"{int(invalid.sum())} scores are not probabilities ({listed})",
            "give probabilities from 0 to 1, or --logits for logits",
            path=path,
        )
    return list(rows), scores


def resemble_probabilities(sigmoids: np.ndarray) -> bool:
    """Return whether all logits lie from 0 to 1, from their sigmoids."""
    return bool((sigmoids >= 0.5).all() and (sigmoids <= 1 / (1 + np.exp(-1))).all())


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
        raise UserError(
            f"its clips are not the {len(expected)} clips to evaluate: {'; '.join(problems)}",
            "give one prediction per clip, or the annotations and --split that the predictions were made for",
            path=path,
        )
    return {video: rows[video] for video in expected if video in rows}


def multi_hot_matrix(data: Annotations, split: str, videos: Sequence[str]) -> np.ndarray:
    """Return (N, C) bool labels."""
    return np.array([data.multi_hot(split, video) for video in videos]).reshape(len(videos), -1) > 0


def training_counts(data: Annotations, excluded: Collection[str]) -> TrainingCounts | None:
    """Return class counts of the training split without the excluded videos; None if no video remains."""
    excluded = set(excluded)
    videos = [video for video in data.splits.get("train", {}) if video not in excluded]
    if not videos:
        return None
    return TrainingCounts(multi_hot_matrix(data, "train", videos).sum(0), len(videos))
