"""HDF5 files from untrusted sources: links, references, names, types and attributes."""

import os
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.store.untrusted_hdf5 import ATTRIBUTES, KEYS, ROWS, read_all_videos, video_arrays, write_h5
from tests.untrusted_files import refusal_message
from vimoclip import store


def assert_refused(path: Path, *words: str) -> None:
    """Check that reader, verify and writer refuse the file."""
    text = refusal_message(lambda: read_all_videos(path), path)
    assert all(word in text for word in words), text
    assert store.verify(path)
    assert refusal_message(lambda: store.EmbeddingWriter(path, {}), path)


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 4)}, {"chunks": (1, 4), "compression": "gzip"}])
@pytest.mark.parametrize("more", [{}, {"shuffle": True, "fletcher32": True}])
def test_valid_files_are_read(tmp_path: Path, options: dict[str, Any], more: dict[str, Any]) -> None:
    path = write_h5(tmp_path / "a.h5", **options, **(more if options else {}))
    assert store.verify(path) == []
    for key, data in read_all_videos(path).items():
        assert all(np.array_equal(data[name], value) for name, value in video_arrays(key).items())


@pytest.mark.parametrize("where", ["key", "embeddings", "frame_indices"])
@pytest.mark.parametrize(
    "link",
    [
        h5py.SoftLink("/b b.mp4"),
        h5py.SoftLink("/b b.mp4/embeddings"),
        h5py.SoftLink("/nowhere"),
        h5py.ExternalLink("other.h5", "/a.mp4"),
        h5py.ExternalLink("/etc/passwd", "/"),
    ],
)
def test_links_are_refused(tmp_path: Path, h5_path: Path, link: Any, where: str) -> None:
    write_h5(tmp_path / "other.h5")
    name = "c.mp4" if where == "key" else f"a.mp4/{where}"
    with h5py.File(h5_path, "r+") as file:
        if where != "key":
            del file[name]
        file[name] = link
    assert_refused(h5_path, repr(name), "link")


def test_external_links_are_not_opened(tmp_path: Path, h5_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it blocks forever
    with h5py.File(h5_path, "r+") as file:
        for name in ("embeddings", "labels"):
            del file["a.mp4"][name]
            file["a.mp4"][name] = h5py.ExternalLink(str(pipe), "/x")
    messages: list[str] = []
    thread = threading.Thread(
        target=lambda: messages.append(refusal_message(lambda: store.EmbeddingReader(h5_path), h5_path)), daemon=True
    )
    thread.start()
    thread.join(20)
    if not messages:  # unblock the thread, so that the other tests can run
        os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
    assert messages


def test_values_from_other_files_are_refused(tmp_path: Path, h5_path: Path) -> None:
    other = write_h5(tmp_path / "other.h5")
    (tmp_path / "raw").write_bytes(bytes(80))
    layout = h5py.VirtualLayout((ROWS, 4), "f4")
    layout[:] = h5py.VirtualSource(other, "a.mp4/embeddings", (ROWS, 4))
    for name, make in (
        ("virtual", lambda group: group.create_virtual_dataset("embeddings", layout)),
        ("external", lambda group: group.create_dataset("embeddings", (ROWS, 4), "f4", external=str(tmp_path / "raw"))),
    ):
        path = write_h5(tmp_path / f"{name}.h5")
        with h5py.File(path, "r+") as file:
            del file["a.mp4/embeddings"]
            make(file["a.mp4"])
        assert_refused(path, "'a.mp4'/embeddings", "other files")


def replace_dataset(path: Path, name: str, data: Any, **options: Any) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, data=data, **options)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("embeddings", np.zeros(ROWS, "f4"), "shape"),
        ("embeddings", np.zeros((ROWS, 2, 2), "f4"), "shape"),
        ("embeddings", np.zeros((0, 4), "f4"), "shape"),
        ("embeddings", np.zeros((ROWS, 0), "f4"), "shape"),
        ("embeddings", np.float32(1), "shape"),
        ("embeddings", h5py.Empty("f4"), "shape"),
        ("embeddings", np.array([[b"x"] * 4] * ROWS), "no numbers"),
        ("embeddings", np.zeros((ROWS, 4), "c8"), "no numbers"),
        ("embeddings", np.zeros((ROWS, 4), [("a", "f4")]), "no numbers"),
        ("embeddings", np.zeros((ROWS, 4), "f8"), "float64"),
        ("embeddings", np.zeros((ROWS, 4), ">f4"), "doesn't write"),
        ("labels", np.zeros((3, 1), "f4"), "shape"),
        ("labels", np.array(["a"] * 3, h5py.string_dtype()), "no numbers"),
        ("timestamps", np.zeros(ROWS, "i8"), "int64"),
    ],
)
def test_datasets_of_other_types_and_shapes_are_refused(h5_path: Path, name: str, data: Any, words: str) -> None:
    replace_dataset(h5_path, f"a.mp4/{name}", data)
    assert_refused(h5_path, "'a.mp4'", name, words)


def test_references_are_not_followed(h5_path: Path) -> None:
    with h5py.File(h5_path, "r+") as file:
        target = file["b b.mp4/embeddings"].ref
    replace_dataset(h5_path, "a.mp4/embeddings", np.full((ROWS, 4), target, dtype=h5py.ref_dtype))
    assert_refused(h5_path, "'a.mp4'/embeddings holds no numbers")


@pytest.mark.parametrize("key", ["a.mp4", "b b.mp4"])
def test_widths_must_be_equal(h5_path: Path, key: str) -> None:
    replace_dataset(h5_path, f"{key}/embeddings", np.zeros((ROWS, 6), "f4"))
    assert "wide" in refusal_message(lambda: read_all_videos(h5_path), h5_path)


def test_numbers_of_labels_must_be_equal(h5_path: Path) -> None:
    replace_dataset(h5_path, "b b.mp4/labels", np.zeros(4, "f4"))
    assert "4 labels" in refusal_message(lambda: read_all_videos(h5_path), h5_path)


@pytest.mark.parametrize(
    "name",
    ["..", ".", "/etc", "a/../b", "..\\b", "C:b", "a\x1b[31m.mp4", "a\n.mp4", "a\u2028.mp4", "a\u202e4pm.exe"],
)
@pytest.mark.parametrize("has_schema", [True, False])
def test_unsafe_names_are_refused(h5_path: Path, name: str, has_schema: bool) -> None:
    """h5py can't write most of these, so another name of that length is overwritten."""
    raw = name.encode()
    placeholder = b"Q" * len(raw)
    with h5py.File(h5_path, "w") as file:
        file.attrs.update(ATTRIBUTES if has_schema else {})
        file[placeholder + b"/embeddings"] = np.zeros((2, 4), "f4")
    assert len(store.EmbeddingReader(h5_path).keys) == 1
    data = h5_path.read_bytes()
    assert data.count(placeholder) == 1
    h5_path.write_bytes(data.replace(placeholder, raw))
    assert repr(name) in refusal_message(lambda: store.EmbeddingReader(h5_path), h5_path)
    assert store.verify(h5_path)


def test_names_that_are_not_utf8_or_too_long_are_refused(tmp_path: Path) -> None:
    for raw in (b"a\xff.mp4", b"x" * 256):
        path = write_h5(tmp_path / "a.h5")
        with h5py.File(path, "r+") as file:
            h5py.h5g.create(file.id, raw)
        refusal_message(lambda: store.EmbeddingReader(path), path)  # noqa: B023
        path.unlink()


@pytest.mark.parametrize("first", "=+@")
def test_names_that_are_spreadsheet_formulas_are_refused_in_our_files(h5_path: Path, first: str) -> None:
    with h5py.File(h5_path, "r+") as file:
        file.move("b b.mp4", f"{first}b.mp4")
    assert_refused(h5_path, repr(f"{first}b.mp4"))
    with h5py.File(h5_path, "r+") as file:
        del file.attrs["schema"]
    assert f"{first}b.mp4" in store.EmbeddingReader(h5_path).keys


def test_other_objects_at_the_root_are_refused_in_our_files(h5_path: Path) -> None:
    with h5py.File(h5_path, "r+") as file:
        file["video_ids"] = np.zeros(3)
    assert_refused(h5_path, "'video_ids' is not a group")
    with h5py.File(h5_path, "r+") as file:
        del file.attrs["schema"]
    assert store.EmbeddingReader(h5_path).keys == list(KEYS)


def test_addresses_of_other_sizes_are_refused(tmp_path: Path) -> None:
    """`HeapCheckedFile` assumes addresses of 8 bytes."""
    properties = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    properties.set_sizes(4, 4)
    with h5py.File(h5py.h5f.create(bytes(tmp_path / "a.h5"), fcpl=properties)) as file:
        file["a/embeddings"] = np.zeros((2, 4), "f4")
    assert "64 bits" in refusal_message(lambda: store.EmbeddingReader(tmp_path / "a.h5"), tmp_path / "a.h5")


def test_class_names_must_be_a_list(h5_path: Path) -> None:
    with h5py.File(h5_path, "r+") as file:
        file.attrs["class_names"] = "walking"
    assert_refused(h5_path, "class_names")


def test_cyclic_groups_are_read_or_refused(h5_path: Path) -> None:
    with h5py.File(h5_path, "r+") as file:
        file["a.mp4/again"] = file["/"]
        file["a.mp4/self"] = file["a.mp4"]
    assert set(read_all_videos(h5_path)) == set(KEYS)
    with h5py.File(h5_path, "r+") as file:
        file["loop"] = file["/"]
    refusal_message(lambda: read_all_videos(h5_path), h5_path)


@pytest.mark.parametrize("name", ["sampling", "versions", "student"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 200 + "1" + "}" * 200, "[1]", "no JSON"])
def test_json_attributes_must_be_dictionaries_of_limited_depth(tmp_path: Path, name: str, text: str) -> None:
    path = write_h5(tmp_path / "a.h5", libver="latest")  # allows long attributes
    with h5py.File(path, "r+") as file:
        file.attrs[name] = text
    assert name in refusal_message(lambda: store.EmbeddingReader(path), path)


def test_attributes_of_other_types_are_not_read(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", libver="latest")
    with h5py.File(path, "r+") as file:
        file.attrs["reference"] = file["a.mp4"].ref
        file.attrs["many"] = np.array(["x"] * 20_000, h5py.string_dtype())
        file.attrs["empty"] = h5py.Empty("f4")
        file["a.mp4"].attrs["text"] = "x"
    reader = store.EmbeddingReader(path)
    assert set(reader.attributes) == set(ATTRIBUTES)


@pytest.mark.parametrize("value", [None, "8", np.zeros(2)])
def test_verify_reports_a_video_with_an_invalid_attribute(h5_path: Path, value: Any) -> None:
    with h5py.File(h5_path, "r+") as file:
        del file["a.mp4"].attrs["fps"]
        if value is not None:
            file["a.mp4"].attrs["fps"] = value
    assert [key for key, _ in store.verify(h5_path)] == ["a.mp4"]
