"""Reading of annotations: valid lines, and errors with file and line."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import CLASSES, write_annotations
from tests.untrusted_files import file_contents, is_one_line, quick_settings, refusal_message
from vimoclip import annotations
from vimoclip.errors import UserError


def read_split_text(folder: Path, text: str) -> dict[str, tuple[int, ...]]:
    path = folder / "train_multi.txt"
    path.write_bytes(text.encode())
    return annotations.read_split(path, num_classes=10)


def error_path(call: Callable[[], object]) -> str | None:
    """Return the path (with the line, if known) of the UserError, whose text must be one line of moderate length."""
    with pytest.raises(UserError) as caught:
        call()
    assert is_one_line(str(caught.value)) and len(str(caught.value)) < 1000
    return caught.value.path


@pytest.mark.parametrize(
    ("line", "video", "labels"),
    [
        ("AAACXZTV.mp4 3 7", "AAACXZTV.mp4", (3, 7)),
        ("  lion.mp4   3  ", "lion.mp4", (3,)),
        ("two  spaces.mp4 3", "two  spaces.mp4", (3,)),
        ("my lion.mp4  ", "my lion.mp4", ()),
        ("clip 2 of 7.mp4 5", "clip 2 of 7.mp4", (5,)),
        ("2024 05 17.avi 1 2", "2024 05 17.avi", (1, 2)),
        ("12.mp4 0", "12.mp4", (0,)),
        ("my lion.mp4\t3\t7", "my lion.mp4", (3, 7)),
        ("lion.mp4 3\t7", "lion.mp4", (3, 7)),
        ("Löwe 獅子.mp4 4", "Löwe 獅子.mp4", (4,)),
        ("lion.MP4 3 3", "lion.MP4", (3,)),
        ("x" * 251 + ".mp4 1", "x" * 251 + ".mp4", (1,)),
        ("ab:c.mp4 1", "ab:c.mp4", (1,)),
        ("-a.mp4 1", "-a.mp4", (1,)),
        ("a\u00a0\u200db.mp4 1", "a\u00a0\u200db.mp4", (1,)),
        ("שלום.mp4 1", "שלום.mp4", (1,)),
    ],
)
def test_video_id_is_the_text_before_the_trailing_integers(
    tmp_path: Path, line: str, video: str, labels: tuple[int, ...]
) -> None:
    assert read_split_text(tmp_path, line) == {video: labels}


@pytest.mark.parametrize("text", ["\n\na.mp4 1\n   \nb.mp4\n\n", "a.mp4 1\r\nb.mp4\r\n", "\ufeffa.mp4 1\nb.mp4"])
def test_blank_lines_crlf_and_byte_order_marks_are_ignored(tmp_path: Path, text: str) -> None:
    assert read_split_text(tmp_path, text) == {"a.mp4": (1,), "b.mp4": ()}


def test_class_list_with_crlf_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "ak_action.csv"
    path.write_bytes('\ufeffid,name,segment\r\n1,"Running, fast",head\r\n0,Eating,tail\r\n'.encode())
    assert annotations.read_classes(path) == (("Eating", "Running, fast"), {"segment": ("tail", "head")})


@pytest.mark.parametrize(
    "line",
    [
        *("lion.mp4 10", "lion.mp4 3 -1", "good.mp4 2", "lion 3", ".mp4 3", "a.b.mp4 3", "..mp4 1", "...mp4 1"),
        *("sub/lion.mp4 3", "sub\\lion.mp4 3", "../lion.mp4 3", "/etc/passwd.mp4 1", "..\\a.mp4 1", "C:a.mp4 1"),
        *("c:\\a.mp4 1", "\\\\host\\a.mp4 1", "lion.mp4/x 1", "lion.d/clip 1", "lion.d\\clip 1"),
        *("=1+1.mp4 3", "+lion.mp4 3", "@lion.mp4 3", "x" * 252 + ".mp4", "獅" * 84 + ".mp4", f"a.mp4 {'9' * 5000}"),
        *("li\x07on.mp4 3", "li\ton.mp4 3", "lion.mp4\x07 1", "a\0.mp4 1", "a\x1b[2J.mp4 1", "a\x7f.mp4 1"),
        *("a\x9b31m.mp4 1", "a\x85b.mp4 1", "a\u2028b.mp4 1", "a\u2029b.mp4 1", "a\u202egpj.mp4 1", "\x1ca.mp4 1"),
    ],
)
def test_invalid_line_is_reported_with_its_number(tmp_path: Path, line: str) -> None:
    path = error_path(lambda: read_split_text(tmp_path, f"good.mp4 1\n{line}"))
    assert path == f"{tmp_path / 'train_multi.txt'}:2"


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("", ""),
        ("id,name\n", ""),
        ("number,action\n0,Eating\n", ""),
        ("id,name\n0,Eating\none,Running\n", ":3"),
        (f"id,name\n{'9' * 5000},x\n", ":2"),
        ("id,name\n0,Eating\n2,Running\n", ""),
        ("id,name\n1,Eating\n2,Running\n", ""),
        ("id,name\n-1,Eating\n0,Running\n", ""),
        ("id,name\n0,Eating\n0,Running\n", ":3"),
        ("id,name\n0,Eating\n1,Eating\n", ""),
        ("id,name\n0,G\u00e4hnen\n1,Ga\u0308hnen\n", ""),  # look the same
        ("id,name\n0,Eating\n1,\n", ":3"),
        ("id,name\n0,Eating\n1\n", ":3"),
        ("id,name\n0,a\x1b[31m\n", ":2"),
        ("id,name\n0,a\0b\n", ""),
        ('id,name\n0,"a\nb"\n', ":3"),
        ('id,name\n0,"a\r\nb"\n', ":3"),
        ("id,name\n0,a\u2028b\n", ":2"),
        ("id,name\n0,a\u202eb\n", ":2"),
        (f"id,name\n0,{'x' * 200_000}\n", ""),
    ],
)
def test_invalid_class_list_is_an_error(tmp_path: Path, rows: str, line: str) -> None:
    path = tmp_path / "ak_action.csv"
    path.write_bytes(rows.encode())
    assert error_path(lambda: annotations.read_classes(path)) == f"{path}{line}"


def test_text_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "train_multi.txt"
    path.write_bytes("Löwe.mp4 1\n".encode("latin-1"))
    assert error_path(lambda: annotations.read_split(path, 3)) == str(path)


def test_very_long_line(tmp_path: Path) -> None:
    start = time.monotonic()
    assert read_split_text(tmp_path, "a.mp4" + " 1" * 50_000) == {"a.mp4": (1,)}
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("video", ["a\udcff.mp4", "\ud800.mp4"])
def test_video_names_with_surrogates_are_refused(tmp_path: Path, video: str) -> None:
    assert error_path(lambda: annotations.check_video_id(video, "names")) == "names"
    data = annotations.Annotations(CLASSES, {"train": {video: ()}})
    refusal_message(lambda: annotations.write(tmp_path, "ak", data), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "splits",
    [
        {"train": {"a.mp4": (0,), "b.mp4": (1,)}, "val": {"a.mp4": (1,)}},
        {"train": {"a.mp4": (0,), "a.avi": (1,)}},
        {"train": {"a.mp4": ()}, "test": {"a.avi": ()}},
    ],
)
def test_two_videos_with_one_stem_are_an_error(tmp_path: Path, splits: dict[str, dict[str, tuple[int, ...]]]) -> None:
    write_annotations(tmp_path, splits)
    text = refusal_message(lambda: annotations.load(tmp_path, "ak"), tmp_path)
    for split, videos in splits.items():
        assert f"{split}_multi.txt" in text
        assert {video for video in videos if video.startswith("a.")} <= set(text.split())


def test_missing_folder_and_missing_files_are_named(tmp_path: Path) -> None:
    assert error_path(lambda: annotations.load(tmp_path / "nowhere", "ak")) == str(tmp_path / "nowhere")
    assert error_path(lambda: annotations.load(tmp_path, "ak")) == str(tmp_path / "ak_action.csv")
    write_annotations(tmp_path, {})
    assert error_path(lambda: annotations.load(tmp_path, "ak")) == str(tmp_path)
    write_annotations(tmp_path, {"train": {"a.mp4": (0,)}})
    missing = error_path(lambda: annotations.load(tmp_path, "ak", ["train", "val"]))
    assert missing == str(tmp_path / "val_multi.txt")
    (tmp_path / "my_action.csv").mkdir()
    for name in ("my", "other"):
        assert error_path(lambda: annotations.load(tmp_path, name)) == str(tmp_path / f"{name}_action.csv")  # noqa: B023


def test_load_reads_the_existing_splits(tmp_path: Path) -> None:
    write_annotations(tmp_path, {"train": {"b.mp4": (2, 0), "a.mp4": ()}, "test": {"c.mp4": (1,)}})
    data = annotations.load(tmp_path, "ak", ["train"])
    assert data.classes == CLASSES
    assert data.splits == {"train": {"b.mp4": (2, 0), "a.mp4": ()}, "test": {"c.mp4": (1,)}}
    assert list(data.splits["train"]) == ["b.mp4", "a.mp4"]
    assert data.multi_hot("train", "b.mp4").tolist() == [1, 0, 1]
    assert data.multi_hot("train", "a.mp4").tolist() == [0, 0, 0]
    assert data.multi_hot("train", "a.mp4").dtype == np.float32


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
    assert error_path(lambda: annotations.load(tmp_path, "ak")) == f"{path}:3"


@pytest.mark.parametrize("text", ["b c.mp4\na.mp4\n", "\ufeffb c.mp4\r\n\r\n  a.mp4  "])
def test_selection_is_read_in_file_order(text: str, tmp_path: Path) -> None:
    path = write_with_file(tmp_path, annotations.SELECTION_FILE, text)
    assert annotations.read_selection(path) == ("b c.mp4", "a.mp4")
    assert annotations.load(tmp_path, "ak").selection == ("b c.mp4", "a.mp4")


@pytest.mark.parametrize(
    ("text", "line", "names"),
    [
        ("a.mp4\nx.mp4\nv.mp4\n", "", "x.mp4, v.mp4"),
        ("a.mp4\nb c.mp4\na.mp4\n", ":3", "a.mp4"),
        ("a.mp4\n../b.mp4\n", ":2", "../b.mp4"),
        ("a.mp4 0\n", "", "a.mp4 0"),
        ("\n", "", ""),
    ],
)
def test_broken_selection_is_an_error_unless_ignored(text: str, line: str, names: str, tmp_path: Path) -> None:
    path = write_with_file(tmp_path, annotations.SELECTION_FILE, text)
    message = refusal_message(lambda: annotations.load(tmp_path, "ak"), path)
    assert message.startswith(f"{path}{line}: ") and names in message
    assert annotations.load(tmp_path, "ak", with_selection=False).selection == ()


def test_selection_without_training_split_is_an_error(tmp_path: Path) -> None:
    path = write_with_file(tmp_path, annotations.SELECTION_FILE, "a.mp4\n")
    (tmp_path / "train_multi.txt").unlink()
    assert error_path(lambda: annotations.load(tmp_path, "ak")) == str(path)


def test_dataset_name_is_that_of_the_only_class_list(tmp_path: Path) -> None:
    assert error_path(lambda: annotations.find_dataset_name(tmp_path)) == str(tmp_path)
    write_annotations(tmp_path, {}, "zoo")
    assert annotations.find_dataset_name(tmp_path) == "zoo"
    write_annotations(tmp_path, {}, "ak")
    assert "ak, zoo" in refusal_message(lambda: annotations.find_dataset_name(tmp_path), tmp_path)


def test_animals_round_trip(tmp_path: Path) -> None:
    assert annotations.read_animals(tmp_path) == {}
    animals = {
        "a.mp4": annotations.VideoAnimals(("Lion", 'Cuckoo, "the" bird'), ("Mammal", "Bird")),
        "b.mp4": annotations.VideoAnimals(("Unicorn",), ()),
        "c.mp4": annotations.VideoAnimals((), ()),
    }
    (tmp_path / annotations.ANIMALS_FILE).write_text(annotations.format_animals(animals))
    assert annotations.read_animals(tmp_path) == animals


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("video,animal\na.mp4,Lion\n", 2),
        ("video_id,animals,animal_classes\na.mp4,Lion\n", 2),
        ("video_id,animals,animal_classes\na.mp4,Lion,Mammal,x\n", 2),
        ("video_id,animals,animal_classes\na.mp4,Lion,Mammal\na.mp4,,\n", 3),
    ],
)
def test_broken_animals_are_an_error(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / annotations.ANIMALS_FILE
    path.write_text(text)
    assert error_path(lambda: annotations.read_animals(tmp_path)) == f"{path}:{line}"


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
