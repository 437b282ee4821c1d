"""Parser of a CSV table of videos and labels, as written by hand or with a spreadsheet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vimoclip.annotations import SPLITS
from vimoclip.errors import UserError
from vimoclip.io import csv
from vimoclip.io.names import list_some

VIDEO_COLUMN, LABELS_COLUMN, START_COLUMN, END_COLUMN, SPLIT_COLUMN = "video", "labels", "start", "end", "split"
COLUMNS = (VIDEO_COLUMN, LABELS_COLUMN, START_COLUMN, END_COLUMN, SPLIT_COLUMN)
SPLIT_SYNONYMS = {"validation": "val", "valid": "val", "training": "train", "testing": "test"}
LABEL_SEPARATOR = ";"  # in a cell


class LabelRow(NamedTuple):
    """A line of the table. `labels`: class names. `start`, `end`: seconds or None. `split`, `source`: may be empty."""

    line: int
    video: str
    labels: tuple[str, ...]
    start: float | None
    end: float | None
    split: str
    source: str


@dataclass
class LabelTable:
    """A parsed table. `classes`: in the order of their ids. `rows`: in the file's order."""

    path: Path
    classes: tuple[str, ...]
    rows: list[LabelRow] = field(default_factory=list)

    @property
    def has_splits(self) -> bool:
        return any(row.split for row in self.rows)


def read_label_table(path: Path, classes: Sequence[str] | None = None, group_by: str | None = None) -> LabelTable:
    """Read a table. Raises UserError with the line.

    `classes`: names by id, if labels may be ids; default: the names in the table, sorted, or its 0/1 columns.
    `group_by`: the column with the source of a video."""
    header, lines = _read_lines(path)
    _check_header(path, header, group_by)
    # columns without a name are ignored: spreadsheets add them
    other_columns = [name for name in header if name and name not in (*COLUMNS, group_by)]
    if LABELS_COLUMN in header:
        cells = {line: _split_labels(row[LABELS_COLUMN]) for line, row in lines}
        names = _class_names_of_labels(path, cells, classes)
        labels = {line: tuple(names[label] for label in line_labels) for line, line_labels in cells.items()}
        class_names = tuple(classes) if classes else tuple(sorted(set(names.values()), key=str.casefold))
        if other_columns:
            print(f"{path}: not used: {', '.join(map(repr, other_columns))}", flush=True)
    else:
        if classes and set(classes) != set(other_columns):
            differences = sorted(set(classes) ^ set(other_columns))
            problem = f"its columns are other classes than --classes ({list_some(differences)})"
            raise UserError(problem, "fix one", path=path)
        labels = {line: _parse_one_hot(f"{path}:{line}", row, other_columns) for line, row in lines}
        class_names = tuple(classes or other_columns)
    if not class_names:
        hint = f"write them into the column {LABELS_COLUMN}, or a column of 0/1 a class"
        raise UserError("holds no label", hint, path=path)
    rows = [_parse_row(path, line, row, labels[line], group_by) for line, row in lines]
    _check_splits(path, rows)
    return LabelTable(path, class_names, rows)


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the header, with COLUMNS in lower case, and the lines with their numbers and a cell for each column."""
    header, rows = csv.read_table(path, delimiters=",;\t")
    if not rows:
        hint = f"it needs a header such as {VIDEO_COLUMN},{LABELS_COLUMN} and a line a video"
        raise UserError("holds no video", hint, path=path)
    columns = {name: name.casefold() if name.casefold() in COLUMNS else name for name in header}
    empty = dict.fromkeys(columns.values(), "")
    lines = [(line, empty | {columns[name]: cell for name, cell in row.items()}) for line, row in rows]
    return [columns[name] for name in header], lines


def _check_header(path: Path, header: list[str], group_by: str | None) -> None:
    names = ", ".join(header)
    if VIDEO_COLUMN not in header:
        raise UserError(f"has no column {VIDEO_COLUMN} (its columns: {names})", "name one so", path=path)
    duplicates = sorted({name for name in header if name and header.count(name) > 1})
    if duplicates:
        raise UserError(f"the column {duplicates[0]} is duplicated", "keep one", path=path)
    if group_by and (group_by not in header or group_by in COLUMNS):
        raise UserError(f"has no column {group_by} to group by (its columns: {names})", path=path)
    if (START_COLUMN in header) != (END_COLUMN in header):
        problem = f"has one of the columns {START_COLUMN} and {END_COLUMN}"
        raise UserError(problem, "clips need both, in seconds", path=path)


def _split_labels(cell: str) -> list[str]:
    return list(dict.fromkeys(" ".join(word.split()) for word in cell.split(LABEL_SEPARATOR) if word.strip()))


def _class_names_of_labels(path: Path, cells: Mapping[int, list[str]], classes: Sequence[str] | None) -> dict[str, str]:
    """Return the class name by label as written. Numbers are ids if `classes` gives their names."""
    names: dict[str, str] = {}
    spellings: dict[str, str] = {name.casefold(): name for name in classes or ()}
    for line, label in ((line, label) for line, labels in cells.items() for label in labels):
        if classes and label.isdecimal() and label.casefold() not in spellings:
            if int(label) >= len(classes):
                problem = f"the label {label} is not in 0..{len(classes) - 1}"
                raise UserError(problem, "fix it", path=f"{path}:{line}")
            names[label] = classes[int(label)]
        elif classes and label.casefold() not in spellings:
            raise UserError(f"{label!r} is none of the classes", "fix it, or the classes", path=f"{path}:{line}")
        else:
            names[label] = spellings.setdefault(label.casefold(), label)  # the first spelling is used
    if not classes and names and all(name.isdecimal() for name in names):
        print(f"{path}: labels are numbers, which become the classes' names; --classes gives them names", flush=True)
    return names


def _parse_one_hot(location: str, row: Mapping[str, str], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that hold a 1."""
    for name in columns:
        if row[name] not in ("0", "1", "0.0", "1.0", ""):
            problem = f"{name} is {row[name]!r}, where 0 or 1 is meant"
            raise UserError(problem, f"without a column {LABELS_COLUMN} each other one is a class", path=location)
    return tuple(name for name in columns if row[name] in ("1", "1.0"))


def _parse_row(
    path: Path, line: int, row: Mapping[str, str], labels: tuple[str, ...], group_by: str | None
) -> LabelRow:
    location = f"{path}:{line}"
    if not row[VIDEO_COLUMN]:
        raise UserError("names no video", "fix the line or remove it", path=location)
    start, end = (_parse_seconds(location, row.get(column, "")) for column in (START_COLUMN, END_COLUMN))
    if end is not None and end <= (start or 0.0):
        raise UserError(f"ends at {end:g} s, but begins at {start or 0:g} s", "fix the line", path=location)
    split = row.get(SPLIT_COLUMN, "").casefold()
    split = SPLIT_SYNONYMS.get(split, split)
    if split and split not in SPLITS:
        raise UserError(f"the split {split!r} is none of {', '.join(SPLITS)}", "fix it", path=location)
    return LabelRow(line, row[VIDEO_COLUMN], labels, start, end, split, row.get(group_by, "") if group_by else "")


def _parse_seconds(location: str, cell: str) -> float | None:
    """Return seconds, from a number (also with a decimal comma) or 1:02:03.5; None for an empty cell."""
    if not cell:
        return None
    try:
        parts = [float(part.replace(",", ".")) for part in cell.split(":")]
        seconds = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"{cell!r} is no time", "write seconds from 0 on, like 12.5, or 1:02:03", path=location)
    return seconds


def _check_splits(path: Path, rows: Sequence[LabelRow]) -> None:
    """Raise UserError if only some rows have a split, a video has two, or train or val is missing."""
    lines_without_split = [row.line for row in rows if not row.split]
    if lines_without_split and len(lines_without_split) < len(rows):
        problem = "has no split, where other lines have one"
        raise UserError(problem, "give each line one, or none", path=f"{path}:{lines_without_split[0]}")
    first_rows: dict[tuple[str, float | None, float | None], LabelRow] = {}
    for row in rows:
        first = first_rows.setdefault((row.video, row.start, row.end), row)
        if first.split != row.split:
            problem = f"{row.video} is in {row.split}, but in line {first.line} in {first.split}"
            raise UserError(problem, "a video belongs in one split", path=f"{path}:{row.line}")
    splits = {row.split for row in rows} - {""}
    if splits and not {"train", "val"} <= splits:
        raise UserError(f"has only the split {', '.join(sorted(splits))}", "it needs train and val", path=path)
