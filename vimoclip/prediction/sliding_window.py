"""Windows that slide over a video's embeddings while these come in."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vimoclip import video
from vimoclip.errors import VideoError
from vimoclip.prediction.frame_encoder import FrameEmbeddings, TwoStreamEncoder, encode_video

TIME_TOLERANCE = 1e-6  # s: by so much may a time be late that is summed up in floats


class WindowFeatures(NamedTuple):
    """A stretch of a video, in seconds since its first frame, and its T frames: rgb (T, D), motion (T-1, D)."""

    start: float
    stop: float
    rgb: torch.Tensor | None
    motion: torch.Tensor | None
    frames: int


class EmbeddingBuffer:
    """Frames in a row, with the motion between them; grows behind, shrinks in front. `times` (n,): in seconds."""

    def __init__(self) -> None:
        self.times = np.empty(0)
        self.rgb: torch.Tensor | None = None
        self.motion: torch.Tensor | None = None

    def append(self, seen: FrameEmbeddings, times: np.ndarray) -> None:
        self.times = np.concatenate([self.times, times])
        self.rgb, self.motion = _concatenate(self.rgb, seen.rgb), _concatenate(self.motion, seen.motion)

    def forget(self, before: float) -> None:
        """Those that begin before."""
        count = int(np.searchsorted(self.times, before))
        self.times = self.times[count:]
        # copies: a view would keep all that was
        self.rgb, self.motion = (None if x is None else x[count:].clone() for x in (self.rgb, self.motion))

    def part(self, start: float, stop: float) -> WindowFeatures:
        """The frames that begin in [start, stop), and the motion from each of them to the next one of them."""
        first, end = np.searchsorted(self.times, [start - TIME_TOLERANCE, stop - TIME_TOLERANCE]).tolist()
        rgb = None if self.rgb is None else self.rgb[first:end]
        motion = None if self.motion is None else self.motion[first : max(first, end - 1)]
        return WindowFeatures(start, stop, rgb, motion, end - first)


class SlidingWindows:
    """Lays windows of `length` seconds every `stride` seconds; keeps the frames of about one of them.

    Windows lie whole within the video, and the last one ends with it; a shorter video is one window."""

    def __init__(self, length: float, stride: float):
        self.length, self.stride = length, stride
        self._kept, self._given = EmbeddingBuffer(), 0
        self._origin: float | None = None

    def add(self, seen: FrameEmbeddings) -> Iterator[WindowFeatures]:
        """The windows that are whole with these frames."""
        self._origin = float(seen.times[0]) if self._origin is None else self._origin
        self._kept.append(seen, seen.times - self._origin)
        last = float(self._kept.times[-1])
        yield from self._whole_until(last)
        self._kept.forget(min(self._next(), last - self.length) - TIME_TOLERANCE)

    def finish(self, seconds: float, gap: float) -> Iterator[WindowFeatures]:
        """The windows up to the video's end, and one more at its end where these leave more than half a `gap` over."""
        yield from self._whole_until(seconds)
        if not self._given:
            yield self._kept.part(0.0, seconds)
        elif seconds - (self._next() - self.stride + self.length) > gap / 2:
            yield self._kept.part(round(seconds - self.length, 6), seconds)

    def _next(self) -> float:
        return round(self._given * self.stride, 6)

    def _whole_until(self, seconds: float) -> Iterator[WindowFeatures]:
        while self._next() + self.length <= seconds + TIME_TOLERANCE:
            start = self._next()
            self._given += 1
            yield self._kept.part(start, round(start + self.length, 6))


def _concatenate(before: torch.Tensor | None, new: torch.Tensor | None) -> torch.Tensor | None:
    if before is None or new is None:
        return new if before is None else before
    return torch.cat([before, new])


# Frames of a video that is scored as a whole. Longer ones are not: memory would grow with them, and a model that
# learnt from clips of seconds has never seen such.
MAX_WHOLE_VIDEO_FRAMES = 4096
WINDOWS_PER_BATCH = 16  # windows

ScoreWindows = Callable[[Sequence[WindowFeatures]], np.ndarray]  # n windows -> (n, C) in 0..1


class VideoScores(NamedTuple):
    """What was seen of a video. `starts`, `stops` (W,): of the windows, in seconds since its first frame; `scores`
    (W, C), NaN for the `unscored` windows, with too few frames; `whole` (C,): of the video, as `whole_by` says."""

    starts: np.ndarray
    stops: np.ndarray
    scores: np.ndarray
    whole: np.ndarray
    whole_by: str
    unscored: int
    seconds: float
    end: video.ReadSummary


class WindowScorer:
    """Windows as they come in, scored some at a time."""

    def __init__(self, score: ScoreWindows, fewest: int):
        self.score, self.fewest = score, fewest
        self.waiting: list[WindowFeatures] = []
        self.spans: list[tuple[float, float]] = []
        self.rows: list[np.ndarray | None] = []  # None: of a window that can't be scored
        self.unscored = 0

    def add(self, part: WindowFeatures) -> None:
        self.spans.append((part.start, part.stop))
        if part.frames < self.fewest:
            self.flush()
            self.unscored += 1
            self.rows.append(None)
            return
        self.waiting.append(part)
        if len(self.waiting) == WINDOWS_PER_BATCH:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.rows += list(self.score(self.waiting))
            self.waiting.clear()

    def all(self) -> np.ndarray:
        """(W, C); NaN where there is nothing to see, as in a pause of the recording."""
        width = next(len(row) for row in self.rows if row is not None)
        return np.stack([np.full(width, np.nan) if row is None else row for row in self.rows])


def score_windows(
    path: Path,
    eyes: TwoStreamEncoder,
    score: ScoreWindows,
    length: float,
    stride: float,
    batch_size: int = 16,
    workers: int = 1,
    on_frames: Callable[[int], None] = lambda count: None,
) -> VideoScores:
    """Score windows of `length` seconds every `stride` seconds, and the video as a whole. Raises VideoError.

    Each frame is embedded once, whatever the number of windows it is in. Memory: that of one window, of WHOLE_FRAMES
    frames, and the scores. `on_frames` hears how many more are done."""
    fewest = 2 if eyes.motion else 1
    windows, scored, whole = SlidingWindows(length, stride), WindowScorer(score, fewest), _WholeVideoScorer(eyes)
    for item in encode_video(path, eyes, batch_size, workers):
        if isinstance(item, video.ReadSummary):
            end = item
            break
        whole.add(item)
        for part in windows.add(item):
            scored.add(part)
        on_frames(len(item.times))
    if len(end.timestamps) < fewest:
        raise VideoError("has one kept frame, so no motion can be seen")
    gap = _frame_interval(end)
    seconds = float(end.timestamps[-1] - end.timestamps[0]) + gap
    for part in windows.finish(seconds, gap):
        scored.add(part)
    scored.flush()
    if scored.unscored == len(scored.spans):
        raise VideoError(f"no window of {length:g} s holds {fewest} kept frames", "give a longer --window")
    starts, stops = np.array(scored.spans).T
    scores = scored.all()
    row, by = whole.score(score, scores)
    return VideoScores(starts, stops, scores, row, by, scored.unscored, seconds, end)


class _WholeVideoScorer:
    """A video's first frames, while they may still be all of it."""

    def __init__(self, eyes: TwoStreamEncoder):
        self.limit = eyes.sampling.max_frames
        self.frames: EmbeddingBuffer | None = EmbeddingBuffer()
        self.seen = 0

    def add(self, seen: FrameEmbeddings) -> None:
        self.seen += len(seen.times)
        most = self.limit or MAX_WHOLE_VIDEO_FRAMES
        if self.frames is None or len(self.frames.times) >= most:
            if not self.limit:
                self.frames = None
            return
        self.frames.append(seen, seen.times)

    def score(self, score: ScoreWindows, of_windows: np.ndarray) -> tuple[np.ndarray, str]:
        """(C,) scores, and by what."""
        most = self.limit or MAX_WHOLE_VIDEO_FRAMES
        if self.frames is None or (self.seen > most and not self.limit):
            return np.nanmean(
                of_windows, 0
            ), f"the mean over {len(of_windows)} windows, as it is longer than {most} frames"
        count = min(self.seen, most)
        rgb = None if self.frames.rgb is None else self.frames.rgb[:count]
        motion = None if self.frames.motion is None else self.frames.motion[: count - 1]
        first = "the first " if count < self.seen else "all "
        return score([WindowFeatures(0.0, 0.0, rgb, motion, count)])[0], f"{first}{count} frames at once"


def _frame_interval(end: video.ReadSummary) -> float:
    """Seconds for which a kept frame stands."""
    if len(end.timestamps) > 1:
        return float(np.median(np.diff(end.timestamps)))
    return 1 / end.fps


def estimate_kept_frames(path: Path, eyes: TwoStreamEncoder) -> int:
    """About how many frames of a video will be kept; 0 where its header doesn't say."""
    info = video.probe(path)
    total = info.frames or round(info.seconds * float(info.fps))
    kept = -(-total // eyes.sampling.stride)
    if eyes.sampling.fps:
        kept = min(kept, round(total / float(info.fps) * eyes.sampling.fps))
    return kept
