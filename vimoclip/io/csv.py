"""Reading and atomic writing of CSV files."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.text import read_text

ROWS_PER_WRITE = 4096  # bounds memory: the windows of a long video are millions of rows

_DELIMITER_LINE = re.compile(r'"?sep=(\\t|[^\w"])"?', re.IGNORECASE)  # as Excel reads and writes it


class CsvLine(NamedTuple):
    """A row. `number`: its last line in the file, from 1."""

    number: int
    cells: list[str]


def read_lines(path: Path, hint: str = "", delimiters: str = ",", header_cell: str = "") -> list[CsvLine]:
    """Return the rows that are not blank, with stripped cells; at least one. Raises UserError.

    A first line such as sep=; names the delimiter, and is no row. Otherwise the most frequent of `delimiters` in the
    header counts, the first of equals. The header is the first line that contains `header_cell` and is not blank.
    `hint`: what to do if the file is missing or empty."""
    text = read_text(path, hint)
    first = text.partition("\n")[0]
    if named := _DELIMITER_LINE.fullmatch(first.strip(" ")):
        text = text[len(first) :]  # its line end stays, so that lines keep their numbers
        delimiter = "\t" if named[1] == "\\t" else named[1]
    else:
        header = next((line for line in text.split("\n") if line.strip() and header_cell in line), "")
        delimiter = max(delimiters, key=header.count)
    try:
        if "\0" in text:
            raise csv.Error("it contains NUL")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [CsvLine(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise UserError(f"is not a CSV file ({error})", "save it as CSV", path=path) from None
    lines = [row for row in rows if any(row.cells)]
    if not lines:
        raise UserError("is empty", hint, path=path)
    return lines


def read_table(path: Path, hint: str = "", delimiters: str = ",") -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the header, and (line number, column -> cell) of the other rows. Raises UserError.

    Cells that a row lacks at its end have no key; more cells than columns are an error, unless they are empty."""
    (_, header), *lines = read_lines(path, hint, delimiters)
    for number, cells in lines:
        if any(cells[len(header) :]):
            problem = f"has {len(cells)} cells, but the header {len(header)}"
            raise UserError(problem, "quote cells that hold a delimiter", path=f"{path}:{number}")
    return header, [(number, dict(zip(header, cells, strict=False))) for number, cells in lines]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a CSV file atomically and return its path. Raises OSError."""
    remaining = iter(rows)
    with atomic.open_atomic(path) as file:
        file.write(format_csv([header]).encode())
        while block := list(islice(remaining, ROWS_PER_WRITE)):
            file.write(format_csv(block).encode())
    return path


def format_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
