"""predictions.csv, a row a video: `video_id` and a column of scores per class. Its only reader and writer."""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.errors import UserError
from vimoclip.io import atomic

KEY = "video_id"
NAMED = 5  # of what is wrong so many are named, all are counted


@dataclass(frozen=True)
class Table:
    """`classes`: headers of the columns; `videos`: in the file's order; `scores` (N, C) float64, all finite."""

    classes: list[str]
    videos: list[str]
    scores: np.ndarray


def write(path: Path, videos: Sequence[str], probabilities: Any, class_names: Sequence[str]) -> Path:
    """(N, C) probabilities, a tensor or array, in the nine digits that give each float32 back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([KEY, *class_names])
    for video, row in zip(videos, probabilities.tolist(), strict=True):
        writer.writerow([video, *(f"{value:.9g}" for value in row)])
    return atomic.write_text(path, text.getvalue())


def read(path: Path) -> Table:
    """Raises UserError for what is no such file, for columns or videos that stand twice, for cells without a number."""
    header, lines = _read_lines(path)
    if KEY not in header:
        commas = ", separated by commas" if ";" in header[0] or "\t" in header[0] else ""
        raise UserError(f"has no column {KEY}", f"give it one, and a column of scores per class{commas}", path=path)
    place = header.index(KEY)
    classes = [name for i, name in enumerate(header) if i != place]
    if not classes or not lines:
        raise UserError(
            f"holds no {'predictions' if classes else 'column of scores'}", "is it the right file?", path=path
        )
    if not all(header):
        number = header.index("") + 1
        raise UserError(
            f"column {number} has no name", "if it counts the rows, write the file without (index=False)", path=path
        )
    _check(path, "columns stand twice", _doubled(header), "give each class one")
    ragged = [f"line {number}" for number, line in lines if len(line) != len(header)]
    _check(path, f"lines don't have {len(header)} cells", ragged, "write it again")
    videos = [line[place] for _, line in lines]
    _check(path, f"videos have no {KEY}", [f"line {n}" for n, line in lines if not line[place]], "name them")
    _check(path, "videos stand twice", _doubled(videos), "keep one row of each")
    rows = [[*line[:place], *line[place + 1 :]] for _, line in lines]
    scores = np.array([[_number(cell) for cell in row] for row in rows])
    wrong = [
        f"{videos[n]}, {classes[c]}: {rows[n][c][:20] or 'empty'}"
        for n, c in zip(*(~np.isfinite(scores)).nonzero(), strict=True)
    ]
    _check(path, "scores are not finite numbers", wrong, "mend the model, or write 0 where it has nothing to say")
    return Table(classes, videos, scores)


def some(names: Iterable[str]) -> str:
    """How many there are, and the first of them."""
    names = list(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _check(path: Path, what: str, names: list[str], cure: str) -> None:
    if names:
        raise UserError(f"{len(names)} {what} ({some(names)})", cure, path=path)


def _doubled(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the other lines that aren't blank with their numbers. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"can't be read ({error.strerror})", "name a CSV of predictions", path=path) from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", "save it as a CSV of predictions in UTF-8", path=path) from None
    try:
        reader = csv.reader(io.StringIO(text, newline=""))
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if any(line)]
    except csv.Error as error:
        raise UserError(f"is no CSV file ({error})", "save it as one", path=path) from None
    if not lines:
        raise UserError("is empty", "name a CSV of predictions", path=path)
    return lines[0][1], lines[1:]
