"""Reader of sheets of Excel workbooks. No other module imports openpyxl."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip.errors import UserError
from vimoclip.io.names import has_control_characters

_RELEASE_HINT = "take the workbook as its authors give it out"


class SheetRow(NamedTuple):
    """A row. `line`: from 1. `values`: of the requested columns, in their order; None for an empty cell."""

    line: int
    values: tuple[Any, ...]


def read_sheet(path: Path, sheet: str, columns: Sequence[str]) -> list[SheetRow]:
    """Return the rows below the header of a sheet, except those that are empty in these columns. Raises UserError."""
    if not path.is_file():
        raise UserError("there is no such file", "name the workbook that the data set's authors give out", path=path)
    all_rows = _read_all_rows(path, sheet)
    header = [str(value).strip() if value is not None else "" for value in all_rows[0]] if all_rows else []
    if missing := [column for column in columns if column not in header]:
        problem = f"its sheet {sheet} has no column {', '.join(missing)}"
        raise UserError(problem, "take it as its authors give it out", path=path)
    indices = [header.index(column) for column in columns]
    rows = []
    for line, row in enumerate(all_rows[1:], start=2):
        values = tuple(row[index] if index < len(row) else None for index in indices)
        if any(value is not None for value in values):
            rows.append(SheetRow(line, values))
    if not rows:
        raise UserError(f"its sheet {sheet} is empty", _RELEASE_HINT, path=path)
    return rows


def _read_all_rows(path: Path, sheet: str) -> list[tuple[Any, ...]]:
    import openpyxl

    try:
        with open(path, "rb") as file:  # if openpyxl opens the file and fails, it stays open
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            if sheet not in book.sheetnames:
                problem = f"has no sheet {sheet}, but {', '.join(book.sheetnames)}"
                raise UserError(problem, _RELEASE_HINT, path=path)
            worksheet = book[sheet]
            worksheet.reset_dimensions()  # some programs write wrong ones
            return list(worksheet.iter_rows(values_only=True))
    except UserError:
        raise
    except OSError as error:
        problem = f"can't be read ({error.strerror or error})"
        raise UserError(problem, "make it a file that you may read", path=path) from None
    except Exception as error:  # a damaged file: any exception of zip, XML and openpyxl
        raise UserError(f"is no Excel workbook ({type(error).__name__})", "get it again", path=path) from None


def parse_whole_number(value: Any) -> int | None:
    """Return the integer in a cell, which may be stored as text or float; None if there is none."""
    try:
        number = float(str(value).strip())
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def cell_text(value: Any) -> str:
    """Return the text of a cell on one line; empty for an empty cell and for control characters."""
    text = "" if value is None else " ".join(str(value).split())
    return "" if has_control_characters(text) else text
