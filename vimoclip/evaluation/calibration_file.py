"""calibration.json of a TFAM run: how its scores become probabilities, and what thresholds on them were fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.errors import UserError
from vimoclip.io import yaml_json
from vimoclip.metrics import fit_thresholds
from vimoclip.metrics.score_calibration import ScoreCalibration, fit_calibration
from vimoclip.runtime import versions

FILE_NAME = "calibration.json"
SCHEMA = 1
HINT = "run the run's command again with --overwrite, or use --raw"


@dataclass(frozen=True)
class RunCalibration:
    """Content of calibration.json.

    `thresholds` (C,): of calibrated scores; `positives` (C,) int: number of clips of the model-selection split that
    show each class, on which its calibration and threshold rest; `document`: the whole file."""

    scores: ScoreCalibration
    thresholds: np.ndarray
    positives: np.ndarray
    document: dict[str, Any]

    @property
    def method(self) -> str:
        """`platt`, `temperature`, or `none`, which leaves the scores as they are."""
        return str(self.document["method"])


def read(folder: Path, classes: Sequence[str]) -> RunCalibration | None:
    """Return the calibration of a run folder in the order of `classes`; None without a file. Raises UserError."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    document = yaml_json.read_json(path, HINT)
    try:
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}, and this version reads {SCHEMA}")
        rows = [document["classes"][name] for name in classes]
        columns = {
            key: np.array([row[key] for row in rows]) for key in ("slope", "intercept", "threshold", "positives")
        }
        numbers = {key: column.astype(float) for key, column in columns.items()}
        if not all(np.isfinite(column).all() for column in numbers.values()) or (numbers["slope"] <= 0).any():
            raise ValueError("a slope is not above 0, or a number is not finite")
        str(document["method"])
    except (KeyError, TypeError, ValueError) as error:
        problem = f"is not a calibration of this run's classes ({type(error).__name__}: {error})"
        raise UserError(problem, HINT, path=path) from None
    scores = ScoreCalibration(numbers["slope"], numbers["intercept"])
    return RunCalibration(scores, numbers["threshold"], numbers["positives"].astype(int), document)


def fit(
    folder: Path, scores: np.ndarray, targets: np.ndarray, classes: Sequence[str], sources: Sequence[str] | None
) -> dict[str, Any]:
    """Fit a run's calibration, and thresholds of calibrated scores; write them to its folder, and return the content.

    scores (N, C), targets (N, C) bool: of the model-selection split. `sources`: of each video, None if not known."""
    fitted = fit_calibration(scores, targets, sources)
    thresholds = fit_thresholds(fitted.calibration(scores), targets)
    rows = zip(
        classes, fitted.calibration.slopes, fitted.calibration.intercepts, targets.sum(0), thresholds, strict=True
    )
    scalings = np.where(fitted.by_platt, "platt", "none" if fitted.method == "none" else "temperature")
    document = {
        "schema": SCHEMA,
        "method": fitted.method,
        "temperature": fitted.temperature,
        "num_videos": len(scores),
        "folds": fitted.folds,
        "by_sources": sources is not None,
        "cross_validated_log_loss": fitted.log_losses,
        "classes": {
            name: {
                "scaling": str(scaling),
                "slope": float(slope),
                "intercept": float(intercept),
                "positives": int(positives),
                "threshold": float(threshold),
            }
            for scaling, (name, slope, intercept, positives, threshold) in zip(scalings, rows, strict=True)
        },
        "versions": versions.package_versions(),
    }
    yaml_json.write_json(folder / FILE_NAME, document)
    return document


def describe(document: dict[str, Any]) -> str:
    """Return how scores are calibrated, on how many clips, and what it is worth."""
    losses, clips = document["cross_validated_log_loss"], f"{document['num_videos']} clips"
    if document["method"] == "none":
        reason = "none is better in cross-validation" if losses else "too few clips or labels"
        return f"scores are not calibrated ({reason}, {clips} of the model-selection split)"
    num_platt = sum(row["scaling"] == "platt" for row in document["classes"].values())
    others = f"temperature {document['temperature']:.2f} for {len(document['classes']) - num_platt} classes"
    by = f"Platt scaling for {num_platt} classes, {others}" if num_platt else others
    gain = f"log loss in cross-validation {losses['none']:.4f} before, {losses[document['method']]:.4f} after"
    return f"scores are calibrated on {clips} of the model-selection split: {by}; {gain}"
