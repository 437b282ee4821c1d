"""Reading of any file of BORIS, and export of bouts as events to paste."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vimoclip.boris.aggregated import read_aggregated
from vimoclip.boris.events import EventCollection, behavior_code
from vimoclip.boris.project import read_project
from vimoclip.io import atomic

BoutLike = tuple[str, float, float, float]  # action; start and stop in seconds since the video's first frame; score


def is_project(path: Path) -> bool:
    """Return whether the name of a file is that of a project."""
    return path.name.lower().endswith((".boris", ".boris.gz"))


def read_events(
    path: Path,
    merge_case: bool = False,
    include_unreviewed: bool = False,
    observations: re.Pattern[str] | None = None,
) -> EventCollection:
    """Read a project or aggregated events. Raises UserError for any other file.

    `merge_case`: behaviours whose codes differ only in case, spaces or Unicode's form are one, not an error.
    `include_unreviewed`: also read predictions that nobody has reviewed. `observations`: only those whose id it
    matches are read; UserError if there is none."""
    read = read_project if is_project(path) else read_aggregated
    return read(path, merge_case, include_unreviewed, observations)


def export_bouts(path: Path, video: Path, fps: float, seconds: float, bouts: Iterable[BoutLike]) -> Path:
    """Write one line per start and per stop of a bout, sorted by time, and return the path. Raises OSError.

    The fields are those of an event of a media file: time, subject, code, modifier, comment, frame. To import them,
    open an observation of `video` in BORIS (the ethogram must have the actions as state events), copy the file's whole
    text, and choose Observations, Edit events, Paste events. The file has no header and no newline at its end, as BORIS
    (8.27) refuses both."""
    rows = event_rows(bouts, fps, seconds, f"{video.name}, ")
    return atomic.write_text(path, "\n".join("\t".join(map(str, row)) for row in rows))


def event_rows(bouts: Iterable[BoutLike], fps: float, seconds: float, prefix: str = "") -> list[list[Any]]:
    """Return the events of BORIS for the start and the stop of each bout, sorted by time.

    Each is [time, subject, code, modifier, comment, frame]. `prefix`: of the comments."""
    rows: list[list[Any]] = []
    for action, start, stop, score in bouts:
        comment = " ".join(f"{prefix}score {score:.3f}".split())
        for time in (start, min(stop, seconds)):
            rows.append([round(time, 3), "", behavior_code(action), "", comment, round(time * fps)])
    return sorted(rows)
