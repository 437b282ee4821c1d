"""Telling what is damaged in a video: which packets gave no frame, and which frames refer to those."""

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError

from vimoclip.video.opening import DECODER_OPTIONS, frame_rate, open_container, video_stream, words

RESYNCHRONIZED = ("matroska,webm", "mpegts")  # containers whose reader goes over damage without a word
REORDERED = 16  # frames that may be decoded before one that is shown before them: H.264's and HEVC's limit


class Broken(Exception):
    """The first sign of damage, in words."""


def packets(container: Any, stream: Any, patient: bool = False) -> Iterator[Any]:
    """The stream's packets. Raises Broken for one that is incomplete or can't be read; if `patient`, ends there."""
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed)
        except StopIteration:
            return
        except FFmpegError as error:
            if patient:
                return
            raise Broken(words(error)) from None
        if packet.is_corrupt and not patient:
            raise Broken("a packet is incomplete")
        yield packet


def frames_of(packet: Any) -> Iterator[Any]:
    """What comes out of the decoder when it is given a packet. Raises Broken."""
    try:
        frames = packet.decode()
    except FFmpegError as error:
        raise Broken(words(error)) from None
    for frame in frames:
        if frame.is_corrupt:
            raise Broken("a frame is damaged")
        yield frame


class Watch:
    """Compares the packets that go into a decoder with the frames that come out."""

    def __init__(self, path: Path, stream: Any, container: str):
        self.path, self.container = path, container
        self.number = self.skipped = self.position = 0
        self._waiting: list[int] = []  # a heap: times of packets whose frames are still to come
        self._hidden = stream.codec_context.name == "vp8"  # has packets that show nothing
        self._gap = 1.5 / float(frame_rate(stream) * stream.time_base) if container in RESYNCHRONIZED else None
        self._first = self._last = self._end = None
        self._time_base = stream.time_base

    def packet(self, packet: Any) -> None:
        """Note what goes in."""
        if self.container != "avi" and packet.size and not packet.is_discard and packet.pts is not None:
            heapq.heappush(self._waiting, packet.pts)
        if packet.size and packet.pos is not None:
            self.position = packet.pos + packet.size

    def frame(self, frame: Any) -> int:
        """The index of a frame that comes out. Raises Broken where others should have come before it."""
        pts = frame.pts
        missing = self._drop_before(pts) if pts is not None else 0
        if self._hidden or frame.interlaced_frame:
            missing = 0
        if missing and self.number:
            raise Broken(f"what comes after frame {self.skipped + self.number - 1} doesn't come out")
        self.skipped += missing  # a video cut out of another may begin with frames that refer to what was cut
        if pts is not None:
            if self._gap is not None and self._last is not None and pts - self._last > self._gap:
                self._look_for_holes()
            self._first = pts if self._first is None else self._first
            self._last, self._end = pts, pts + (frame.duration or 0)
        self.number += 1
        return self.skipped + self.number - 1

    def end(self) -> None:
        """Raise Broken where frames are still to come after the last packet."""
        if self._waiting and self.number and not self._hidden and not self._leftover_fields():
            raise Broken(f"what comes after frame {self.skipped + self.number - 1} doesn't come out")

    def seconds(self) -> float:
        """From the first frame to the end of the last."""
        return 0.0 if self._first is None else float((self._end - self._first) * self._time_base)

    def _leftover_fields(self) -> bool:
        return len(self._waiting) >= self.number  # interlaced video may have a packet a field

    def _look_for_holes(self) -> None:
        with open_container(self.path) as container:
            stream = video_stream(container)
            times = [p.pts for p in packets(container, stream, patient=True) if p.size and p.pts is not None]
        _, holes = _grid(times)
        if holes:
            raise Broken("data are missing between frames")
        self._gap = None  # frames come when they like

    def _drop_before(self, pts: int) -> int:
        missing = 0
        while self._waiting and self._waiting[0] < pts:
            heapq.heappop(self._waiting)
            missing += 1
        if self._waiting and self._waiting[0] == pts:
            heapq.heappop(self._waiting)
        return missing


def _grid(times: list[int]) -> tuple[dict[int, int], list[int]]:
    """(time -> index, times behind which frames are missing) of a video, from its packets' times.

    Only of regular video can be said that something is missing: all steps whole, and few of more than one."""
    ordered = sorted(set(times))
    ranks = {time: index for index, time in enumerate(ordered)}
    steps = np.diff(ordered)
    if not len(steps):
        return ranks, []
    step = float(np.median(steps))
    whole = np.maximum(1, np.rint(steps / step))
    long = whole > 1
    # Matroska rounds to milliseconds, so steps may be off by one of its ticks
    few = min(max(4, len(steps) // 50), len(steps) // 4)
    if (np.abs(steps - whole * step) > 0.25 * step + 1).any() or long.sum() > few:
        return ranks, []
    indices = np.concatenate([[0], np.cumsum(whole)]).astype(int).tolist()
    return dict(zip(ordered, indices, strict=True)), [t for t, hole in zip(ordered, long, strict=False) if hole]


def survey(path: Path) -> tuple[dict[Any, int], set[Any]]:
    """(time of a frame -> its index, times of the frames that no error touches), from decoding the whole video.

    A packet's time tells which frame is its own; where times don't, no frame is called untouched."""
    keys, out = list[Any](), list[Any]()
    starts, broken = set[int](), set[int]()  # packets, by their place in decoding order
    with open_container(path) as container:
        stream = video_stream(container)
        stream.codec_context.options = dict(DECODER_OPTIONS)
        stream.codec_context.thread_count = 1  # an error is then of the packet that was given
        for packet in packets(container, stream, patient=True):
            if packet.size and not packet.is_discard:
                if packet.is_keyframe:
                    starts.add(len(keys))
                if packet.is_corrupt:
                    broken.add(len(keys))
                keys.append(key_of(packet))
            try:
                out += [key_of(frame) for frame in packet.decode() if not frame.is_corrupt]
            except FFmpegError:
                broken.add(max(0, len(keys) - 1))
    known = {key for key in keys if key is not None}
    # AVI with B-frames: FFmpeg's guesses of when a frame is shown jump
    if len(known) != len(keys) or not set(out) <= known or out != sorted(out):
        return {number: number for number in range(len(keys))}, set()
    order, holes = {key: index for index, key in enumerate(sorted(known))}, list[int]()
    if container.format.name in RESYNCHRONIZED:
        order, holes = _grid(keys)
    elif container.format.name == "avi":  # its times are the frames' numbers
        order = {key: int(key) for key in keys}
    for hole in holes:  # what was lost may have been decoded before frames that are shown before it
        behind = next(place for place, key in enumerate(keys) if key > hole)
        broken |= {place for place in range(max(0, behind - REORDERED), behind + 1) if place not in starts}
    return order, _untouched(keys, set(out), starts, broken)


def _untouched(keys: list[Any], out: set[Any], starts: set[int], broken: set[int]) -> set[Any]:
    """The frames that came out and refer to none that didn't: errors last to the next keyframe."""
    usable, first = set(), min(out, default=None)
    damaged = was_damaged = False
    start = None
    for place, key in enumerate(keys):
        if place in starts:
            was_damaged, damaged, start = damaged, False, key
        before_all = first is not None and key < first  # a video cut out of another may begin with such
        damaged |= place in broken or (key not in out and not before_all)
        leads = was_damaged and start is not None and key < start  # shown before its keyframe: refers to what was
        if key in out and not damaged and not leads:
            usable.add(key)
    return usable


def key_of(thing: Any) -> Any:
    """The time by which a packet and its frame know each other."""
    return thing.pts if thing.pts is not None else thing.dts
