"""Decoding one video from its first frame to its last, also where it is damaged.

A frame that FFmpeg can't decode damages those that refer to it, which FFmpeg then gives without a word. So a video is
trusted until its first error; from there on it is decoded again, and frames behind an error are left out up to the
next keyframe. What is given is right, and is counted where it stood."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from vimoclip import VideoError
from vimoclip.video.damage import Broken, Watch, frames_of, key_of, packets, survey
from vimoclip.video.opening import DECODER_OPTIONS, MAX_PIXELS, frame_rate, open_container, video_stream


@dataclass(frozen=True)
class Frame:
    """`index`: among all frames of the file, those left out too; `seconds`: its timestamp; `convert`: its RGB."""

    index: int
    seconds: float
    convert: Callable[[], np.ndarray]


class Decoding:
    """The frames of a video, to be iterated once; behind the last one the attributes say what there was.

    `decoded`: frames given; `expected`: frames that the header or the packets speak of; `problem`: why the two differ,
    in words; `note`: what is unusual but no problem; `fps`. Raises VideoError for what can't be opened."""

    def __init__(self, path: Path, shorter_side: int | None = None):
        self.path, self.shorter_side = path, shorter_side
        self.decoded = self.expected = 0
        self.problem = self.note = ""
        self.fps = 0.0
        self._size: tuple[int, int] | None = None
        self._first_size: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Frame]:
        given, last = 0, -1
        try:
            for last, frame in self._trusting():
                given += 1
                yield self._frame(last, frame)
        except Broken as error:
            self.problem = str(error)
            for index, frame in self._picking():
                if index > last:
                    given += 1
                    yield self._frame(index, frame)
        self.decoded = given
        self.expected = max(self.expected, given)
        if self.expected > given and not self.problem:
            self.problem = "the header says more than there are"
        if self.problem:
            lost = self.expected - given
            self.problem = f"{lost} of {self.expected} frames can't be decoded: {self.problem}"

    def _trusting(self) -> Iterator[tuple[int, Any]]:
        """(index, frame) of all, by as many threads as FFmpeg likes. Raises Broken at the first sign of damage."""
        with open_container(self.path) as container:
            stream = video_stream(container)
            stream.thread_type = "AUTO"
            stream.codec_context.options = dict(DECODER_OPTIONS)
            self.fps = float(frame_rate(stream))
            # AVI has no presentation times; with B-frames FFmpeg's guesses jump
            self._timed = container.format.name != "avi"
            self.expected = stream.frames
            watch = Watch(self.path, stream, container.format.name)
            for packet in packets(container, stream):
                if packet.size and packet.is_discard:
                    self.expected -= 1
                watch.packet(packet)
                for frame in frames_of(packet):
                    yield watch.frame(frame), frame
            watch.end()
            if watch.skipped:
                self.expected = max(self.expected, watch.skipped + watch.number)
                self.problem = f"the first {watch.skipped} refer to others before the beginning"
            if not stream.frames and self._timed:
                self._expect_duration(stream, container, watch)
            if container.format.name == "gif":
                self._expect_trailer(watch)

    def _expect_trailer(self, watch: "Watch") -> None:
        """A GIF doesn't say how much there is, but its frames fill it, and it ends with a semicolon."""
        with open(self.path, "rb") as file:
            size = file.seek(-1, os.SEEK_END) + 1
            whole = file.read() == b";"
        if watch.position != size or not whole:
            self.expected += 1
            self.problem = f"the file is {'damaged' if whole else 'cut short'} after frame {watch.number - 1}"

    def _expect_duration(self, stream: Any, container: Any, watch: "Watch") -> None:
        """Where the header doesn't count frames, its duration tells whether the file was cut short."""
        said = _stream_seconds(stream)
        if said is None and len(container.streams) == 1 and container.duration:
            said = container.duration / 1e6
        seconds = watch.seconds()
        if said is not None and watch.number and said - seconds > max(0.5, 2 / self.fps):
            self.expected = watch.number + round((said - seconds) * self.fps)
            self.problem = f"there are {seconds:.1f} of {said:.1f} s"

    def _picking(self) -> Iterator[tuple[int, Any]]:
        """(index, frame) of the frames that no error touches; none where frames have no times to tell them apart."""
        order, usable = survey(self.path)
        self.expected = self.expected or max(order.values(), default=-1) + 1
        with open_container(self.path) as container:
            stream = video_stream(container)
            stream.codec_context.options = dict(DECODER_OPTIONS)
            stream.codec_context.thread_count = 1
            for packet in packets(container, stream, patient=True) if usable else ():
                with contextlib.suppress(FFmpegError):
                    yield from ((order[key_of(f)], f) for f in packet.decode() if key_of(f) in usable)

    def _frame(self, index: int, frame: Any) -> Frame:
        if self._size is None:
            self._first_size = frame.width, frame.height
            self._size = _scaled(frame.width, frame.height, self.shorter_side)
        elif (frame.width, frame.height) != self._first_size and not self.note:
            now, first = f"{frame.width}x{frame.height}", "{}x{}".format(*(self._first_size or ()))
            self.note = f"frames change from {first} to {now} at frame {index}; all are scaled to the first"
        timed = self._timed and frame.pts is not None
        seconds = float(frame.pts * frame.time_base) if timed else index / self.fps
        return Frame(index, seconds, converter(frame, self._size))


def _stream_seconds(stream: Any) -> float | None:
    """How long the video stream is by its own account; Matroska says it in a tag, as 00:00:02.400000000."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def converter(frame: Any, size: tuple[int, int]) -> Callable[[], np.ndarray]:
    """A function that gives the frame as (H, W, 3) uint8 RGB of this size, upright."""

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
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size[0] * size[1] > MAX_PIXELS:
        raise VideoError(f"has frames of {width}x{height}, which at a shorter side of {shorter_side} are too large")
    return size
