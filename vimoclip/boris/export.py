"""Export of bouts as events that can be pasted into BORIS."""

from collections.abc import Iterable
from pathlib import Path

from vimoclip.io import atomic

Bout = tuple[str, float, float, float]  # action; start and stop in seconds since the video's first frame; score


def export_bouts(path: Path, video: Path, fps: float, seconds: float, bouts: Iterable[Bout]) -> Path:
    """Write one line per start and per stop of a bout, sorted by time, and return the path. Raises OSError.

    The fields are those of an event of a media file: time, subject, code, modifier, comment, frame. To import them,
    open an observation of `video` in BORIS (the ethogram must have the actions as state events), copy the file's whole
    text, and choose Observations, Edit events, Paste events. The file has no header and no newline at its end, as BORIS
    (8.27) refuses both."""
    rows = []
    for action, start, stop, score in bouts:
        comment = " ".join(f"{video.name}, score {score:.3f}".split())
        for time in (start, min(stop, seconds)):
            rows.append((round(time, 3), "", " ".join(action.split()), "", comment, round(time * fps)))
    return atomic.write_text(path, "\n".join("\t".join(map(str, row)) for row in sorted(rows)))
