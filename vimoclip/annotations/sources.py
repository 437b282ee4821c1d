"""The source of each video (a recording, an animal, a site): reading and formatting `sources.csv`.

All videos of one source belong in one split."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from vimoclip.annotations.text import quote, read_rows
from vimoclip.errors import UserError

SOURCES_FILE = "sources.csv"
_HEADER = ("video_id", "source")


def read_sources(annotations_dir: Path) -> dict[str, str]:
    """Return the source by video id; {} if the folder has no `sources.csv`. Raises UserError."""
    path = annotations_dir / SOURCES_FILE
    if not path.exists():
        return {}
    sources: dict[str, str] = {}
    for line, row in enumerate(read_rows(path), start=2):
        video, source = (row.get(column) for column in _HEADER)
        if not video or not source:
            raise UserError(f"needs the header {','.join(_HEADER)} and both values", path=f"{path}:{line}")
        if video in sources:
            raise UserError(f"{quote(video)} is duplicated", "give it one line", path=f"{path}:{line}")
        sources[video] = source
    return sources


def format_sources(sources: Mapping[str, str]) -> str:
    """Return the content of `sources.csv`."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([_HEADER, *sources.items()])
    return table.getvalue()
