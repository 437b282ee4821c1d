"""Detect damage in a video: packets without a frame, and the frames that refer to them."""

import contextlib
import heapq
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from vimoclip.video.container import DECODER_OPTIONS, error_text, frame_rate, open_container, video_stream

RESYNCING_CONTAINERS = ("matroska,webm", "mpegts")  # their demuxers skip damage without an error
COPY_OPAQUE = av.codec.context.Flags.copy_opaque
HIDDEN_FRAME_CODECS = ("vp8",)  # codecs with packets that display no frame
AVI_CHUNK_HEADER = 8  # bytes
MAX_REORDERED = 16  # frames that may be decoded before a frame displayed earlier: the limit of H.264 and HEVC


class CorruptStreamError(Exception):
    """Raised at the first sign of damage in a stream; the text is the reason."""


def demux_packets(container: Any, stream: Any, ignore_errors: bool = False) -> Iterator[Any]:
    """Yield the packets of a stream.

    Raises CorruptStreamError at an incomplete or unreadable packet. With `ignore_errors`, incomplete packets are
    yielded and the iteration ends at an unreadable one."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError as error:
            if ignore_errors:
                return
            raise CorruptStreamError(error_text(error)) from None
        if packet.is_corrupt and not ignore_errors:
            raise CorruptStreamError("a packet is incomplete")
        yield packet


class DecodeMonitor:
    """Comparison of the packets sent to a decoder with the frames it returns.

    `frame_count`: frames returned; `skipped`: packets at the beginning without a frame; `first_position`: byte
    position of the first packet."""

    def __init__(self, path: Path, container: Any, stream: Any):
        self.path, self.container = path, container.format.name
        self.frame_count = self.skipped = self.first_position = 0
        self._avi_ranks, self._rank = avi_packet_ranks(container, stream), -1
        self._pending: list[tuple[int, bool]] = []  # a heap: (pts, is keyframe) of packets whose frames are not out yet
        self._has_hidden_frames = stream.codec_context.name in HIDDEN_FRAME_CODECS
        can_lose_packets = self.container in RESYNCING_CONTAINERS
        self._max_gap = 1.5 / float(frame_rate(stream) * stream.time_base) if can_lose_packets else None
        self._first_pts = self._last_pts = self._end_pts = None
        self._time_base = stream.time_base

    def add_packet(self, packet: Any) -> None:
        """Record a packet sent to the decoder. Raises CorruptStreamError if packets before it are missing."""
        if not packet.size or packet.is_discard:
            return
        rank = self._avi_ranks.get(packet.pos, self._rank + 1)
        if rank > self._rank + 1:
            raise CorruptStreamError("a packet is lost")
        self._rank = rank
        self.first_position = self.first_position or packet.pos or 0
        if self.container != "avi" and packet.pts is not None:
            heapq.heappush(self._pending, (packet.pts, packet.is_keyframe))

    def add_frame(self, frame: Any) -> int:
        """Record a decoded frame and return its index. Raises CorruptStreamError if frames before it are missing."""
        pts = frame.pts
        missing = self._pop_pending_before(pts) if pts is not None else []
        if self._has_hidden_frames or frame.interlaced_frame:
            missing = []
        if missing and self.frame_count:
            raise CorruptStreamError(f"packets after frame {self.skipped + self.frame_count - 1} give no frame")
        if any(missing):
            raise CorruptStreamError("a keyframe at the beginning gives no frame")
        self.skipped += len(missing)  # the first frames of a trimmed video may refer to frames that were cut off
        if pts is not None:
            if self._max_gap is not None and self._last_pts is not None and pts - self._last_pts > self._max_gap:
                self._check_for_lost_packets()
            self._first_pts = pts if self._first_pts is None else self._first_pts
            self._last_pts, self._end_pts = pts, pts + (frame.duration or 0)
        self.frame_count += 1
        return self.skipped + self.frame_count - 1

    def check_end(self) -> None:
        """Raise CorruptStreamError if frames are missing after the last packet."""
        # interlaced video may have one packet per field
        is_interlaced = len(self._pending) >= self.frame_count
        if self._pending and self.frame_count and not self._has_hidden_frames and not is_interlaced:
            raise CorruptStreamError(f"packets after frame {self.skipped + self.frame_count - 1} give no frame")

    def time_range(self) -> tuple[float, float]:
        """Return the start of the first frame and the end of the last one in seconds."""
        return float((self._first_pts or 0) * self._time_base), float((self._end_pts or 0) * self._time_base)

    def _check_for_lost_packets(self) -> None:
        with open_container(self.path) as container:
            stream = video_stream(container)
            packets = demux_packets(container, stream, ignore_errors=True)
            times = [packet.pts for packet in packets if packet.size and packet.pts is not None]
        _, gaps = _regular_frame_indices(times)
        if gaps:
            raise CorruptStreamError("data are missing between frames")
        self._max_gap = None  # the frame rate is variable

    def _pop_pending_before(self, pts: int) -> list[bool]:
        """Remove the packets up to `pts`; return is_keyframe of those before it."""
        missing = []
        while self._pending and self._pending[0][0] < pts:
            missing.append(heapq.heappop(self._pending)[1])
        if self._pending and self._pending[0][0] == pts:
            heapq.heappop(self._pending)
        return missing


def _regular_frame_indices(times: list[int]) -> tuple[dict[int, int], list[int]]:
    """Return ({packet time: frame index}, times followed by missing frames).

    Gaps are recognised in regular video only: all steps are multiples of the median step, and few exceed it. For other
    video the index is the rank of the time, and no gap is returned."""
    ordered = sorted(set(times))
    ranks = {time: index for index, time in enumerate(ordered)}
    steps = np.diff(ordered)
    if not len(steps):
        return ranks, []
    step = float(np.median(steps))
    multiples = np.maximum(1, np.rint(steps / step))
    is_gap = multiples > 1
    max_gaps = min(max(4, len(steps) // 50), len(steps) // 4)
    # Matroska rounds to milliseconds, so a step may be off by one tick
    if (np.abs(steps - multiples * step) > 0.25 * step + 1).any() or is_gap.sum() > max_gaps:
        return ranks, []
    indices = np.concatenate([[0], np.cumsum(multiples)]).astype(int).tolist()
    return dict(zip(ordered, indices, strict=True)), [t for t, gap in zip(ordered, is_gap, strict=False) if gap]


def find_intact_frames(path: Path) -> tuple[int, dict[int, int]]:
    """Decode a whole video; return (number of frames, {packet rank: frame index} of the frames that no error affects).

    The dictionary is empty if the timestamps do not give the order of the frames."""
    times = dict[int, Any]()  # by packet rank
    decoded, keyframes, broken = list[int](), set[int](), set[int]()
    with open_container(path) as container:
        stream = video_stream(container)
        is_avi = container.format.name == "avi"
        has_hidden_frames = stream.codec_context.name in HIDDEN_FRAME_CODECS
        for rank, packet, frames in decode_single_threaded(container, stream):
            if frames is None or packet.is_corrupt:
                broken.add(max(0, rank))
            elif has_hidden_frames and not frames:
                continue
            if packet.size and not packet.is_discard:
                times[rank] = rank if is_avi else packet.pts if packet.pts is not None else packet.dts
                if packet.is_keyframe:
                    keyframes.add(rank)
            decoded += [packet_rank(frame) for frame in frames or () if not frame.is_corrupt]
    if is_avi:
        lost = set(range(max(times, default=-1))) - times.keys()
        times |= {rank: rank for rank in lost}
        broken |= lost
    distinct = {time for time in times.values() if time is not None}
    if len(distinct) != len(times):
        return len(times), {}
    index_of, gaps = {time: index for index, time in enumerate(sorted(distinct))}, list[int]()
    if container.format.name in RESYNCING_CONTAINERS:
        index_of, gaps = _regular_frame_indices(list(distinct))
    for gap in gaps:  # lost packets may have been decoded before frames that are displayed before the gap
        after = next(rank for rank in sorted(times) if times[rank] > gap)
        broken |= {rank for rank in range(max(0, after - MAX_REORDERED), after + 1) if rank not in keyframes}
    intact = _intact_ranks(times, set(decoded), keyframes, broken)
    indices = {rank: index_of[times[rank]] for rank in decoded if rank in intact}
    if list(indices.values()) != sorted(indices.values()):  # B-frames in AVI, which stores no presentation times
        indices = {}
    return max(index_of.values(), default=-1) + 1, indices


def decode_single_threaded(container: Any, stream: Any) -> Iterator[tuple[int, Any, list[Any] | None]]:
    """Yield (packet rank in decoding order, packet, its decoded frames or None for an error).

    A single thread ensures that an error belongs to the packet it is returned for. `packet_rank` gives the packet of a
    frame."""
    context, avi_ranks, rank = stream.codec_context, avi_packet_ranks(container, stream), -1
    context.options, context.thread_count = dict(DECODER_OPTIONS), 1
    context.flags |= COPY_OPAQUE
    for packet in demux_packets(container, stream, ignore_errors=True):
        if packet.size and not packet.is_discard:
            rank = avi_ranks.get(packet.pos, rank + 1)
            packet.opaque = [rank]  # PyAV compares by identity: small integers would be shared between packets
        frames = None
        with contextlib.suppress(FFmpegError):
            frames = [frame for frame in packet.decode() if frame.opaque is not None]
        yield rank, packet, frames


def packet_rank(frame: Any) -> int:
    """Return the rank of the packet of a frame from `decode_single_threaded`."""
    return frame.opaque[0]


def avi_packet_ranks(container: Any, stream: Any) -> dict[int, int]:
    """Return {byte position: rank among the video's packets} from an AVI's index; empty for other containers."""
    entries = stream.index_entries if container.format.name == "avi" else ()
    return {entry.pos + AVI_CHUNK_HEADER: rank for rank, entry in enumerate(entries)}


def _intact_ranks(times: dict[int, Any], decoded: set[int], keyframes: set[int], broken: set[int]) -> set[int]:
    """Return the ranks of decoded frames that refer to no lost frame: errors last until the next keyframe."""
    intact, first_time = set(), min((times[rank] for rank in decoded), default=None)
    damaged = was_damaged = False
    keyframe_time = None
    for rank in sorted(times):
        time = times[rank]
        if rank in keyframes:
            was_damaged, damaged, keyframe_time = damaged, False, time
        # The first frames of a trimmed video may depend on frames that were cut off. If they were not decoded, that is
        # no damage. A keyframe depends on no other frame.
        cut_off = first_time is not None and time < first_time and rank not in keyframes
        damaged |= rank in broken or (rank not in decoded and not cut_off)
        # a frame displayed before its keyframe also depends on the previous group of pictures
        refers_back = was_damaged and keyframe_time is not None and time < keyframe_time
        if rank in decoded and not damaged and not refers_back:
            intact.add(rank)
    return intact


def count_gif_images(path: Path) -> tuple[int, bool]:
    """Return (number of images with complete data, whether the file continues undamaged to the GIF trailer)."""
    with open(path, "rb") as file:
        file.seek(10)
        file.seek(13 + _color_table_size(file.read(1)))
        count = 0
        while (block := file.read(1)) in (b"!", b",", b"\0"):
            if block == b"\0":  # some encoders pad
                continue
            header = file.read(1 if block == b"!" else 9)
            if block == b",":
                file.seek(_color_table_size(header[-1:]) + 1, os.SEEK_CUR)
            while size := file.read(1):
                if size == b"\0":
                    break
                if len(file.read(size[0])) < size[0]:
                    return count, False
            if not size:
                return count, False
            count += block == b","
        return count, block == b";"


def _color_table_size(flags: bytes) -> int:
    """Return the size of a GIF color table in bytes."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
