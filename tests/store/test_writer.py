"""EmbeddingWriter: layout, resuming, merging, and outputs that are refused."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.helpers import (
    ATTRIBUTES,
    PUBLISHED_FILES,
    VIDEOS,
    needs_published,
    video_arrays,
    write_file,
    write_part,
    writer_error,
)
from vimoclip import store
from vimoclip.store.writer import COPY_ROWS


def test_layout_of_the_file(tmp_path: Path) -> None:
    with h5py.File(write_file(tmp_path / "a.h5"), "r") as file:
        assert set(file.attrs) == {*ATTRIBUTES, "schema", "content_sha256"}
        assert list(file.attrs["class_names"]) == ATTRIBUTES["class_names"]
        assert set(file) == set(VIDEOS)
        for key in VIDEOS:
            group, data = file[key], video_arrays(key)
            assert isinstance(group, h5py.Group)
            assert set(group.attrs) == {"total_frames", "original_frames", "fps"}
            datasets = {name: (str(group[name].dtype), group[name].shape) for name in group}
            count = len(data["embeddings"])
            assert datasets == {
                "embeddings": ("float32", (count, 8)),
                "labels": ("float32", (3,)),
                "frame_indices": ("int64", (count,)),
                "timestamps": ("float64", (count,)),
            }
            for name in group:
                assert group[name].chunks is None
                assert group[name].compression is None


def test_file_contains_no_local_path(tmp_path: Path) -> None:
    assert str(tmp_path).encode() not in write_file(tmp_path / "a.h5").read_bytes()


def test_float16_is_stored_and_read_as_float32(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", dtype="float16")
    with h5py.File(path, "r") as file:
        assert file["a.mp4/embeddings"].dtype == np.float16
        assert file["a.mp4/timestamps"].dtype == np.float64
    read = store.EmbeddingReader(path).embeddings("a.mp4")
    assert read.dtype == np.float32
    assert np.array_equal(read, video_arrays("a.mp4")["embeddings"].astype(np.float16).astype(np.float32))
    assert "dtype=float16" in writer_error(path)


def test_more_rows_than_one_copy_step(tmp_path: Path) -> None:
    rows = np.arange(2 * (COPY_ROWS + 5), dtype=np.float32).reshape(-1, 2)
    writer = store.EmbeddingWriter(tmp_path / "a.h5", ATTRIBUTES)
    part = writer.open_part("a.mp4")
    for start in range(0, len(rows), 1000):
        part.append(rows[start : start + 1000])
    part.finalize(np.arange(len(rows)), np.arange(len(rows)) / 25, len(rows), 25, np.zeros(3))
    part.publish()
    writer.merge(["a.mp4"])
    assert np.array_equal(store.EmbeddingReader(tmp_path / "a.h5").embeddings("a.mp4"), rows)


def test_long_and_unusual_keys_are_distinct(tmp_path: Path) -> None:
    keys = (
        "x" * 240 + "1.mp4",
        "x" * 240 + "2.mp4",
        "獅" * 80 + "1.mp4",
        "獅" * 80 + "2.mp4",
        "#% &?*.mp4",
        "settings.json",
    )
    path = tmp_path / "a.h5"
    for key in keys:
        writer = store.EmbeddingWriter(path, ATTRIBUTES)
        assert not writer.is_done(key)
        write_part(writer, key)
        assert store.EmbeddingWriter(path, ATTRIBUTES).is_done(key)
    store.EmbeddingWriter(path, ATTRIBUTES).merge(keys)
    reader = store.EmbeddingReader(path)
    assert set(reader.keys) == set(keys)
    for key in keys:
        assert np.array_equal(reader.embeddings(key), video_arrays(key)["embeddings"])


# --- publishing and resuming


def test_output_is_published_only_by_merge(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.h5"
    writer = store.EmbeddingWriter(path, ATTRIBUTES)
    for key in VIDEOS:
        write_part(writer, key)
        assert not path.exists()
    assert writer.merge(VIDEOS) == path
    assert [entry.name for entry in path.parent.iterdir()] == ["a.h5"]


def test_merge_without_parts_writes_no_file(tmp_path: Path) -> None:
    assert store.EmbeddingWriter(tmp_path / "a.h5", ATTRIBUTES).merge(VIDEOS) is None
    assert list(tmp_path.iterdir()) == []


def test_a_new_writer_finds_finished_videos(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_part(store.EmbeddingWriter(path, ATTRIBUTES), "b.mp4")
    again = store.EmbeddingWriter(path, ATTRIBUTES)
    assert [key for key in VIDEOS if again.is_done(key)] == ["b.mp4"]
    write_part(again, "a.mp4")
    again.merge(VIDEOS)
    third = store.EmbeddingWriter(path, ATTRIBUTES)
    assert [key for key in VIDEOS if third.is_done(key)] == ["b.mp4", "a.mp4"]
    third.merge(VIDEOS)
    assert sorted(store.EmbeddingReader(path).keys) == ["a.mp4", "b.mp4"]


@pytest.fixture(scope="module")
def uninterrupted_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_file(tmp_path_factory.mktemp("once") / "whole.h5").read_bytes()


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(VIDEOS),
    cuts=st.lists(st.tuples(st.integers(0, len(VIDEOS)), st.sampled_from(["stop", "merge", "killed"])), max_size=3),
)
def test_bytes_do_not_depend_on_interruptions(
    tmp_path_factory: pytest.TempPathFactory, uninterrupted_bytes: bytes, order: list[str], cuts: list[tuple[int, str]]
) -> None:
    path = tmp_path_factory.mktemp("again") / "a.h5"
    for cut, action in [*sorted(cuts), (len(VIDEOS), "merge")]:
        writer = store.EmbeddingWriter(path, ATTRIBUTES)
        for key in order[:cut]:
            if not writer.is_done(key):
                write_part(writer, key)
        if action == "killed" and cut < len(VIDEOS):  # during a video: an unpublished part is left
            writer.open_part(order[cut]).append(np.ones((2, 8), np.float32))
        if action == "merge":
            writer.merge(order[:cut])
    assert path.read_bytes() == uninterrupted_bytes
    assert [entry.name for entry in path.parent.iterdir()] == ["a.h5"]


def test_resume_after_a_kill_between_publishing_and_removing_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    writer = store.EmbeddingWriter(path, ATTRIBUTES)
    for key in VIDEOS:
        write_part(writer, key)
    shutil.copytree(writer.parts_dir, tmp_path / "copy")
    writer.merge(VIDEOS)
    before = path.read_bytes()
    shutil.move(tmp_path / "copy", writer.parts_dir)
    again = store.EmbeddingWriter(path, ATTRIBUTES)
    assert all(again.is_done(key) for key in VIDEOS)
    again.merge(VIDEOS)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_a_run_of_another_version_may_resume(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", VIDEOS[:2])
    write_file(path, VIDEOS, versions={"vimoclip": "0.2.0"})
    assert len(store.EmbeddingReader(path).keys) == len(VIDEOS)


@pytest.mark.parametrize("finished", [True, False])
def test_what_an_earlier_version_did_not_record_remains_unknown(tmp_path: Path, finished: bool) -> None:
    path, mean = tmp_path / "a.h5", [0.5, 0.5, 0.5]
    if finished:
        write_file(path, VIDEOS[:2])
    else:
        write_part(store.EmbeddingWriter(path, ATTRIBUTES), VIDEOS[0])
    write_file(path, VIDEOS, mean=mean)
    assert "mean" not in store.EmbeddingReader(path).attributes
    assert store.EmbeddingReader(write_file(tmp_path / "b.h5", mean=mean)).attributes["mean"] == mean


# --- refused outputs


@pytest.mark.parametrize(
    ("changes", "stored", "requested"),
    [
        ({"clip_model": "ViT-B/16"}, "ViT-B/32", "ViT-B/16"),
        ({"kind": "motion"}, "rgb", "motion"),
        ({"quick_gelu": False}, "True", "False"),
        ({"image_size": 336}, "224", "336"),
        ({"class_names": ["walking"]}, "eating", "['walking']"),
        ({"sampling": {"stride": 3, "fps": None, "max_frames": None}}, "'stride': 2", "'stride': 3"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_with_both_values(
    tmp_path: Path, changes: dict[str, Any], stored: str, requested: str, finished: bool
) -> None:
    path = tmp_path / "a.h5"
    if finished:
        write_file(path)
    else:
        write_part(store.EmbeddingWriter(path, ATTRIBUTES), "a.mp4")
    text = writer_error(path, **changes)
    assert stored in text
    assert requested in text
    assert next(iter(changes)) in text


def test_other_or_damaged_output_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    good = write_file(tmp_path / "good.h5").read_bytes()
    for data in (b"", b"no HDF5", good[:1000], good[:-1], good[: len(good) // 2]):
        path.write_bytes(data)
        writer_error(path)
    published, table = tmp_path / "published.h5", tmp_path / "table.h5"
    with h5py.File(published, "w") as file:
        file["a.mp4/embeddings"] = np.ones((2, 8), np.float32)
    assert "not written by this project" in writer_error(published)
    with h5py.File(table, "w") as file:
        file["table"] = np.ones(3)
    writer_error(table)
    incomplete = write_file(tmp_path / "incomplete.h5")
    with h5py.File(incomplete, "a") as file:
        del file["a.mp4/timestamps"]
    writer_error(incomplete)


def test_overwrite_starts_from_scratch(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", VIDEOS[:3])
    write_part(store.EmbeddingWriter(path, ATTRIBUTES), "F.avi")
    other = ATTRIBUTES | {"clip_model": "ViT-B/16"}
    writer = store.EmbeddingWriter(path, other, overwrite=True)
    assert not any(writer.is_done(key) for key in VIDEOS)
    write_part(writer, "a.mp4")
    writer.merge(VIDEOS)
    assert store.EmbeddingReader(path).keys == ["a.mp4"]
    assert store.EmbeddingReader(path).attributes["clip_model"] == "ViT-B/16"
    path.write_bytes(b"damaged")
    assert not store.EmbeddingWriter(path, ATTRIBUTES, overwrite=True).is_done("a.mp4")


def test_parts_with_inconsistent_lengths_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    rows, three, two = np.ones((3, 8), np.float32), np.arange(3), np.arange(2)
    for appended, indices, times in (
        (rows, two, three),
        (rows, three, two),
        (None, three, three),
        (None, two[:0], two[:0]),
    ):
        part = store.EmbeddingWriter(path, ATTRIBUTES).open_part("a.mp4")
        if appended is not None:
            part.append(appended)
        with pytest.raises(ValueError, match=r"a\.mp4"):
            part.finalize(indices, times, 3, 25.0, np.zeros(3))
            part.publish()
        part.discard()
    writer = store.EmbeddingWriter(path, ATTRIBUTES)
    assert not writer.is_done("a.mp4")
    assert writer.merge(["a.mp4"]) is None


def test_a_discarded_part_leaves_no_file(tmp_path: Path) -> None:
    writer = store.EmbeddingWriter(tmp_path / "a.h5", ATTRIBUTES)
    before = sorted(writer.parts_dir.iterdir())
    part = writer.open_part("a.mp4")
    part.append(np.ones((3, 8), np.float32))
    part.discard()
    writer.open_part("b.mp4").discard()
    assert sorted(writer.parts_dir.iterdir()) == before
    assert not store.EmbeddingWriter(tmp_path / "a.h5", ATTRIBUTES).is_done("a.mp4")


@needs_published
def test_a_published_file_cannot_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    shutil.copy(PUBLISHED_FILES / "rgb_embeddings.h5", path)
    path.chmod(0o644)
    assert "not written by this project" in writer_error(path)


def test_parts_of_other_videos_are_kept(tmp_path: Path) -> None:
    writer = store.EmbeddingWriter(tmp_path / "a.h5", ATTRIBUTES)
    for key in VIDEOS:
        write_part(writer, key)
    store.EmbeddingWriter(tmp_path / "a.h5", ATTRIBUTES).merge(VIDEOS[:1])
    again = store.EmbeddingWriter(tmp_path / "a.h5", ATTRIBUTES)
    assert all(again.is_done(key) for key in VIDEOS)
    again.merge(VIDEOS)
    assert set(store.EmbeddingReader(tmp_path / "a.h5").keys) == set(VIDEOS)
    assert not (tmp_path / "a.h5.parts").exists()


def test_labels_are_updated_and_removed_videos_become_parts(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5")
    labels = {key: video_arrays(key)["labels"] for key in VIDEOS}
    first = path.read_bytes()
    store.EmbeddingWriter(path, ATTRIBUTES).merge(VIDEOS, labels)
    assert path.read_bytes() == first
    changed = {key: value for key, value in labels.items() if key != "a.mp4"} | {"b.mp4": np.ones(3, np.float32)}
    store.EmbeddingWriter(path, ATTRIBUTES).merge(changed, changed)
    reader = store.EmbeddingReader(path)
    assert set(reader.keys) == set(changed)
    assert reader.labels("b.mp4").tolist() == [1, 1, 1]
    reader.close()
    writer = store.EmbeddingWriter(path, ATTRIBUTES)
    assert writer.is_done("a.mp4")
    writer.merge(VIDEOS, labels)
    assert path.read_bytes() == first
