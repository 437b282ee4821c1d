"""Times of frames, which go on where the clock of a recording restarts or jumps.

Recordings that are joined without encoding (cat, copy /b, AVCHD, dash cameras) keep the time stamps of each recording.
The stream is therefore divided into parts, and each part gets an offset."""

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from av.format import Flags

from vimoclip.video.container import frame_rate, has_presentation_times, is_dv_type_1
from vimoclip.video.sampling import TIMESTAMP_ROUNDING

if TYPE_CHECKING:
    from vimoclip.video.corruption import PacketTag

# Differences between decoding time stamps that are no discontinuity, as in the program ffmpeg. Jumps forward are one in
# formats with AVFMT_TS_DISCONT only (MPEG-TS, MPEG-PS, Ogg). In others they are pauses of the recording.
MAX_STEP_BACK = 0.1  # seconds, but half a frame interval at most
MAX_STEP_FORWARD = 10.0  # seconds
MAX_OUT_OF_ORDER = 16  # packets
# A step between frames is a gap if it is this many times as long as the median step. If more than a tenth of the steps
# are that long, the frame rate is variable, and a gap is also longer than a second.
GAP_STEPS = 1.5
MAX_GAP_SHARE = 0.1
MAX_LISTED = 3  # jumps in a note


class ClockParts:
    """Counter of the parts of a stream in which the decoding time stamps of its packets increase.

    Where single time stamps are out of order, the part before goes on after them."""

    def __init__(self, container: Any, stream: Any):
        can_jump = container.format.flags & Flags.ts_discont.value
        interval = 1 / frame_rate(stream)
        self._max_forward = float(MAX_STEP_FORWARD / stream.time_base) if can_jump else float("inf")
        self._max_back = float(min(MAX_STEP_BACK, interval / 2) / stream.time_base)
        self._max_step = float(GAP_STEPS * interval / stream.time_base)
        self._parts = self._part = 0
        self._last: int | None = None
        self._before = self._last_before = self._packets = 0  # of the part before; packets since then

    def add_packet(self, packet: Any) -> int:
        """Return the part of the next packet in decoding order."""
        if packet.dts is None:
            return self._part
        step = 0 if self._last is None else packet.dts - self._last
        self._packets += 1
        if not -self._max_back <= step <= self._max_forward:
            self._before, self._last_before, self._packets = self._part, self._last or 0, 0
            self._parts += 1
            self._part = self._parts
        elif self._packets <= MAX_OUT_OF_ORDER and step > self._max_step and packet.dts > self._last_before:
            self._part = self._before
        self._last = packet.dts
        return self._part


class FrameClock:
    """Times of the frames in display order, in seconds, which never decrease.

    The first frame of a part follows the frame before it at the last interval, and a frame without a time stamp at the
    frame rate. AVI has its times in its index. `jumps`: (index of the first frame, seconds by which the clock jumps) of
    each further part."""

    def __init__(self, container: Any, stream: Any):
        self.jumps = list[tuple[int, float]]()
        self._fps = float(frame_rate(stream))
        self._is_avi = container.format.name == "avi" and not is_dv_type_1(stream)
        self._avi_times = list[float]()
        if self._is_avi and not stream.codec_context.has_b_frames:
            self._avi_times = [float(entry.timestamp * stream.time_base) for entry in stream.index_entries]
        # the frames then have the packets' time stamps in ascending order, which are still to be taken
        self._sorts = not self._is_avi and not has_presentation_times(container, stream)
        self._stamps, self._taken = list[tuple[int, int]](), 0  # a heap: (part, time stamp)
        self._offsets = dict[int, float]()
        self._index, self._time, self._interval, self._part, self._last_offset = 0, 0.0, 0.0, 0, 0.0

    def add_packet(self, tag: "PacketTag") -> None:
        """Record a packet before it is decoded."""
        if self._sorts and tag.pts is not None:
            heapq.heappush(self._stamps, (tag.part, tag.pts))

    def time(self, index: int, frame: Any, tag: "PacketTag | None") -> float:
        """Return the time of the next frame, whose position in the video is `index`; `tag`: of its packet."""
        if self._is_avi:  # FFmpeg's time stamps for AVI are guesses
            return self._avi_times[index] if index < len(self._avi_times) else index / self._fps
        steps, part, pts = index - self._index, self._part if tag is None else tag.part, frame.pts
        while self._stamps and self._taken <= index:
            part, pts = heapq.heappop(self._stamps)
            self._taken += 1
        if pts is None:
            time = self._time + steps / self._fps
        else:
            self._part, time = part, float(pts * frame.time_base)
            if self._part not in self._offsets:
                self._start_part(index, time, steps)
            self._last_offset = self._offsets[self._part]
            time = max(time + self._last_offset, self._time)
        if steps == 1 and time > self._time:
            self._interval = time - self._time
        self._index, self._time = index, time
        return time

    def _start_part(self, index: int, time: float, steps: int) -> None:
        if self._offsets:
            expected = self._time + steps * (self._interval or 1 / self._fps)
            self.jumps.append((index, time + self._last_offset - expected))
            self._offsets[self._part] = expected - time
        else:
            self._offsets[self._part], self._time = 0.0, time

    def describe_jumps(self) -> str:
        """Return a note on where the clock restarts or jumps; "" if it does not."""
        jumps = [f"{seconds:+.4g} s at frame {index}" for index, seconds in self.jumps[:MAX_LISTED]]
        more = ", ..." if len(self.jumps) > MAX_LISTED else ""
        return f"its clock jumps ({', '.join(jumps)}{more}), and the times go on" if jumps else ""


def describe_gaps(indices: Sequence[int], times: Sequence[float]) -> str:
    """Return a note on gaps in the times of successive frames, as a camera leaves that skips some; "" without gaps."""
    steps = np.diff(times)[np.diff(indices) == 1]
    if not len(steps):
        return ""
    median = float(np.median(steps))
    gaps = steps[steps > max(GAP_STEPS * median, median + TIMESTAMP_ROUNDING)]
    if len(gaps) > MAX_GAP_SHARE * len(steps):
        gaps = gaps[gaps > max(1.0, 10 * median)]
    return f"its times have gaps ({len(gaps)}, the longest {gaps.max():.3g} s)" if len(gaps) else ""
