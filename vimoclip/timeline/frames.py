"""The table of a video's frames: scores, and whether a frame is in a bout."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vimoclip.io import csv
from vimoclip.io.numbers import format_number
from vimoclip.timeline.bouts import window_edges

if TYPE_CHECKING:
    from vimoclip.timeline import Timeline

FRAME_COLUMNS = ("frame", "seconds")  # before those of the classes


def write_frames(path: Path, timeline: "Timeline", indices: np.ndarray, times: np.ndarray) -> Path:
    """Write a row per frame: its index in the file, seconds, and of each action `score:` and `bout:` (1 or 0).

    `indices` (T,); `times` (T,): seconds since the first sampled frame. Cells of frames that no window with a score
    covers are empty, unless a bout does. Raises OSError."""
    columns = [f"{kind}:{name}" for kind in ("score", "bout") for name in timeline.classes]
    return csv.write_csv(path, (*FRAME_COLUMNS, *columns), _rows(timeline, indices, times))


def _rows(timeline: "Timeline", indices: np.ndarray, times: np.ndarray) -> Iterator[list[str]]:
    edges = window_edges(timeline.starts, timeline.stops, timeline.seconds)
    windows = np.searchsorted(edges, times, side="right").clip(1, len(timeline.starts)) - 1
    in_bout = _in_bouts(timeline, times)
    window, cells, active = -1, list[str](), np.empty(0, bool)
    for index, time, at, inside in zip(indices.tolist(), times.tolist(), windows.tolist(), in_bout, strict=True):
        if at != window or not np.array_equal(inside, active):  # the cells of the frame before are used again
            window, active = at, inside
            scores = list(map(format_number, timeline.scores[at].tolist()))
            cells = scores + ["1" if bout else "0" if score else "" for bout, score in zip(inside, scores, strict=True)]
        yield [str(index), format_number(time), *cells]


def _in_bouts(timeline: "Timeline", times: np.ndarray) -> np.ndarray:
    """Return (T, C): whether a bout of the action lasts at each time."""
    inside = np.zeros((len(times), len(timeline.classes)), bool)
    columns = {name: column for column, name in enumerate(timeline.classes)}
    for bout in timeline.bouts:
        first, last = np.searchsorted(times, [bout.start, bout.stop]).tolist()
        inside[first:last, columns[bout.action]] = True
    return inside
