"""Videos of a folder and of the folders below it."""

import os
from pathlib import Path

import pytest

from vimoclip.errors import VideoError
from vimoclip.video import VideoFolder, unique_stems

NFC, NFD = "B\u00e4r", "Ba\u0308r"


def create(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(folder: VideoFolder) -> list[str]:
    return [path.relative_to(folder.folder).as_posix() for path in folder.videos]


def test_videos_are_sorted_and_other_files_are_left_out(tmp_path: Path) -> None:
    create(tmp_path, "b.MP4", "a.avi", "notes.txt", ".hidden.mp4", "folder.mp4/c.mp4", "x/y/notes.md", "x/z/d.mp4")
    create(tmp_path, "__MACOSX/a.mp4", "@eaDir/a.mp4", ".trash/a.mp4", "x/._d.mp4")
    folder = VideoFolder(tmp_path)
    assert names(folder) == ["a.avi", "b.MP4", "folder.mp4/c.mp4", "x/z/d.mp4"]
    assert set(folder.left_out) == {"notes.txt", "x/y/notes.md"}
    assert folder.describe_left_out().startswith(f"{tmp_path}: 2 ")
    assert VideoFolder(tmp_path / "x" / "z").describe_left_out() == ""


def test_links_are_followed_once_and_not_upwards(tmp_path: Path) -> None:
    create(tmp_path, "in/b/1.mp4", "elsewhere/2.mp4", "beside.mp4")
    (tmp_path / "in" / "a").symlink_to(tmp_path / "in" / "b")
    (tmp_path / "in" / "b" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "in" / "c").symlink_to(tmp_path / "elsewhere")
    for name, target in (("broken", "gone"), ("itself.mp4", "in/itself.mp4")):
        (tmp_path / "in" / name).symlink_to(tmp_path / target)
    found = ["itself.mp4", "b/1.mp4", "c/2.mp4"]
    folder = VideoFolder(tmp_path / "in")
    assert (names(folder), set(folder.left_out)) == (found, {"a", "b/loop", "b/up", "broken"})
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert names(VideoFolder(tmp_path / "link")) == found


def test_own_output_is_no_input(tmp_path: Path) -> None:
    create(tmp_path, "a.mp4", "out/a.mp4", "flows/a.mp4", "flows.manifest.jsonl", "shards/a.mp4")
    create(tmp_path, "shards.manifest.1-of-2.jsonl")
    folder = VideoFolder(tmp_path, exclude=[tmp_path / "out", tmp_path / "not there"])
    assert names(folder) == ["a.mp4"]
    assert {"flows", "shards"} < set(folder.left_out)
    assert len(VideoFolder(tmp_path, with_flow=True).videos) == 4


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads all folders")
def test_unreadable_folder_is_named(tmp_path: Path) -> None:
    create(tmp_path, "a.mp4", "closed/b.mp4")
    (tmp_path / "closed").chmod(0)
    try:
        folder = VideoFolder(tmp_path)
        assert names(folder) == ["a.mp4"]
        assert set(folder.left_out) == {"closed"}
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_id_is_found_in_any_folder_and_unicode_form(tmp_path: Path) -> None:
    create(tmp_path, f"x/{NFD}.mp4", "a.mp4", "x/a.mp4", "x/b.mp4", "y/b.mp4", "c.mpeg4", f"{NFC}2.mp4", f"{NFD}2.mp4")
    folder = VideoFolder(tmp_path)
    assert folder.locate(f"{NFC}.mp4") == tmp_path / "x" / f"{NFD}.mp4"
    assert folder.locate("a.mp4") == tmp_path / "a.mp4"  # directly in the folder
    assert folder.locate("c.mpeg4") == tmp_path / "c.mpeg4"
    for name in (f"{NFC}2.mp4", f"{NFD}2.mp4"):
        assert folder.locate(name) == tmp_path / name
    with pytest.raises(VideoError, match=r"x/b\.mp4, y/b\.mp4"):
        folder.locate("b.mp4")
    assert folder.locate("gone.mp4") == tmp_path / "gone.mp4"


def test_names_that_several_files_have_begin_with_their_folders(tmp_path: Path) -> None:
    expected = {
        "a.mp4": "a",
        f"{NFD}.mp4": NFD,
        "1/cam/x.mp4": "1__cam__x",
        "2/cam/x.avi": "2__cam__x",
        "2/y.mp4": "2__y",
        "3/4/y.mp4": "4__y",
        "5/z.mp4": "z",  # folders do not make them differ
        "5/z.avi": "z",
        "6/G.mp4": "6__G",  # one file on Windows and macOS
        "7/g.mp4": "7__g",
        "8/H.mp4": "H",
        "8/h.mp4": "h",
    }
    paths = {tmp_path / name: stem for name, stem in expected.items()}
    assert unique_stems(paths) == paths
