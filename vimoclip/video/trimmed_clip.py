"""Names and comments of clips that are trimmed out of a film, which tell what they hold."""

import re
from pathlib import Path
from typing import Any

from vimoclip.video.measure import MAX_DIFFERENCE_FRAMES
from vimoclip.video.probe import VideoInfo

_SPAN = re.compile(r"_(\d+)-(\d+)ms\.mp4$")


def trimmed_name(stem: str, start: float, stop: float) -> str:
    """Return the file name of a part of a film, in seconds, which ends with the part in milliseconds."""
    return f"{stem}_{round(1000 * start)}-{round(1000 * stop)}ms.mp4"


def trimmed_comment(film: Path, start: float, stop: float) -> dict[str, Any]:
    """Return the comment of a clip's container: its film and its part of it, in seconds."""
    return {**_film_comment(film), "span": [start, stop]}


def may_be_trimmed(name: str) -> bool:
    """Return whether a file name is like those of `trimmed_name`."""
    return _SPAN.search(name) is not None


def is_trimmed_from(film: Path, info: VideoInfo) -> bool:
    """Return whether a clip was trimmed out of this film. Raises OSError."""
    return (info.comment or {}).items() >= _film_comment(film).items()


def is_shorter_than_named(name: str, info: VideoInfo) -> bool:
    """Return whether a clip lacks more than two frames of the part in its name.

    Earlier versions, whose comments have no `span`, trimmed clips beyond the end of a film."""
    match, comment = _SPAN.search(name), info.comment or {}
    if match is None or "cut_from" not in comment or "span" in comment:
        return False
    return (int(match[2]) - int(match[1])) / 1000 - info.seconds > MAX_DIFFERENCE_FRAMES / info.fps


def _film_comment(film: Path) -> dict[str, Any]:
    return {"cut_from": film.name, "bytes": film.stat().st_size}
