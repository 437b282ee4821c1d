"""predictions.csv: an exact round trip, and invalid files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vimoclip.errors import UserError
from vimoclip.io import predictions_csv

FLOATS = st.floats(0, 1, width=32)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=6))
def test_float32_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]]) -> None:
    scores = torch.tensor(rows, dtype=torch.float32)
    videos = [f"-{i}, ü.mp4" for i in range(len(rows))]
    path = tmp_path_factory.mktemp("scores") / "predictions.csv"
    predictions_csv.write(path, videos, scores, ["run, fast", 'the "7"'])
    table = predictions_csv.read(path)
    assert table.classes == ["run, fast", 'the "7"'] and table.videos == videos
    assert table.scores.dtype == np.float64
    assert (table.scores.astype(np.float32) == scores.numpy()).all()


def test_files_written_by_spreadsheets_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b'\xef\xbb\xbf"walk",video_id,"run, fast"\r\n.5,a.mp4,1e-3\r\n\r\n 0.25 ,"b.mp4",1\r\n')
    table = predictions_csv.read(path)
    assert table.classes == ["walk", "run, fast"] and table.videos == ["a.mp4", "b.mp4"]
    assert table.scores.tolist() == [[0.5, 0.001], [0.25, 1]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("video_id,a\n", "holds no predictions"),
        ("video_id\nv\n", "holds no column of scores"),
        ("name,a\nv,1\n", "has no column video_id"),
        ("video_id;a\nv;1\n", "separated by commas"),
        ("video_id,a,a\nv,1,1\n", r"1 columns are duplicated \(a\)"),
        ("video_id,a\nv,1\nw\n\nx,1,1\n", r"2 lines don't have 2 cells \(line 3, line 5\)"),
        ("video_id,a\n,1\n", r"1 videos have no video_id \(line 2\)"),
        ("video_id,a\nv,1\nw,1\nv,0\n", r"1 videos are duplicated \(v\)"),
        ("video_id,a\n" + "".join(f"v{i},nan\n" for i in range(7)), r"7 scores .*v0, a: nan.* and 2 more\)"),
        ("video_id,a,b\nv,1e999,\n", r"2 scores are not finite numbers \(v, a: 1e999, v, b: empty\)"),
    ],
)
def test_invalid_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        predictions_csv.read(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00v")
    for path, words in ((tmp_path / "p.csv", "UTF-8"), (tmp_path, "can't be read"), (tmp_path / "no", "no such file")):
        with pytest.raises(UserError, match=words):
            predictions_csv.read(path)
