"""Checks of a table of videos and labels: a line for each frame, and cells that a spreadsheet has changed."""

import re
from collections import defaultdict

from vimoclip.errors import UserError
from vimoclip.io.names import list_some
from vimoclip.prepare.csv_table import LabelRow, LabelTable

MAX_LINES_PER_FILM = 10  # of a film that is labelled as a whole: a line for each label or observer
MISSING_VALUES = frozenset(("na", "n/a", "#n/a", "#value!", "nan", "null", "none"))  # of spreadsheets, R and pandas
MAX_DAY_FRACTION = 0.05  # 72 minutes as a fraction of a day; as seconds, about a frame
# 1-2 becomes 2-Jan, Jan-02, 02. Jan or 2026-01-02
DATE = re.compile(r"\d{1,2}[-. ]+[^\W\d_]{3,4}\.?|[^\W\d_]{3}-\d\d|\d{4}-\d\d-\d\d|\d{1,2}[./]\d{1,2}[./]\d{2,4}")


def check_table(table: LabelTable) -> None:
    """Print warnings about class names. Raises UserError for tables whose lines can't mean what they say."""
    for kind, names in (
        ("a missing value; leave the cell empty if there is no action", [n for n in table.classes if _is_missing(n)]),
        ("a date, which spreadsheets make of 1-2; format the cells as text", filter(DATE.fullmatch, table.classes)),
    ):
        if listed := list_some(map(repr, names)):
            print(f"warning: {table.path}: class {listed} looks like {kind}", flush=True)
    _check_lines_per_film(table)
    _check_day_fractions(table)


def _is_missing(name: str) -> bool:
    return name.casefold() in MISSING_VALUES


def _check_lines_per_film(table: LabelTable) -> None:
    rows_by_video: dict[str, list[LabelRow]] = defaultdict(list)
    for row in table.rows:
        if row.start is None and row.end is None:
            rows_by_video[row.video].append(row)
    for video, rows in rows_by_video.items():
        if len(rows) > MAX_LINES_PER_FILM and len({row.labels for row in rows}) > 1:
            raise UserError(
                f"{len(rows)} lines label {video} as a whole, and differ",
                "in a table with a line per frame, write a line per bout instead, with its start and end",
                path=f"{table.path}:{rows[0].line}",
            )


def _check_day_fractions(table: LabelTable) -> None:
    times = [(row.start or 0.0, row.end) for row in table.rows if row.end is not None]
    spans = [(start, end) for start, end in times if isinstance(start, float) and isinstance(end, float)]
    has_many_digits = any(round(end, 5) != end for _, end in spans)
    if has_many_digits and all(end - start < MAX_DAY_FRACTION for start, end in spans):
        raise UserError(
            f"all its clips are shorter than {MAX_DAY_FRACTION:g} s; its times look like fractions of a day",
            "in the spreadsheet, multiply them by 86400 and format the cells as numbers",
            path=table.path,
        )
