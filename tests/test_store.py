"""Embeddings in HDF5: the layout, resuming to the same bytes, and what is refused."""

import itertools
import multiprocessing
import pickle
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SHARED
from vimoclip import store
from vimoclip.errors import UserError
from vimoclip.store.writer import ROWS

PUBLISHED = SHARED / "published_files"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"{PUBLISHED} with published files is not there")

ATTRIBUTES: dict[str, Any] = {
    "kind": "rgb",
    "dataset_name": "ak",
    "type": "train",
    "num_classes": 3,
    "class_names": ["walking", "running", "eating, Löwe"],
    "clip_model": "ViT-B/32",
    "clip_pretrained": "",
    "quick_gelu": True,
    "embed_dim": 8,
    "image_size": 224,
    "resize": "model",
    "sampling": {"stride": 2, "fps": None, "max_frames": None},
    "weights_sha256": "ab" * 32,
    "versions": {"vimoclip": "0.1.0"},
}
VIDEOS = ("b.mp4", "a.mp4", "c d.mp4", "-e.mp4", "獅子.mp4", "F.avi")


def values(key: str) -> dict[str, np.ndarray]:
    """What stands in the file of a video: 3 to 8 frames, told by its key."""
    seed = sum(map(ord, key))
    count = 3 + seed % 6
    indices = np.arange(0, 2 * count, 2)
    rows = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[seed % 3]
    return {"embeddings": rows, "frame_indices": indices, "timestamps": indices / 12.5, "labels": labels}


def add(writer: store.Writer, key: str, labels: bool = True) -> None:
    data = values(key)
    part = writer.part(key)
    for start in range(0, len(data["embeddings"]), 2):
        part.append(data["embeddings"][start : start + 2])
    count = 2 * len(data["frame_indices"])
    part.finish(data["frame_indices"], data["timestamps"], count, 12.5, data["labels"] if labels else None)


def make(path: Path, keys: tuple[str, ...] = VIDEOS, dtype: str = "float32", **changes: Any) -> Path:
    writer = store.Writer(path, ATTRIBUTES | changes, dtype)
    for key in keys:
        if not writer.done(key):
            add(writer, key, labels=(ATTRIBUTES | changes)["kind"] == "rgb")
    assert writer.finish(keys) == path
    return path


def refused(path: Path, **changes: Any) -> str:
    """The line with which a writer refuses `path`, which must stay as it is."""
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(UserError) as caught:
        store.Writer(path, ATTRIBUTES | changes)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert (path.read_bytes() if path.exists() else None) == before
    return str(caught.value)


# --- what is written


def test_arrays_and_attributes_come_back_as_they_were(tmp_path: Path) -> None:
    reader = store.Reader(make(tmp_path / "a.h5"), kind="rgb")
    assert reader.known
    assert sorted(reader.keys) == sorted(VIDEOS)
    assert (reader.dim, reader.dtype) == (8, "float32")
    assert {name: reader.attributes[name] for name in ATTRIBUTES} == ATTRIBUTES
    for key in VIDEOS:
        data = values(key)
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
        assert reader.video_attributes(key) == {"total_frames": count, "original_frames": 2 * count, "fps": 12.5}
    assert store.verify(tmp_path / "a.h5") == []


def test_layout_is_that_of_the_design(tmp_path: Path) -> None:
    with h5py.File(make(tmp_path / "a.h5"), "r") as file:
        assert set(file.attrs) == {*ATTRIBUTES, "schema", "content_sha256"}
        assert list(file.attrs["class_names"]) == ATTRIBUTES["class_names"]
        assert set(file) == set(VIDEOS)
        for key in VIDEOS:
            group, data = file[key], values(key)
            assert isinstance(group, h5py.Group)
            assert set(group.attrs) == {"total_frames", "original_frames", "fps"}
            found = {name: (str(group[name].dtype), group[name].shape) for name in group}
            count = len(data["embeddings"])
            assert found == {
                "embeddings": ("float32", (count, 8)),
                "labels": ("float32", (3,)),
                "frame_indices": ("int64", (count,)),
                "timestamps": ("float64", (count,)),
            }
            for name in group:
                assert group[name].chunks is None
                assert group[name].compression is None


def test_motion_has_no_labels(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5", ("a", "b"), kind="motion", student={"alpha": 0.1, "clip": {"resize": "pad"}})
    with h5py.File(path, "r") as file:
        assert set(file["a"]) == {"embeddings", "frame_indices", "timestamps"}
    reader = store.Reader(path, kind="motion")
    assert reader.attributes["student"] == {"alpha": 0.1, "clip": {"resize": "pad"}}
    with pytest.raises(UserError, match=r"a\.h5: a has no labels"):
        reader.labels("a")
    assert store.verify(path) == []


def test_file_holds_no_path_of_the_machine(tmp_path: Path) -> None:
    assert str(tmp_path).encode() not in make(tmp_path / "a.h5").read_bytes()


def test_half_precision_is_stored_as_such_and_read_as_float32(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5", dtype="float16")
    with h5py.File(path, "r") as file:
        assert file["a.mp4/embeddings"].dtype == np.float16
        assert file["a.mp4/timestamps"].dtype == np.float64
    read = store.Reader(path).embeddings("a.mp4")
    assert read.dtype == np.float32
    assert np.array_equal(read, values("a.mp4")["embeddings"].astype(np.float16).astype(np.float32))
    assert "dtype=float16" in refused(path)


def test_more_rows_than_are_copied_at_a_time_come_back(tmp_path: Path) -> None:
    rows = np.arange(2 * (ROWS + 5), dtype=np.float32).reshape(-1, 2)
    writer = store.Writer(tmp_path / "a.h5", ATTRIBUTES)
    part = writer.part("a.mp4")
    for start in range(0, len(rows), 1000):
        part.append(rows[start : start + 1000])
    part.finish(np.arange(len(rows)), np.arange(len(rows)) / 25, len(rows), 25, np.zeros(3))
    writer.finish(["a.mp4"])
    assert np.array_equal(store.Reader(tmp_path / "a.h5").embeddings("a.mp4"), rows)


def test_long_and_foreign_keys_come_back_and_are_kept_apart(tmp_path: Path) -> None:
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
        writer = store.Writer(path, ATTRIBUTES)
        assert not writer.done(key)
        add(writer, key)
        assert store.Writer(path, ATTRIBUTES).done(key)
    store.Writer(path, ATTRIBUTES).finish(keys)
    reader = store.Reader(path)
    assert set(reader.keys) == set(keys)
    for key in keys:
        assert np.array_equal(reader.embeddings(key), values(key)["embeddings"])


# --- when it appears, and going on


def test_output_appears_only_when_finished(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.h5"
    writer = store.Writer(path, ATTRIBUTES)
    for key in VIDEOS:
        add(writer, key)
        assert not path.exists()
    assert writer.finish(VIDEOS) == path
    assert [entry.name for entry in path.parent.iterdir()] == ["a.h5"]


def test_nothing_done_gives_no_output(tmp_path: Path) -> None:
    assert store.Writer(tmp_path / "a.h5", ATTRIBUTES).finish(VIDEOS) is None
    assert list(tmp_path.iterdir()) == []


def test_writer_begun_anew_knows_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    add(store.Writer(path, ATTRIBUTES), "b.mp4")
    again = store.Writer(path, ATTRIBUTES)
    assert [key for key in VIDEOS if again.done(key)] == ["b.mp4"]
    add(again, "a.mp4")
    again.finish(VIDEOS)
    third = store.Writer(path, ATTRIBUTES)
    assert [key for key in VIDEOS if third.done(key)] == ["b.mp4", "a.mp4"]
    third.finish(VIDEOS)
    assert sorted(store.Reader(path).keys) == ["a.mp4", "b.mp4"]


@pytest.fixture(scope="module")
def in_one_go(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make(tmp_path_factory.mktemp("once") / "whole.h5").read_bytes()


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(VIDEOS),
    cuts=st.lists(st.tuples(st.integers(0, len(VIDEOS)), st.sampled_from(["stop", "finish", "killed"])), max_size=3),
)
def test_bytes_are_the_same_however_often_the_run_was_stopped(
    tmp_path_factory: pytest.TempPathFactory, in_one_go: bytes, order: list[str], cuts: list[tuple[int, str]]
) -> None:
    path = tmp_path_factory.mktemp("again") / "a.h5"
    for cut, how in [*sorted(cuts), (len(VIDEOS), "finish")]:
        writer = store.Writer(path, ATTRIBUTES)
        for key in order[:cut]:
            if not writer.done(key):
                add(writer, key)
        if how == "killed" and cut < len(VIDEOS):  # in the middle of a video: half a part is left, its name is not
            writer.part(order[cut]).append(np.ones((2, 8), np.float32))
        if how == "finish":
            writer.finish(order[:cut])
    assert path.read_bytes() == in_one_go
    assert [entry.name for entry in path.parent.iterdir()] == ["a.h5"]


def test_run_killed_between_naming_the_output_and_removing_the_parts_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    writer = store.Writer(path, ATTRIBUTES)
    for key in VIDEOS:
        add(writer, key)
    shutil.copytree(writer.parts, tmp_path / "kept")
    writer.finish(VIDEOS)
    before = path.read_bytes()
    shutil.move(tmp_path / "kept", writer.parts)
    again = store.Writer(path, ATTRIBUTES)
    assert all(again.done(key) for key in VIDEOS)
    again.finish(VIDEOS)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_other_versions_may_go_on(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5", VIDEOS[:2])
    make(path, VIDEOS, versions={"vimoclip": "0.2.0"})
    assert len(store.Reader(path).keys) == len(VIDEOS)


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "theirs", "mine"),
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
def test_other_settings_are_refused_naming_both_values(
    tmp_path: Path, changes: dict[str, Any], theirs: str, mine: str, finished: bool
) -> None:
    path = tmp_path / "a.h5"
    if finished:
        make(path)
    else:
        add(store.Writer(path, ATTRIBUTES), "a.mp4")
    text = refused(path, **changes)
    assert theirs in text
    assert mine in text
    assert next(iter(changes)) in text


def test_foreign_or_damaged_output_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    good = make(tmp_path / "good.h5").read_bytes()
    for data in (b"", b"no HDF5", good[:1000], good[:-1], good[: len(good) // 2]):
        path.write_bytes(data)
        refused(path)
    published, table = tmp_path / "published.h5", tmp_path / "table.h5"
    with h5py.File(published, "w") as file:
        file["a.mp4/embeddings"] = np.ones((2, 8), np.float32)
    assert "not written by this project" in refused(published)
    with h5py.File(table, "w") as file:
        file["table"] = np.ones(3)
    refused(table)


def test_overwrite_starts_afresh(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5", VIDEOS[:3])
    add(store.Writer(path, ATTRIBUTES), "F.avi")
    other = ATTRIBUTES | {"clip_model": "ViT-B/16"}
    writer = store.Writer(path, other, overwrite=True)
    assert not any(writer.done(key) for key in VIDEOS)
    add(writer, "a.mp4")
    writer.finish(VIDEOS)
    assert store.Reader(path).keys == ["a.mp4"]
    assert store.Reader(path).attributes["clip_model"] == "ViT-B/16"
    path.write_bytes(b"damaged")
    assert not store.Writer(path, ATTRIBUTES, overwrite=True).done("a.mp4")


def test_part_whose_lengths_disagree_raises_and_is_not_done(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    rows, three, two = np.ones((3, 8), np.float32), np.arange(3), np.arange(2)
    for appended, indices, times in (
        (rows, two, three),
        (rows, three, two),
        (None, three, three),
        (None, two[:0], two[:0]),
    ):
        part = store.Writer(path, ATTRIBUTES).part("a.mp4")
        if appended is not None:
            part.append(appended)
        with pytest.raises(ValueError, match=r"a\.mp4"):
            part.finish(indices, times, 3, 25.0, np.zeros(3))
        part.abandon()
    writer = store.Writer(path, ATTRIBUTES)
    assert not writer.done("a.mp4")
    assert writer.finish(["a.mp4"]) is None


def test_abandoned_part_leaves_nothing(tmp_path: Path) -> None:
    writer = store.Writer(tmp_path / "a.h5", ATTRIBUTES)
    before = sorted(writer.parts.iterdir())
    part = writer.part("a.mp4")
    part.append(np.ones((3, 8), np.float32))
    part.abandon()
    writer.part("b.mp4").abandon()
    assert sorted(writer.parts.iterdir()) == before
    assert not store.Writer(tmp_path / "a.h5", ATTRIBUTES).done("a.mp4")


def test_verify_names_the_group_that_lacks_something(tmp_path: Path) -> None:
    for name in ("embeddings", "frame_indices", "timestamps", "labels"):
        path = make(tmp_path / f"{name}.h5")
        with h5py.File(path, "r+") as file:
            del file[f"c d.mp4/{name}"]
        assert ["c d.mp4" in line for line in store.verify(path)] == [True]
        assert "c d.mp4" in refused(path)


@pytest.mark.parametrize("name", ["embeddings", "frame_indices", "timestamps"])
def test_verify_names_the_group_whose_lengths_disagree(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        shorter = file["a.mp4"][name][:-1]
        del file["a.mp4"][name]
        file["a.mp4"][name] = shorter
    assert ["a.mp4" in line for line in store.verify(path)] == [True]


def test_first_group_without_embeddings_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file[f"{min(VIDEOS)}/embeddings"]
    with pytest.raises(UserError):
        store.Reader(path)
    refused(path)


@pytest.mark.parametrize(
    "mark", [b"clip_model\0", b"dataset_name\0", b"SNOD", b"TREE", b"HEAP", b"a.mp4\0", b"embeddings\0"]
)
@pytest.mark.parametrize("shift", [0, -16])
def test_overwritten_bytes_in_the_structure_never_end_in_a_traceback(tmp_path: Path, mark: bytes, shift: int) -> None:
    path = make(tmp_path / "a.h5", VIDEOS[:3])
    data = bytearray(path.read_bytes())
    start = data.index(mark) + shift
    data[start : start + 16] = bytes(16)
    path.write_bytes(data)
    try:
        store.Reader(path).close()
    except UserError as error:
        assert str(path) in str(error)
    assert isinstance(store.verify(path), list)


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), (b"", "damaged"), (b"text", "damaged")])
def test_reader_refuses_what_is_no_file_of_embeddings(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "a.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        store.Reader(path)
    assert str(path) in str(caught.value)
    assert store.verify(path) != []


def test_reader_refuses_the_other_kind(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    with pytest.raises(UserError, match="holds rgb embeddings, motion ones are needed"):
        store.Reader(path, kind="motion")


# --- other processes, other projects


def read_in_child(reader: store.Reader, key: str) -> np.ndarray:
    return reader.embeddings(key)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_open_reader_works_in_another_process(tmp_path: Path, method: str) -> None:
    reader = store.Reader(make(tmp_path / "a.h5"))
    expected = reader.embeddings("a.mp4")
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.starmap(read_in_child, [(reader, "a.mp4")] * 4)
    assert all(np.array_equal(result, expected) for result in results)
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).embeddings("a.mp4"), expected)
    reader.close()
    assert np.array_equal(reader.embeddings("a.mp4"), expected)


@needs_published
def test_published_files_are_read_as_files_of_another() -> None:
    rgb = store.Reader(PUBLISHED / "rgb_embeddings.h5", kind="rgb")
    assert not rgb.known
    assert rgb.keys == ["SYN00000.mp4"]
    assert rgb.embeddings("SYN00000.mp4").shape == (150, 512)
    assert rgb.embeddings("SYN00000.mp4").dtype == np.float32
    assert rgb.labels("SYN00000.mp4").shape == (140,)
    assert rgb.frame_indices("SYN00000.mp4") is None
    assert rgb.timestamps("SYN00000.mp4") is None
    assert rgb.attributes["num_classes"] == 140
    motion = store.Reader(PUBLISHED / "motion_embeddings.h5", kind="motion")
    assert not motion.known
    assert motion.keys == ["SYN00000"]
    assert motion.embeddings("SYN00000").shape == (149, 512)
    assert (motion.dim, motion.attributes) == (512, {})


@needs_published
def test_published_file_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    shutil.copy(PUBLISHED / "rgb_embeddings.h5", path)
    path.chmod(0o644)
    assert "not written by this project" in refused(path)


def test_published_readers_find_their_way_in_our_files(tmp_path: Path) -> None:
    keys = ("AAA.mp4", "-BB C.mp4")
    rgb = make(tmp_path / "rgb.h5", keys)
    motion = make(tmp_path / "motion.h5", tuple(key.split(".")[0] for key in keys), kind="motion")
    with h5py.File(rgb, "r") as images, h5py.File(motion, "r") as flows:
        for key in list(images.keys()):
            assert images[f"{key}/embeddings"][()].shape[1] == 8
            assert images[f"{key}/labels"][()].sum() == 1
            assert flows[f"{key.split('.')[0]}/embeddings"][()].shape[1] == 8


def test_order_of_making_does_not_show_in_any_of_three_videos(tmp_path: Path) -> None:
    made = set()
    for index, order in enumerate(itertools.permutations(VIDEOS[:3])):
        made.add(make(tmp_path / f"{index}.h5", order).read_bytes())
    assert len(made) == 1


def test_parts_of_videos_that_are_not_asked_for_this_time_stay(tmp_path: Path) -> None:
    writer = store.Writer(tmp_path / "a.h5", ATTRIBUTES)
    for key in VIDEOS:
        add(writer, key)
    store.Writer(tmp_path / "a.h5", ATTRIBUTES).finish(VIDEOS[:1])
    again = store.Writer(tmp_path / "a.h5", ATTRIBUTES)
    assert all(again.done(key) for key in VIDEOS)
    again.finish(VIDEOS)
    assert set(store.Reader(tmp_path / "a.h5").keys) == set(VIDEOS)
    assert not (tmp_path / "a.h5.parts").exists()


def test_todays_labels_win_and_a_video_that_left_the_annotations_comes_back_without_being_made_again(
    tmp_path: Path,
) -> None:
    path = make(tmp_path / "a.h5")
    labels = {key: values(key)["labels"] for key in VIDEOS}
    first = path.read_bytes()
    store.Writer(path, ATTRIBUTES).finish(VIDEOS, labels)
    assert path.read_bytes() == first
    changed = {key: value for key, value in labels.items() if key != "a.mp4"} | {"b.mp4": np.ones(3, np.float32)}
    store.Writer(path, ATTRIBUTES).finish(changed, changed)
    reader = store.Reader(path)
    assert set(reader.keys) == set(changed)
    assert reader.labels("b.mp4").tolist() == [1, 1, 1]
    reader.close()
    back = store.Writer(path, ATTRIBUTES)
    assert back.done("a.mp4")
    back.finish(VIDEOS, labels)
    assert path.read_bytes() == first


def test_a_file_that_vanishes_in_the_middle_is_exit_code_1(tmp_path: Path) -> None:
    reader = pickle.loads(pickle.dumps(store.Reader(make(tmp_path / "a.h5"))))  # as a worker gets it
    (tmp_path / "a.h5").unlink()
    with pytest.raises(UserError, match=r"a\.h5: was there when this run began and is gone") as caught:
        reader.labels(reader.keys[0])
    assert caught.value.exit_code == 1
