"""Bouts as events that BORIS takes from the clipboard."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from vimoclip.io import atomic


class BoutLike(Protocol):
    """An action from start to stop, in seconds since the video's first frame."""

    @property
    def action(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def stop(self) -> float: ...
    @property
    def score(self) -> float: ...


def export_bouts(path: Path, video: Path, fps: float, seconds: float, bouts: Iterable[BoutLike]) -> Path:
    """A line for each begin and each end of a bout, by time: time, subject, code, modifier, comment, frame.

    These are the fields of an event in an observation of a media file: open one of `video` in BORIS (whose ethogram has
    the actions as state events), copy the file's whole text, and choose Observations, Edit events, Paste events. BORIS
    (8.27) refuses a header, and a line's end behind the last event, so there is neither. Raises OSError."""
    rows = []
    for bout in bouts:
        comment = f"{video.name}, score {bout.score:.3f}"
        for time in (bout.start, min(bout.stop, seconds)):
            code = " ".join(bout.action.split())
            rows.append((round(time, 3), "", code, "", " ".join(comment.split()), round(time * fps)))
    lines = ("\t".join(map(str, row)) for row in sorted(rows))
    return atomic.write_text(path, "\n".join(lines))
