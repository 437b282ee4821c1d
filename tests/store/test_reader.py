"""EmbeddingReader and verify: content, damage, processes, published files."""

import multiprocessing
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.store.helpers import (
    ATTRIBUTES,
    PUBLISHED_FILES,
    VIDEOS,
    needs_published,
    video_arrays,
    write_file,
    writer_error,
)
from vimoclip import store
from vimoclip.errors import GoneError, UserError


def test_arrays_and_attributes_round_trip(tmp_path: Path) -> None:
    reader = store.EmbeddingReader(write_file(tmp_path / "a.h5"), kind="rgb")
    assert reader.has_schema
    assert sorted(reader.keys) == sorted(VIDEOS)
    assert (reader.dim, reader.dtype) == (8, "float32")
    assert {name: reader.attributes[name] for name in ATTRIBUTES} == ATTRIBUTES
    for key in VIDEOS:
        data = video_arrays(key)
        count = len(data["embeddings"])
        assert reader.length(key) == count
        for name, read in (
            ("embeddings", reader.embeddings(key)),
            ("labels", reader.labels(key)),
            ("frame_indices", reader.frame_indices(key)),
            ("timestamps", reader.timestamps(key)),
        ):
            assert read is not None
            assert np.array_equal(read, data[name])
        assert np.array_equal(reader.embeddings(key, 1, 3), data["embeddings"][1:3])
    assert store.verify(tmp_path / "a.h5") == []


def test_motion_has_no_labels(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", ("a", "b"), kind="motion", student={"alpha": 0.1, "clip": {"resize": "pad"}})
    with h5py.File(path, "r") as file:
        assert set(file["a"]) == {"embeddings", "frame_indices", "timestamps"}
    reader = store.EmbeddingReader(path, kind="motion")
    assert reader.attributes["student"] == {"alpha": 0.1, "clip": {"resize": "pad"}}
    with pytest.raises(UserError) as caught:
        reader.labels("a")
    assert caught.value.path == str(path)
    assert store.verify(path) == []


def test_verify_reports_groups_with_missing_arrays(tmp_path: Path) -> None:
    for name in ("embeddings", "frame_indices", "timestamps", "labels"):
        path = write_file(tmp_path / f"{name}.h5")
        with h5py.File(path, "r+") as file:
            del file[f"c d.mp4/{name}"]
        assert [key for key, _ in store.verify(path)] == ["c d.mp4"]
        assert "c d.mp4" in writer_error(path)


def test_verify_names_the_video_of_each_problem(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", ("a.mp4", "aa.mp4", "b.mp4"))
    with h5py.File(path, "r+") as file:
        del file["aa.mp4/timestamps"]
        del file["a.mp4/embeddings"]
        file["a.mp4/embeddings"] = np.zeros((5, 8), np.int16)
    assert [key for key, _ in store.verify(path)] == ["a.mp4", "aa.mp4"]
    path.write_bytes(path.read_bytes()[:500])
    assert [key for key, _ in store.verify(path)] == [""]


@pytest.mark.parametrize("name", ["embeddings", "frame_indices", "timestamps"])
def test_verify_reports_groups_with_inconsistent_lengths(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        shorter = file["a.mp4"][name][:-1]
        del file["a.mp4"][name]
        file["a.mp4"][name] = shorter
    assert [key for key, _ in store.verify(path)] == ["a.mp4"]


def test_first_group_without_embeddings_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file[f"{min(VIDEOS)}/embeddings"]
    with pytest.raises(UserError):
        store.EmbeddingReader(path)
    writer_error(path)


@pytest.mark.parametrize(
    "mark", [b"clip_model\0", b"dataset_name\0", b"SNOD", b"TREE", b"HEAP", b"a.mp4\0", b"embeddings\0"]
)
@pytest.mark.parametrize("shift", [0, -16])
def test_overwritten_structure_raises_no_other_exception(tmp_path: Path, mark: bytes, shift: int) -> None:
    path = write_file(tmp_path / "a.h5", VIDEOS[:3])
    data = bytearray(path.read_bytes())
    start = data.index(mark) + shift
    data[start : start + 16] = bytes(16)
    path.write_bytes(data)
    try:
        store.EmbeddingReader(path).close()
    except UserError as error:
        assert str(path) in str(error)
    assert isinstance(store.verify(path), list)


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), (b"", "damaged"), (b"text", "damaged")])
def test_reader_refuses_other_files(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "a.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        store.EmbeddingReader(path)
    assert words in caught.value.problem
    assert caught.value.path == str(path)
    assert store.verify(path) != []


def test_reader_refuses_the_other_kind(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5")
    with pytest.raises(UserError) as caught:
        store.EmbeddingReader(path, kind="motion")
    assert "rgb" in caught.value.problem
    assert "motion" in caught.value.problem


# --- other processes, published files


def read_in_child_process(reader: store.EmbeddingReader, key: str) -> np.ndarray:
    return reader.embeddings(key)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_open_reader_works_in_another_process(tmp_path: Path, method: str) -> None:
    reader = store.EmbeddingReader(write_file(tmp_path / "a.h5"))
    expected = reader.embeddings("a.mp4")
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.starmap(read_in_child_process, [(reader, "a.mp4")] * 4)
    assert all(np.array_equal(result, expected) for result in results)
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).embeddings("a.mp4"), expected)
    reader.close()
    assert np.array_equal(reader.embeddings("a.mp4"), expected)


@needs_published
def test_published_files_are_read() -> None:
    rgb = store.EmbeddingReader(PUBLISHED_FILES / "rgb_embeddings.h5", kind="rgb")
    assert not rgb.has_schema
    assert rgb.keys == ["SYN00000.mp4"]
    assert rgb.embeddings("SYN00000.mp4").shape == (150, 512)
    assert rgb.embeddings("SYN00000.mp4").dtype == np.float32
    assert rgb.labels("SYN00000.mp4").shape == (140,)
    assert rgb.frame_indices("SYN00000.mp4") is None
    assert rgb.timestamps("SYN00000.mp4") is None
    assert rgb.attributes["num_classes"] == 140
    motion = store.EmbeddingReader(PUBLISHED_FILES / "motion_embeddings.h5", kind="motion")
    assert not motion.has_schema
    assert motion.keys == ["SYN00000"]
    assert motion.embeddings("SYN00000").shape == (149, 512)
    assert (motion.dim, motion.attributes) == (512, {})


def test_readers_of_the_published_code_read_our_files(tmp_path: Path) -> None:
    keys = ("AAA.mp4", "-BB C.mp4")
    rgb = write_file(tmp_path / "rgb.h5", keys)
    motion = write_file(tmp_path / "motion.h5", tuple(key.split(".")[0] for key in keys), kind="motion")
    with h5py.File(rgb, "r") as images, h5py.File(motion, "r") as flows:
        for key in list(images.keys()):
            assert images[f"{key}/embeddings"][()].shape[1] == 8
            assert images[f"{key}/labels"][()].sum() == 1
            assert flows[f"{key.split('.')[0]}/embeddings"][()].shape[1] == 8


def test_a_file_deleted_during_a_run_is_exit_code_1(tmp_path: Path) -> None:
    reader = pickle.loads(pickle.dumps(store.EmbeddingReader(write_file(tmp_path / "a.h5"))))  # as in a worker process
    (tmp_path / "a.h5").unlink()
    with pytest.raises(GoneError) as caught:
        reader.labels(reader.keys[0])
    assert caught.value.path == str(tmp_path / "a.h5")
    assert caught.value.exit_code == 1
