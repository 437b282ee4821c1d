"""Reading of annotations: valid lines, and errors with file and line."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CLASSES, write_annotations
from vimoclip import annotations
from vimoclip.errors import UserError


def read_split_text(folder: Path, line: str) -> dict[str, tuple[int, ...]]:
    path = folder / "train_multi.txt"
    path.write_bytes(line.encode())
    return annotations.read_split(path, num_classes=10)


def error_text(path: Path, call: Callable[[], object]) -> str:
    """Return the text of the UserError; it must be one line and name the file."""
    with pytest.raises(UserError) as error:
        call()
    text = str(error.value)
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
def test_video_id_is_the_text_before_the_trailing_integers(
    tmp_path: Path, line: str, video: str, labels: tuple[int, ...]
) -> None:
    assert read_split_text(tmp_path, line) == {video: labels}


@pytest.mark.parametrize("line", ["my lion.mp4\t3\t7", "my lion.mp4 3\t7"])
def test_labels_may_follow_a_tab(tmp_path: Path, line: str) -> None:
    assert read_split_text(tmp_path, line) == {"my lion.mp4": (3, 7)}


@pytest.mark.parametrize("text", ["\n\na.mp4 1\n   \nb.mp4\n\n", "a.mp4 1\r\nb.mp4\r\n", "\ufeffa.mp4 1\nb.mp4"])
def test_blank_lines_crlf_and_byte_order_marks_are_ignored(tmp_path: Path, text: str) -> None:
    assert read_split_text(tmp_path, text) == {"a.mp4": (1,), "b.mp4": ()}


def test_class_list_with_crlf_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "ak_action.csv"
    path.write_bytes('\ufeffid,name,segment\r\n1,"Running, fast",head\r\n0,Eating,tail\r\n'.encode())
    assert annotations.read_classes(path) == ("Eating", "Running, fast")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lion.mp4 10", "label 10"),
        ("lion.mp4 3 -1", "label -1"),
        ("a.mp4 1\na.mp4 2", "a.mp4 is duplicated"),
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
def test_invalid_line_is_reported_with_its_number(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "train_multi.txt"
    text = error_text(path, lambda: read_split_text(tmp_path, "good.mp4 1\n" + line))
    assert words in text
    assert f"{path}:{2 + line.count(chr(10))}:" in text


@pytest.mark.parametrize("video", ["lion.mp4/x", "lion.d/clip", "lion.d\\clip", "lion.mp4\x07"])
def test_slash_or_control_character_in_the_extension_is_an_error(tmp_path: Path, video: str) -> None:
    error_text(tmp_path / "train_multi.txt", lambda: read_split_text(tmp_path, f"{video} 1"))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "is empty"),
        ("id,name\n", "header id,name"),
        ("number,action\n0,Eating\n", "header id,name"),
        ("id,name\n0,Eating\none,Running\n", "'one'"),
        ("id,name\n0,Eating\n2,Running\n", "0..1"),
        ("id,name\n1,Eating\n2,Running\n", "0..1"),
        ("id,name\n-1,Eating\n0,Running\n", "0..1"),
        ("id,name\n0,Eating\n0,Running\n", "class id 0 is duplicated"),
        ("id,name\n0,Eating\n1,Eating\n", "same name"),
        ("id,name\n0,Eating\n1,\n", "class 1 has no name"),
        ("id,name\n0,Eating\n1\n", "class 1 has no name"),
    ],
)
def test_invalid_class_list_is_an_error(tmp_path: Path, rows: str, words: str) -> None:
    path = tmp_path / "ak_action.csv"
    path.write_text(rows)
    assert words in error_text(path, lambda: annotations.read_classes(path))


def test_text_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "train_multi.txt"
    path.write_bytes("Löwe.mp4 1\n".encode("latin-1"))
    assert "UTF-8" in error_text(path, lambda: annotations.read_split(path, 3))


def test_folder_instead_of_a_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ak_action.csv"
    path.mkdir()
    error_text(path, lambda: annotations.load(tmp_path, "ak"))


def test_video_in_two_splits_is_an_error_that_names_both(tmp_path: Path) -> None:
    write_annotations(tmp_path, {"train": {"a.mp4": (0,), "b.mp4": (1,)}, "val": {"b.mp4": (1,)}})
    text = error_text(tmp_path, lambda: annotations.load(tmp_path, "ak"))
    assert "b.mp4" in text
    assert "train_multi.txt" in text
    assert "val_multi.txt" in text


@pytest.mark.parametrize(
    "splits", [{"train": {"a.mp4": (0,), "a.avi": (1,)}}, {"train": {"a.mp4": ()}, "test": {"a.avi": ()}}]
)
def test_two_videos_with_one_stem_are_an_error(tmp_path: Path, splits: dict[str, dict[str, tuple[int, ...]]]) -> None:
    write_annotations(tmp_path, splits)
    text = error_text(tmp_path, lambda: annotations.load(tmp_path, "ak"))
    assert "a.mp4" in text
    assert "a.avi" in text


def test_missing_folder_and_missing_files_are_named(tmp_path: Path) -> None:
    error_text(tmp_path / "nowhere", lambda: annotations.load(tmp_path / "nowhere", "ak"))
    error_text(tmp_path / "ak_action.csv", lambda: annotations.load(tmp_path, "ak"))
    write_annotations(tmp_path, {})
    assert "train_multi.txt" in error_text(tmp_path, lambda: annotations.load(tmp_path, "ak"))
    write_annotations(tmp_path, {"train": {"a.mp4": (0,)}})
    error_text(tmp_path / "val_multi.txt", lambda: annotations.load(tmp_path, "ak", ["train", "val"]))
    error_text(tmp_path / "my_action.csv", lambda: annotations.load(tmp_path, "my"))


def test_load_reads_the_existing_splits(tmp_path: Path) -> None:
    write_annotations(tmp_path, {"train": {"b.mp4": (2, 0), "a.mp4": ()}, "test": {"c.mp4": (1,)}})
    data = annotations.load(tmp_path, "ak", ["train"])
    assert data.classes == CLASSES
    assert data.splits == {"train": {"b.mp4": (2, 0), "a.mp4": ()}, "test": {"c.mp4": (1,)}}
    assert list(data.splits["train"]) == ["b.mp4", "a.mp4"]


def test_multi_hot_marks_the_labels_only(tmp_path: Path) -> None:
    write_annotations(tmp_path, {"train": {"b.mp4": (2, 0), "a.mp4": ()}})
    data = annotations.load(tmp_path, "ak")
    assert data.multi_hot("train", "b.mp4").tolist() == [1, 0, 1]
    assert data.multi_hot("train", "a.mp4").tolist() == [0, 0, 0]
    assert data.multi_hot("train", "a.mp4").dtype == np.float32


SEGMENTS = ("head", "middle", "tail")


def write_with_file(folder: Path, file: str, text: str) -> Path:
    write_annotations(folder, {"train": {"a.mp4": (0,), "b c.mp4": (1,)}, "val": {"v.mp4": (2,)}})
    (folder / file).write_text(text)
    return folder / file


def test_partitions_are_read_from_the_class_list(tmp_path: Path) -> None:
    write_with_file(
        tmp_path, "ak_action.csv", "id,segment,name,segment_by_count\n1,tail,b, head \n0,middle,a,tail\n2,head,c,tail\n"
    )
    data = annotations.load(tmp_path, "ak")
    assert data.classes == ("a", "b", "c")
    assert data.partitions == {"segment": ("middle", "tail", "head"), "segment_by_count": ("tail", "head", "tail")}


def test_empty_segment_column_is_no_partition(tmp_path: Path) -> None:
    write_with_file(tmp_path, "ak_action.csv", "id,name,segment\n0,a,\n1,b,\n2,c,\n")
    assert annotations.load(tmp_path, "ak").partitions == {}


@pytest.mark.parametrize("segment", ["", "body", "Head"])
def test_unknown_segment_is_reported_with_its_line(segment: str, tmp_path: Path) -> None:
    path = write_with_file(tmp_path, "ak_action.csv", f"id,name,segment\n0,a,head\n1,b,{segment}\n2,c,tail\n")
    text = error_text(path, lambda: annotations.load(tmp_path, "ak"))
    assert f"{path}:3: segment {segment!r} is none of head, middle, tail" in text


@pytest.mark.parametrize("text", ["b c.mp4\na.mp4\n", "\ufeffb c.mp4\r\n\r\n  a.mp4  "])
def test_selection_is_read_in_file_order(text: str, tmp_path: Path) -> None:
    path = write_with_file(tmp_path, annotations.SELECTION_FILE, text)
    assert annotations.read_selection(path) == ("b c.mp4", "a.mp4")
    assert annotations.load(tmp_path, "ak").selection == ("b c.mp4", "a.mp4")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.mp4\nx.mp4\nv.mp4\n", "names 2 that are no training videos (x.mp4, v.mp4)"),
        ("a.mp4\nb c.mp4\na.mp4\n", ":3: a.mp4 is duplicated"),
        ("a.mp4\n../b.mp4\n", ":2: '../b.mp4'"),
        ("a.mp4 0\n", "no training videos (a.mp4 0)"),
        ("\n", "names no video"),
    ],
)
def test_broken_selection_is_an_error_unless_ignored(text: str, words: str, tmp_path: Path) -> None:
    path = write_with_file(tmp_path, annotations.SELECTION_FILE, text)
    assert words in error_text(path, lambda: annotations.load(tmp_path, "ak"))
    assert annotations.load(tmp_path, "ak", with_selection=False).selection == ()


def test_selection_without_training_split_is_an_error(tmp_path: Path) -> None:
    path = write_with_file(tmp_path, annotations.SELECTION_FILE, "a.mp4\n")
    (tmp_path / "train_multi.txt").unlink()
    assert "no training videos" in error_text(path, lambda: annotations.load(tmp_path, "ak"))


def test_dataset_name_is_that_of_the_only_class_list(tmp_path: Path) -> None:
    assert "holds none of <name>_action.csv" in error_text(tmp_path, lambda: annotations.find_dataset_name(tmp_path))
    write_annotations(tmp_path, {}, "zoo")
    assert annotations.find_dataset_name(tmp_path) == "zoo"
    write_annotations(tmp_path, {}, "ak")
    assert "several (ak, zoo)" in error_text(tmp_path, lambda: annotations.find_dataset_name(tmp_path))


def test_animals_round_trip(tmp_path: Path) -> None:
    assert annotations.read_animals(tmp_path) == {}
    animals = {
        "a.mp4": annotations.VideoAnimals(("Lion", 'Cuckoo, "the" bird'), ("Mammal", "Bird")),
        "b.mp4": annotations.VideoAnimals(("Unicorn",), ()),
        "c.mp4": annotations.VideoAnimals((), ()),
    }
    (tmp_path / annotations.ANIMALS_FILE).write_text(annotations.format_animals(animals))
    assert annotations.read_animals(tmp_path) == animals
    for name in ("a;b", "a\nb", ""):
        with pytest.raises(ValueError, match="can't be the name of an animal"):
            annotations.format_animals({"a.mp4": annotations.VideoAnimals((name,), ())})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("video,animal\na.mp4,Lion\n", "needs the header video_id,animals,animal_classes"),
        ("video_id,animals,animal_classes\na.mp4,Lion\n", ":2: needs the header"),
        ("video_id,animals,animal_classes\na.mp4,Lion,Mammal,x\n", ":2: has 4 cells"),
        ("video_id,animals,animal_classes\na.mp4,Lion,Mammal\na.mp4,,\n", ":3: 'a.mp4' is duplicated"),
    ],
)
def test_broken_animals_are_an_error(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / annotations.ANIMALS_FILE
    path.write_text(text)
    assert words in error_text(path, lambda: annotations.read_animals(tmp_path))


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
def test_files_with_any_newlines_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory,
    classes_and_splits: tuple[list[str], dict[str, dict[str, tuple[int, ...]]]],
    newline: str,
    byte_order_mark: str,
) -> None:
    names, splits = classes_and_splits
    folder = tmp_path_factory.mktemp("annotations")
    rows = io.StringIO()
    csv.writer(rows, lineterminator=newline).writerows([("id", "name"), *enumerate(names)])
    (folder / "ak_action.csv").write_bytes((byte_order_mark + rows.getvalue()).encode())
    for split, videos in splits.items():
        text = newline.join(" ".join([video, *map(str, ids)]) for video, ids in videos.items())
        (folder / f"{split}_multi.txt").write_bytes((byte_order_mark + text).encode())
    data = annotations.load(folder, "ak")
    assert data.classes == tuple(names)
    assert data.splits == splits
    assert [list(v) for v in data.splits.values()] == [list(splits[s]) for s in data.splits]
