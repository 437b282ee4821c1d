"""Which windows are to be corrected first."""

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.timeline.helpers import make_timeline
from vimoclip.ethogram.review_order import choose_windows, uncertainties, write_review_order
from vimoclip.timeline import StreamDisagreement, Timeline, find_disagreements


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scored(folder: Path, name: str, rows: list[list[float]], **changed: Any) -> Timeline:
    """Windows of 1 s every 0.5 s; the thresholds are 0.5."""
    return make_timeline(folder / name, seconds=(len(rows) + 1) / 2, scores=np.array(rows), **changed)


@pytest.mark.parametrize(
    ("score", "threshold", "value"),
    [(0.5, 0.5, 1), (0.25, 0.5, 0.5), (0.75, 0.5, 0.5), (1, 0.5, 0), (0, 0.5, 0), (0.1, 0.2, 0.5), (0.6, 0.2, 0.5)],
)
def test_uncertainty_is_1_at_the_threshold_and_0_at_the_extremes(score: float, threshold: float, value: float) -> None:
    assert uncertainties(np.array([[float(score)]]), np.array([threshold])).item() == pytest.approx(value)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 2.0, np.nan, np.inf])
def test_uncertainty_at_thresholds_that_every_or_no_score_reaches_is_a_number(threshold: float) -> None:
    found = uncertainties(np.array([[0.0], [0.5], [1.0]]), np.array([threshold]))
    assert ((found >= 0) & (found <= 1)).all()


def test_the_least_certain_windows_of_all_videos_come_first_and_do_not_overlap(tmp_path: Path) -> None:
    sure, unsure = [0.0, 1.0], [0.0, 0.4]
    first = scored(tmp_path, "a.mp4", [sure, [0.0, 0.55], unsure, sure, sure, sure, [0.2, 0.95]])
    second = scored(tmp_path, "b.mp4", [[0.5, 0.5], [0.5, 0.25], sure])
    windows = [*choose_windows(first), *choose_windows(second)]
    rows = read(write_review_order(tmp_path / "r.csv", windows))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, len(rows) + 1)]
    assert [(row["video"], row["start"], row["action"]) for row in rows[:2]] == [
        ("b.mp4", "0", "resting"),
        ("a.mp4", "0.5", "drinking"),
    ]
    assert (rows[1]["score"], rows[1]["threshold"], rows[1]["uncertainty"]) == ("0.55", "0.5", "0.45")
    for video in ("a.mp4", "b.mp4"):
        spans = sorted((float(row["start"]), float(row["stop"])) for row in rows if row["video"] == video)
        assert all(stop <= start for (_, stop), (start, _) in pairwise(spans))
    assert {row["video"]: row["video_rank"] for row in rows} == {"b.mp4": "1", "a.mp4": "2"}
    assert rows[0]["disagreement"] == rows[0]["disagreement_rank"] == ""  # of one stream


def test_windows_without_a_score_are_left_out(tmp_path: Path) -> None:
    windows = choose_windows(scored(tmp_path, "a.mp4", [[np.nan, np.nan], [0.1, 0.2], [np.nan, np.nan]]))
    assert [window.start for window in windows] == [0.5]


def test_the_disagreement_of_the_streams_has_a_rank_of_its_own(tmp_path: Path) -> None:
    rgb, motion = np.array([[0.5, 0.5]] * 3), np.array([[0.5, 0.75], [np.nan, np.nan], [0.125, 0.25]])
    found = find_disagreements(np.stack([rgb, motion]), ("resting", "drinking"))
    assert found == (StreamDisagreement("drinking", 0.5, 0.75), None, StreamDisagreement("resting", 0.5, 0.125))
    result = scored(tmp_path, "a.mp4", [[0.5, 0.5], [0.9, 0.9], [0.4, 0.4]], disagreements=found)
    rows = read(write_review_order(tmp_path / "r.csv", choose_windows(result)))
    names = ("start", "disagreement_rank", "disagreement", "disagreement_action", "rgb_score", "motion_score")
    assert [[row[name] for name in names] for row in rows] == [
        ["0", "2", "0.25", "drinking", "0.5", "0.75"],
        ["1", "1", "0.375", "resting", "0.5", "0.125"],
    ]
    assert find_disagreements(None, ("resting",)) == ()
