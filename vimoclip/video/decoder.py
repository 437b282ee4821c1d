"""Decoding one video from its first frame to its last, also where it is damaged.

A frame that FFmpeg can't decode damages those that refer to it, which FFmpeg then gives without a word. So a video is
trusted until its first error; from there on it is decoded again, and frames behind an error are left out up to the
next keyframe. What is given is right, and is counted where it stood."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.errors import VideoError
from vimoclip.video.container import DECODER_OPTIONS, frame_rate, open_container, video_stream
from vimoclip.video.corruption import Broken, Watch, frames_of, gif_images, packets, place_of, singly, survey

# With other codecs' frame threads FFmpeg 8 forgets errors now and then (MPEG-4), or hangs (FFV1).
FRAME_THREADS = ("h264", "hevc", "vp9", "av1", "libdav1d")
MAX_ENLARGED = 2**23  # pixels of a frame that is enlarged: those of 4K video


@dataclass(frozen=True)
class Frame:
    """`index`: among all frames of the file, those left out too; `seconds`: its timestamp; `convert`: its RGB.

    `converts`: its RGB at each of the sizes that were asked for, of which the first is `convert`'s."""

    index: int
    seconds: float
    converts: list[Callable[[], np.ndarray]]

    @property
    def convert(self) -> Callable[[], np.ndarray]:
        return self.converts[0]


class Decoding:
    """The frames of a video, to be iterated once; behind the last one the attributes say what there was.

    `decoded`: frames given; `expected`: frames that the header or the packets speak of; `problem`: why the two differ,
    in words; `note`: what is unusual but no problem; `fps`. Raises VideoError for what can't be opened."""

    def __init__(self, path: Path, *shorter_sides: int | None):
        """`shorter_sides`: of the sizes at which frames are wanted, None for the video's own; default: that alone."""
        self.path, self.shorter_sides = path, shorter_sides or (None,)
        self.decoded = self.expected = 0
        self.problem = self.note = ""
        self.fps = 0.0
        self._sizes: list[tuple[int, int]] = []
        self._first_size: tuple[int, int] | None = None
        self._avi, self._chunk_times = False, list[float]()

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
                    given, last = given + 1, index
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
            stream = self._prepared(container)
            stream.thread_type = "AUTO" if stream.codec_context.name in FRAME_THREADS else "SLICE"
            images, whole = gif_images(self.path) if container.format.name == "gif" else (None, True)
            watch = Watch(self.path, container, stream)
            for packet in islice(packets(container, stream), images):
                if packet.size and packet.is_discard:
                    self.expected -= 1
                watch.packet(packet)
                for frame in frames_of(packet):
                    yield watch.frame(frame), frame
            watch.end()
            if watch.skipped:
                self.expected = max(self.expected, watch.skipped + watch.number)
                self.problem = f"the first {watch.skipped} refer to others before the beginning"
            if images is not None:
                self.expected = images + (not whole)
                self.problem = "" if whole else f"the file is damaged or cut short behind frame {images - 1}"
            if not stream.frames and container.format.name != "avi":
                self._expect_duration(stream, container, watch)

    def _prepared(self, container: Any) -> Any:
        """The video stream, ready to be decoded, after noting what the header says of it."""
        stream = video_stream(container)
        stream.codec_context.options = dict(DECODER_OPTIONS)
        self.fps, self.expected = float(frame_rate(stream)), stream.frames
        self._avi = container.format.name == "avi"
        if self._avi and (numbers := [entry.timestamp for entry in stream.index_entries]):
            self.expected -= numbers[-1] + 1 - len(numbers)  # empty packets: the frame before goes on
            if not stream.codec_context.has_b_frames:
                self._chunk_times = [float(number * stream.time_base) for number in numbers]
        return stream

    def _expect_duration(self, stream: Any, container: Any, watch: Watch) -> None:
        """Where the header doesn't count frames, its duration tells whether the file was cut short."""
        said = float((stream.duration or 0) * stream.time_base) or _tagged_seconds(stream)
        said = said or (container.duration or 0) / 1e6 * (len(container.streams) == 1)
        begin, end = watch.seconds()
        there = end - begin
        if watch.position * said < 0.5 * container.size * begin:  # nothing is lost before it: it begins late by itself
            there = max(end, there)
        precise = container.format.name == "matroska,webm"
        if watch.number and said - there > (1.5 / self.fps if precise else max(0.5, 2.5 / self.fps)):
            self.expected = watch.number + round((said - there) * self.fps)
            self.problem = f"there are {there:.1f} of {said:.1f} s"

    def _picking(self) -> Iterator[tuple[int, Any]]:
        """(index, frame) of the frames that no error touches; none where frames have no times to tell them apart."""
        count, indices = survey(self.path)
        self.expected = self.expected or count
        with open_container(self.path) as container:
            for _, _, frames in singly(container, video_stream(container)) if indices else ():
                yield from ((indices[place_of(f)], f) for f in frames or () if place_of(f) in indices)

    def _frame(self, index: int, frame: Any) -> Frame:
        if not self._sizes:
            self._first_size = frame.width, frame.height
            self._sizes = [_scaled(frame.width, frame.height, side) for side in self.shorter_sides]
        elif (frame.width, frame.height) != self._first_size and not self.note:
            now, first = f"{frame.width}x{frame.height}", "{}x{}".format(*(self._first_size or ()))
            self.note = f"frames change from {first} to {now} at frame {index}; all are scaled to the first"
        return Frame(index, self._seconds(index, frame), [converter(frame, size) for size in self._sizes])

    def _seconds(self, index: int, frame: Any) -> float:
        """When a frame is shown. AVI doesn't say; there FFmpeg guesses, so its index is asked."""
        if frame.pts is not None and not self._avi:
            return float(frame.pts * frame.time_base)
        return self._chunk_times[index] if index < len(self._chunk_times) else index / self.fps


def _tagged_seconds(stream: Any) -> float | None:
    """How long Matroska says in a tag that its stream is, as 00:00:02.400000000."""
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
    if size[0] * size[1] > max(MAX_ENLARGED, width * height):
        raise VideoError(f"has frames of {width}x{height}, which at a shorter side of {shorter_side} are too large")
    return size
