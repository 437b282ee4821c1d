"""Where videos come from (a recording, an animal, a site): `sources.csv`. All of one source belongs in one split."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from vimoclip.annotations.text import quoted, read_rows
from vimoclip.errors import UserError

SOURCES = "sources.csv"
_HEADER = ("video_id", "source")


def read_sources(folder: Path) -> dict[str, str]:
    """Video id -> its source, of `sources.csv`; {} where there is none. Raises UserError."""
    path = folder / SOURCES
    if not path.exists():
        return {}
    found: dict[str, str] = {}
    for line, row in enumerate(read_rows(path), start=2):
        video, source = (row.get(column) for column in _HEADER)
        if not video or not source:
            raise UserError(f"{path}:{line}: needs the header {','.join(_HEADER)} and both values")
        if video in found:
            raise UserError(f"{path}:{line}: {quoted(video)} stands twice", "give it one line")
        found[video] = source
    return found


def sources_text(sources: Mapping[str, str]) -> str:
    """What `sources.csv` holds."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([_HEADER, *sources.items()])
    return table.getvalue()
