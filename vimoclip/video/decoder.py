"""Decode a video from the first frame to the last, including damaged videos.

A frame that FFmpeg cannot decode damages the frames that refer to it, which FFmpeg returns without an error. A video is
therefore decoded at full speed up to the first error, then decoded again from the beginning, and frames after an error
are dropped up to the next keyframe. Frames that are returned are correct. They keep their index, save for B-frames next
to the damage in AVI, which does not store their order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from vimoclip.video.clock import FrameClock, describe_gaps
from vimoclip.video.container import (
    MP4_FORMAT,
    declared_frames,
    describe_stream,
    error_text,
    find_second_recording,
    frame_rate,
    open_for_decoding,
    other_video_streams,
    video_stream,
)
from vimoclip.video.corruption import (
    CorruptStreamError,
    DecodeMonitor,
    count_gif_images,
    decode_single_threaded,
    find_intact_frames,
    identify_frame,
    tag_packets,
)
from vimoclip.video.geometry import (
    AS_DISPLAYED,
    Geometry,
    IndexedFrame,
    deinterlaced,
    displayed_size,
    pixel_aspect,
    rgb_converter,
    scaled_size,
)

# With frame threads of other codecs FFmpeg 8 sometimes loses errors (MPEG-4) or hangs (FFV1).
FRAME_THREADS = ("h264", "hevc", "vp9", "av1", "libdav1d")
MAX_HEADER_BYTES = 2**13  # before the first packet: Matroska's header, which OBS pads to 5 kB


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
    the two differ; `note`: irregularities that lose no frame; `fps`. Raises VideoError for an unreadable file."""

    def __init__(self, path: Path, *shorter_sides: int | None, geometry: Geometry = AS_DISPLAYED):
        """`shorter_sides`: requested sizes, None for the video's own size (the default)."""
        self.path, self.shorter_sides, self.geometry = path, shorter_sides or (None,), geometry
        self.decoded_frames = self.expected_frames = 0
        self.problem = ""
        self._notes = list[str]()
        self.fps = 0.0
        self._sizes: list[tuple[int, int]] = []
        self._first_size: tuple[int, int] | None = None
        self._has_other_sizes = False
        self._pixel_aspect = 1.0

    @property
    def note(self) -> str:
        """Irregularities that lose no frame; "" if there are none."""
        return "; ".join(self._notes)

    def __iter__(self) -> Iterator[DecodedFrame]:
        frames = self._decode()
        for index, time, frame in deinterlaced(frames) if self.geometry.deinterlace == "auto" else frames:
            yield self._decoded_frame(index, time, frame)

    def _decode(self) -> Iterator[IndexedFrame]:
        """Yield (index, time, frame) of the frames that can be decoded, then set the attributes."""
        indices, times, last, interlaced = list[int](), list[float](), -1, 0
        try:
            for last, time, frame in self._decode_until_corruption():
                indices.append(last)
                times.append(time)
                interlaced += frame.interlaced_frame
                yield last, time, frame
        except CorruptStreamError as error:
            self.problem = str(error)
            for index, time, frame in self._decode_intact_frames():
                if index > last:
                    last = index
                    indices.append(index)
                    times.append(time)
                    interlaced += frame.interlaced_frame
                    yield index, time, frame
        self.decoded_frames = len(times)
        self.expected_frames = max(self.expected_frames, last + 1)
        lost = self.expected_frames - len(times)
        if lost:
            reason = self.problem or "the header declares more frames"
            self.problem = f"{lost} of {self.expected_frames} frames can't be decoded: {reason}"
        else:
            self.problem = ""
        self._add_note(describe_gaps(indices, times))
        if interlaced:
            flag = f"--deinterlace {self.geometry.deinterlace}"
            self._add_note(f"{interlaced} of {len(times)} frames are interlaced ({flag})")

    def _decode_until_corruption(self) -> Iterator[IndexedFrame]:
        """Yield (index, time, frame), multi-threaded. Raises CorruptStreamError at the first sign of damage."""
        with open_for_decoding(self.path) as container:
            stream = self._read_header(container)
            stream.thread_type = "AUTO" if stream.codec_context.name in FRAME_THREADS else "SLICE"
            images, complete = count_gif_images(self.path) if container.format.name == "gif" else (None, True)
            monitor, clock = DecodeMonitor(container, stream), FrameClock(container, stream)
            for packet, tag in islice(tag_packets(container, stream), images):
                if tag is not None:
                    monitor.add_packet(packet, tag)
                    clock.add_packet(tag)
                try:
                    frames = packet.decode()
                except FFmpegError as error:
                    raise CorruptStreamError(error_text(error)) from None
                for frame in frames:
                    if frame.is_corrupt:
                        raise CorruptStreamError("a frame is damaged")
                    tag = identify_frame(frame, monitor.tags)
                    index = monitor.add_frame(frame, tag)
                    yield index, clock.time(index, frame, tag), frame
            monitor.check_end()
            if monitor.skipped:
                self.expected_frames = max(self.expected_frames, monitor.skipped + monitor.frame_count)
                self.problem = f"the first {monitor.skipped} refer to frames before the beginning"
            if images is not None:
                self.expected_frames = images + (not complete)
                self.problem = "" if complete else f"the file is damaged or cut short after frame {images - 1}"
            if not stream.frames and container.format.name != "avi" and not clock.jumps:
                self._check_duration(stream, container, monitor)
            self._add_note(clock.describe_jumps())

    def _read_header(self, container: Any) -> Any:
        """Return the video stream; read the frame rate and the number of frames, and note further streams."""
        stream = video_stream(container)
        self.fps, self.expected_frames = float(frame_rate(stream)), declared_frames(container, stream)
        self._pixel_aspect = pixel_aspect(stream)
        if others := other_video_streams(container, stream):
            self._add_note(f"stream {describe_stream(stream)} is read; not {', '.join(map(describe_stream, others))}")
        if container.format.name == MP4_FORMAT and (position := find_second_recording(self.path)):
            self._add_note(f"another recording begins at byte {position}, which can't be read: split the file there")
        return stream

    def _add_note(self, note: str) -> None:
        self._notes += [note] if note else []

    def _check_duration(self, stream: Any, container: Any, monitor: DecodeMonitor) -> None:
        """Detect a truncated file by its duration, for headers without a number of frames."""
        duration = float((stream.duration or 0) * stream.time_base) or _matroska_duration(stream)
        duration = duration or (container.duration or 0) / 1e6 * (len(container.streams) == 1)
        start, end = monitor.time_range()
        decoded = end - start
        data_before = max(0, monitor.first_position - MAX_HEADER_BYTES)
        if data_before * duration < 0.5 * container.size * start:  # a late start, nothing lost before it
            decoded = max(end, decoded)
        is_precise = container.format.name == "matroska,webm"  # to a millisecond
        tolerance = max(0.005, 1.5 / self.fps) if is_precise else max(0.5, 2.5 / self.fps)
        if monitor.frame_count and duration - decoded > tolerance:
            self.expected_frames = monitor.frame_count + round((duration - decoded) * self.fps)
            self.problem = f"it has {decoded:.1f} of {duration:.1f} s"

    def _decode_intact_frames(self) -> Iterator[IndexedFrame]:
        """Yield (index, time, frame) of the frames that no error affects."""
        with open_for_decoding(self.path) as container:
            count, indices = find_intact_frames(container, video_stream(container))
        self.expected_frames = self.expected_frames or count
        with open_for_decoding(self.path) as container:
            stream = video_stream(container)
            clock = FrameClock(container, stream)
            for packet_tag, frames in decode_single_threaded(container, stream):
                if packet_tag is not None:
                    clock.add_packet(packet_tag)
                for tag, frame in frames or ():
                    if (index := indices.get(tag.rank)) is not None:
                        yield index, clock.time(index, frame, tag), frame
        self._add_note(clock.describe_jumps())

    def _decoded_frame(self, index: int, time: float, frame: Any) -> DecodedFrame:
        if not self._sizes:
            self._first_size = frame.width, frame.height
            displayed = displayed_size(frame.width, frame.height, self._pixel_aspect)
            self._sizes = [scaled_size(*displayed, side) for side in self.shorter_sides]
        elif (frame.width, frame.height) != self._first_size and not self._has_other_sizes:
            size, first_size = f"{frame.width}x{frame.height}", "{}x{}".format(*(self._first_size or ()))
            self._has_other_sizes = True
            self._add_note(f"frames change from {first_size} to {size} at frame {index}; all are scaled to the first")
        return DecodedFrame(index, time, [rgb_converter(frame, size, self._pixel_aspect) for size in self._sizes])


def _matroska_duration(stream: Any) -> float | None:
    """Return the seconds in Matroska's DURATION tag (00:00:02.400000000), None if there is none."""
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
