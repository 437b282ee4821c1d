"""Measure what decodes of a video: its frames, their times, and its length."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vimoclip.errors import VideoError
from vimoclip.io.numbers import TIME_TOLERANCE
from vimoclip.video.decoder import VideoDecoder
from vimoclip.video.probe import probe

MAX_DIFFERENCE_FRAMES = 2  # by which lengths of one video may differ, such as that of a longer audio track


@dataclass(frozen=True)
class MeasuredVideo:
    """The frames of a video that decode.

    `indices` (T,) int64: positions in the file, which also count frames that don't decode. `times` (T,): seconds since
    the first frame. `header_seconds`: the length in the header, 0 if it has none. `problem`: why frames are lost."""

    indices: np.ndarray
    times: np.ndarray
    fps: float
    header_seconds: float = 0.0
    problem: str = ""

    @property
    def tolerance(self) -> float:
        """Seconds by which two lengths may differ."""
        return MAX_DIFFERENCE_FRAMES / self.fps

    @cached_property
    def decoded_seconds(self) -> float:
        """From the beginning of the first frame to the end of the last one."""
        interval = float(np.median(np.diff(self.times))) if len(self.times) > 1 else 1 / self.fps
        by_times = float(self.times[-1]) + interval
        by_count = float(self.indices[-1] - self.indices[0] + 1) / self.fps
        # containers round times (Matroska to 1 ms), so the count is exact if the frame rate is constant
        return by_count if abs(by_count - by_times) < 1 / self.fps else by_times

    @property
    def seconds(self) -> float:
        """The length: that of the header if the decoded one agrees with it, as it is exact, else the decoded one."""
        decoded = self.decoded_seconds
        return self.header_seconds if self.agrees(decoded, self.header_seconds) else decoded

    def agrees(self, first: float, second: float) -> bool:
        """Return whether two lengths in seconds differ by two frames at most."""
        return abs(first - second) <= self.tolerance + TIME_TOLERANCE

    def incomplete_reason(self, start: float, stop: float) -> str:
        """Return why a clip of this part would be shorter than `stop - start`; "" if it would not."""
        seconds = self.seconds
        if start >= seconds:
            return f"begins at {start:g} s, but the film ends at {seconds:.6g} s"
        if stop > seconds and not self.agrees(stop, seconds):
            return f"ends at {stop:g} s, but the film at {seconds:.6g} s"
        first, end = np.searchsorted(self.times, [start - TIME_TOLERANCE, stop - TIME_TOLERANCE]).tolist()
        if first == end:
            return "no frame begins in it"
        # from the frame before the clip to the one after it, so that frames lost at its ends count
        neighbours = self.indices[max(0, first - 1) : end + 1]
        lost = int(neighbours[-1] - neighbours[0]) - (len(neighbours) - 1)
        return f"{lost} of its frames don't decode" if lost > MAX_DIFFERENCE_FRAMES else ""


def measure(path: Path) -> MeasuredVideo:
    """Decode a video from the first to the last frame, without colour conversion. Raises VideoError."""
    decoder = VideoDecoder(path)
    frames = [(frame.index, frame.timestamp) for frame in decoder]
    if not frames:
        raise VideoError(decoder.problem or "has no frames")
    times = np.array([time for _, time in frames])
    indices = np.array([index for index, _ in frames], np.int64)
    return MeasuredVideo(indices, times - times[0], decoder.fps, probe(path).seconds, decoder.problem)
