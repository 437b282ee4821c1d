"""Many videos: the index beside a file of embeddings, what it is trusted with, and what is asked of the disk."""

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

from benchmarks import reading as benchmark_reading
from benchmarks import scale
from benchmarks.inputs import Inputs
from tests import mutating
from tests.conftest import moving_frames, write_video
from tests.test_store import ATTRIBUTES, VIDEOS, add, make, values
from vimoclip import store, video
from vimoclip.errors import GoneError, UserError
from vimoclip.flow import flow_lookup
from vimoclip.store import offset_index, validation
from vimoclip.store.reader import verify

CLOCK = 0.02  # s: a file system's times may stand still for 4 ms
FIELDS = ("embeddings", "labels", "frame_indices", "timestamps")


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_index, "MANY", 1)


def read_all(path: Path) -> dict[str, dict[str, Any]]:
    reader = store.Reader(path)
    found = {key: {name: getattr(reader, name)(key) for name in FIELDS} for key in reader.keys}
    assert all(reader.length(key) == len(data["embeddings"]) for key, data in found.items())
    reader.close()
    return found


def by_h5py(path: Path) -> dict[str, dict[str, Any]]:
    with h5py.File(path, "r") as file:
        return {key: {name: file[key][name][:] for name in FIELDS} for key in file}


def same(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> bool:
    return list(one) == list(other) and all(
        np.array_equal(one[key][name], other[key][name]) for key in one for name in FIELDS
    )


@pytest.fixture
def without_hdf5(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever asks HDF5 for a video's values fails."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("HDF5 was asked")

    for module, name in ((validation, "numbers"), (validation, "video_keys"), (offset_index, "scan")):
        monkeypatch.setattr(module, name, refuse)
    yield
    monkeypatch.undo()


def test_what_the_writer_has_made_is_read_without_hdf5_and_as_it_is(tmp_path: Path, without_hdf5: None) -> None:
    for dtype in ("float32", "float16"):
        path = make(tmp_path / f"{dtype}.h5", dtype=dtype)
        assert same(read_all(path), by_h5py(path))
        assert store.verify(path) == []
        reader = store.Reader(path, "rgb")
        rows = values("a.mp4")["embeddings"].astype(dtype).astype(np.float32)
        for start, stop in ((0, None), (1, 3), (2, 100), (2, 2), (-2, None)):
            assert np.array_equal(reader.embeddings("a.mp4", start, stop), rows[start:stop])
        assert (reader.dim, reader.dtype) == (8, dtype)
        count = 2 * len(rows)
        assert reader.video_attributes("a.mp4") == {"total_frames": len(rows), "original_frames": count, "fps": 12.5}


def test_the_index_is_small_hidden_and_the_same_from_the_writer_and_from_the_file(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    kept = tmp_path / ".a.h5.index"
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.h5", ".a.h5.index"}
    by_writer = kept.read_bytes()
    kept.unlink()
    read_all(path)
    assert kept.read_bytes() == by_writer
    assert len(by_writer) < path.stat().st_size


def test_small_files_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    read_all(make(tmp_path / "a.h5"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


@pytest.mark.parametrize("odd", ["indices", "labels", "chunked", "motion"])
def test_what_the_index_cannot_describe_is_read_all_the_same(tmp_path: Path, odd: str) -> None:
    changes: dict[str, Any] = {"kind": "motion", "student": {}} if odd == "motion" else {}
    path = make(tmp_path / "a.h5", **changes)
    with h5py.File(path, "r+") as file:
        if odd == "indices":
            file["a.mp4/frame_indices"][:] = np.arange(len(file["a.mp4/frame_indices"])) ** 2
        elif odd == "labels":
            file["b.mp4/labels"][:] = (0.5, 0, 1)
        elif odd == "chunked":
            rows = file["b.mp4/embeddings"][:]
            del file["b.mp4/embeddings"]
            file["b.mp4"].create_dataset("embeddings", data=rows, chunks=(1, 8), compression="gzip")
    for _ in range(2):
        if odd == "motion":
            reader = store.Reader(path, "motion")
            shown = reader.frame_indices("a.mp4")
            assert shown is not None
            assert np.array_equal(shown, values("a.mp4")["frame_indices"])
            with pytest.raises(UserError, match="has no labels"):
                reader.labels("a.mp4")
        else:
            assert same(read_all(path), by_h5py(path))
        assert store.verify(path) == []


# --- what it is trusted with


def test_another_file_under_the_name_is_not_read_by_the_old_index(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    time.sleep(CLOCK)
    with h5py.File(path, "r+") as file:
        file["a.mp4/labels"][:] = 1
        file["a.mp4/embeddings"][:] = 7
    assert same(read_all(path), by_h5py(path))
    make(tmp_path / "b.h5", VIDEOS[:2]).replace(path)
    assert same(read_all(path), by_h5py(path))


def test_an_index_that_comes_along_with_a_file_counts_for_nothing(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    (tmp_path / "copy").mkdir()
    time.sleep(CLOCK)
    for name in ("a.h5", ".a.h5.index"):
        shutil.copy2(tmp_path / name, tmp_path / "copy" / name)
    assert offset_index.load(path, store.Reader(path).attributes["content_sha256"])
    assert offset_index.load(tmp_path / "copy" / "a.h5", store.Reader(path).attributes["content_sha256"]) is None
    assert same(read_all(tmp_path / "copy" / "a.h5"), by_h5py(path))


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    kept, content = tmp_path / ".a.h5.index", store.Reader(path).attributes["content_sha256"]
    good, refused = kept.read_bytes(), 0
    for seed in range(300):
        kept.write_bytes(mutating.mutate(good, random.Random(seed)))
        found = offset_index.load(path, content)
        refused += found is None
        assert found is None or kept.read_bytes().partition(b"\n")[2] == good.partition(b"\n")[2]
    assert refused > 250
    assert same(read_all(path), by_h5py(path))
    assert kept.read_bytes() == good


@pytest.mark.parametrize("field", ["length", "embeddings", "frame_indices", "timestamps", "labels", "first", "step"])
@pytest.mark.parametrize("value", [-1, 0, 2**40, 2**62, -(2**63)])
def test_places_outside_the_file_are_not_believed(tmp_path: Path, field: str, value: int) -> None:
    path = make(tmp_path / "a.h5")
    content = store.Reader(path).attributes["content_sha256"]
    found = offset_index.load(path, content)
    assert found
    found.records = found.records.copy()
    found.records[field][1] = value
    offset_index.save(path, found, len(VIDEOS), content)
    if value or field == "length":
        assert offset_index.load(path, content) is None
        assert same(read_all(path), by_h5py(path))


@pytest.mark.parametrize("name", ["../b.mp4", "a\n.mp4", "x" * 300, "", "F.avi"])
def test_names_in_an_index_are_checked_like_those_in_the_file(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "a.h5")
    content = store.Reader(path).attributes["content_sha256"]
    found = offset_index.load(path, content)
    assert found
    found.rows = dict.fromkeys([name, *list(found.rows)[1:]], 0)
    offset_index.save(path, found, len(found.rows), content)
    assert offset_index.load(path, content) is None


def test_where_none_can_be_written_all_goes_on_without(tmp_path: Path) -> None:
    (tmp_path / ".a.h5.index").mkdir()
    path = make(tmp_path / "a.h5")
    assert same(read_all(path), by_h5py(path))
    assert store.verify(path) == []


@pytest.mark.parametrize("name", FIELDS)
def test_a_file_with_damage_gets_none(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        for key in VIDEOS if name == "labels" else VIDEOS[:1]:
            del file[key][name]
    (tmp_path / ".a.h5.index").unlink()
    for _ in range(2):
        assert any("b.mp4" in line for line in store.verify(path))
    assert not (tmp_path / ".a.h5.index").exists()


def test_a_file_that_is_replaced_in_the_middle_is_not_read_as_the_old_one(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    for reader in (store.Reader(path), pickle.loads(pickle.dumps(store.Reader(path)))):  # as a worker gets it
        make(tmp_path / "b.h5", VIDEOS[:3]).replace(path)
        with pytest.raises(GoneError, match=r"a\.h5: is another file than when this run began") as caught:
            reader.embeddings("a.mp4")
        assert caught.value.exit_code == 1
        make(tmp_path / "b.h5").replace(path)


def test_a_file_that_becomes_shorter_in_the_middle_is_a_line(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    reader = store.Reader(path)
    reader.embeddings("a.mp4")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"a\.h5: .* damaged"):
        reader.embeddings("b.mp4")


# --- going on


def test_a_finished_file_is_gone_on_with_without_asking_hdf5(tmp_path: Path, without_hdf5: None) -> None:
    path = make(tmp_path / "a.h5")
    before = path.read_bytes()
    writer = store.Writer(path, ATTRIBUTES)
    assert all(writer.done(key) for key in VIDEOS)
    writer.finish(VIDEOS, {key: values(key)["labels"] for key in VIDEOS})
    assert path.read_bytes() == before


def test_going_on_leaves_an_index_of_the_new_file(tmp_path: Path, without_hdf5: None) -> None:
    path = make(tmp_path / "a.h5", VIDEOS[:3])
    writer = store.Writer(path, ATTRIBUTES)
    for key in VIDEOS[3:]:
        add(writer, key)
    writer.finish(VIDEOS, {key: np.ones(3, np.float32) for key in VIDEOS})
    assert same(read_all(path), by_h5py(path))


def test_a_folder_of_flow_opens_each_video_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a_raft_things.mp4", "a_b_raft_things.mp4", "c_d_new_method.mp4", "plain.mp4"]
    for name in names:
        write_video(tmp_path / name, moving_frames(2, (1, 0)))
    opened: list[Path] = []
    real = video.probe

    def probe(path: Path) -> video.Info:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(video, "probe", probe)
    flows = flow_lookup.FlowFolder(tmp_path, ["a.mp4", "a_b.mp4", "c_d.mp4", "plain.mp4"])
    for _ in range(3):
        found = [flows.find(f"{stem}.mp4") for stem in ("a", "a_b", "c_d", "plain", "nothing")]
    assert [path.name if path else None for path in found] == [*names, None]
    assert len(opened) == len(set(opened)) == 3


# --- what is measured


def test_what_the_benchmark_reads_and_trains_on(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path, videos=5)
    path = inputs.embeddings()["rgb_train"]
    benchmark_reading.write_published(path, tmp_path / "published.h5")
    benchmark_reading.check_equal(path, tmp_path / "published.h5")
    with h5py.File(tmp_path / "published.h5", "r+") as file:
        file["v00001.mp4/embeddings"][0, 0] += 1
    with pytest.raises(ValueError, match=r"v00001\.mp4 is read differently"):
        benchmark_reading.check_equal(path, tmp_path / "published.h5")
    frames = scale.write_files(tmp_path, [12, 13, 14, 20, 30, 40])
    assert frames == 129
    scale.start_up(tmp_path)
    scale.epoch(tmp_path)
    assert {len(pairs) for pairs in scale.opened(tmp_path).values()} == {2, 4}
    assert verify(tmp_path / scale.NAMES[0]) == []
    steps = scale.bookkeeping_rows(tmp_path, 6)
    assert [row.what for row in steps] == [f"6 videos: {step}" for step in ("manifest", "resume scan", "finished file")]
