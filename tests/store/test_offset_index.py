"""The offset index: content, caching, and rejection of stale or invalid indexes."""

import pickle
import random
import shutil
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests import fuzzing
from tests.store.helpers import ATTRIBUTES, write_part
from tests.store.untrusted_hdf5 import video_arrays, write_h5
from vimoclip import store
from vimoclip.errors import GoneError, UserError
from vimoclip.store import offset_index

CLOCK_STEP = 0.02  # s; timestamps of a file system may have steps of 4 ms
KEYS = tuple(f"{number:03}.mp4" for number in range(offset_index.MIN_VIDEOS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with enough videos for an index, but without one."""
    return write_h5(tmp_path / "a.h5", keys=KEYS)


def index_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.index")


def read_with_h5py(path: Path) -> dict[str, dict[str, Any]]:
    with h5py.File(path, "r") as file:
        return {key: {name: file[key][name][:] for name in video_arrays(key)} for key in list(file)[:5]}


def assert_reads_what_h5py_reads(path: Path) -> None:
    reader = store.EmbeddingReader(path)
    for key, arrays in read_with_h5py(path).items():
        assert all(np.array_equal(getattr(reader, name)(key), value) for name, value in arrays.items())


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_files_with_an_index_are_read_without_hdf5(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_h5(tmp_path / "a.h5", keys=KEYS, dtype=dtype)
    assert_reads_what_h5py_reads(path)
    expected = read_with_h5py(path)
    monkeypatch.setattr(h5py.Dataset, "__init__", None)
    reader = store.EmbeddingReader(path, "rgb")
    assert (reader.keys, reader.dim, np.dtype(reader.dtype)) == (list(KEYS), 4, np.dtype(dtype))
    rows = expected["001.mp4"]["embeddings"].astype("f4")
    for start, stop in ((0, None), (1, 3), (2, 100), (2, 2), (-2, None)):
        assert np.array_equal(reader.embeddings("001.mp4", start, stop), rows[start:stop])
    for name in ("labels", "frame_indices", "timestamps"):
        assert np.array_equal(getattr(pickle.loads(pickle.dumps(reader)), name)("001.mp4"), expected["001.mp4"][name])
    assert reader.length("001.mp4") == len(rows)
    assert store.verify(path) == []


def test_the_writer_and_the_reader_write_the_same_index(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for labels in ({}, {key: np.ones(3, np.float32) for key in KEYS}):
        writer = store.EmbeddingWriter(path, ATTRIBUTES)
        for key in KEYS if not labels else ():
            write_part(writer, key)
        writer.merge(KEYS, labels)
        assert {entry.name for entry in tmp_path.iterdir()} == {"a.h5", ".a.h5.index"}
        written = index_of(path).read_bytes()
        index_of(path).unlink()
        assert_reads_what_h5py_reads(path)
        assert index_of(path).read_bytes() == written
    assert len(written) < path.stat().st_size


def test_small_files_have_no_index(tmp_path: Path) -> None:
    assert_reads_what_h5py_reads(write_h5(tmp_path / "a.h5"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("case", ["chunked", "width", "motion"])
def test_files_that_the_index_cannot_describe_are_read_with_hdf5(path: Path, case: str) -> None:
    with h5py.File(path, "r+") as file:
        if case == "motion":
            file.attrs["kind"] = "motion"
            for key in KEYS:
                del file[key]["labels"]
        else:
            del file["001.mp4/embeddings"]
            options = {"chunks": (1, 4), "compression": "gzip"} if case == "chunked" else {}
            file["001.mp4"].create_dataset(
                "embeddings", data=np.ones((5, 6 if case == "width" else 4), "f4"), **options
            )
    for _ in range(2):
        if case == "chunked":
            assert_reads_what_h5py_reads(path)
        else:
            reader = store.EmbeddingReader(path)
            assert np.array_equal(reader.embeddings("000.mp4"), video_arrays("000.mp4")["embeddings"])
            with pytest.raises(UserError):
                reader.labels("001.mp4") if case == "motion" else reader.embeddings("001.mp4")
        assert store.verify(path) == []
    assert index_of(path).exists() == (case == "motion")


# --- indexes that are stale or damaged


def test_a_changed_or_replaced_file_is_not_read_with_the_old_index(path: Path) -> None:
    store.EmbeddingReader(path).load_index()
    time.sleep(CLOCK_STEP)
    with h5py.File(path, "r+") as file:
        file["001.mp4/labels"][:] = 1
        file["001.mp4/embeddings"][:] = 7
    assert_reads_what_h5py_reads(path)
    write_h5(path.with_name("b.h5"), keys=KEYS[:2]).replace(path)
    assert_reads_what_h5py_reads(path)


def test_a_copied_index_is_ignored(path: Path, tmp_path: Path) -> None:
    store.EmbeddingReader(path).load_index()
    (tmp_path / "copy").mkdir()
    time.sleep(CLOCK_STEP)
    copy = tmp_path / "copy" / "a.h5"
    for source, target in ((path, copy), (index_of(path), index_of(copy))):
        shutil.copy2(source, target)
    assert offset_index.load_index(path, offset_index.file_state(path))
    assert offset_index.load_index(copy, offset_index.file_state(copy)) is None
    assert_reads_what_h5py_reads(copy)


def test_a_damaged_index_is_written_again(path: Path) -> None:
    store.EmbeddingReader(path).load_index()
    state, good = offset_index.file_state(path), index_of(path).read_bytes()
    expected = offset_index.load_index(path, state)
    for seed in range(200):
        index_of(path).write_bytes(fuzzing.mutate(good, random.Random(seed)))
        assert offset_index.load_index(path, state) in (None, expected)
    index_of(path).write_bytes(b"[" * 100_000)
    assert_reads_what_h5py_reads(path)
    assert index_of(path).read_bytes() == good


def test_reading_works_if_no_index_can_be_written(path: Path) -> None:
    index_of(path).mkdir()
    assert_reads_what_h5py_reads(path)
    assert store.verify(path) == []


@pytest.mark.parametrize("name", video_arrays("001.mp4"))
def test_a_damaged_file_gets_no_index(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        del file["001.mp4"][name]
    for _ in range(2):
        assert [key for key, _ in store.verify(path)] == ["001.mp4"]
        assert len(store.EmbeddingReader(path).embeddings("000.mp4"))
    assert not index_of(path).exists()


# --- files that change while they are read


@pytest.mark.parametrize("keys", [KEYS, KEYS[:3]])  # with and without an index
def test_a_file_replaced_during_reading_is_an_error(tmp_path: Path, keys: tuple[str, ...]) -> None:
    path = write_h5(tmp_path / "a.h5", keys=keys)
    reader = store.EmbeddingReader(path)
    reader.close()
    for other in (reader, pickle.loads(pickle.dumps(reader))):  # as in a worker process
        write_h5(tmp_path / "b.h5", keys=keys[:2]).replace(path)
        with pytest.raises(GoneError) as caught:
            other.embeddings("001.mp4")
        assert (caught.value.path, caught.value.exit_code) == (str(path), 1)


def test_a_file_replaced_before_the_first_read_gets_no_index_of_the_old_file(path: Path, tmp_path: Path) -> None:
    reader = store.EmbeddingReader(path)
    write_h5(tmp_path / "b.h5", keys=("000 new.mp4", *KEYS)).replace(path)  # other offsets
    reader.load_index()
    assert len(store.EmbeddingReader(path).keys) == len(KEYS) + 1
    assert_reads_what_h5py_reads(path)


def test_a_file_truncated_during_reading_is_an_error(path: Path) -> None:
    reader = store.EmbeddingReader(path)
    reader.embeddings("001.mp4")
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(UserError) as caught:
        reader.embeddings("099.mp4")
    assert caught.value.path == str(path)
