"""The only decoder and encoder of video (PyAV): probe, stream batches of frames, read a span, write.

Frames are uint8 RGB, upright (rotation metadata is applied), all of the first frame's size."""

import contextlib
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from av.error import FFmpegError

from vimoclip import VideoError, publish

T = TypeVar("T")
EXTENSIONS = frozenset(
    {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".webm", ".wmv", ".flv", ".ts", ".mts", ".m2ts"}
    | {".ogv", ".3gp", ".gif"}
)
KEYFRAME_EVERY = 30  # frames: a span of a written video costs at most so many frames of decoding before it


@dataclass(frozen=True)
class Sampling:
    """Which frames are kept: every `stride`-th, of these at most `fps` a second, of these the first `max_frames`."""

    stride: int = 1
    fps: float | None = None
    max_frames: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def picker(self) -> Callable[[int, float], bool]:
        """A function of (index, timestamp in seconds), called once a frame in order: is it kept?"""
        state: dict[str, Any] = {"kept": 0, "start": 0.0, "next": 0}

        def keep(index: int, timestamp: float) -> bool:
            if index == 0:
                state["start"] = timestamp
            if index % self.stride or (self.max_frames is not None and state["kept"] >= self.max_frames):
                return False
            if self.fps is not None:
                tick = (timestamp - state["start"]) * self.fps + 1e-6
                if tick < state["next"]:
                    return False
                state["next"] = int(tick) + 1
            state["kept"] += 1
            return True

        return keep


EVERY_FRAME = Sampling()


@dataclass(frozen=True)
class Info:
    """What a video's header says. `frames` is 0 where it says nothing; `comment` is the container's JSON, if any."""

    width: int
    height: int
    fps: Fraction
    frames: int
    codec: str
    comment: dict[str, Any] | None


@dataclass(frozen=True)
class End:
    """What is known when the last frame has been decoded. `frame_indices`, `timestamps` (s): of the kept frames."""

    frame_indices: np.ndarray
    timestamps: np.ndarray
    original_frames: int
    fps: float


def describe_frames(end: End) -> dict[str, Any]:
    """What a flow video's comment says of the kept frames that it was made from: number, indices, first timestamp."""
    indices = end.frame_indices
    step = int(indices[1] - indices[0]) if len(indices) > 1 else 1
    regular = bool((np.diff(indices) == step).all())
    return {
        "kept_frames": len(indices),
        "frame_indices": {"start": int(indices[0]), "step": step} if regular else indices.tolist(),
        "first_timestamp": float(end.timestamps[0]) if len(indices) else 0.0,
    }


def described_indices(comment: dict[str, Any] | None) -> np.ndarray | None:
    """The indices (T,) of the kept frames behind a flow video, from its comment; None where it says nothing."""
    if not comment or "kept_frames" not in comment or "frame_indices" not in comment:
        return None
    said, count = comment["frame_indices"], int(comment["kept_frames"])
    if isinstance(said, dict):
        return np.arange(count, dtype=np.int64) * int(said["step"]) + int(said["start"])
    return np.array(said, np.int64)


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
            seconds = float(frame.pts * frame.time_base) if frame.pts is not None else float(index / rate)
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


class SpanReader:
    """Reads frames [start, stop) of a video by index, frame-exact, by way of the nearest keyframe before them."""

    def __init__(self, path: Path):
        self.path = path
        self._pts: list[int] | None = None  # None: timestamps can't be trusted, so count from the beginning
        with _open(path) as container:
            stream = _stream(container, path)
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
                    found.append(_converter(frame, (frame.width, frame.height))())
                    if len(found) == len(wanted):
                        return found
            except FFmpegError:
                return None
        return None


class Writer:
    """Writes an H.264 .mp4, which appears under its name only when whole and is the same bytes on any machine load.

    `comment`: JSON for the container. Sizes are made even by repeating the last row or column (4:2:0 needs it).
    Quality: CRF 17; `lossless` keeps every value of RGB."""

    def __init__(self, path: Path, fps: Fraction | float, comment: dict[str, Any], lossless: bool = False):
        self.path, self.comment, self.lossless = path, comment, lossless
        self.fps = Fraction(fps).limit_denominator(100_000)
        self.temporary = path.with_name(f".{path.name}.partial")
        self._encoded = path.with_name(f".{path.name}.encoding")
        self.frames = 0
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._container is not None:
            if kind is None:
                self._finish()
            else:
                self._container.close()
        self.temporary.unlink(missing_ok=True)
        self._encoded.unlink(missing_ok=True)

    def write(self, frames: np.ndarray) -> None:
        """Append (n, H, W, 3) uint8."""
        height, width = frames.shape[1:3]
        frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._container is None:
            self._start(width + width % 2, height + height % 2)
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = self.frames
            self.frames += 1
            self._container.mux(self._stream.encode(frame))

    def _start(self, width: int, height: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._encoded), "w", format="mp4")
        self._stream = self._container.add_stream("libx264rgb" if self.lossless else "libx264", rate=self.fps)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "rgb24" if self.lossless else "yuv420p"
        self._stream.time_base = 1 / self.fps
        self._stream.options = {
            "crf": "0" if self.lossless else "17",
            "preset": "veryfast",
            "bf": "0",
            "g": str(KEYFRAME_EVERY),
            # x264's output depends on its number of threads; videos are encoded beside each other instead
            "threads": "1",
        }

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        # The comment may say how many frames there are, which was not known when the header was written.
        with (
            av.open(str(self._encoded)) as source,
            av.open(str(self.temporary), "w", format="mp4", options={"movflags": "+faststart"}) as target,
        ):
            target.metadata["comment"] = json.dumps(self.comment, sort_keys=True)
            copy = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = copy
                    target.mux(packet)
        publish(self.temporary, self.path)


def read_ahead(
    sources: Sequence[Callable[[], Iterator[T]]], workers: int, sources_ahead: int = 2, depth: int = 4
) -> Iterator[tuple[int, T | VideoError]]:
    """(source's index, item) of all sources in order, while threads work up to `sources_ahead` sources ahead.

    A VideoError ends its source and is handed on as its last item. At most `depth` items a source wait."""
    if workers <= 0:
        for index, source in enumerate(sources):
            yield from ((index, item) for item in _guarded(source))
        return
    stopped, done = threading.Event(), object()
    queues: list[queue.Queue[Any]] = []

    def put(target: "queue.Queue[Any]", item: Any) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                target.put(item, timeout=0.1)
                return

    def work(index: int) -> None:
        try:
            for item in _guarded(sources[index]):
                put(queues[index], item)
                if stopped.is_set():
                    return
            put(queues[index], done)
        except BaseException as error:  # a bug in a source: raised where it is consumed
            put(queues[index], error)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for index in range(len(sources)):
                while len(queues) < min(index + 1 + max(sources_ahead, workers), len(sources)):
                    queues.append(queue.Queue(depth))
                    pool.submit(work, len(queues) - 1)
                while (item := queues[index].get()) is not done:
                    if isinstance(item, BaseException) and not isinstance(item, VideoError):
                        raise item
                    yield index, item
                queues[index] = queue.Queue(1)  # lets go of the frames
        finally:
            stopped.set()


def _guarded(source: Callable[[], Iterator[T]]) -> Iterator[T | VideoError]:
    try:
        yield from source()
    except VideoError as error:
        yield error


def _open(path: Path) -> Any:
    try:
        container = av.open(str(path), metadata_errors="replace")
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
