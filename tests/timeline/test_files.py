"""The CSV, JSON and BORIS files of a timeline."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.timeline.helpers import make_timeline
from vimoclip import timeline
from vimoclip.errors import UserError


def read_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_csv_files_hold_the_bouts_and_all_windows(tmp_path: Path) -> None:
    result = make_timeline(tmp_path / "elsewhere" / "a, b.mp4")
    written = timeline.write_timeline(tmp_path / "out", result)
    assert {path.name for path in written} == {path.name for path in (tmp_path / "out").glob("[!.]*")}
    assert [path.name for path in written][-1] == "a, b.json"
    header = ["video", "action", "start", "stop", "score"]
    assert read_rows(tmp_path / "out" / "a, b.csv") == [header, ["a, b.mp4", "drinking", "2.25", "3.25", "0.75"]]
    found = read_rows(tmp_path / "out" / "a, b_windows.csv")
    assert found[:3] == [header, ["a, b.mp4", "resting", "0", "1", "0.125"], ["a, b.mp4", "drinking", "0", "1", "0.25"]]
    assert len(found) == 1 + 2 * 7 and found[-1] == ["a, b.mp4", "drinking", "3", "4", "0.25"]


def test_the_standard_deviation_over_several_runs_is_the_last_column_of_the_windows(tmp_path: Path) -> None:
    score_sd = np.full((7, 2), 0.0625)
    score_sd[1, 0] = np.nan
    scores = np.where(np.isnan(score_sd), np.nan, 0.25)
    timeline.write_timeline(tmp_path, make_timeline(tmp_path / "a.mp4", scores=scores, score_sd=score_sd))
    header, *rows = read_rows(tmp_path / "a_windows.csv")
    assert header == ["video", "action", "start", "stop", "score", "score_sd"]
    assert [row[4:] for row in rows] == [["", ""] if i == 2 else ["0.25", "0.0625"] for i in range(14)]
    assert len(read_rows(tmp_path / "a.csv")[0]) == 5
    timeline.check_output_name(tmp_path, "a")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["score_sd"][1] == [None, 0.0625] and len(document["score_sd"]) == 7


def test_json_holds_everything_and_no_folder(tmp_path: Path) -> None:
    scores = np.full((7, 2), 1 / 3)
    scores[1, 0] = np.nan
    result = make_timeline(tmp_path / "a.mp4", scores=scores, thresholds=np.array([np.inf, 0.5]))
    timeline.write_timeline(tmp_path, result)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["schema"] == 1 and found["video"] == "a.mp4"
    assert (found["seconds"], found["fps"], found["frames"]) == (4.0, 25.0, 100)
    assert found["whole"] == dict(zip(result.classes, result.whole.tolist(), strict=True))
    assert found["thresholds"] == {"resting": None, "drinking": 0.5}
    assert found["bouts"] == [bout._asdict() for bout in result.bouts] and found["whole_by"] == result.whole_by
    assert (found["starts"], found["stops"]) == (result.starts.tolist(), result.stops.tolist())
    assert found["scores"] == [[None if row == 1 and c == 0 else 0.333333 for c in range(2)] for row in range(7)]
    header = timeline.read_header(tmp_path / "a.json")
    assert header and header.provenance == result.provenance and header.video == tmp_path / "a.mp4"
    for name in ("a.json", "a.html", "a.csv"):
        assert str(tmp_path) not in (tmp_path / name).read_text(encoding="utf-8")


def test_provenance_is_read_from_valid_files_only(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert timeline.read_header(path) is None
    for text in ("{", "[]", '{"schema": 0, "made_with": {}}', '{"schema": 1}'):
        path.write_text(text)
        with pytest.raises(UserError):
            timeline.read_header(path)


def test_interrupted_write_leaves_no_json(tmp_path: Path) -> None:
    result = make_timeline(tmp_path / "a.mp4")
    timeline.write_timeline(tmp_path, result)
    (tmp_path / "a.boris.tsv").unlink()
    (tmp_path / "a.boris.tsv").mkdir()  # nothing can be written there
    with pytest.raises(OSError, match="boris"):
        timeline.write_timeline(tmp_path, result)
    assert timeline.read_header(tmp_path / "a.json") is None


def test_output_is_deterministic(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        timeline.write_timeline(tmp_path / place, make_timeline(tmp_path / place / "v.mp4"))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
