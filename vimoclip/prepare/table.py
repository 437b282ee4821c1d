"""A CSV table of videos and their labels, as people write it by hand or with a spreadsheet."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vimoclip.annotations import SPLITS
from vimoclip.errors import UserError

VIDEO, LABELS, START, END, SPLIT = "video", "labels", "start", "end", "split"
KNOWN = (VIDEO, LABELS, START, END, SPLIT)
BETWEEN = ";"  # labels in a cell
SHOWN = 3


class Row(NamedTuple):
    """A line: the video as it is written; label names; seconds or None; split or ""; source or ""."""

    line: int
    video: str
    labels: tuple[str, ...]
    start: float | None
    end: float | None
    split: str
    source: str


@dataclass
class Table:
    """`classes`: in the order of their ids; `rows`: in the file's order."""

    path: Path
    classes: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)

    @property
    def has_splits(self) -> bool:
        return any(row.split for row in self.rows)


def read(path: Path, classes: Sequence[str] | None = None, group_by: str | None = None) -> Table:
    """`classes`: names by id, where labels may be ids; default: the names in the table, sorted, or its 0/1 columns.

    `group_by`: the column that says where a video comes from. Raises UserError with the file's line."""
    header, lines = _lines(path)
    _check_header(path, header, group_by)
    columns = [name for name in header if name and name not in (*KNOWN, group_by)]  # spreadsheets add nameless ones
    if LABELS in header:
        cells = {number: _split_labels(row[LABELS]) for number, row in lines}
        names = _named(path, cells, classes)
        labels, known = {n: tuple(names[cell] for cell in of_row) for n, of_row in cells.items()}, set(names.values())
        order = tuple(classes) if classes else tuple(sorted(known, key=str.casefold))
        if columns:
            print(f"{path}: not used: {', '.join(map(repr, columns))}", flush=True)
    else:
        if classes and set(classes) != set(columns):
            odd = sorted(set(classes) ^ set(columns))
            raise UserError(
                f"its columns are other classes than --classes ({', '.join(odd[:SHOWN])})", "mend one", path=path
            )
        labels = {number: _hot(path, number, row, columns) for number, row in lines}
        order = tuple(classes or columns)
    if not order:
        raise UserError("holds no label", f"write them into the column {LABELS}, or a column of 0/1 a class", path=path)
    rows = [_row(path, number, row, labels[number], group_by) for number, row in lines]
    _check_splits(path, rows)
    return Table(path, order, rows)


def _lines(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header, and the lines that aren't blank with their numbers. Separated by commas, semicolons or tabs."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", "save it as CSV UTF-8", path=path) from None
    first = text.split("\n", 1)[0]
    between = max(",;\t", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
        found = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise UserError(f"is no CSV file ({error})", "save it as one", path=path) from None
    if len(found) < 2:
        raise UserError("holds no video", f"it needs a header such as {VIDEO},{LABELS} and a line a video", path=path)
    header = [name.casefold() if name.casefold() in KNOWN else name for name in found[0][1]]
    lines = []
    for number, row in found[1:]:
        if len(row) > len(header) and any(row[len(header) :]):
            cure = f"quote cells that hold a {between!r}"
            raise UserError(f"{path}:{number}: has {len(row)} cells, but the header {len(header)}", cure)
        lines.append((number, dict(zip(header, [*row, *[""] * len(header)], strict=False))))
    return header, lines


def _check_header(path: Path, header: list[str], group_by: str | None) -> None:
    if VIDEO not in header:
        raise UserError(f"has no column {VIDEO} (its columns: {', '.join(header)})", "name one so", path=path)
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        raise UserError(f"the column {doubled[0]} stands twice", "keep one", path=path)
    if group_by and (group_by not in header or group_by in (VIDEO, LABELS, START, END, SPLIT)):
        raise UserError(f"has no column {group_by} to group by (its columns: {', '.join(header)})", path=path)
    if (START in header) != (END in header):
        raise UserError(f"has one of the columns {START} and {END}", "clips need both, in seconds", path=path)


def _split_labels(cell: str) -> list[str]:
    return list(dict.fromkeys(" ".join(word.split()) for word in cell.split(BETWEEN) if word.strip()))


def _named(path: Path, cells: Mapping[int, list[str]], classes: Sequence[str] | None) -> dict[str, str]:
    """Label as written -> class name. Ids are read as such where `classes` says what they stand for."""
    names: dict[str, str] = {}
    folded: dict[str, str] = {name.casefold(): name for name in classes or ()}
    for line, cell in ((line, cell) for line, of_row in cells.items() for cell in of_row):
        if classes and cell.isdecimal() and cell.casefold() not in folded:
            if int(cell) >= len(classes):
                raise UserError(f"{path}:{line}: the label {cell} is not in 0..{len(classes) - 1}", "mend it")
            names[cell] = classes[int(cell)]
        elif classes and cell.casefold() not in folded:
            raise UserError(f"{path}:{line}: {cell!r} is none of the classes", "mend it, or the classes")
        else:
            names[cell] = folded.setdefault(cell.casefold(), cell)  # one spelling of each
    if not classes and names and all(name.isdecimal() for name in names):
        print(f"{path}: labels are numbers, which become the classes' names; --classes gives them names", flush=True)
    return names


def _hot(path: Path, line: int, row: Mapping[str, str], columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that hold a 1."""
    for name in columns:
        if row[name] not in ("0", "1", "0.0", "1.0", ""):
            raise UserError(
                f"{path}:{line}: {name} is {row[name]!r}, where 0 or 1 is meant",
                f"without a column {LABELS} each other one is a class",
            )
    return tuple(name for name in columns if row[name] in ("1", "1.0"))


def _row(path: Path, line: int, row: Mapping[str, str], labels: tuple[str, ...], group_by: str | None) -> Row:
    if not row[VIDEO]:
        raise UserError(f"{path}:{line}: names no video", "mend the line or remove it")
    start, end = _seconds(path, line, row.get(START, "")), _seconds(path, line, row.get(END, ""))
    if end is not None and end <= (start or 0.0):
        raise UserError(f"{path}:{line}: ends at {end:g} s, but begins at {start or 0:g} s", "mend the line")
    split = row.get(SPLIT, "").casefold()
    split = {"validation": "val", "valid": "val", "training": "train", "testing": "test"}.get(split, split)
    if split and split not in SPLITS:
        raise UserError(f"{path}:{line}: the split {split!r} is none of {', '.join(SPLITS)}", "mend it")
    return Row(line, row[VIDEO], labels, start, end, split, row.get(group_by, "") if group_by else "")


def _seconds(path: Path, line: int, cell: str) -> float | None:
    """Seconds, also as 1:02:03.5, or with a comma for the point; None of an empty cell."""
    if not cell:
        return None
    try:
        parts = [float(part.replace(",", ".")) for part in cell.split(":")]
        value = sum(part * 60**place for place, part in enumerate(reversed(parts)))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"{path}:{line}: {cell!r} is no time", "write seconds from 0 on, like 12.5, or 1:02:03")
    return value


def _check_splits(path: Path, rows: Sequence[Row]) -> None:
    without = [row.line for row in rows if not row.split]
    if without and len(without) < len(rows):
        raise UserError(f"{path}:{without[0]}: has no split, where other lines have one", "give each line one, or none")
    lines: dict[tuple[str, float | None, float | None], Row] = {}
    for row in rows:
        other = lines.setdefault((row.video, row.start, row.end), row)
        if other.split != row.split:
            raise UserError(
                f"{path}:{row.line}: {row.video} is in {row.split}, but in line {other.line} in {other.split}",
                "a video belongs in one split",
            )
    given = {row.split for row in rows} - {""}
    if given and not {"train", "val"} <= given:
        raise UserError(f"has only the split {', '.join(sorted(given))}", "it needs train and val", path=path)
