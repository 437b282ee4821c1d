"""The table of a video's frames: scores, and whether a frame is in a bout."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vimoclip.io import csv
from vimoclip.io.numbers import TIME_TOLERANCE, format_number
from vimoclip.timeline.bouts import Span, window_edges

if TYPE_CHECKING:
    from vimoclip.timeline import Timeline

FRAME_COLUMNS = ("frame", "seconds")  # before those of the classes
NOT_OBSERVED = -1  # instead of the index of a window


def write_frames(path: Path, timeline: "Timeline", indices: np.ndarray, times: np.ndarray) -> Path:
    """Write a row per frame: its index in the file, seconds, and of each action `score:` and `bout:` (1 or 0).

    `indices` (T,); `times` (T,): seconds since the first sampled frame, sorted. Cells of frames outside
    `timeline.observed` are empty. Raises OSError."""
    columns = [f"{kind}:{name}" for kind in ("score", "bout") for name in timeline.classes]
    return csv.write_csv(path, (*FRAME_COLUMNS, *columns), _rows(timeline, indices, times))


def _rows(timeline: "Timeline", indices: np.ndarray, times: np.ndarray) -> Iterator[list[str]]:
    edges = window_edges(timeline.starts, timeline.stops, timeline.seconds)
    windows = np.searchsorted(edges, times, side="right").clip(1, len(timeline.starts)) - 1
    windows[~_inside(timeline.observed, times)] = NOT_OBSERVED
    spans = [[bout[1:3] for bout in timeline.bouts if bout.action == name] for name in timeline.classes]
    in_bout = np.array([_inside(spans_of_class, times) for spans_of_class in spans]).T
    window, active, empty = NOT_OBSERVED, in_bout[0], [""] * 2 * len(spans)
    cells = empty
    for index, time, at, inside in zip(indices.tolist(), times.tolist(), windows.tolist(), in_bout, strict=True):
        if at != window or not np.array_equal(inside, active):  # the cells of the frame before are used again
            window, active = at, inside
            cells = [*map(format_number, timeline.scores[at].tolist()), *("1" if bout else "0" for bout in inside)]
        yield [str(index), format_number(time), *(empty if at == NOT_OBSERVED else cells)]


def _inside(spans: Iterable[Span], times: np.ndarray) -> np.ndarray:
    """Return (T,): whether each time lies in one of the spans [start, stop)."""
    inside = np.zeros(len(times), bool)
    for span in spans:
        first, last = np.searchsorted(times, np.array(span) - TIME_TOLERANCE).tolist()
        inside[first:last] = True
    return inside
