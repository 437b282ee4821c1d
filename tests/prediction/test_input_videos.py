"""Videos that predict.py finds, and the names of its outputs."""

import os
from pathlib import Path

import pytest

from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.prediction.input_videos import find_input_videos

NFD = "Ba\u0308r"


def find(root: Path, *names: str, inputs: tuple[str, ...] = (".",)) -> tuple[dict[str, str], cli.RunReport]:
    """Create empty videos; return (path below `root` by name, report)."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    report = cli.RunReport()
    videos = find_input_videos([root / name for name in inputs], root / "out", None, report)
    return {name: path.relative_to(root).as_posix() for name, path in videos.items()}, report


def test_videos_in_folders_below_have_names_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["day1/GOPR0001.MP4", "day2/GOPR0001.MP4", "day2/b.mp4", f"{NFD}.mp4", "out/old.mp4", "notes.txt"]
    videos, report = find(tmp_path, *names)
    assert videos == {
        f"{NFD}": f"{NFD}.mp4",
        "day1__GOPR0001": "day1/GOPR0001.MP4",
        "day2__GOPR0001": "day2/GOPR0001.MP4",
        "b": "day2/b.mp4",
    }
    assert not report.failed
    assert "notes.txt" in capsys.readouterr().out
    assert find(tmp_path, inputs=("day1", "day2/GOPR0001.MP4"))[0].keys() == {"day1__GOPR0001", "day2__GOPR0001"}
    (tmp_path / "list.txt").write_text("B\u00e4r.mp4\nday2/b.mp4\n", encoding="utf-8")
    assert find(tmp_path, inputs=("list.txt", "day1/../day2"))[0].keys() == {NFD, "b", "GOPR0001"}
    with pytest.raises(UserError):
        find(tmp_path, "a.mp4", "a.avi")


def test_names_that_can_not_be_written_are_failures(tmp_path: Path) -> None:
    latin1, long_name = os.fsdecode(b"B\xe4r.mp4"), "x" * 244 + ".mp4"
    videos, report = find(tmp_path, latin1, long_name, "x" * 243 + ".mp4")
    assert list(videos) == ["x" * 243]
    assert set(report.failed) == {str(tmp_path / latin1), str(tmp_path / long_name)}
    report.write(tmp_path / "report.json")


def test_a_list_with_a_name_that_is_too_long_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"a.mp4\n{'x' * 300}.mp4\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2 of .*list\.txt"):
        find(tmp_path, "a.mp4", inputs=("list.txt",))


@pytest.mark.parametrize(
    "name",
    ["index", "ethogram", "transitions", "time_bins", "review_order", "predictions", "whole_videos", "Index"],
)
def test_names_of_the_files_about_all_videos_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=name):
        find(tmp_path, f"{name}.mp4")


@pytest.mark.parametrize("suffix", ["_windows", "_frames", "_Frames"])
def test_a_name_that_another_video_of_the_folder_needs_is_refused(suffix: str, tmp_path: Path) -> None:
    assert find(tmp_path, f"a{suffix}.mp4")[0]
    with pytest.raises(UserError, match="a"):
        find(tmp_path, "a.mp4")


@pytest.mark.parametrize(("done", "name"), [("a", "a_frames"), ("a_windows", "a")])
def test_a_name_that_an_earlier_result_needs_is_refused(done: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{done}.json").touch()
    assert find(tmp_path, "b.mp4")[0]
    with pytest.raises(UserError, match=done):
        find(tmp_path, f"{name}.mp4", inputs=(f"{name}.mp4",))
