"""Annotations: what a line means, what is refused and how the refusal reads."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CLASSES, write_annotations
from vimoclip import UserError, annotations


def read_line(folder: Path, line: str) -> dict[str, tuple[int, ...]]:
    path = folder / "train_multi.txt"
    path.write_bytes(line.encode())
    return annotations.read_split(path, num_classes=10)


def refusal(path: Path, call: Callable[[], object]) -> str:
    """The one line with which `call` refuses; it must name the file."""
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


@pytest.mark.parametrize(
    ("line", "video", "labels"),
    [
        ("AAACXZTV.mp4 3 7", "AAACXZTV.mp4", (3, 7)),
        ("my lion clip.mp4 3", "my lion clip.mp4", (3,)),
        ("  lion.mp4   3  ", "lion.mp4", (3,)),
        ("two  spaces.mp4 3", "two  spaces.mp4", (3,)),
        ("lion.mp4", "lion.mp4", ()),
        ("my lion.mp4  ", "my lion.mp4", ()),
        ("clip 2 of 7.mp4 5", "clip 2 of 7.mp4", (5,)),
        ("2024 05 17.avi 1 2", "2024 05 17.avi", (1, 2)),
        ("12.mp4 0", "12.mp4", (0,)),
        ("lion.mp4\t3\t7", "lion.mp4", (3, 7)),
        ("lion.mp4\t3 7", "lion.mp4", (3, 7)),
        ("-dash.mp4 1", "-dash.mp4", (1,)),
        ("Löwe 獅子.mp4 4", "Löwe 獅子.mp4", (4,)),
        ("lion.MP4 3 3", "lion.MP4", (3,)),
    ],
)
def test_name_is_what_stands_before_the_trailing_integers(
    tmp_path: Path, line: str, video: str, labels: tuple[int, ...]
) -> None:
    assert read_line(tmp_path, line) == {video: labels}


@pytest.mark.parametrize("line", ["my lion.mp4\t3\t7", "my lion.mp4 3\t7"])
def test_labels_behind_a_tab_count_where_the_line_holds_a_space(tmp_path: Path, line: str) -> None:
    assert read_line(tmp_path, line) == {"my lion.mp4": (3, 7)}


@pytest.mark.parametrize("text", ["\n\na.mp4 1\n   \nb.mp4\n\n", "a.mp4 1\r\nb.mp4\r\n", "\ufeffa.mp4 1\nb.mp4"])
def test_blank_lines_windows_line_ends_and_byte_order_marks_change_nothing(tmp_path: Path, text: str) -> None:
    assert read_line(tmp_path, text) == {"a.mp4": (1,), "b.mp4": ()}


def test_classes_with_windows_line_ends_and_a_byte_order_mark_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ak_action.csv"
    path.write_bytes('\ufeffid,name,segment\r\n1,"Running, fast",head\r\n0,Eating,tail\r\n'.encode())
    assert annotations.read_classes(path) == ("Eating", "Running, fast")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lion.mp4 10", "label 10"),
        ("lion.mp4 3 -1", "label -1"),
        ("a.mp4 1\na.mp4 2", "a.mp4 stands twice"),
        ("lion 3", "'lion'"),
        (".mp4 3", "'.mp4'"),
        ("a.b.mp4 3", "'a.b.mp4'"),
        ("sub/lion.mp4 3", "'sub/lion.mp4'"),
        ("sub\\lion.mp4 3", "lion.mp4"),
        ("../lion.mp4 3", "'../lion.mp4'"),
        ("li\x07on.mp4 3", "on.mp4"),
        ("li\ton.mp4 3", "on.mp4"),
        ("=1+1.mp4 3", "'=1+1.mp4'"),
        ("+lion.mp4 3", "'+lion.mp4'"),
        ("@lion.mp4 3", "'@lion.mp4'"),
    ],
)
def test_bad_line_is_refused_by_name_with_its_number(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "train_multi.txt"
    text = refusal(path, lambda: read_line(tmp_path, "good.mp4 1\n" + line))
    assert words in text
    assert f"{path}:{2 + line.count(chr(10))}:" in text


@pytest.mark.parametrize("video", ["lion.mp4/x", "lion.d/clip", "lion.d\\clip", "lion.mp4\x07"])
def test_slash_or_control_character_behind_the_dot_is_refused(tmp_path: Path, video: str) -> None:
    refusal(tmp_path / "train_multi.txt", lambda: read_line(tmp_path, f"{video} 1"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "header id,name"),
        ("id,name\n", "header id,name"),
        ("number,action\n0,Eating\n", "header id,name"),
        ("id,name\n0,Eating\none,Running\n", "'one'"),
        ("id,name\n0,Eating\n2,Running\n", "0..1"),
        ("id,name\n1,Eating\n2,Running\n", "0..1"),
        ("id,name\n-1,Eating\n0,Running\n", "0..1"),
        ("id,name\n0,Eating\n0,Running\n", "class id 0 stands twice"),
        ("id,name\n0,Eating\n1,Eating\n", "same name"),
        ("id,name\n0,Eating\n1,\n", "class 1 has no name"),
        ("id,name\n0,Eating\n1\n", "class 1 has no name"),
    ],
)
def test_bad_class_list_is_refused(tmp_path: Path, rows: str, words: str) -> None:
    path = tmp_path / "ak_action.csv"
    path.write_text(rows)
    assert words in refusal(path, lambda: annotations.read_classes(path))


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train_multi.txt"
    path.write_bytes("Löwe.mp4 1\n".encode("latin-1"))
    assert "UTF-8" in refusal(path, lambda: annotations.read_split(path, 3))


def test_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ak_action.csv"
    path.mkdir()
    refusal(path, lambda: annotations.load(tmp_path, "ak"))


def test_video_in_two_splits_is_refused_and_both_are_named(tmp_path: Path) -> None:
    write_annotations(tmp_path, {"train": {"a.mp4": (0,), "b.mp4": (1,)}, "val": {"b.mp4": (1,)}})
    text = refusal(tmp_path, lambda: annotations.load(tmp_path, "ak"))
    assert "b.mp4" in text
    assert "train_multi.txt" in text
    assert "val_multi.txt" in text


@pytest.mark.parametrize(
    "splits", [{"train": {"a.mp4": (0,), "a.avi": (1,)}}, {"train": {"a.mp4": ()}, "test": {"a.avi": ()}}]
)
def test_two_videos_with_one_stem_are_refused(tmp_path: Path, splits: dict[str, dict[str, tuple[int, ...]]]) -> None:
    write_annotations(tmp_path, splits)
    text = refusal(tmp_path, lambda: annotations.load(tmp_path, "ak"))
    assert "a.mp4" in text
    assert "a.avi" in text


def test_missing_folder_and_missing_files_are_named(tmp_path: Path) -> None:
    refusal(tmp_path / "nowhere", lambda: annotations.load(tmp_path / "nowhere", "ak"))
    refusal(tmp_path / "ak_action.csv", lambda: annotations.load(tmp_path, "ak"))
    write_annotations(tmp_path, {})
    assert "train_multi.txt" in refusal(tmp_path, lambda: annotations.load(tmp_path, "ak"))
    write_annotations(tmp_path, {"train": {"a.mp4": (0,)}})
    refusal(tmp_path / "val_multi.txt", lambda: annotations.load(tmp_path, "ak", ["train", "val"]))
    refusal(tmp_path / "my_action.csv", lambda: annotations.load(tmp_path, "my"))


def test_load_reads_the_splits_that_are_there(tmp_path: Path) -> None:
    write_annotations(tmp_path, {"train": {"b.mp4": (2, 0), "a.mp4": ()}, "test": {"c.mp4": (1,)}})
    read = annotations.load(tmp_path, "ak", ["train"])
    assert read.classes == CLASSES
    assert read.splits == {"train": {"b.mp4": (2, 0), "a.mp4": ()}, "test": {"c.mp4": (1,)}}
    assert list(read.splits["train"]) == ["b.mp4", "a.mp4"]


def test_multi_hot_marks_the_labels_only(tmp_path: Path) -> None:
    write_annotations(tmp_path, {"train": {"b.mp4": (2, 0), "a.mp4": ()}})
    read = annotations.load(tmp_path, "ak")
    assert read.multi_hot("train", "b.mp4").tolist() == [1, 0, 1]
    assert read.multi_hot("train", "a.mp4").tolist() == [0, 0, 0]
    assert read.multi_hot("train", "a.mp4").dtype == np.float32


LETTERS = "abcXYZ019 _-,'\"()éß獅🦁=+@"
stems = st.text(LETTERS, min_size=1, max_size=12).map(str.strip).filter(lambda s: bool(s) and s[0] not in "=+@")
class_names = st.lists(
    st.text(LETTERS, min_size=1, max_size=9).map(str.strip).filter(bool), min_size=1, max_size=6, unique=True
)


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[list[str], dict[str, dict[str, tuple[int, ...]]]]:
    names = draw(class_names)
    ids = st.lists(st.integers(0, len(names) - 1), max_size=4, unique=True).map(tuple)
    splits: dict[str, dict[str, tuple[int, ...]]] = {
        s: {} for s in draw(st.sets(st.sampled_from(annotations.SPLITS), min_size=1))
    }
    for stem in draw(st.lists(stems, max_size=8, unique=True)):
        video = stem + draw(st.sampled_from([".mp4", ".avi", ".MOV"]))
        splits[draw(st.sampled_from(sorted(splits)))][video] = draw(ids)
    return names, splits


@settings(max_examples=80, deadline=None)
@given(data_sets(), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\ufeff"]))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    data: tuple[list[str], dict[str, dict[str, tuple[int, ...]]]],
    newline: str,
    mark: str,
) -> None:
    names, splits = data
    folder = tmp_path_factory.mktemp("annotations")
    rows = io.StringIO()
    csv.writer(rows, lineterminator=newline).writerows([("id", "name"), *enumerate(names)])
    (folder / "ak_action.csv").write_bytes((mark + rows.getvalue()).encode())
    for split, videos in splits.items():
        text = newline.join(" ".join([video, *map(str, ids)]) for video, ids in videos.items())
        (folder / f"{split}_multi.txt").write_bytes((mark + text).encode())
    read = annotations.load(folder, "ak")
    assert read.classes == tuple(names)
    assert read.splits == splits
    assert [list(v) for v in read.splits.values()] == [list(splits[s]) for s in read.splits]
