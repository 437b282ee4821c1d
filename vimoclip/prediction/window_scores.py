"""The scores of a video's windows, and of the video as a whole."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vimoclip import video
from vimoclip.errors import VideoError
from vimoclip.prediction.frame_encoder import Eyes, Seen, see
from vimoclip.prediction.sliding_window import Frames, Part, Windows

# Frames of a video that is scored as a whole. Longer ones are not: memory would grow with them, and a model that
# learnt from clips of seconds has never seen such.
WHOLE_FRAMES = 4096
AT_ONCE = 16  # windows

Score = Callable[[Sequence[Part]], np.ndarray]  # n windows -> (n, C) in 0..1


class Scores(NamedTuple):
    """What was seen of a video. `starts`, `stops` (W,): of the windows, in seconds since its first frame; `scores`
    (W, C), NaN for the `unscored` windows, with too few frames; `whole` (C,): of the video, as `whole_by` says."""

    starts: np.ndarray
    stops: np.ndarray
    scores: np.ndarray
    whole: np.ndarray
    whole_by: str
    unscored: int
    seconds: float
    end: video.End


class _Scored:
    """Windows as they come in, scored some at a time."""

    def __init__(self, score: Score, fewest: int):
        self.score, self.fewest = score, fewest
        self.waiting: list[Part] = []
        self.spans: list[tuple[float, float]] = []
        self.rows: list[np.ndarray | None] = []  # None: of a window that can't be scored
        self.unscored = 0

    def add(self, part: Part) -> None:
        self.spans.append((part.start, part.stop))
        if part.frames < self.fewest:
            self.flush()
            self.unscored += 1
            self.rows.append(None)
            return
        self.waiting.append(part)
        if len(self.waiting) == AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            self.rows += list(self.score(self.waiting))
            self.waiting.clear()

    def all(self) -> np.ndarray:
        """(W, C); NaN where there is nothing to see, as in a pause of the recording."""
        width = next(len(row) for row in self.rows if row is not None)
        return np.stack([np.full(width, np.nan) if row is None else row for row in self.rows])


def watch(
    path: Path,
    eyes: Eyes,
    score: Score,
    length: float,
    stride: float,
    batch_size: int = 16,
    workers: int = 1,
    on_frames: Callable[[int], None] = lambda count: None,
) -> Scores:
    """Score windows of `length` seconds every `stride` seconds, and the video as a whole. Raises VideoError.

    Each frame is embedded once, whatever the number of windows it is in. Memory: that of one window, of WHOLE_FRAMES
    frames, and the scores. `on_frames` hears how many more are done."""
    fewest = 2 if eyes.motion else 1
    windows, scored, whole = Windows(length, stride), _Scored(score, fewest), _Whole(eyes)
    for item in see(path, eyes, batch_size, workers):
        if isinstance(item, video.End):
            end = item
            break
        whole.add(item)
        for part in windows.add(item):
            scored.add(part)
        on_frames(len(item.times))
    if len(end.timestamps) < fewest:
        raise VideoError("has one kept frame, so no motion can be seen")
    gap = _gap(end)
    seconds = float(end.timestamps[-1] - end.timestamps[0]) + gap
    for part in windows.finish(seconds, gap):
        scored.add(part)
    scored.flush()
    if scored.unscored == len(scored.spans):
        raise VideoError(f"no window of {length:g} s holds {fewest} kept frames", "give a longer --window")
    starts, stops = np.array(scored.spans).T
    scores = scored.all()
    row, by = whole.score(score, scores)
    return Scores(starts, stops, scores, row, by, scored.unscored, seconds, end)


class _Whole:
    """A video's first frames, while they may still be all of it."""

    def __init__(self, eyes: Eyes):
        self.limit = eyes.sampling.max_frames
        self.frames: Frames | None = Frames()
        self.seen = 0

    def add(self, seen: Seen) -> None:
        self.seen += len(seen.times)
        most = self.limit or WHOLE_FRAMES
        if self.frames is None or len(self.frames.times) >= most:
            if not self.limit:
                self.frames = None
            return
        self.frames.append(seen, seen.times)

    def score(self, score: Score, of_windows: np.ndarray) -> tuple[np.ndarray, str]:
        """(C,) scores, and by what."""
        most = self.limit or WHOLE_FRAMES
        if self.frames is None or (self.seen > most and not self.limit):
            return np.nanmean(
                of_windows, 0
            ), f"the mean over {len(of_windows)} windows, as it is longer than {most} frames"
        count = min(self.seen, most)
        rgb = None if self.frames.rgb is None else self.frames.rgb[:count]
        motion = None if self.frames.motion is None else self.frames.motion[: count - 1]
        first = "the first " if count < self.seen else "all "
        return score([Part(0.0, 0.0, rgb, motion, count)])[0], f"{first}{count} frames at once"


def _gap(end: video.End) -> float:
    """Seconds for which a kept frame stands."""
    if len(end.timestamps) > 1:
        return float(np.median(np.diff(end.timestamps)))
    return 1 / end.fps


def frames_expected(path: Path, eyes: Eyes) -> int:
    """About how many frames of a video will be kept; 0 where its header doesn't say."""
    info = video.probe(path)
    total = info.frames or round(info.seconds * float(info.fps))
    kept = -(-total // eyes.sampling.stride)
    if eyes.sampling.fps:
        kept = min(kept, round(total / float(info.fps) * eyes.sampling.fps))
    return kept
