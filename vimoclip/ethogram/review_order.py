"""Which windows of which videos to correct first: the least certain ones; and on which the two streams disagree.

Of the measures that were compared (NOTES.md, 2026-11-30), the mean uncertainty over all actions finds the most wrong
labels. The disagreement of the streams finds hardly more than chance, so windows have a second rank by it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from vimoclip.io import csv
from vimoclip.io.numbers import format_number
from vimoclip.timeline import StreamDisagreement, Timeline

Key = TypeVar("Key")
COLUMNS = (
    *("rank", "video", "start", "stop", "uncertainty", "action", "score", "threshold"),
    *("disagreement_rank", "disagreement", "disagreement_action", "rgb_score", "motion_score"),
    *("video_rank", "video_uncertainty"),
)


class WindowReview(NamedTuple):
    """A window of a video.

    `uncertainty`: mean over the actions, see `uncertainties`; `action`: the least certain one. `disagreement`: the
    largest difference between the scores by RGB and by motion alone; 0 for a model of one stream."""

    stem: str
    video: str
    start: float
    stop: float
    uncertainty: float
    action: str
    score: float
    threshold: float
    streams: StreamDisagreement | None

    @property
    def disagreement(self) -> float:
        return 0.0 if self.streams is None else abs(self.streams.rgb - self.streams.motion)


def choose_windows(timeline: Timeline) -> list[WindowReview]:
    """Return windows of a video that do not overlap, the least certain first; windows without a score are left out."""
    uncertainty = uncertainties(timeline.scores, timeline.thresholds)
    scored = np.flatnonzero(~np.isnan(uncertainty).all(axis=1))
    means = np.nanmean(uncertainty[scored], axis=1)
    chosen, is_taken = list[WindowReview](), np.zeros(len(timeline.starts), bool)
    for rank in np.argsort(-means, kind="stable").tolist():
        index = int(scored[rank])
        if not is_taken[index]:
            first = int(np.searchsorted(timeline.stops, timeline.starts[index], side="right"))
            last = int(np.searchsorted(timeline.starts, timeline.stops[index], side="left"))
            is_taken[first:last] = True
            chosen.append(_review(timeline, index, uncertainty[index], float(means[rank])))
    return chosen


def uncertainties(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return (W, C): 1 where a score is its threshold, falling linearly to 0 at scores of 0 and 1; NaN without one.

    scores (W, C) in 0..1; thresholds (C,), of which those outside 0..1 are never reached."""
    limits = np.where(np.isfinite(thresholds), thresholds, 1.0).clip(0, 1)
    below = np.divide(scores, limits, out=np.ones_like(scores), where=limits > 0)
    above = np.divide(1 - scores, 1 - limits, out=np.ones_like(scores), where=limits < 1)
    return np.where(scores < limits, below, above)


def _review(timeline: Timeline, index: int, uncertainty: np.ndarray, mean: float) -> WindowReview:
    """Return the review of a window, from the uncertainty (C,) of each action and their mean."""
    action = int(np.nanargmax(uncertainty))
    return WindowReview(
        timeline.stem,
        timeline.video_name,
        float(timeline.starts[index]),
        float(timeline.stops[index]),
        mean,
        timeline.classes[action],
        float(timeline.scores[index, action]),
        float(timeline.thresholds[action]),
        timeline.disagreements[index] if timeline.disagreements else None,
    )


def write_review_order(path: Path, windows: Iterable[WindowReview]) -> Path:
    """Write windows of all videos, the least certain first, with the rank of their video by its mean uncertainty."""
    return csv.write_csv(path, COLUMNS, _rows(sorted(windows, key=lambda window: -window.uncertainty)))


def _rows(windows: Sequence[WindowReview]) -> Iterator[tuple[str, ...]]:
    by_video: dict[str, list[float]] = defaultdict(list)
    for window in windows:
        by_video[window.video].append(window.uncertainty)
    means = {video: float(np.mean(values)) for video, values in by_video.items()}
    video_ranks = _ranks(means)
    disagreement_ranks = _ranks({row: window.disagreement for row, window in enumerate(windows)})
    for row, window in enumerate(windows):
        numbers = map(format_number, (window.start, window.stop, window.uncertainty))
        cells = [str(row + 1), window.video, *numbers, window.action]
        cells += map(format_number, (window.score, window.threshold))
        if window.streams is None:
            cells += [""] * 5
        else:
            action, rgb, motion = window.streams
            difference = format_number(window.disagreement)
            cells += [str(disagreement_ranks[row]), difference, action, format_number(rgb), format_number(motion)]
        yield (*cells, str(video_ranks[window.video]), format_number(means[window.video]))


def _ranks(values: Mapping[Key, float]) -> dict[Key, int]:
    """Return the ranks from 1 on, of the highest value first."""
    return {key: rank for rank, key in enumerate(sorted(values, key=lambda key: -values[key]), start=1)}
