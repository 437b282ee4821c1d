"""Bouts: the stretches of a video over which an action's score is high enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DECIMALS = 6  # of seconds: no sum of floats differs from another by as much


class Bout(NamedTuple):
    """An action from `start` to `stop`, in seconds; `score`: the mean over its windows."""

    action: str
    start: float
    stop: float
    score: float


def window_edges(starts: np.ndarray, stops: np.ndarray, seconds: float) -> np.ndarray:
    """(W+1,) seconds: window i speaks for the time from edge i to edge i+1.

    That is the stretch around its middle, halfway to its neighbours' middles, and to the video's two ends."""
    middles = (starts + stops) / 2
    between = (middles[1:] + middles[:-1]) / 2
    return np.concatenate([[0.0], between.clip(0, seconds), [seconds]]).round(DECIMALS)


def find_bouts(
    starts: np.ndarray,
    stops: np.ndarray,
    scores: np.ndarray,
    thresholds: np.ndarray,
    classes: Sequence[str],
    seconds: float,
    min_length: float = 1.0,
    max_gap: float = 1.0,
) -> tuple[Bout, ...]:
    """Where a class's score is at least its threshold, sorted by start, then by class.

    starts, stops (W,) in seconds, in order; scores (W, C); thresholds (C,). Gaps of at most `max_gap` seconds are
    closed first; then bouts shorter than `min_length` go, but for those that fill the video. A bout's score is the
    mean over all windows from its first to its last, those of closed gaps too."""
    places = window_edges(starts, stops, seconds)
    shortest = min(min_length, float(places[-1]))
    found = []
    for number, name in enumerate(classes):
        column = scores[:, number]
        for first, last in _close_gaps(_true_runs(column >= thresholds[number]), places, max_gap):
            start, stop = float(places[first]), float(places[last])
            length = round(stop - start, DECIMALS)
            if length >= shortest and length > 0:
                found.append((start, number, Bout(name, start, stop, float(np.nanmean(column[first:last])))))
    return tuple(bout for _, _, bout in sorted(found))


def _true_runs(high: np.ndarray) -> list[tuple[int, int]]:
    """(first, behind the last) of each run of True."""
    changes = np.flatnonzero(np.diff(high, prepend=False, append=False))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True))


def _close_gaps(runs: list[tuple[int, int]], places: np.ndarray, max_gap: float) -> list[tuple[int, int]]:
    """The same, with those made one between which there are at most `max_gap` seconds."""
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and round(float(places[first] - places[joined[-1][1]]), DECIMALS) <= max_gap:
            joined[-1] = joined[-1][0], last
        else:
            joined.append((first, last))
    return joined


@dataclass(frozen=True)
class Timeline:
    """W windows over a video, scored for C classes in 0..1, and what follows of them. Times are seconds since the
    video's first frame. `starts`, `stops` (W,), in order; `scores` (W, C); `whole` (C,): scores of the video as a
    whole, computed as `whole_by` says in words; `thresholds` (C,); `made_with`: plain Python, for the JSON file."""

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
    made_with: Mapping[str, Any] = field(default_factory=dict)
