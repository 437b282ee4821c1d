"""Detect damage in a video: errors of the decoder, packets that the container reports, packets without a frame."""

import contextlib
import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from vimoclip.video.clock import ClockParts
from vimoclip.video.container import decoder_options, error_text, has_presentation_times

HIDDEN_FRAME_CODECS = ("vp8", "dirac")  # codecs with packets that display no frame
JOIN_PACKETS = 2  # between a packet that is reported incomplete and the end of a recording, at most
# codecs whose interlaced frames may have a packet per field; that of the second field gives no frame
FIELD_CODECS = ("h264",)
AVI_CHUNK_HEADER = 8  # bytes


class CorruptStreamError(Exception):
    """Raised at the first sign of damage in a stream; the text is the reason."""


@dataclass
class PacketTag:
    """What is known of a packet and, if it gives one, of its frame.

    `rank`: position in decoding order; `part`: of the clock, see ClockParts; `pts`: time stamp of the file;
    `gives_order`: whether the time stamps give the order of display; `is_incomplete`: the container reports that data
    are missing."""

    rank: int
    part: int
    pts: int | None
    gives_order: bool
    is_keyframe: bool
    is_incomplete: bool

    @property
    def order(self) -> tuple[int, int]:
        """Sort key of the order of display, or of decoding if the time stamps don't give it."""
        return self.part, self.pts if self.gives_order and self.pts is not None else self.rank


def tag_packets(container: Any, stream: Any) -> Iterator[tuple[Any, PacketTag | None]]:
    """Yield the packets of a stream, each with its tag; packets that are not to be displayed have none.

    The rank replaces the packet's time stamp, so that a decoder returns it with the frame (`identify_frame`): time
    stamps may be missing or repeat. Raises CorruptStreamError at an unreadable packet."""
    stream.codec_context.options = decoder_options(stream.codec_context.name)
    parts, rank, gives_order = ClockParts(container, stream), -1, has_presentation_times(container, stream)
    avi_ranks = avi_packet_ranks(stream) if container.format.name == "avi" else {}
    held: list[tuple[Any, PacketTag | None]] = []  # from a packet that is reported incomplete to those that tell why
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError) as error:
            yield from held
            if isinstance(error, FFmpegError):
                raise CorruptStreamError(error_text(error)) from None
            return
        tag = None
        if packet.size and not packet.is_discard:
            rank = avi_ranks.get(packet.pos, rank + 1)
            part = parts.add_packet(packet)
            tag = PacketTag(rank, part, packet.pts, gives_order, packet.is_keyframe, packet.is_corrupt)
        packet.pts = None if tag is None else rank
        held.append((packet, tag))
        while held and _settle_first([tag for _, tag in held]):
            yield held.pop(0)


def identify_frame(frame: Any, tags: Mapping[int, PacketTag]) -> PacketTag | None:
    """Return the tag of a frame's packet, None if the decoder does not return it, and restore its time stamp."""
    tag = tags.get(frame.pts)
    frame.pts = None if tag is None else tag.pts
    return tag


def _settle_first(tags: Sequence[PacketTag | None]) -> bool:
    """Decide whether the first of successive packets is incomplete; return False if later packets are needed for it.

    MPEG-TS reports it also where a recording ends and another one follows, by up to two packets too early."""
    first, *after = tags
    if first is None or not first.is_incomplete:
        return True
    following = [tag for tag in after if tag is not None]
    if any(_may_be_join(*pair) for pair in pairwise([first, *following])):
        first.is_incomplete = False
        return True
    return len(following) == JOIN_PACKETS or None in after


def _may_be_join(before: PacketTag, after: PacketTag) -> bool:
    """Return whether a recording may end between two packets."""
    return after.part != before.part or (after.is_keyframe and not before.is_keyframe)


class DecodeMonitor:
    """Comparison of the packets sent to a decoder with the frames it returns.

    `frame_count`: frames returned; `skipped`: packets at the beginning without a frame; `tags`: of the packets whose
    frames are not out yet, by rank; `first_position`: byte position of the first packet."""

    def __init__(self, container: Any, stream: Any):
        self._is_avi = container.format.name == "avi"
        self.frame_count = self.skipped = self.first_position = 0
        self._last_rank = -1
        self.tags = dict[int, PacketTag]()
        self._heap = list[tuple[tuple[int, int], int]]()  # (order of display, rank) of packets
        codec = stream.codec_context.name
        self._may_be_silent, self._may_have_fields = codec in HIDDEN_FRAME_CODECS, codec in FIELD_CODECS
        self._first_pts = self._end_pts = None
        self._time_base = stream.time_base

    def add_packet(self, packet: Any, tag: PacketTag) -> None:
        """Record a packet sent to the decoder. Raises CorruptStreamError if it or packets before it are missing."""
        if tag.is_incomplete:
            raise CorruptStreamError("a packet is incomplete")
        if tag.rank > self._last_rank + 1:
            raise CorruptStreamError("a packet is lost")
        self._last_rank = tag.rank
        self.first_position = self.first_position or packet.pos or 0
        self.tags[tag.rank] = tag
        if tag.pts is not None and tag.gives_order:
            heapq.heappush(self._heap, (tag.order, tag.rank))

    def add_frame(self, frame: Any, tag: PacketTag | None) -> int:
        """Record a decoded frame and return its index. Raises CorruptStreamError if frames before it are missing."""
        missing = list[PacketTag]()
        if tag is not None:
            self.tags.pop(tag.rank, None)
            missing = self._pop_pending_before(tag)
        self._may_be_silent |= self._may_have_fields and frame.interlaced_frame
        if self._may_be_silent:
            missing = []
        if missing and self.frame_count:
            raise CorruptStreamError(f"packets after frame {self.skipped + self.frame_count - 1} give no frame")
        if any(other.is_keyframe for other in missing):
            raise CorruptStreamError("a keyframe at the beginning gives no frame")
        self.skipped += len(missing)  # the first frames of a trimmed video may refer to frames that were cut off
        if frame.pts is not None:
            self._first_pts = frame.pts if self._first_pts is None else self._first_pts
            self._end_pts = frame.pts + (frame.duration or 0)
        self.frame_count += 1
        return self.skipped + self.frame_count - 1

    def check_end(self) -> None:
        """Raise CorruptStreamError if frames are missing after the last packet."""
        # in AVI packets without a frame are usual (packed B-frames), and the index gives the number of frames
        pending = not self._is_avi and any(tag.pts is not None for tag in self.tags.values())
        if pending and self.frame_count and not self._may_be_silent:
            raise CorruptStreamError(f"packets after frame {self.skipped + self.frame_count - 1} give no frame")

    def time_range(self) -> tuple[float, float]:
        """Return the start of the first frame and the end of the last one in seconds."""
        return float((self._first_pts or 0) * self._time_base), float((self._end_pts or 0) * self._time_base)

    def _pop_pending_before(self, tag: PacketTag) -> list[PacketTag]:
        """Remove and return the packets whose frames should have come before that of `tag`."""
        missing = []
        while self._heap and self._heap[0][0] < tag.order:
            _, rank = heapq.heappop(self._heap)
            if rank in self.tags:
                missing.append(self.tags.pop(rank))
        return missing


def find_intact_frames(container: Any, stream: Any) -> tuple[int, dict[int, int]]:
    """Decode a whole video; return (number of frames, {packet rank: frame index} of the frames that no error affects).

    The indices are in the order in which the decoder returns the frames."""
    tags, decoded, broken = dict[int, PacketTag](), list[int](), set[int]()
    rank, codec = 0, stream.codec_context.name
    may_be_silent = codec in HIDDEN_FRAME_CODECS
    for tag, frames in decode_single_threaded(container, stream):
        if tag is not None:
            lost = range(len(tags), tag.rank)  # packets of an AVI that are in its index only
            tags |= {other: PacketTag(other, tag.part, None, False, False, True) for other in lost}
            broken.update(lost)
            rank, tags[tag.rank] = tag.rank, tag
        if frames is None or (tag is not None and tag.is_incomplete):
            broken.add(rank)
        for frame_tag, frame in frames or ():
            may_be_silent |= codec in FIELD_CODECS and frame.interlaced_frame
            if not frame.is_corrupt:
                decoded.append(frame_tag.rank)
    if may_be_silent:
        tags = {rank: tag for rank, tag in tags.items() if rank in broken or rank in set(decoded)}
    position = {rank: n for n, rank in enumerate(sorted(tags, key=lambda rank: (*tags[rank].order, rank)))}
    intact = _intact_ranks(tags, position, set(decoded), broken)
    shown = [rank for rank in decoded if rank in intact]
    has_times = all(tag.pts is not None and tag.gives_order for tag in tags.values())
    if not has_times or any(position[first] > position[second] for first, second in pairwise(shown)):
        position = _positions_by_decoder(tags, decoded)
        intact = _intact_ranks(tags, position, set(decoded), broken)
    return len(tags), {rank: position[rank] for rank in decoded if rank in intact}


def _positions_by_decoder(tags: dict[int, PacketTag], decoded: list[int]) -> dict[int, int]:
    """Return {packet rank: position in the order of display} from `decoded`, the ranks in the order of their frames.

    A packet without a frame follows the frame of the packet before it."""
    number = {rank: n for n, rank in enumerate(decoded)}
    before = -1
    keys = dict[int, tuple[int, int, int]]()
    for rank in sorted(tags):
        before = number.get(rank, before)
        keys[rank] = before, rank not in number, rank
    return {rank: n for n, rank in enumerate(sorted(tags, key=keys.__getitem__))}


def decode_single_threaded(
    container: Any, stream: Any
) -> Iterator[tuple[PacketTag | None, list[tuple[PacketTag, Any]] | None]]:
    """Yield (tag of a packet, its decoded frames with their tags or None for an error), up to an unreadable packet.

    A single thread ensures that an error belongs to the packet it is returned for."""
    stream.codec_context.thread_count = 1
    tags = dict[int, PacketTag]()
    with contextlib.suppress(CorruptStreamError):
        for packet, tag in tag_packets(container, stream):
            tags |= {} if tag is None else {tag.rank: tag}
            frames = None
            with contextlib.suppress(FFmpegError):
                identified = [(identify_frame(frame, tags), frame) for frame in packet.decode()]
                frames = [(frame_tag, frame) for frame_tag, frame in identified if frame_tag is not None]
            yield tag, frames


def avi_packet_ranks(stream: Any) -> dict[int, int]:
    """Return {byte position: rank among the video's packets} from the index of an AVI."""
    return {entry.pos + AVI_CHUNK_HEADER: rank for rank, entry in enumerate(stream.index_entries)}


def _intact_ranks(
    tags: dict[int, PacketTag], position: dict[int, int], decoded: set[int], broken: set[int]
) -> set[int]:
    """Return the ranks of decoded frames that refer to no lost frame: errors last until the next keyframe."""
    intact, first_position = set(), min((position[rank] for rank in decoded), default=-1)
    damaged = was_damaged = False
    keyframe_position = -1
    for rank in sorted(tags):
        is_keyframe = tags[rank].is_keyframe
        if is_keyframe:
            was_damaged, damaged, keyframe_position = damaged, False, position[rank]
        # The first frames of a trimmed video may depend on frames that were cut off. If they were not decoded, that is
        # no damage. A keyframe depends on no other frame.
        cut_off = position[rank] < first_position and not is_keyframe
        damaged |= rank in broken or (rank not in decoded and not cut_off)
        # a frame displayed before its keyframe also depends on the previous group of pictures
        refers_back = was_damaged and position[rank] < keyframe_position
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
