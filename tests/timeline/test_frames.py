"""The table of frames: scores and bouts at each frame's time."""

import csv
from pathlib import Path

import numpy as np

from tests.timeline.helpers import make_timeline
from vimoclip import timeline
from vimoclip.timeline import Bout


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_each_frame_has_the_score_of_its_window_and_whether_it_is_in_a_bout(tmp_path: Path) -> None:
    """Windows of 1 s every 0.5 s in 4 s; "drinking" from 2.25 to 3.25 s."""
    result = make_timeline(tmp_path / "a.mp4", observed=((0.0, 4.0),))
    indices = np.delete(np.arange(100), 7)  # frame 7 does not decode
    path = timeline.write_frames(tmp_path / "frames.csv", result, indices, indices / 25)
    header, *rows = read(path)
    assert header == ["frame", "seconds", "score:resting", "score:drinking", "bout:resting", "bout:drinking"]
    assert [row[0] for row in rows] == list(map(str, indices))
    assert rows[0] == ["0", "0", "0.125", "0.25", "0", "0"] and rows[7][:2] == ["8", "0.32"]
    drinking = [float(row[1]) for row in rows if row[5] == "1"]
    assert (drinking[0], drinking[-1], len(drinking)) == (2.28, 3.24, 25)
    high = [float(row[1]) for row in rows if row[3] == "0.75"]
    assert (high[0], high[-1]) == (2.28, 3.24)


def test_frames_that_were_not_observed_have_empty_cells(tmp_path: Path) -> None:
    """Before the first sampled frame, in a pause, and after the end; a bout lasts from the first to the last frame."""
    observed = ((0.0, 1.0), (2.5, 4.0))
    seen = make_timeline(
        tmp_path / "a.mp4", scores=np.full((7, 2), 0.75), bouts=(Bout("drinking", 0.0, 4.0, 0.75),), observed=observed
    )
    times = np.round(np.arange(-5, 105) / 25, 6)
    rows = read(timeline.write_frames(tmp_path / "frames.csv", seen, np.arange(110), times))[1:]
    assert len(rows) == 110
    for row, time in zip(rows, times, strict=True):
        is_observed = any(start <= time < stop for start, stop in observed)
        assert row[2:] == (["0.75", "0.75", "0", "1"] if is_observed else [""] * 4)
