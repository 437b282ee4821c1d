"""Annotations from untrusted sources: unsafe names and arbitrary bytes."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import CLASSES
from tests.untrusted_files import file_contents, is_one_line, quick_settings, refusal_message
from vimoclip import annotations
from vimoclip.errors import UserError


@pytest.mark.parametrize(
    "video",
    [
        *(
            "../a.mp4",
            "/etc/passwd.mp4",
            "a/b.mp4",
            "..\\a.mp4",
            "C:a.mp4",
            "c:\\a.mp4",
            "..mp4",
            "...mp4",
            "\\\\host\\a.mp4",
        ),
        *("a\0.mp4", "a\x1b[2J.mp4", "a\x7f.mp4", "a\x9b31m.mp4", "a\x85b.mp4", "a\u2028b.mp4", "a\u2029b.mp4"),
        *("a\u202egpj.mp4", "x" * 252 + ".mp4", "獅" * 84 + ".mp4", "\x1ca.mp4", "a.mp4\x1c"),
    ],
)
def test_unsafe_video_names_are_refused(tmp_path: Path, video: str) -> None:
    path = tmp_path / "train_multi.txt"
    path.write_bytes(f"{video} 1\n".encode())
    assert f"{path}:1: '" in refusal_message(lambda: annotations.read_split(path, 3), path)


@pytest.mark.parametrize("video", ["a\udcff.mp4", "\ud800.mp4"])
def test_video_names_with_surrogates_are_refused(tmp_path: Path, video: str) -> None:
    with pytest.raises(UserError, match="control"):
        annotations.check_video_id(video)
    refusal_message(
        lambda: annotations.write(tmp_path, "ak", annotations.Annotations(CLASSES, {"train": {video: ()}})), tmp_path
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("video", ["x" * 251 + ".mp4", "ab:c.mp4", "-a.mp4", "a\u00a0\u200db.mp4", "שלום.mp4"])
def test_unusual_safe_names_are_accepted(tmp_path: Path, video: str) -> None:
    path = tmp_path / "train_multi.txt"
    path.write_text(f"{video} 1\n", encoding="utf-8")
    assert annotations.read_split(path, 3) == {video: (1,)}


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\0b", '"a\nb"', '"a\r\nb"', "a\u2028b", "a\u202eb", "x" * 200_000])
def test_class_names_with_control_characters_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "ak_action.csv"
    path.write_bytes(f"id,name\n0,{name}\n".encode())
    assert len(refusal_message(lambda: annotations.read_classes(path), path)) < 1000


def test_very_long_numbers_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "train_multi.txt"
    path.write_text(f"a.mp4 {'9' * 5000}\n")
    assert len(refusal_message(lambda: annotations.read_split(path, 3), path)) < 1000
    path.write_text("a.mp4" + " 1" * 1_000_000)
    start = time.monotonic()
    assert annotations.read_split(path, 3) == {"a.mp4": (1,)}
    assert time.monotonic() - start < 20
    path.write_text(f"id,name\n{'9' * 5000},x\n")
    assert len(refusal_message(lambda: annotations.read_classes(path), path)) < 1000


@quick_settings
@given(file_contents, file_contents, st.booleans())
def test_arbitrary_annotations_are_refused_in_one_line_or_round_trip(
    tmp_path_factory: pytest.TempPathFactory, split: bytes, classes: bytes, header: bool
) -> None:
    folder = tmp_path_factory.mktemp("annotations")
    (folder / "ak_action.csv").write_bytes(b"id,name\n0,a\n" + classes if header else classes)
    (folder / "train_multi.txt").write_bytes(split)
    try:
        data = annotations.load(folder, "ak")
    except UserError as error:
        assert str(folder) in str(error)
        assert is_one_line(str(error))
        return
    for video_id in data.splits["train"]:
        assert (folder / video_id).resolve().parent == folder.resolve()
        assert video_id.encode().strip() in split
    annotations.write(folder / "copy", "ak", data)
    assert annotations.load(folder / "copy", "ak") == data
