"""Group a video's embeddings into sliding windows while they are computed, and score the windows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vimoclip import video
from vimoclip.errors import VideoError
from vimoclip.io.numbers import TIME_TOLERANCE
from vimoclip.prediction.frame_encoder import EncodedVideo, FrameEmbeddings, TwoStreamEncoder
from vimoclip.timeline.bouts import WindowGrid

# Longest video that is scored at once. Memory grows with its length, and models are trained on clips of seconds.
MAX_WHOLE_VIDEO_FRAMES = 4096
WINDOWS_PER_BATCH = 16


class WindowFeatures(NamedTuple):
    """The T frames in [start, stop) seconds since the video's first frame: rgb (T, D), motion (T-1, D)."""

    start: float
    stop: float
    rgb: torch.Tensor | None
    motion: torch.Tensor | None
    frames: int


class EmbeddingBuffer:
    """Queue of consecutive frames: `times` (n,) in seconds, `rgb` (n, D), `motion` (n-1, D) between them."""

    def __init__(self) -> None:
        self.times = np.empty(0)
        self.rgb: torch.Tensor | None = None
        self.motion: torch.Tensor | None = None

    def append(self, batch: FrameEmbeddings, times: np.ndarray) -> None:
        self.times = np.concatenate([self.times, times])
        self.rgb, self.motion = _concatenate(self.rgb, batch.rgb), _concatenate(self.motion, batch.motion)

    def drop_before(self, time: float) -> None:
        """Remove the frames with an earlier time."""
        count = int(np.searchsorted(self.times, time))
        self.times = self.times[count:]
        # clone, because a view would keep the memory of the removed rows
        self.rgb, self.motion = (None if x is None else x[count:].clone() for x in (self.rgb, self.motion))

    def window(self, start: float, stop: float) -> WindowFeatures:
        """Return the frames with a time in [start, stop), and the motion between them."""
        first, end = np.searchsorted(self.times, [start - TIME_TOLERANCE, stop - TIME_TOLERANCE]).tolist()
        rgb = None if self.rgb is None else self.rgb[first:end]
        motion = None if self.motion is None else self.motion[first : max(first, end - 1)]
        return WindowFeatures(start, stop, rgb, motion, end - first)


class SlidingWindows:
    """The windows of a `WindowGrid`, with their frames; buffers the frames of about one window."""

    def __init__(self, length: float, stride: float):
        self.grid = WindowGrid(length, stride)
        self._buffer, self._num_windows = EmbeddingBuffer(), 0
        self._first_time: float | None = None

    def add(self, batch: FrameEmbeddings) -> Iterator[WindowFeatures]:
        """Append frames; yield the windows that they complete."""
        self._first_time = float(batch.times[0]) if self._first_time is None else self._first_time
        self._buffer.append(batch, batch.times - self._first_time)
        last = float(self._buffer.times[-1])
        yield from self._complete_windows(last)
        self._buffer.drop_before(min(self.grid.span(self._num_windows)[0], last - self.grid.length) - TIME_TOLERANCE)

    def flush(self, seconds: float, frame_interval: float) -> Iterator[WindowFeatures]:
        """Yield the windows up to the video's end at `seconds`.

        One more window ends there if the others leave more than half a `frame_interval` uncovered."""
        yield from self._complete_windows(seconds)
        if span := self.grid.last_span(self._num_windows, seconds, frame_interval / 2):
            yield self._buffer.window(*span)

    def _complete_windows(self, seconds: float) -> Iterator[WindowFeatures]:
        while self.grid.fits(self._num_windows, seconds):
            self._num_windows += 1
            yield self._buffer.window(*self.grid.span(self._num_windows - 1))


def _concatenate(first: torch.Tensor | None, second: torch.Tensor | None) -> torch.Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return torch.cat([first, second])


class WindowScores(NamedTuple):
    """Scores of n windows, (n, C) in 0..1. `score_sd` (n, C): standard deviation over several models, else None."""

    scores: np.ndarray
    score_sd: np.ndarray | None = None


ScoreWindows = Callable[[Sequence[WindowFeatures]], WindowScores]
ScoreStreams = Callable[[Sequence[WindowFeatures]], np.ndarray]  # n windows -> (2, n, C): by RGB, by motion alone


class VideoScores(NamedTuple):
    """Scores of a video's windows, and of the whole video.

    `starts`, `stops` (W,): seconds since the first frame. `scores` (W, C): NaN for the `unscored` windows, which hold
    too few frames. `whole` (C,): of the whole video, computed as `whole_by` describes. `stream_scores` (2, W, C): by
    RGB and by motion alone; None for a model of one stream. `score_sd` (W, C): over several models; else None."""

    starts: np.ndarray
    stops: np.ndarray
    scores: np.ndarray
    whole: np.ndarray
    whole_by: str
    unscored: int
    seconds: float
    summary: video.ReadSummary
    stream_scores: np.ndarray | None = None
    score_sd: np.ndarray | None = None


def score_in_batches(
    windows: Iterable[WindowFeatures], score: Callable[[Sequence[WindowFeatures]], np.ndarray], min_frames: int
) -> tuple[list[tuple[float, float]], dict[int, np.ndarray]]:
    """Return (start, stop) of all windows, and scores by index of those with at least `min_frames` frames.

    `score`: n windows -> (n, ...)."""
    spans: list[tuple[float, float]] = []
    rows: dict[int, np.ndarray] = {}
    queue: dict[int, WindowFeatures] = {}

    def flush() -> None:
        if queue:
            rows.update(zip(queue, score(list(queue.values())), strict=True))
            queue.clear()

    for window in windows:
        if window.frames >= min_frames:
            queue[len(spans)] = window
        spans.append((window.start, window.stop))
        if len(queue) == WINDOWS_PER_BATCH:
            flush()
    flush()
    return spans, rows


def score_windows(
    path: Path,
    encoder: TwoStreamEncoder,
    score: ScoreWindows,
    length: float,
    stride: float,
    batch_size: int = 16,
    workers: int = 1,
    on_frames: Callable[[int], None] = lambda count: None,
    score_streams: ScoreStreams | None = None,
) -> VideoScores:
    """Score windows of `length` seconds every `stride` seconds, and the whole video. Raises VideoError.

    Each frame is encoded once, however many windows it is in. Memory holds the embeddings of one window and of
    MAX_WHOLE_VIDEO_FRAMES frames, and all scores. `on_frames`: progress callback, called with the number of new
    frames."""
    min_frames = 2 if encoder.motion else 1
    whole_video = _WholeVideoScorer(encoder.sampling.max_frames)
    encoded = EncodedVideo(path, encoder, batch_size, workers)
    seconds = 0.0

    def windows() -> Iterator[WindowFeatures]:
        nonlocal seconds
        sliding = SlidingWindows(length, stride)
        for batch in encoded:
            whole_video.add(batch)
            yield from sliding.add(batch)
            on_frames(len(batch.times))
        timestamps = encoded.summary.timestamps
        if len(timestamps) < min_frames:
            raise VideoError("has only one sampled frame, so there is no motion")
        interval = float(np.median(np.diff(timestamps))) if len(timestamps) > 1 else 1 / encoded.summary.fps
        seconds = float(timestamps[-1] - timestamps[0]) + interval
        yield from sliding.flush(seconds, interval)

    def score_all(batch: Sequence[WindowFeatures]) -> np.ndarray:
        """Return (n, K, C): the scores, then those by RGB and by motion alone, then the standard deviation, if any."""
        scores, score_sd = score(batch)
        streams = [] if score_streams is None else list(score_streams(batch))
        return np.stack([scores, *streams, *([] if score_sd is None else [score_sd])], axis=1)

    spans, rows = score_in_batches(windows(), score_all, min_frames)
    if not rows:
        raise VideoError(f"no window of {length:g} s has {min_frames} sampled frames", "use a longer --window")
    missing = np.full_like(rows[min(rows)], np.nan)
    scores, *others = np.stack([rows.get(index, missing) for index in range(len(spans))], axis=1)
    stream_scores = None if score_streams is None else np.stack(others[:2])
    score_sd = others[-1] if len(others) % 2 else None  # the streams are two or none
    whole, whole_by = whole_video.score(score, scores)
    starts, stops = np.array(spans).T
    unscored = len(spans) - len(rows)
    return VideoScores(
        starts, stops, scores, whole, whole_by, unscored, seconds, encoded.summary, stream_scores, score_sd
    )


class _WholeVideoScorer:
    """Scores the whole video at once, from its first frames; keeps them while there are few enough.

    `max_frames`: the limit of the sampling, if it has one: then the first `max_frames` frames are scored."""

    def __init__(self, max_frames: int | None):
        self.is_limited = max_frames is not None
        self.max_frames = max_frames or MAX_WHOLE_VIDEO_FRAMES
        self.buffer: EmbeddingBuffer | None = EmbeddingBuffer()
        self.num_frames = 0

    def add(self, batch: FrameEmbeddings) -> None:
        self.num_frames += len(batch.times)
        if self.buffer is None or len(self.buffer.times) >= self.max_frames:
            if not self.is_limited:
                self.buffer = None
            return
        self.buffer.append(batch, batch.times)

    def score(self, score: ScoreWindows, window_scores: np.ndarray) -> tuple[np.ndarray, str]:
        """Return (C,) scores and a description of how they are computed."""
        if self.buffer is None or (self.num_frames > self.max_frames and not self.is_limited):
            described = f"mean over {len(window_scores)} windows, as the video has more than {self.max_frames} frames"
            return np.nanmean(window_scores, 0), described
        count = min(self.num_frames, self.max_frames)
        rgb = None if self.buffer.rgb is None else self.buffer.rgb[:count]
        motion = None if self.buffer.motion is None else self.buffer.motion[: count - 1]
        which = "first " if count < self.num_frames else "all "
        whole = score([WindowFeatures(0.0, 0.0, rgb, motion, count)]).scores[0]
        return whole, f"{which}{count} frames as one window"
