"""Decoding: probe, stream batches of frames, read a span by index."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from vimoclip import VideoError
from vimoclip.video.sampling import EVERY_FRAME, End, Sampling

EXTENSIONS = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm", ".wmv", ".flv", ".ts", ".mts", ".m2ts"}
    | {".ogv", ".3gp", ".gif"}
)


@dataclass(frozen=True)
class Info:
    """What a video's header says. `frames` is 0 where it says nothing; `comment` is the container's JSON, if any."""

    width: int
    height: int
    fps: Fraction
    frames: int
    codec: str
    comment: dict[str, Any] | None


def probe(path: Path) -> Info:
    """Read the header only. Raises VideoError."""
    with _open(path) as container:
        stream = _stream(container, path)
        context = stream.codec_context
        return Info(
            context.width, context.height, _rate(stream), stream.frames, context.name, _comment(container.metadata)
        )


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


def read(
    path: Path, batch_size: int, sampling: Sampling = EVERY_FRAME, shorter_side: int | None = None, overlap: int = 0
) -> Iterator[np.ndarray | End]:
    """Stream the kept frames as (n, H, W, 3) uint8, n <= batch_size, then one `End`. Memory: one batch.

    `shorter_side` scales while colours are converted. With `overlap` each batch begins with that many of the
    last one's frames and holds batch_size new ones. Raises VideoError, also for a video without any frame."""
    keep, indices, timestamps = sampling.picker(), [], []
    pending: list[np.ndarray] = []
    fresh, total, fps = 0, 0, 0.0
    for index, timestamp, rate, convert in _decode(path, shorter_side):
        total, fps = index + 1, rate
        if not keep(index, timestamp):
            continue
        indices.append(index)
        timestamps.append(timestamp)
        pending.append(convert())
        fresh += 1
        if fresh == batch_size + (overlap if len(indices) <= batch_size + overlap else 0):
            yield np.stack(pending)
            pending, fresh = pending[len(pending) - overlap :], 0
    if total == 0:
        raise VideoError("no frame could be decoded")
    if fresh:
        yield np.stack(pending)
    yield End(np.array(indices, np.int64), np.array(timestamps, np.float64), total, fps)


def _decode(path: Path, shorter_side: int | None) -> Iterator[tuple[int, float, float, Callable[[], np.ndarray]]]:
    """(index, timestamp in s, frames/s, function that converts the frame to RGB) of every frame in order."""
    with _open(path) as container:
        stream = _stream(container, path)
        stream.thread_type = "AUTO"
        rate = _rate(stream)
        timed = container.format.name != "avi"  # AVI has no presentation times; with B-frames the guesses jump
        size: tuple[int, int] | None = None
        frames = container.decode(stream)
        index = 0
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                return
            except FFmpegError as error:
                raise VideoError(f"can't be decoded after frame {index}: {_words(error)}") from None
            if size is None:
                size = _scaled(frame.width, frame.height, shorter_side)
            seconds = float(frame.pts * frame.time_base) if timed and frame.pts is not None else float(index / rate)
            yield index, seconds, float(rate), _converter(frame, size)
            index += 1


def _converter(frame: Any, size: tuple[int, int]) -> Callable[[], np.ndarray]:
    def convert() -> np.ndarray:
        if (frame.width, frame.height) == size:
            image = frame.to_ndarray(format="rgb24")
        else:  # area averaging: no aliasing when shrinking
            image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation="AREA")
        turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4  # counterclockwise, as FFmpeg has it
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    return convert


def _scaled(width: int, height: int, shorter_side: int | None) -> tuple[int, int]:
    if shorter_side is None or shorter_side == min(width, height):
        return width, height
    scale = shorter_side / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def read_evenly(path: Path, count: int) -> np.ndarray:
    """(count, H, W, 3) uint8: frames evenly spread from the first to the last. Raises VideoError."""
    total = probe(path).frames or sum(1 for _ in _decode(path, None))
    wanted = np.linspace(0, max(total - 1, 0), count).astype(int).tolist()
    frames: list[np.ndarray] = []
    for index, _, _, convert in _decode(path, None):
        frames += [convert()] * wanted.count(index)
        if len(frames) == count:
            break
    if not frames:
        raise VideoError("has no frame that can be decoded")
    return np.stack(frames + frames[-1:] * (count - len(frames)))  # a header may promise more than there is


class SpanReader:
    """Reads frames [start, stop) of a video by index, frame-exact, by way of the nearest keyframe before them."""

    def __init__(self, path: Path):
        self.path = path
        self._size = (0, 0)
        self._pts: list[int] | None = None  # None: timestamps can't be trusted, so count from the beginning
        with _open(path) as container:
            stream = _stream(container, path)
            self._size = stream.codec_context.width, stream.codec_context.height
            pts = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
            if pts and all(p is not None for p in pts) and len(set(pts)) == len(pts):
                self._pts = sorted(p for p in pts if p is not None)

    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, H, W, 3) uint8. Raises VideoError where the video ends before."""
        frames = self._seek(start, stop) if self._pts is not None else None
        if frames is None:
            frames = [convert() for index, _, _, convert in self._first(stop) if index >= start]
        if len(frames) != stop - start:
            raise VideoError(f"has no frames {start}..{stop - 1}")
        return np.stack(frames)

    def _first(self, stop: int) -> Iterator[tuple[int, float, float, Callable[[], np.ndarray]]]:
        for item in _decode(self.path, None):
            if item[0] >= stop:
                return
            yield item

    def _seek(self, start: int, stop: int) -> list[np.ndarray] | None:
        """The frames whose timestamps are the start-th to stop-th; None where decoding shows other timestamps."""
        assert self._pts is not None
        if stop > len(self._pts):
            return None
        wanted = self._pts[start:stop]
        found: list[np.ndarray] = []
        with _open(self.path) as container:
            stream = _stream(container, self.path)
            try:
                container.seek(wanted[0], stream=stream, backward=True)
                for frame in container.decode(stream):
                    if frame.pts is None or frame.pts < wanted[0]:
                        continue
                    if frame.pts != wanted[len(found)]:
                        return None
                    found.append(_converter(frame, self._size)())
                    if len(found) == len(wanted):
                        return found
            except FFmpegError:
                return None
        return None


def _open(path: Path) -> Any:
    try:
        # absolute, as FFmpeg takes what stands before a colon in a relative name for a protocol
        container = av.open(str(path.absolute()), metadata_errors="replace")
    except FileNotFoundError:
        raise VideoError("there is no such file") from None
    except IsADirectoryError:
        raise VideoError("is a folder") from None
    except FFmpegError as error:
        if path.is_file() and path.stat().st_size == 0:
            raise VideoError("is empty (0 bytes)") from None
        raise VideoError(f"is not a video that can be read: {_words(error)}") from None
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        name = container.format.name
        container.close()
        raise VideoError(f"is a picture ({name.removesuffix('_pipe')}), not a video")
    return container


def _stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise VideoError("has no video stream (sound only?)")
    stream = container.streams.video[0]
    if stream.codec_context is None or stream.codec_context.width <= 0:
        raise VideoError("its video stream can't be decoded (unknown codec or no size)")
    return stream


def _rate(stream: Any) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or 25)


def _comment(metadata: dict[str, str]) -> dict[str, Any] | None:
    try:
        value = json.loads(metadata.get("comment", ""))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _words(error: FFmpegError) -> str:
    return (error.strerror or str(error)).strip()
