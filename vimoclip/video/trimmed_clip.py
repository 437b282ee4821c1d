"""Names and comments of clips that are trimmed out of a film, which tell what they hold."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip.io.names import normalize_name
from vimoclip.video.geometry import Geometry
from vimoclip.video.measure import MAX_DIFFERENCE_FRAMES
from vimoclip.video.probe import VideoInfo
from vimoclip.video.sampling import FilmPart

MAX_SECONDS = 1e8  # accepted from a comment: three years
_SPAN = re.compile(r"_(\d+)-(\d+)ms\.mp4$")


def trimmed_name(stem: str, start: float, stop: float) -> str:
    """Return the file name of a part of a film, in seconds, which ends with the part in milliseconds."""
    return f"{stem}_{round(1000 * start)}-{round(1000 * stop)}ms.mp4"


def trimmed_comment(film: Path, start: float, stop: float, geometry: Geometry) -> dict[str, Any]:
    """Return the comment of a clip that keeps its film's times: the film, its part of it in seconds, the geometry."""
    return {**_film_comment(film, geometry), "span": [start, stop]}


def first_frame_comment(seconds: float) -> dict[str, Any]:
    """Return the entry of the comment for the first frame, which is at 0 s in the clip: its time in the film."""
    return {"first_frame": round(seconds, 9)}


def film_part(comment: dict[str, Any] | None) -> FilmPart | None:
    """Return where a clip lies in its film; None for other videos, and for clips that don't keep the film's times."""
    try:
        if comment and comment["times"] == "source":
            part = FilmPart(float(comment["span"][0]), float(comment["first_frame"]))
            return part if all(0 <= seconds <= MAX_SECONDS for seconds in part) else None
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        pass
    return None


class TrimmedName(NamedTuple):
    """What the name of a clip says. `span`: start and stop in the film, in seconds."""

    film_stem: str
    span: tuple[float, float]


def parse_trimmed_name(name: str) -> TrimmedName | None:
    """Return the arguments of `trimmed_name`; None for another name."""
    match = _SPAN.search(name)
    return TrimmedName(name[: match.start()], (int(match[1]) / 1000, int(match[2]) / 1000)) if match else None


def film_in_comment(comment: dict[str, Any] | None) -> tuple[str, int] | None:
    """Return file name and size in bytes of the film that a clip was trimmed from; None for other videos."""
    match comment:
        case {"cut_from": str(name), "bytes": int(size)}:
            return normalize_name(name).strip(), size
    return None


def may_be_trimmed(name: str) -> bool:
    """Return whether a file name is like those of `trimmed_name`."""
    return parse_trimmed_name(name) is not None


def is_trimmed_from(film: Path, geometry: Geometry, info: VideoInfo) -> bool:
    """Return whether a clip was trimmed out of this film with this geometry, and keeps its times. Raises OSError."""
    expected = _film_comment(film, geometry)
    return {key: (info.comment or {}).get(key) for key in expected} == expected


def lacks_film_times(info: VideoInfo) -> bool:
    """Return whether a clip was trimmed by an earlier version, which wrote the film's frames at its mean rate."""
    comment = info.comment or {}
    return "cut_from" in comment and comment.get("times") != "source"


def has_length_of_name(name: str, info: VideoInfo) -> bool:
    """Return whether a clip's length differs by two frames at most from the part in its name, if it has one."""
    if (parsed := parse_trimmed_name(name)) is None:
        return True
    return abs(parsed.span[1] - parsed.span[0] - info.seconds) <= MAX_DIFFERENCE_FRAMES / info.fps


def _film_comment(film: Path, geometry: Geometry) -> dict[str, Any]:
    size = film.stat().st_size
    return {"cut_from": film.name, "bytes": size, "times": "source", "geometry": geometry.as_dict()}
