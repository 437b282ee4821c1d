"""Time budget, transitions and time bins of videos, from their bouts.

Time that was not observed (see `Timeline.observed`) counts nowhere: all durations are observed seconds."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vimoclip.io.csv import write_csv
from vimoclip.io.numbers import DECIMALS, TIME_TOLERANCE, format_number
from vimoclip.timeline import Bout, Timeline

BUDGET_COLUMNS = ("bouts", "total_seconds", "observed_seconds", "share", "mean_seconds")
ETHOGRAM_COLUMNS = (
    "video",
    "action",
    *BUDGET_COLUMNS,
    "median_seconds",
    "sd_seconds",
    "latency_seconds",
    "bouts_per_minute",
    "mean_pause_seconds",
)
TRANSITION_COLUMNS = ("video", "from", "to", "count", "probability")
TIME_BIN_COLUMNS = ("video", "start", "stop", "action", *BUDGET_COLUMNS, "sd_seconds")
ALL_VIDEOS = ""  # no video has this name

Clock = Callable[[np.ndarray | float], np.ndarray]  # from times to the seconds that were observed until then


class ActionSummary(NamedTuple):
    """The bouts of one action in one video, in observed seconds; NaN where a statistic is not defined.

    `sd_seconds`: sample standard deviation; `latency`: from the first frame to the first bout; `mean_pause_seconds`:
    mean of the time from a bout to the action's next one, where some of it was observed."""

    action: str
    bouts: int
    total_seconds: float
    observed_seconds: float
    share: float
    mean_seconds: float
    median_seconds: float
    sd_seconds: float
    latency: float
    bouts_per_minute: float
    mean_pause_seconds: float


def summarize_actions(timeline: Timeline) -> list[ActionSummary]:
    """Return a summary of each class, in the order of the classes."""
    clock = _observed_clock(timeline)
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    times = clock(np.array([bout[1:3] for bout in timeline.bouts]).reshape(-1, 2))
    for bout, (start, stop) in zip(timeline.bouts, times.tolist(), strict=True):
        spans[bout.action].append((start, stop))
    observed = float(clock(timeline.seconds))
    return [_summarize_action(action, spans.get(action, []), observed) for action in timeline.classes]


def _summarize_action(action: str, spans: list[tuple[float, float]], observed: float) -> ActionSummary:
    """Summarize bouts (start, stop) in observed time, sorted."""
    lengths = [stop - start for start, stop in spans]
    pauses = [after[0] - before[1] for before, after in pairwise(spans)]
    total = math.fsum(lengths)
    return ActionSummary(
        action,
        len(spans),
        total,
        observed,
        _divide(total, observed),
        _mean(lengths),
        statistics.median(lengths) if lengths else math.nan,
        _standard_deviation(lengths),
        spans[0][0] if spans else math.nan,
        _divide(len(spans) * 60, observed),
        _mean([pause for pause in pauses if pause > TIME_TOLERANCE]),
    )


def count_transitions(timeline: Timeline) -> Counter[tuple[str, str]]:
    """Count pairs (action of a bout, action of the next bout), in the order of their starts, equal starts by name.

    A pair counts if all the time between the two bouts, if any, was observed. Otherwise, a bout in between may have
    been missed."""
    bouts = sorted(timeline.bouts, key=lambda bout: (bout.start, bout.action))
    pairs = list(pairwise(bouts))
    between = np.array([(min(bout.stop, following.start), following.start) for bout, following in pairs]).reshape(-1, 2)
    unobserved = np.diff(between, axis=1) - np.diff(_observed_clock(timeline)(between), axis=1)
    is_known = (unobserved[:, 0] <= TIME_TOLERANCE).tolist()
    return Counter(
        (bout.action, following.action) for (bout, following), known in zip(pairs, is_known, strict=True) if known
    )


def write_ethogram(path: Path, timelines: Iterable[Timeline]) -> Path:
    """Write a row for each class of each video, see `ActionSummary`. Raises OSError."""
    return write_csv(path, ETHOGRAM_COLUMNS, _ethogram_rows(timelines))


def _ethogram_rows(timelines: Iterable[Timeline]) -> Iterator[tuple[str, ...]]:
    for timeline in timelines:
        for action, *numbers in summarize_actions(timeline):
            yield timeline.video_name, action, *map(format_number, numbers)


def write_transitions(path: Path, timelines: Iterable[Timeline]) -> Path:
    """Write the transitions that occur in each video, then those in all videos, which have no video name.

    Raises OSError."""
    return write_csv(path, TRANSITION_COLUMNS, _transition_rows(timelines))


def _transition_rows(timelines: Iterable[Timeline]) -> Iterator[tuple[str, ...]]:
    total: Counter[tuple[str, str]] = Counter()
    classes: dict[str, int] = {}  # of all videos: name -> rank
    for timeline in timelines:
        for action in timeline.classes:
            classes.setdefault(action, len(classes))
        counts = count_transitions(timeline)
        total.update(counts)
        yield from _count_rows(timeline.video_name, counts, classes)
    yield from _count_rows(ALL_VIDEOS, total, classes)


def _count_rows(video: str, counts: Counter[tuple[str, str]], classes: dict[str, int]) -> Iterator[tuple[str, ...]]:
    leaving: Counter[str] = Counter()
    for (action, _), count in counts.items():
        leaving[action] += count
    for first, following in sorted(counts, key=lambda pair: (classes[pair[0]], classes[pair[1]])):
        count = counts[first, following]
        yield video, first, following, str(count), format_number(count / leaving[first])


def write_time_bins(path: Path, timelines: Iterable[Timeline], bin_seconds: float) -> Path:
    """Write a row for each class in each `bin_seconds` of each video. Raises OSError."""
    return write_csv(path, TIME_BIN_COLUMNS, _time_bin_rows(timelines, bin_seconds))


def _time_bin_rows(timelines: Iterable[Timeline], bin_seconds: float) -> Iterator[tuple[str, ...]]:
    for timeline in timelines:
        video, edges = timeline.video_name, _bin_edges(timeline.seconds, bin_seconds)
        clock = _observed_clock(timeline)
        lengths = _lengths_in_bins(timeline.bouts, clock, edges)
        observed = np.diff(clock(edges)).tolist()
        for number, (start, stop) in enumerate(pairwise(map(format_number, edges.tolist()))):
            without_bout = _format_parts([], observed[number])
            for action in timeline.classes:
                parts = lengths.get((number, action))
                yield video, start, stop, action, *(_format_parts(parts, observed[number]) if parts else without_bout)


def _format_parts(lengths: list[float], observed: float) -> list[str]:
    """Return the last cells of a row of time bins, from the lengths of the parts of bouts in the bin."""
    total = math.fsum(lengths)
    numbers = len(lengths), total, observed, _divide(total, observed), _mean(lengths), _standard_deviation(lengths)
    return list(map(format_number, numbers))


def _bin_edges(seconds: float, bin_seconds: float) -> np.ndarray:
    """Return the (B+1,) edges of the bins; the last one ends at the video's end."""
    count = max(1, math.ceil((seconds - TIME_TOLERANCE) / bin_seconds))
    return np.append(np.arange(count) * bin_seconds, seconds).round(DECIMALS)


def _lengths_in_bins(bouts: Iterable[Bout], clock: Clock, edges: np.ndarray) -> dict[tuple[int, str], list[float]]:
    """Return (bin, action) -> observed seconds of the parts of bouts in that bin, where some of them were observed."""
    lengths: dict[tuple[int, str], list[float]] = defaultdict(list)
    for bout in bouts:
        first = int(np.searchsorted(edges, bout.start, "right")) - 1
        last = int(np.searchsorted(edges, bout.stop, "left"))
        cuts = np.array([bout.start, *edges[first + 1 : last], bout.stop])
        for number, length in enumerate(np.diff(clock(cuts)).tolist(), first):
            if length > TIME_TOLERANCE:
                lengths[number, bout.action].append(length)
    return lengths


def _observed_clock(timeline: Timeline) -> Clock:
    spans = np.array(timeline.observed).reshape(-1, 2)
    if not len(spans):
        return np.zeros_like
    steps = np.zeros(spans.shape)
    steps[:, 1] = spans[:, 1] - spans[:, 0]
    edges, observed = spans.ravel(), steps.cumsum()
    return lambda times: np.array(np.interp(times, edges, observed))


def _divide(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _standard_deviation(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
