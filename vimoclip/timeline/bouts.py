"""Sliding windows over a video, and bouts: the time spans in which the score of an action reaches its threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vimoclip.io.numbers import DECIMALS, TIME_TOLERANCE

# A step between sampled frames is a pause of the recording, or a stretch that does not decode, if it is longer than a
# second and this many times the median step. Shorter ones are frames that a camera skipped.
PAUSE_SECONDS = 1.0
PAUSE_STEPS = 3
MIN_LENGTH, MAX_GAP = 1.0, 1.0  # defaults of find_bouts, in seconds
CSV_COLUMNS = ("video", "action", "start", "stop", "score")  # of a table of bouts

Span = tuple[float, float]  # start and stop, in seconds since the video's first frame


class WindowGrid(NamedTuple):
    """Windows of `length` seconds every `stride` seconds, in seconds since the video's first frame.

    Windows lie within the video, and the last one ends at the video's end. A video shorter than `length` is one
    window."""

    length: float
    stride: float

    def span(self, index: int) -> tuple[float, float]:
        """Return (start, stop) of a window, counted from the start."""
        start = round(index * self.stride, DECIMALS)
        return start, round(start + self.length, DECIMALS)

    def fits(self, index: int, seconds: float) -> bool:
        """Return whether a window, counted from the start, lies within the first `seconds` of the video."""
        return self.span(index)[0] + self.length <= seconds + TIME_TOLERANCE

    def last_span(self, count: int, seconds: float, tolerance: float = TIME_TOLERANCE) -> tuple[float, float] | None:
        """Return (start, stop) of the window that ends at the video's end.

        None if the `count` windows before it leave at most `tolerance` seconds uncovered."""
        if not count:
            return 0.0, seconds
        is_covered = seconds - self.span(count - 1)[1] <= tolerance
        return None if is_covered else (round(seconds - self.length, DECIMALS), seconds)

    def spans(self, seconds: float) -> list[tuple[float, float]]:
        """Return (start, stop) of all windows of a video."""
        spans: list[tuple[float, float]] = []
        while self.fits(len(spans), seconds):
            spans.append(self.span(len(spans)))
        last = self.last_span(len(spans), seconds)
        return [*spans, last] if last else spans


class Bout(NamedTuple):
    """An action from `start` to `stop`, in seconds; `score`: the mean over its windows."""

    action: str
    start: float
    stop: float
    score: float


class StreamDisagreement(NamedTuple):
    """The action of a window on which the two streams differ most: scores by RGB alone, and by motion alone."""

    action: str
    rgb: float
    motion: float


def window_edges(starts: np.ndarray, stops: np.ndarray, seconds: float) -> np.ndarray:
    """Return (W+1,) seconds: the score of window i holds from edge i to edge i+1.

    Edges lie halfway between the middles of neighbouring windows; the first and last are the video's two ends."""
    middles = (starts + stops) / 2
    between = (middles[1:] + middles[:-1]) / 2
    return np.concatenate([[0.0], between.clip(0, seconds), [seconds]]).round(DECIMALS)


def find_disagreements(
    stream_scores: np.ndarray | None, classes: Sequence[str]
) -> tuple[StreamDisagreement | None, ...]:
    """Return the disagreement of each window; None without scores. stream_scores (2, W, C): by RGB and by motion."""
    if stream_scores is None:
        return ()
    found = list[StreamDisagreement | None]()
    for rgb, motion in stream_scores.transpose(1, 0, 2).round(DECIMALS):
        if np.isnan(rgb - motion).any():
            found.append(None)
        else:
            column = int(np.abs(rgb - motion).argmax())
            found.append(StreamDisagreement(classes[column], float(rgb[column]), float(motion[column])))
    return tuple(found)


def observed_spans(times: np.ndarray, edges: np.ndarray, scores: np.ndarray, seconds: float) -> tuple[Span, ...]:
    """Return the spans of a video that were observed, sorted: without pauses, and without windows that have no score.

    times (T,): of the sampled frames, in seconds since the first; edges (W+1,): see `window_edges`; scores (W, C)."""
    steps = np.diff(times)
    step = float(np.median(steps)) if len(steps) else 0.0
    pauses = np.flatnonzero(steps > max(PAUSE_SECONDS, PAUSE_STEPS * step))
    gaps = [(float(times[i]) + step, float(times[i + 1])) for i in pauses.tolist()]
    gaps += [(float(edges[i]), float(edges[i + 1])) for i in np.flatnonzero(np.isnan(scores).all(axis=1)).tolist()]
    spans, start = list[Span](), 0.0
    for first, last in np.array(sorted(gaps)).reshape(-1, 2).round(DECIMALS).tolist():
        if first > start:
            spans.append((start, first))
        start = max(start, last)
    # rounded, so that an unscored last window leaves no span of less than a microsecond
    return (*spans, (start, seconds)) if start < round(seconds, DECIMALS) else tuple(spans)


def find_bouts(
    starts: np.ndarray,
    stops: np.ndarray,
    scores: np.ndarray,
    thresholds: np.ndarray,
    classes: Sequence[str],
    seconds: float,
    min_length: float = MIN_LENGTH,
    max_gap: float = MAX_GAP,
) -> tuple[Bout, ...]:
    """Return the spans in which a class's score is at least its threshold, sorted by start, then by class.

    starts, stops (W,) in seconds, sorted; scores (W, C); thresholds (C,). First, gaps of at most `max_gap` seconds are
    closed; then, bouts shorter than `min_length` are removed, except those that fill the video. A bout's score is the
    mean over all windows from its first to its last, including those in closed gaps."""
    edges = window_edges(starts, stops, seconds)
    shortest = min(min_length, float(edges[-1]))
    found = []
    for number, name in enumerate(classes):
        column = scores[:, number]
        for first, last in _close_gaps(_true_runs(column >= thresholds[number]), edges, max_gap):
            start, stop = float(edges[first]), float(edges[last])
            length = round(stop - start, DECIMALS)
            if length >= shortest and length > 0:
                found.append((start, number, Bout(name, start, stop, float(np.nanmean(column[first:last])))))
    return tuple(bout for _, _, bout in sorted(found))


def _true_runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, stop) of each run of True; stop is exclusive."""
    changes = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True))


def _close_gaps(runs: list[tuple[int, int]], edges: np.ndarray, max_gap: float) -> list[tuple[int, int]]:
    """Join runs with at most `max_gap` seconds between them."""
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and round(float(edges[first] - edges[joined[-1][1]]), DECIMALS) <= max_gap:
            joined[-1] = joined[-1][0], last
        else:
            joined.append((first, last))
    return joined


@dataclass(frozen=True)
class Timeline:
    """Scores in 0..1 of W windows over a video for C classes, and the bouts found in them.

    Times are seconds since the video's first frame. `starts`, `stops` (W,): sorted; `scores` (W, C); `whole` (C,):
    scores of the whole video, computed as `whole_by` describes; `thresholds` (C,); `provenance`: settings and versions
    in the types that JSON has; `name`: of its files, default: the video's without extension; `observed`: the spans that
    were seen, see `observed_spans`; `disagreements` (W): of the streams, empty for a model of one stream; `positives`:
    class to the number of clips on which its calibration rests, empty if unknown; `score_sd` (W, C): standard deviation
    of the scores over several runs, None for one."""

    video: Path
    seconds: float
    fps: float
    frames: int
    classes: tuple[str, ...]
    starts: np.ndarray
    stops: np.ndarray
    scores: np.ndarray
    whole: np.ndarray
    whole_by: str
    thresholds: np.ndarray
    bouts: tuple[Bout, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    observed: tuple[Span, ...] = ()
    disagreements: tuple[StreamDisagreement | None, ...] = ()
    positives: Mapping[str, int] = field(default_factory=dict)
    score_sd: np.ndarray | None = None

    @property
    def stem(self) -> str:
        """The name of its files, without their endings."""
        return self.name or self.video.stem

    @property
    def video_name(self) -> str:
        """The video's name in tables, which differs from that of a video of one file name in another folder."""
        return self.stem + self.video.suffix

    @property
    def min_length(self) -> float:
        """The shortest bout, in seconds, as `find_bouts` was given."""
        return float(self.provenance.get("min_length", MIN_LENGTH))

    @property
    def max_gap(self) -> float:
        """The longest gap in a bout, in seconds, as `find_bouts` was given."""
        return float(self.provenance.get("max_gap", MAX_GAP))
