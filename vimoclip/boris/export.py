"""Export of bouts as events that can be pasted into BORIS."""

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
    """Write a line per start and per stop of a bout, sorted by time, and return the path. Raises OSError.

    The fields are those of an event of a media file: time, subject, code, modifier, comment, frame. To import them,
    open an observation of `video` in BORIS (the ethogram must have the actions as state events), copy the file's whole
    text, and choose Observations, Edit events, Paste events. The file has no header and no newline at its end, as BORIS
    (8.27) refuses both."""
    rows = []
    for bout in bouts:
        comment = f"{video.name}, score {bout.score:.3f}"
        for time in (bout.start, min(bout.stop, seconds)):
            code = " ".join(bout.action.split())
            rows.append((round(time, 3), "", code, "", " ".join(comment.split()), round(time * fps)))
    lines = ("\t".join(map(str, row)) for row in sorted(rows))
    return atomic.write_text(path, "\n".join(lines))
