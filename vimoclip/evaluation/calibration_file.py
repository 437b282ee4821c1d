"""calibration.json of a TFAM run: how its scores become probabilities, and what thresholds on them were fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.errors import UserError
from vimoclip.io import yaml_json
from vimoclip.io.names import normalize_name
from vimoclip.metrics import fit_thresholds
from vimoclip.metrics.score_calibration import ScoreCalibration, fit_calibration
from vimoclip.runtime import versions

FILE_NAME = "calibration.json"
SCHEMA = 1
HINT = "delete metrics.json of the run and repeat its command, which fits it again without training, or use --raw"


@dataclass(frozen=True)
class RunCalibration:
    """Content of calibration.json.

    `method`: `platt`, `temperature`, or `none`, which leaves the scores as they are; `thresholds` (C,): of calibrated
    scores; `positives` (C,) int: number of clips of the model-selection split that show each class, on which its
    calibration and threshold rest; `scalings`: of each class, named as methods are; `num_videos`: clips of the split;
    `log_losses`: of each method in cross-validation, {} if there were too few clips."""

    scores: ScoreCalibration
    method: str
    thresholds: np.ndarray
    positives: np.ndarray
    scalings: tuple[str, ...]
    num_videos: int
    log_losses: dict[str, float]


def read(folder: Path, classes: Sequence[str]) -> RunCalibration | None:
    """Return the calibration of a run folder in the order of `classes`; None without a file. Raises UserError."""
    document = read_document(folder)
    return None if document is None else parse(document, classes, folder / FILE_NAME)


def read_document(folder: Path) -> dict[str, Any] | None:
    """Return the content of the calibration.json of a run folder, None without a file. Raises UserError."""
    path = folder / FILE_NAME
    return yaml_json.read_json(path, HINT) if path.exists() else None


def parse(document: Mapping[str, Any], classes: Sequence[str], path: Path) -> RunCalibration:
    """Return the calibration that the content of calibration.json describes. `path`: of its file. Raises UserError."""
    try:
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}, and this version reads {SCHEMA}")
        by_name = {normalize_name(name): row for name, row in document["classes"].items()}
        rows = [by_name[normalize_name(name)] for name in classes]
        numbers = {
            key: np.array([float(row[key]) for row in rows]) for key in ("slope", "intercept", "threshold", "positives")
        }
        if not all(np.isfinite(column).all() for column in numbers.values()) or (numbers["slope"] <= 0).any():
            raise ValueError("a slope is not above 0, or a number is not finite")
        return RunCalibration(
            ScoreCalibration(numbers["slope"], numbers["intercept"]),
            str(document["method"]),
            numbers["threshold"],
            numbers["positives"].astype(int),
            tuple(str(row["scaling"]) for row in rows),
            int(document["num_videos"]),
            {str(name): float(loss) for name, loss in document["cross_validated_log_loss"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        problem = f"is not a calibration of this run's classes ({type(error).__name__}: {error})"
        raise UserError(problem, HINT, path=path) from None


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
        return f"scores are not calibrated, as {clips} of the model-selection split give no calibration"
    scalings = [row["scaling"] for row in document["classes"].values()]
    kinds = {"platt": "Platt scaling", "temperature": f"temperature {document['temperature']:.2f}"}
    counts = {name: f"{scalings.count(name)} of {len(scalings)} classes" for name in kinds if name in scalings}
    by = ", ".join(f"{kinds[name]} for {count}" for name, count in counts.items())
    gain = "without cross-validation, as they are of one source"
    if losses:
        gain = f"log loss in cross-validation {losses['none']:.4f} before, {losses[document['method']]:.4f} after"
    return f"scores are calibrated on {clips} of the model-selection split: {by}; {gain}"
