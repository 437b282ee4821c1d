"""Telling what is damaged in a video: which packets gave no frame, and which frames refer to those."""

import contextlib
import heapq
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from vimoclip.video.container import DECODER_OPTIONS, frame_rate, open_container, video_stream, words

RESYNCHRONIZED = ("matroska,webm", "mpegts")  # containers whose reader goes over damage without a word
COPY_OPAQUE = av.codec.context.Flags.copy_opaque
HIDING = ("vp8",)  # codecs with packets that show nothing
CHUNK_HEADER = 8  # bytes, in AVI
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

    def __init__(self, path: Path, container: Any, stream: Any):
        self.path, self.container = path, container.format.name
        self.number = self.skipped = self.position = 0
        self._ranks, self._place = chunk_ranks(container, stream), -1
        self._waiting: list[tuple[int, bool]] = []  # a heap: (time, keyframe?) of packets whose frames are to come
        self._hidden = stream.codec_context.name in HIDING
        self._gap = 1.5 / float(frame_rate(stream) * stream.time_base) if self.container in RESYNCHRONIZED else None
        self._first = self._last = self._end = None
        self._time_base = stream.time_base

    def packet(self, packet: Any) -> None:
        """Note what goes in. Raises Broken where others should have come before it."""
        if not packet.size or packet.is_discard:
            return
        place = self._ranks.get(packet.pos, self._place + 1)
        if place > self._place + 1:
            raise Broken("a packet is lost")
        self._place = place
        self.position = self.position or packet.pos or 0
        if self.container != "avi" and packet.pts is not None:
            heapq.heappush(self._waiting, (packet.pts, packet.is_keyframe))

    def frame(self, frame: Any) -> int:
        """The index of a frame that comes out. Raises Broken where others should have come before it."""
        pts = frame.pts
        missing = self._drop_before(pts) if pts is not None else []
        if self._hidden or frame.interlaced_frame:
            missing = []
        if missing and self.number:
            raise Broken(f"what comes after frame {self.skipped + self.number - 1} doesn't come out")
        if any(missing):
            raise Broken("a keyframe at the beginning doesn't come out")
        self.skipped += len(missing)  # a video cut out of another may begin with frames that refer to what was cut
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

    def seconds(self) -> tuple[float, float]:
        """When the first frame begins and the last one ends."""
        return float((self._first or 0) * self._time_base), float((self._end or 0) * self._time_base)

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

    def _drop_before(self, pts: int) -> list[bool]:
        """Of each packet before this time: is it a keyframe?"""
        missing = []
        while self._waiting and self._waiting[0][0] < pts:
            missing.append(heapq.heappop(self._waiting)[1])
        if self._waiting and self._waiting[0][0] == pts:
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


def survey(path: Path) -> tuple[int, dict[int, int]]:
    """(number of frames, index of each frame that no error touches by its packet's place), from decoding all.

    Where times don't tell the order of frames, none is called untouched."""
    times = dict[int, Any]()  # of packets, by their place
    out, starts, broken = list[int](), set[int](), set[int]()
    with open_container(path) as container:
        stream = video_stream(container)
        avi, hides = container.format.name == "avi", stream.codec_context.name in HIDING
        for place, packet, frames in singly(container, stream):
            if frames is None or packet.is_corrupt:
                broken.add(max(0, place))
            elif hides and not frames:
                continue
            if packet.size and not packet.is_discard:
                times[place] = place if avi else packet.pts if packet.pts is not None else packet.dts
                if packet.is_keyframe:
                    starts.add(place)
            out += [place_of(frame) for frame in frames or () if not frame.is_corrupt]
    if avi:
        lost = set(range(max(times, default=-1))) - times.keys()
        times |= {place: place for place in lost}
        broken |= lost
    known = {time for time in times.values() if time is not None}
    if len(known) != len(times):
        return len(times), {}
    order, holes = {time: index for index, time in enumerate(sorted(known))}, list[int]()
    if container.format.name in RESYNCHRONIZED:
        order, holes = _grid(list(known))
    for hole in holes:  # what was lost may have been decoded before frames that are shown before it
        behind = next(place for place in sorted(times) if times[place] > hole)
        broken |= {place for place in range(max(0, behind - REORDERED), behind + 1) if place not in starts}
    usable = _untouched(times, set(out), starts, broken)
    indices = {place: order[times[place]] for place in out if place in usable}
    if list(indices.values()) != sorted(indices.values()):  # B-frames in AVI, which has no times of display
        indices = {}
    return max(order.values(), default=-1) + 1, indices


def singly(container: Any, stream: Any) -> Iterator[tuple[int, Any, list[Any] | None]]:
    """(place in decoding order, packet, what the decoder gives for it: frames, or None for an error).

    By one thread, so that an error is of this packet; `place_of` tells which packet a frame is of."""
    context, ranks, place = stream.codec_context, chunk_ranks(container, stream), -1
    context.options, context.thread_count = dict(DECODER_OPTIONS), 1
    context.flags |= COPY_OPAQUE
    for packet in packets(container, stream, patient=True):
        if packet.size and not packet.is_discard:
            place = ranks.get(packet.pos, place + 1)
            packet.opaque = [place]  # PyAV goes by identity: a number would be the same thing in several packets
        frames = None
        with contextlib.suppress(FFmpegError):
            frames = [frame for frame in packet.decode() if frame.opaque is not None]
        yield place, packet, frames


def place_of(frame: Any) -> int:
    """The place of the packet that a frame from `singly` is of."""
    return frame.opaque[0]


def chunk_ranks(container: Any, stream: Any) -> dict[int, int]:
    """Position in the file -> place among the video's packets, from an AVI's index; empty for other files."""
    entries = stream.index_entries if container.format.name == "avi" else ()
    return {entry.pos + CHUNK_HEADER: rank for rank, entry in enumerate(entries)}


def _untouched(times: dict[int, Any], out: set[int], starts: set[int], broken: set[int]) -> set[int]:
    """The frames that came out and refer to none that didn't: errors last to the next keyframe."""
    usable, first = set(), min((times[place] for place in out), default=None)
    damaged = was_damaged = False
    start = None
    for place in sorted(times):
        time = times[place]
        if place in starts:
            was_damaged, damaged, start = damaged, False, time
        # a video cut out of another may begin with frames that refer to what was cut, but no keyframe does
        cut = first is not None and time < first and place not in starts
        damaged |= place in broken or (place not in out and not cut)
        leads = was_damaged and start is not None and time < start  # shown before its keyframe: refers to what was
        if place in out and not damaged and not leads:
            usable.add(place)
    return usable


def gif_images(path: Path) -> tuple[int, bool]:
    """(images whose data are whole, whether they are all there is up to the GIF's end)."""
    with open(path, "rb") as file:
        file.seek(10)
        file.seek(13 + _palette(file.read(1)))
        count = 0
        while (kind := file.read(1)) in (b"!", b",", b"\0"):
            if kind == b"\0":  # some encoders pad
                continue
            header = file.read(1 if kind == b"!" else 9)
            if kind == b",":
                file.seek(_palette(header[-1:]) + 1, os.SEEK_CUR)
            while size := file.read(1):
                if size == b"\0":
                    break
                if len(file.read(size[0])) < size[0]:
                    return count, False
            if not size:
                return count, False
            count += kind == b","
        return count, kind == b";"


def _palette(flags: bytes) -> int:
    """The bytes of a GIF's colour table."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
