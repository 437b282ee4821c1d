"""Windows that slide over a video's embeddings while these come in."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from vimoclip.prediction.frame_encoder import Seen

LATE = 1e-6  # s: by so much may a time be late that is summed up in floats


class Part(NamedTuple):
    """A stretch of a video, in seconds since its first frame, and its T frames: rgb (T, D), motion (T-1, D)."""

    start: float
    stop: float
    rgb: torch.Tensor | None
    motion: torch.Tensor | None
    frames: int


class Frames:
    """Frames in a row, with the motion between them; grows behind, shrinks in front. `times` (n,): in seconds."""

    def __init__(self) -> None:
        self.times = np.empty(0)
        self.rgb: torch.Tensor | None = None
        self.motion: torch.Tensor | None = None

    def append(self, seen: Seen, times: np.ndarray) -> None:
        self.times = np.concatenate([self.times, times])
        self.rgb, self.motion = _joined(self.rgb, seen.rgb), _joined(self.motion, seen.motion)

    def forget(self, before: float) -> None:
        """Those that begin before."""
        count = int(np.searchsorted(self.times, before))
        self.times = self.times[count:]
        # copies: a view would keep all that was
        self.rgb, self.motion = (None if x is None else x[count:].clone() for x in (self.rgb, self.motion))

    def part(self, start: float, stop: float) -> Part:
        """The frames that begin in [start, stop), and the motion from each of them to the next one of them."""
        first, end = np.searchsorted(self.times, [start - LATE, stop - LATE]).tolist()
        rgb = None if self.rgb is None else self.rgb[first:end]
        motion = None if self.motion is None else self.motion[first : max(first, end - 1)]
        return Part(start, stop, rgb, motion, end - first)


class Windows:
    """Lays windows of `length` seconds every `stride` seconds; keeps the frames of about one of them.

    Windows lie whole within the video, and the last one ends with it; a shorter video is one window."""

    def __init__(self, length: float, stride: float):
        self.length, self.stride = length, stride
        self._kept, self._given = Frames(), 0
        self._origin: float | None = None

    def add(self, seen: Seen) -> Iterator[Part]:
        """The windows that are whole with these frames."""
        self._origin = float(seen.times[0]) if self._origin is None else self._origin
        self._kept.append(seen, seen.times - self._origin)
        last = float(self._kept.times[-1])
        yield from self._whole_until(last)
        self._kept.forget(min(self._next(), last - self.length) - LATE)

    def finish(self, seconds: float, gap: float) -> Iterator[Part]:
        """The windows up to the video's end, and one more at its end where these leave more than half a `gap` over."""
        yield from self._whole_until(seconds)
        if not self._given:
            yield self._kept.part(0.0, seconds)
        elif seconds - (self._next() - self.stride + self.length) > gap / 2:
            yield self._kept.part(round(seconds - self.length, 6), seconds)

    def _next(self) -> float:
        return round(self._given * self.stride, 6)

    def _whole_until(self, seconds: float) -> Iterator[Part]:
        while self._next() + self.length <= seconds + LATE:
            start = self._next()
            self._given += 1
            yield self._kept.part(start, round(start + self.length, 6))


def _joined(before: torch.Tensor | None, new: torch.Tensor | None) -> torch.Tensor | None:
    if before is None or new is None:
        return new if before is None else before
    return torch.cat([before, new])
