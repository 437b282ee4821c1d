"""The table of frames: scores and bouts at each frame's time."""

import csv
from pathlib import Path

import numpy as np

from tests.timeline.helpers import make_timeline
from vimoclip import timeline


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_each_frame_has_the_score_of_its_window_and_whether_it_is_in_a_bout(tmp_path: Path) -> None:
    """Windows of 1 s every 0.5 s in 4 s; "drinking" from 2.25 to 3.25 s."""
    result = make_timeline(tmp_path / "a.mp4")
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


def test_frames_of_windows_without_a_score_have_empty_cells(tmp_path: Path) -> None:
    scores = np.full((7, 2), 0.75)
    scores[2:5] = np.nan
    seen = make_timeline(tmp_path / "a.mp4", scores=scores, bouts=())
    rows = read(timeline.write_frames(tmp_path / "frames.csv", seen, np.arange(100), np.arange(100) / 25))[1:]
    empty = [float(row[1]) for row in rows if row[2:] == ["", "", "", ""]]
    assert (empty[0], empty[-1]) == (1.28, 2.72)  # from halfway between the second and third window
    assert all(row[2:] == ["0.75", "0.75", "0", "0"] for row in rows if float(row[1]) < 1.25)
