"""Tables of frames, and tables that a spreadsheet has changed, are refused or named."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import prepare_dataset
from tests.conftest import indexed_frames, write_video
from vimoclip.errors import UserError


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a", "b"):
        write_video(folder / f"{name}.mp4", indexed_frames(12, seed=ord(name)))
    return folder


def prepare(videos: Path, root: Path, lines: Sequence[str]) -> None:
    table = root / "table.csv"
    table.write_text("\n".join(lines))
    prepare_dataset.main(["csv", str(table), "--videos-dir", str(videos), "--dataset-dir", str(root / "dataset")])


def frame_lines(header: str, cells: Sequence[str]) -> list[str]:
    """Twelve lines per video, a line per frame, with one cell for each third of the video."""
    return [header, *(f"{n},{video}.mp4,{cells[n // 4]}" for video in "ab" for n in range(12))]


@pytest.mark.parametrize(
    "lines",
    [
        frame_lines(",video,background,walk,eat", ("0,1,0", "0,0,1", "1,0,0")),  # a row index has no name
        frame_lines("frame,video,labels", ("walk", "eat", "")),
    ],
)
def test_a_line_per_frame_does_not_become_a_clip_with_all_labels(
    videos: Path, tmp_path: Path, lines: Sequence[str]
) -> None:
    with pytest.raises(UserError, match=r"a\.mp4"):
        prepare(videos, tmp_path, lines)
    assert not (tmp_path / "dataset").exists()


def test_lines_that_add_labels_to_a_film_are_joined(videos: Path, tmp_path: Path) -> None:
    prepare(videos, tmp_path, ["video,labels", "a.mp4,walk", "a.mp4,eat", "b.mp4,eat", "b.mp4,eat;walk"])
    texts = [path.read_text() for path in sorted((tmp_path / "dataset" / "annotations").glob("*_multi.txt"))]
    assert sorted("".join(texts).splitlines()) == ["a.mp4 0 1", "b.mp4 0 1"]


@pytest.mark.parametrize("seconds", [(2, 4, 6), (1200, 3600, 5400)])
def test_fractions_of_a_day_are_no_seconds(videos: Path, tmp_path: Path, seconds: Sequence[int]) -> None:
    """As Excel stores 0:00:02."""
    times = [0.0, *(f"{second / 86400:.9f}" for second in seconds)]
    spans = [f"a.mp4,walk,{start},{end}" for start, end in pairwise(times)]
    with pytest.raises(UserError, match="86400"):
        prepare(videos, tmp_path, ["video,labels,start,end", *spans])
    assert not (tmp_path / "dataset").exists()


def test_short_clips_of_a_fast_camera_are_seconds(videos: Path, tmp_path: Path) -> None:
    lines = ["video,labels,start,end", "a.mp4,walk,0,0.04", "a.mp4,eat,0.04,0.08", "b.mp4,walk,0.08,0.12"]
    prepare(videos, tmp_path, lines)
    assert len(list((tmp_path / "dataset" / "videos").iterdir())) == 3


@pytest.mark.parametrize(
    ("labels", "are_named"),
    [
        (("NA", "nan", "#N/A", "02. Jan", "2-Jan", "Jan-02", "2026-01-02"), True),
        (("1-2", "nap", "10-min rest", "sniff 2", "May"), False),
    ],
)
def test_labels_that_a_spreadsheet_made_are_named(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: Sequence[str], are_named: bool
) -> None:
    prepare(videos, tmp_path, ["video,labels", "a.mp4,walk", *(f"b.mp4,{label}" for label in labels)])
    warnings = " ".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: /"))
    assert [repr(label) in warnings for label in labels] == [are_named] * len(labels)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\xff\xfe",  # xlsx, ods
        bytes.fromhex("d0cf11e0a1b11ae1") + bytes(64),  # xls
        "video\tlabels\r\na.mp4\twalk\r\n".encode("utf-16"),
        "video;labels\na.mp4;Gähnen\n".encode("cp1252"),
    ],
)
def test_files_that_are_no_utf8_text_are_refused_with_the_format_to_save(
    videos: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"table\.csv: is .*CSV UTF-8"):
        prepare_dataset.main(["csv", str(tmp_path / "table.csv"), "--videos-dir", str(videos)])
