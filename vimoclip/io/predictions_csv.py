"""predictions.csv: one row per video with `video_id` and a column of scores per class."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.errors import UserError
from vimoclip.io import csv
from vimoclip.io.names import list_some

ID_COLUMN = "video_id"


@dataclass(frozen=True)
class PredictionsTable:
    """File contents. `classes`: column headers; `videos`: in the file's order; `scores`: (N, C) float64."""

    classes: list[str]
    videos: list[str]
    scores: np.ndarray


def write(path: Path, videos: Sequence[str], probabilities: Any, class_names: Sequence[str]) -> Path:
    """Write (N, C) probabilities, a tensor or array, with nine digits, from which each float32 is restored exactly."""
    rows = zip(videos, probabilities.tolist(), strict=True)
    cells = ([video, *(f"{value:.9g}" for value in row)] for video, row in rows)
    return csv.write_csv(path, [ID_COLUMN, *class_names], cells)


def read(path: Path, logits: bool = False) -> PredictionsTable:
    """Read a file. `logits`: the scores may be infinite, which are probabilities of 0 and 1.

    Raises UserError for another type of file, duplicate columns or videos, and scores that are not numbers."""
    (_, header), *lines = csv.read_lines(path, "name a CSV of predictions")
    if ID_COLUMN not in header:
        commas = ", separated by commas" if ";" in header[0] or "\t" in header[0] else ""
        hint = f"add it, and a column of scores per class{commas}"
        raise UserError(f"has no column {ID_COLUMN}", hint, path=path)
    id_index = header.index(ID_COLUMN)
    classes = [name for i, name in enumerate(header) if i != id_index]
    if not classes or not lines:
        missing = "predictions" if classes else "column of scores"
        raise UserError(f"holds no {missing}", "name a CSV of predictions", path=path)
    if not all(header):
        hint = "if it is a row index, write the file without it (index=False)"
        raise UserError(f"column {header.index('') + 1} has no name", hint, path=path)
    _raise_if_any(path, "columns are duplicated", _duplicates(header), "give each class its own column")
    ragged = [f"line {number}" for number, line in lines if len(line) != len(header)]
    _raise_if_any(path, f"lines don't have {len(header)} cells", ragged, "write it again")
    videos = [line[id_index] for _, line in lines]
    unnamed = [f"line {number}" for number, line in lines if not line[id_index]]
    _raise_if_any(path, f"videos have no {ID_COLUMN}", unnamed, "give each video an id")
    _raise_if_any(path, "videos are duplicated", _duplicates(videos), "keep one row of each")
    rows = [[*line[:id_index], *line[id_index + 1 :]] for _, line in lines]
    scores = np.array([[_parse_score(cell) for cell in row] for row in rows])
    is_invalid = np.isnan(scores) if logits else ~np.isfinite(scores)
    cells = [(videos[n], classes[c], rows[n][c][:20] or "empty") for n, c in zip(*is_invalid.nonzero(), strict=True)]
    hint = f"correct the model, or write {'-inf' if logits else '0'} where it has no score"
    if any("," in text for _, _, text in cells):
        hint = "write numbers with a decimal point"
    elif np.isinf(scores).any() and not logits:
        hint += "; if the scores are logits, give --logits to evaluate.py"
    invalid = [f"{video}, {name}: {text}" for video, name, text in cells]
    _raise_if_any(path, f"scores are not {'' if logits else 'finite '}numbers", invalid, hint)
    return PredictionsTable(classes, videos, scores)


def _raise_if_any(path: Path, problem: str, names: list[str], hint: str) -> None:
    if names:
        raise UserError(f"{len(names)} {problem} ({list_some(names)})", hint, path=path)


def _duplicates(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _parse_score(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
