"""Writing of annotations: round trips, and what is not written."""

import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError

NAME_CHARACTERS = string.ascii_letters + string.digits + " ,;'\"()_-éß獅🦁"
stems = st.text(NAME_CHARACTERS, min_size=1, max_size=12).filter(lambda name: name == name.strip())
class_names = st.lists(stems, min_size=1, max_size=5, unique=True).map(tuple)


@st.composite
def data_sets(draw: st.DrawFn) -> Annotations:
    classes = draw(class_names)
    videos = [f"{name}.mp4" for name in draw(st.lists(stems, max_size=8, unique=True))]
    labels = st.lists(st.integers(0, len(classes) - 1), max_size=3, unique=True).map(tuple)
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}, "test": {}}
    for video in videos:
        splits[draw(st.sampled_from(list(splits)))][video] = draw(labels)
    columns = draw(st.sets(st.sampled_from(annotations.PARTITIONS)))
    segment = st.sampled_from(annotations.SEGMENTS)
    segments = st.lists(segment, min_size=len(classes), max_size=len(classes)).map(tuple)
    partitions = {column: draw(segments) for column in annotations.PARTITIONS if column in columns}
    train = list(splits["train"])
    selection = tuple(draw(st.lists(st.sampled_from(train), unique=True))) if train else ()
    return Annotations(classes, splits, partitions, selection)


@settings(max_examples=60, deadline=None)
@given(data_sets(), st.booleans())
def test_annotations_round_trip(data: Annotations, spreadsheet: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "selection.txt").write_text("of another data set.mp4")
        annotations.write(Path(folder), "x", data)
        expected = {"x_action.csv", "train_multi.txt", "val_multi.txt", "test_multi.txt"}
        assert {path.name for path in Path(folder).iterdir()} == expected | (
            {"selection.txt"} if data.selection else set()
        )
        if spreadsheet:  # which saves a byte order mark and other line ends
            for path in Path(folder).iterdir():
                path.write_bytes(("\ufeff" + path.read_text().replace("\n", "\r\n")).encode())
        loaded = annotations.load(Path(folder), "x")
        assert loaded == data
        assert [list(videos) for videos in loaded.splits.values()] == [list(v) for v in data.splits.values()]


@pytest.mark.parametrize(
    ("classes", "splits"),
    [
        (("eating",), {"train": {"a.mp4": (0,), "b.c.mp4": (0,)}}),
        (("eating",), {"train": {"a.mp4": (0,)}, "val": {"a.mp4": (0,)}}),
        (("eating", "eating"), {"train": {"a.mp4": (0,)}}),
        (("eating",), {"train": {"a.mp4": (1,)}}),
        # those below are valid files, but of other annotations
        ((" eating",), {"train": {"a.mp4": (0,)}}),
        (("eating",), {"train": {" a.mp4": (0,)}}),
        (("eating",), {"train": {"a.mp4 0": ()}}),
    ],
)
def test_annotations_that_load_refuses_or_reads_differently_are_not_written(
    classes: tuple[str, ...], splits: dict[str, dict[str, tuple[int, ...]]], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        annotations.write(tmp_path / "annotations", "x", Annotations(classes, splits))
    assert (caught.value.path or "").startswith(str(tmp_path / "annotations"))
    assert not (tmp_path / "annotations").exists()
