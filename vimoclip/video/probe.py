"""Opening a video: as a container of a known kind, from that one file only, and of a size that memory can take."""

import json
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vimoclip.errors import VideoError
from vimoclip.video.container import EXTENSIONS, OPTIONS, frame_rate, open_container, video_stream

# of a header: FFmpeg decodes the first frames to learn what it lacks, which takes 6 ms for H.264 of 640x360, but is
# told the same by packets alone, in 0.4
HEADER_OPTIONS = OPTIONS | {"skip_frame": "all"}


@dataclass(frozen=True)
class Info:
    """What a video's header says. `frames`, `seconds` are 0 where it says nothing; `comment`: its JSON, if any."""

    width: int
    height: int
    fps: Fraction
    frames: int
    codec: str
    comment: dict[str, Any] | None
    seconds: float = 0.0


def probe(path: Path, whole: bool = False) -> Info:
    """Read the header only. Raises VideoError; if `whole`, also for an MP4 that lacks what its index speaks of."""
    with open_container(path, HEADER_OPTIONS) as container:
        stream = video_stream(container)
        if whole:
            end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
            if end > path.stat().st_size:
                raise VideoError(f"is cut short: it has {path.stat().st_size} bytes, its index needs {end}")
        context = stream.codec_context
        comment = _comment(container.metadata)
        rate, seconds = frame_rate(stream), float((stream.duration or 0) * (stream.time_base or 0))
        seconds = seconds or (container.duration or 0) / 1e6
        return Info(context.width, context.height, rate, stream.frames, context.name, comment, seconds)


def find(folder: Path) -> tuple[list[Path], list[str]]:
    """The videos in a folder, sorted, and the names of files there that don't look like one."""
    videos, others = [], []
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir() or entry.name.startswith("."):
            continue
        path = Path(entry.path)
        if path.suffix.lower() in EXTENSIONS:
            videos.append(path)
        else:
            others.append(entry.name)
    return videos, others


def _comment(metadata: dict[str, str]) -> dict[str, Any] | None:
    try:
        value = json.loads(metadata.get("comment", ""))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
