"""Reading sheets of Excel workbooks: the only user of openpyxl."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip.errors import UserError
from vimoclip.io.names import has_control


class Row(NamedTuple):
    """`line`: of the sheet, from 1. `values`: of the columns asked for, in their order; None where a cell is empty."""

    line: int
    values: tuple[Any, ...]


def read_sheet(path: Path, sheet: str, columns: Sequence[str]) -> list[Row]:
    """The rows of a sheet below its header, but for those that are empty in these columns. Raises UserError."""
    if not path.is_file():
        raise UserError("there is no such file", "name the workbook that the data set's authors give out", path=path)
    rows = _read(path, sheet)
    header = [str(value).strip() if value is not None else "" for value in rows[0]] if rows else []
    if missing := [column for column in columns if column not in header]:
        raise UserError(
            f"its sheet {sheet} has no column {', '.join(missing)}", "take it as its authors give it out", path=path
        )
    places = [header.index(column) for column in columns]
    found = []
    for line, row in enumerate(rows[1:], start=2):
        values = tuple(row[place] if place < len(row) else None for place in places)
        if any(value is not None for value in values):
            found.append(Row(line, values))
    if not found:
        raise UserError(f"its sheet {sheet} is empty", "take the workbook as its authors give it out", path=path)
    return found


def _read(path: Path, sheet: str) -> list[tuple[Any, ...]]:
    import openpyxl

    try:
        with open(path, "rb") as file:  # openpyxl would leave it open where it fails
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            if sheet not in book.sheetnames:
                raise UserError(
                    f"has no sheet {sheet}, but {', '.join(book.sheetnames)}",
                    "take the workbook as its authors give it out",
                    path=path,
                )
            worksheet = book[sheet]
            worksheet.reset_dimensions()  # some programs write them wrong
            return list(worksheet.iter_rows(values_only=True))
    except UserError:
        raise
    except OSError as error:
        raise UserError(
            f"can't be read ({error.strerror or error})", "make it a file that you may read", path=path
        ) from None
    except Exception as error:  # a damaged file: whatever zip, XML and openpyxl say
        raise UserError(f"is no Excel workbook ({type(error).__name__})", "get it again", path=path) from None


def whole_number(value: Any) -> int | None:
    """An id or count of a cell, which may hold it as text or as a float; None where it is none."""
    try:
        number = float(str(value).strip())
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def text(value: Any) -> str:
    """What a cell says, on one line; empty where it says nothing."""
    said = "" if value is None else " ".join(str(value).split())
    return "" if has_control(said) else said
