"""The offset index: content, caching, and rejection of stale or invalid indexes."""

import pickle
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests import fuzzing
from tests.store.helpers import ATTRIBUTES, VIDEOS, video_arrays, write_file, write_part
from vimoclip import store
from vimoclip.errors import GoneError, UserError
from vimoclip.store import offset_index, validation

CLOCK_STEP = 0.02  # s; timestamps of a file system may have steps of 4 ms
FIELDS = ("embeddings", "labels", "frame_indices", "timestamps")


@pytest.fixture(autouse=True)
def index_every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_index, "MIN_VIDEOS", 1)


def read_all(path: Path) -> dict[str, dict[str, Any]]:
    reader = store.EmbeddingReader(path)
    videos = {key: {name: getattr(reader, name)(key) for name in FIELDS} for key in reader.keys}
    assert all(reader.length(key) == len(data["embeddings"]) for key, data in videos.items())
    reader.close()
    return videos


def read_with_h5py(path: Path) -> dict[str, dict[str, Any]]:
    with h5py.File(path, "r") as file:
        return {key: {name: file[key][name][:] for name in FIELDS} for key in file}


def is_equal(first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]]) -> bool:
    return list(first) == list(second) and all(
        np.array_equal(first[key][name], second[key][name]) for key in first for name in FIELDS
    )


@pytest.fixture
def without_hdf5(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make reading values through HDF5 fail."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("HDF5 was used")

    for module, name in (
        (validation, "open_numeric_dataset"),
        (validation, "video_keys"),
        (offset_index, "build_index"),
    ):
        monkeypatch.setattr(module, name, refuse)
    yield
    monkeypatch.undo()


def test_files_of_the_writer_are_read_without_hdf5(tmp_path: Path, without_hdf5: None) -> None:
    for dtype in ("float32", "float16"):
        path = write_file(tmp_path / f"{dtype}.h5", dtype=dtype)
        assert is_equal(read_all(path), read_with_h5py(path))
        assert store.verify(path) == []
        reader = store.EmbeddingReader(path, "rgb")
        rows = video_arrays("a.mp4")["embeddings"].astype(dtype).astype(np.float32)
        for start, stop in ((0, None), (1, 3), (2, 100), (2, 2), (-2, None)):
            assert np.array_equal(reader.embeddings("a.mp4", start, stop), rows[start:stop])
        assert (reader.dim, reader.dtype) == (8, dtype)
        count = 2 * len(rows)
        assert reader.video_attributes("a.mp4") == {"total_frames": len(rows), "original_frames": count, "fps": 12.5}


def test_the_index_is_small_hidden_and_the_same_from_writer_and_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5")
    index_file = tmp_path / ".a.h5.index"
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.h5", ".a.h5.index"}
    written_index = index_file.read_bytes()
    index_file.unlink()
    read_all(path)
    assert index_file.read_bytes() == written_index
    assert len(written_index) < path.stat().st_size


def test_small_files_have_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    read_all(write_file(tmp_path / "a.h5"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("case", ["indices", "labels", "chunked", "motion"])
def test_files_that_the_index_cannot_describe_are_read_with_hdf5(tmp_path: Path, case: str) -> None:
    changes: dict[str, Any] = {"kind": "motion", "student": {}} if case == "motion" else {}
    path = write_file(tmp_path / "a.h5", **changes)
    with h5py.File(path, "r+") as file:
        if case == "indices":
            file["a.mp4/frame_indices"][:] = np.arange(len(file["a.mp4/frame_indices"])) ** 2
        elif case == "labels":
            file["b.mp4/labels"][:] = (0.5, 0, 1)
        elif case == "chunked":
            rows = file["b.mp4/embeddings"][:]
            del file["b.mp4/embeddings"]
            file["b.mp4"].create_dataset("embeddings", data=rows, chunks=(1, 8), compression="gzip")
    for _ in range(2):
        if case == "motion":
            reader = store.EmbeddingReader(path, "motion")
            frame_indices = reader.frame_indices("a.mp4")
            assert frame_indices is not None
            assert np.array_equal(frame_indices, video_arrays("a.mp4")["frame_indices"])
            with pytest.raises(UserError, match="has no labels"):
                reader.labels("a.mp4")
        else:
            assert is_equal(read_all(path), read_with_h5py(path))
        assert store.verify(path) == []


# --- indexes that are stale, damaged or malicious


def test_a_replaced_file_is_not_read_with_the_old_index(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5")
    time.sleep(CLOCK_STEP)
    with h5py.File(path, "r+") as file:
        file["a.mp4/labels"][:] = 1
        file["a.mp4/embeddings"][:] = 7
    assert is_equal(read_all(path), read_with_h5py(path))
    write_file(tmp_path / "b.h5", VIDEOS[:2]).replace(path)
    assert is_equal(read_all(path), read_with_h5py(path))


def test_a_copied_index_is_ignored(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5")
    (tmp_path / "copy").mkdir()
    time.sleep(CLOCK_STEP)
    for name in ("a.h5", ".a.h5.index"):
        shutil.copy2(tmp_path / name, tmp_path / "copy" / name)
    assert offset_index.load_index(path, store.EmbeddingReader(path).attributes["content_sha256"])
    assert (
        offset_index.load_index(tmp_path / "copy" / "a.h5", store.EmbeddingReader(path).attributes["content_sha256"])
        is None
    )
    assert is_equal(read_all(tmp_path / "copy" / "a.h5"), read_with_h5py(path))


def test_a_damaged_index_is_written_again(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5")
    index_file, content = tmp_path / ".a.h5.index", store.EmbeddingReader(path).attributes["content_sha256"]
    good, refused = index_file.read_bytes(), 0
    for seed in range(300):
        index_file.write_bytes(fuzzing.mutate(good, random.Random(seed)))
        index = offset_index.load_index(path, content)
        refused += index is None
        assert index is None or index_file.read_bytes().partition(b"\n")[2] == good.partition(b"\n")[2]
    assert refused > 250
    assert is_equal(read_all(path), read_with_h5py(path))
    assert index_file.read_bytes() == good


@pytest.mark.parametrize("field", ["length", "embeddings", "frame_indices", "timestamps", "labels", "first", "step"])
@pytest.mark.parametrize("value", [-1, 0, 2**40, 2**62, -(2**63)])
def test_offsets_outside_the_file_are_refused(tmp_path: Path, field: str, value: int) -> None:
    path = write_file(tmp_path / "a.h5")
    content = store.EmbeddingReader(path).attributes["content_sha256"]
    index = offset_index.load_index(path, content)
    assert index
    index.records = index.records.copy()
    index.records[field][1] = value
    offset_index.save_index(path, index, len(VIDEOS), content)
    if value or field == "length":
        assert offset_index.load_index(path, content) is None
        assert is_equal(read_all(path), read_with_h5py(path))


@pytest.mark.parametrize("name", ["../b.mp4", "a\n.mp4", "x" * 300, "", "F.avi"])
def test_names_in_an_index_are_validated(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path / "a.h5")
    content = store.EmbeddingReader(path).attributes["content_sha256"]
    index = offset_index.load_index(path, content)
    assert index
    index.rows = dict.fromkeys([name, *list(index.rows)[1:]], 0)
    offset_index.save_index(path, index, len(index.rows), content)
    assert offset_index.load_index(path, content) is None


def test_reading_works_where_no_index_can_be_written(tmp_path: Path) -> None:
    (tmp_path / ".a.h5.index").mkdir()
    path = write_file(tmp_path / "a.h5")
    assert is_equal(read_all(path), read_with_h5py(path))
    assert store.verify(path) == []


@pytest.mark.parametrize("name", FIELDS)
def test_a_damaged_file_gets_no_index(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        for key in VIDEOS if name == "labels" else VIDEOS[:1]:
            del file[key][name]
    (tmp_path / ".a.h5.index").unlink()
    for _ in range(2):
        assert "b.mp4" in dict(store.verify(path))
    assert not (tmp_path / ".a.h5.index").exists()


def test_a_file_replaced_during_reading_is_an_error(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5")
    for reader in (
        store.EmbeddingReader(path),
        pickle.loads(pickle.dumps(store.EmbeddingReader(path))),  # as in a worker process
    ):
        write_file(tmp_path / "b.h5", VIDEOS[:3]).replace(path)
        with pytest.raises(GoneError) as caught:
            reader.embeddings("a.mp4")
        assert caught.value.path == str(path)
        assert caught.value.exit_code == 1
        write_file(tmp_path / "b.h5").replace(path)


def test_a_file_truncated_during_reading_is_an_error(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5")
    reader = store.EmbeddingReader(path)
    reader.embeddings("a.mp4")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError) as caught:
        reader.embeddings("b.mp4")
    assert "damaged" in caught.value.problem
    assert caught.value.path == str(path)


# --- resuming


def test_resuming_a_finished_file_does_not_need_hdf5(tmp_path: Path, without_hdf5: None) -> None:
    path = write_file(tmp_path / "a.h5")
    before = path.read_bytes()
    writer = store.EmbeddingWriter(path, ATTRIBUTES)
    assert all(writer.is_done(key) for key in VIDEOS)
    writer.merge(VIDEOS, {key: video_arrays(key)["labels"] for key in VIDEOS})
    assert path.read_bytes() == before


def test_resuming_writes_the_index_of_the_new_file(tmp_path: Path, without_hdf5: None) -> None:
    path = write_file(tmp_path / "a.h5", VIDEOS[:3])
    writer = store.EmbeddingWriter(path, ATTRIBUTES)
    for key in VIDEOS[3:]:
        write_part(writer, key)
    writer.merge(VIDEOS, {key: np.ones(3, np.float32) for key in VIDEOS})
    assert is_equal(read_all(path), read_with_h5py(path))
