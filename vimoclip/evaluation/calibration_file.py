"""calibration.json of a TFAM run: how its scores become probabilities, and what thresholds on them were fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.errors import UserError
from vimoclip.io import yaml_json
from vimoclip.metrics.score_calibration import ScoreCalibration

FILE_NAME = "calibration.json"
SCHEMA = 1
HINT = "run the run's command again with --overwrite, or use --raw"


@dataclass(frozen=True)
class RunCalibration:
    """Content of calibration.json. `thresholds` (C,): of calibrated scores; `positives` (C,) int: number of clips of the
    model-selection split that show each class, on which calibration and threshold rest; `document`: the whole file."""

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
