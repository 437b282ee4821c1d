"""Read the header of a video."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vimoclip.errors import VideoError
from vimoclip.video.container import CONTAINER_OPTIONS, declared_frames, frame_rate, open_container, video_stream
from vimoclip.video.sampling import Sampling

# By default FFmpeg decodes the first frames to complete the header, which takes 6 ms for H.264 of 640x360. The packets
# alone give the same information in 0.4 ms.
HEADER_OPTIONS = CONTAINER_OPTIONS | {"skip_frame": "all"}
SAMPLED_VIDEOS = 200  # whose headers are read for an estimate, which takes 0.1 s


@dataclass(frozen=True)
class VideoInfo:
    """The header of a video.

    `frames`: those that a player shows. `frames` and `seconds` are 0 if the header lacks them. `comment`: the JSON
    object in the container's comment, or None. `tick`: unit of the time stamps in seconds."""

    width: int
    height: int
    fps: Fraction
    frames: int
    codec: str
    comment: dict[str, Any] | None
    seconds: float = 0.0
    tick: Fraction | None = None


def probe(path: Path, check_complete: bool = False) -> VideoInfo:
    """Read the header only. Raises VideoError.

    With `check_complete`, an MP4 that is shorter than its index requires raises VideoError as well."""
    with open_container(path, HEADER_OPTIONS) as container:
        stream = video_stream(container)
        if check_complete:
            end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
            if end > path.stat().st_size:
                raise VideoError(f"is cut short: it has {path.stat().st_size} bytes, its index needs {end}")
        context = stream.codec_context
        comment = _parse_comment(container.metadata)
        rate, seconds = frame_rate(stream), float((stream.duration or 0) * (stream.time_base or 0))
        seconds = seconds or (container.duration or 0) / 1e6
        return VideoInfo(
            context.width,
            context.height,
            rate,
            declared_frames(container, stream),
            context.name,
            comment,
            seconds,
            stream.time_base,
        )


def estimate_kept_frames(paths: Sequence[Path], sampling: Sampling) -> float:
    """Return the number of kept frames in all videos, extrapolated from the headers of evenly spaced ones."""
    sample = paths[:: max(1, len(paths) // SAMPLED_VIDEOS)]
    counts = list[float]()
    for path in sample:
        try:
            info = probe(path)
        except VideoError:
            continue
        if frames := info.frames or info.seconds * float(info.fps):
            counts.append(sampling.kept_frames(frames, float(info.fps)))
    return sum(counts) / len(counts) * len(paths) if counts else 0.0


def _parse_comment(metadata: dict[str, str]) -> dict[str, Any] | None:
    try:
        value = json.loads(metadata.get("comment", ""))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
