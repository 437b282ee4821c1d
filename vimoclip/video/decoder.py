"""Decode a video from the first frame to the last, including damaged videos.

A frame that FFmpeg cannot decode damages the frames that refer to it, which FFmpeg returns without an error. A video is
therefore decoded at full speed up to the first error, then decoded again from the beginning, and frames after an error
are dropped up to the next keyframe. Frames that are returned are correct and keep their index."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from vimoclip.errors import VideoError
from vimoclip.video.container import DECODER_OPTIONS, error_text, frame_rate, open_container, video_stream
from vimoclip.video.corruption import (
    CorruptStreamError,
    DecodeMonitor,
    count_gif_images,
    decode_single_threaded,
    demux_packets,
    find_intact_frames,
    packet_rank,
)

# With frame threads of other codecs FFmpeg 8 sometimes loses errors (MPEG-4) or hangs (FFV1).
FRAME_THREADS = ("h264", "hevc", "vp9", "av1", "libdav1d")
MAX_UPSCALED_PIXELS = 2**23  # of an upscaled frame: as many as 4K video has


@dataclass(frozen=True)
class DecodedFrame:
    """Decoded frame before color conversion.

    `index`: position in the file, counting dropped frames; `timestamp`: in seconds; `converters`: one function per
    requested size, which returns the frame as (H, W, 3) uint8 RGB."""

    index: int
    timestamp: float
    converters: list[Callable[[], np.ndarray]]

    def to_rgb(self) -> np.ndarray:
        """Convert to the first of the requested sizes."""
        return self.converters[0]()


class VideoDecoder:
    """Iterable over the frames of a video, once; the attributes are valid after the last frame.

    `decoded_frames`: frames returned; `expected_frames`: frames according to the header or the packets; `problem`: why
    the two differ; `note`: an irregularity that loses no frame; `fps`. Raises VideoError for an unreadable file."""

    def __init__(self, path: Path, *shorter_sides: int | None):
        """`shorter_sides`: requested sizes, None for the video's own size (the default)."""
        self.path, self.shorter_sides = path, shorter_sides or (None,)
        self.decoded_frames = self.expected_frames = 0
        self.problem = self.note = ""
        self.fps = 0.0
        self._sizes: list[tuple[int, int]] = []
        self._first_size: tuple[int, int] | None = None
        self._avi, self._avi_times = False, list[float]()

    def __iter__(self) -> Iterator[DecodedFrame]:
        decoded, last = 0, -1
        try:
            for last, frame in self._decode_until_corruption():
                decoded += 1
                yield self._decoded_frame(last, frame)
        except CorruptStreamError as error:
            self.problem = str(error)
            for index, frame in self._decode_intact_frames():
                if index > last:
                    decoded, last = decoded + 1, index
                    yield self._decoded_frame(index, frame)
        self.decoded_frames = decoded
        self.expected_frames = max(self.expected_frames, decoded)
        if self.expected_frames > decoded and not self.problem:
            self.problem = "the header declares more frames"
        if self.problem:
            lost = self.expected_frames - decoded
            self.problem = f"{lost} of {self.expected_frames} frames can't be decoded: {self.problem}"

    def _decode_until_corruption(self) -> Iterator[tuple[int, Any]]:
        """Yield (index, frame), multi-threaded. Raises CorruptStreamError at the first sign of damage."""
        with open_container(self.path) as container:
            stream = self._prepare_stream(container)
            stream.thread_type = "AUTO" if stream.codec_context.name in FRAME_THREADS else "SLICE"
            images, complete = count_gif_images(self.path) if container.format.name == "gif" else (None, True)
            monitor = DecodeMonitor(self.path, container, stream)
            for packet in islice(demux_packets(container, stream), images):
                if packet.size and packet.is_discard:
                    self.expected_frames -= 1
                monitor.add_packet(packet)
                try:
                    frames = packet.decode()
                except FFmpegError as error:
                    raise CorruptStreamError(error_text(error)) from None
                for frame in frames:
                    if frame.is_corrupt:
                        raise CorruptStreamError("a frame is damaged")
                    yield monitor.add_frame(frame), frame
            monitor.check_end()
            if monitor.skipped:
                self.expected_frames = max(self.expected_frames, monitor.skipped + monitor.frame_count)
                self.problem = f"the first {monitor.skipped} refer to frames before the beginning"
            if images is not None:
                self.expected_frames = images + (not complete)
                self.problem = "" if complete else f"the file is damaged or cut short after frame {images - 1}"
            if not stream.frames and container.format.name != "avi":
                self._check_duration(stream, container, monitor)

    def _prepare_stream(self, container: Any) -> Any:
        """Configure and return the video stream; read the frame rate and the number of frames."""
        stream = video_stream(container)
        stream.codec_context.options = dict(DECODER_OPTIONS)
        self.fps, self.expected_frames = float(frame_rate(stream)), stream.frames
        self._avi = container.format.name == "avi"
        if self._avi and (numbers := [entry.timestamp for entry in stream.index_entries]):
            self.expected_frames -= numbers[-1] + 1 - len(numbers)  # empty packets repeat the frame before
            if not stream.codec_context.has_b_frames:
                self._avi_times = [float(number * stream.time_base) for number in numbers]
        return stream

    def _check_duration(self, stream: Any, container: Any, monitor: DecodeMonitor) -> None:
        """Detect a truncated file by its duration, for headers without a number of frames."""
        duration = float((stream.duration or 0) * stream.time_base) or _matroska_duration(stream)
        duration = duration or (container.duration or 0) / 1e6 * (len(container.streams) == 1)
        start, end = monitor.time_range()
        decoded = end - start
        if monitor.first_position * duration < 0.5 * container.size * start:  # a late start, nothing lost before it
            decoded = max(end, decoded)
        precise = container.format.name == "matroska,webm"
        if monitor.frame_count and duration - decoded > (1.5 / self.fps if precise else max(0.5, 2.5 / self.fps)):
            self.expected_frames = monitor.frame_count + round((duration - decoded) * self.fps)
            self.problem = f"it has {decoded:.1f} of {duration:.1f} s"

    def _decode_intact_frames(self) -> Iterator[tuple[int, Any]]:
        """Yield (index, frame) of the frames that no error affects; none if timestamps do not identify the frames."""
        count, indices = find_intact_frames(self.path)
        self.expected_frames = self.expected_frames or count
        with open_container(self.path) as container:
            for _, _, frames in decode_single_threaded(container, video_stream(container)) if indices else ():
                yield from ((indices[packet_rank(f)], f) for f in frames or () if packet_rank(f) in indices)

    def _decoded_frame(self, index: int, frame: Any) -> DecodedFrame:
        if not self._sizes:
            self._first_size = frame.width, frame.height
            self._sizes = [_scaled_size(frame.width, frame.height, side) for side in self.shorter_sides]
        elif (frame.width, frame.height) != self._first_size and not self.note:
            size, first_size = f"{frame.width}x{frame.height}", "{}x{}".format(*(self._first_size or ()))
            self.note = f"frames change from {first_size} to {size} at frame {index}; all are scaled to the first"
        return DecodedFrame(index, self._timestamp(index, frame), [rgb_converter(frame, size) for size in self._sizes])

    def _timestamp(self, index: int, frame: Any) -> float:
        """Return the presentation time in seconds, for AVI from its index: FFmpeg's times for AVI are guesses."""
        if frame.pts is not None and not self._avi:
            return float(frame.pts * frame.time_base)
        return self._avi_times[index] if index < len(self._avi_times) else index / self.fps


def _matroska_duration(stream: Any) -> float | None:
    """Return the seconds in Matroska's DURATION tag (00:00:02.400000000), None if there is none."""
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def rgb_converter(frame: Any, size: tuple[int, int]) -> Callable[[], np.ndarray]:
    """Return a function that converts a frame to (H, W, 3) uint8 RGB, scaled to `size` = (W, H) and then rotated."""

    def convert() -> np.ndarray:
        if (frame.width, frame.height) == size:
            image = frame.to_ndarray(format="rgb24")
        else:  # area averaging avoids aliasing when shrinking
            image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation="AREA")
        turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4  # counterclockwise, as in FFmpeg
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    return convert


def _scaled_size(width: int, height: int, shorter_side: int | None) -> tuple[int, int]:
    if shorter_side is None or shorter_side == min(width, height):
        return width, height
    scale = shorter_side / min(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size[0] * size[1] > max(MAX_UPSCALED_PIXELS, width * height):
        raise VideoError(f"has frames of {width}x{height}, too large at a shorter side of {shorter_side}")
    return size
