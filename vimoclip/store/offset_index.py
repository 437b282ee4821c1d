"""Where each video's values stand in a file of embeddings that this project wrote, so that they are read without HDF5.

To ask HDF5 for a video's rows takes 22 look-ups and 0.25 ms, to read at a known place 0.01 ms. The index of a large
file is kept beside it, hidden, as `.<name>.index`: a cache, that may be deleted at any time. It counts only for the
very file that it was made of, by size, content and the two times of its last change, of which no copy and no archive
brings along the second (ctime); so an index from elsewhere counts for nothing."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5t

from vimoclip.io import atomic
from vimoclip.io.names import safe_name

MANY = 100  # videos, from which on it is kept: to make it takes 0.7 s for 1,000
FORMAT = 1
ARRAYS = {"embeddings": 2, "frame_indices": 1, "timestamps": 1, "labels": 1}  # and how many sizes each has
FURTHEST = 2**31  # frame, and step between frames
NUMBERS = ("total_frames", "original_frames", "fps")
# `length` in frames; `embeddings` to `labels` in bytes from the file's beginning (-1: none); frame i of a video has the
# index first + i * step, where step is not 0
RECORD = np.dtype(
    [(name, "<i8") for name in ("length", *ARRAYS, "first", "step", "original_frames")] + [("fps", "<f8")]
)


class Shape(NamedTuple):
    """What all videos of a file have in common: width and type of the embeddings, number of classes (0: no labels)."""

    dim: int
    dtype: str
    classes: int

    def types(self) -> dict[str, np.dtype]:
        """Of each array."""
        types = {"embeddings": self.dtype, "frame_indices": "<i8", "timestamps": "<f8", "labels": "<f4"}
        return {name: np.dtype(kind) for name, kind in types.items() if self.classes or name != "labels"}

    def sizes(self, frames: Any) -> dict[str, Any]:
        """Of each array in bytes, for a number of frames or an array of such numbers."""
        values = {"embeddings": frames * self.dim, "frame_indices": frames, "timestamps": frames}
        values |= {"labels": frames * 0 + self.classes} if self.classes else {}
        return {name: count * self.types()[name].itemsize for name, count in values.items()}


class Index:
    """`rows`: video -> number of its row in `records` (of RECORD) and in `bits` (its labels, packed).

    `state`: of the file when this was made."""

    def __init__(self, shape: Shape, names: Iterable[str], records: np.ndarray, bits: np.ndarray, state: list[int]):
        self.shape, self.records, self.bits, self.state = shape, records, bits, state
        self.rows = {name: row for row, name in enumerate(names)}

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __getitem__(self, key: str) -> Any:
        """A video's record."""
        return self.records[self.rows[key]]

    def length(self, key: str) -> int:
        return int(self[key]["length"])

    def indices(self, key: str) -> np.ndarray | None:
        """Of a video's frames, as (T,) int64; None where they have to be read."""
        record = self[key]
        first, step, length = int(record["first"]), int(record["step"]), int(record["length"])
        return np.arange(first, first + step * length, step) if step else None

    def labels(self, key: str) -> np.ndarray | None:
        """(C,) float32; None where they have to be read."""
        if self.bits.shape[1] == 0:
            return None
        return np.unpackbits(self.bits[self.rows[key]], count=self.shape.classes).astype(np.float32)

    def attributes(self, key: str) -> dict[str, Any]:
        record = self[key]
        numbers = (int(record["length"]), int(record["original_frames"]), float(record["fps"]))
        return dict(zip(NUMBERS, numbers, strict=True))


NOTHING = Index(Shape(0, "", 0), [], np.empty(0, RECORD), np.empty((0, 0), np.uint8), [])


class Source(Protocol):
    """A file's bytes, and its `state`."""

    state: list[int]

    def read(self, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Values from a place on."""


class Maker:
    """Puts an index together, a video after the other; those that it can't describe are left out."""

    def __init__(self) -> None:
        self._shape = Shape(0, "", 0)
        self._names: list[str] = []
        self._records: list[tuple[Any, ...]] = []
        self._labels: list[np.ndarray] = []

    def add(self, group: h5g.GroupID, name: str, labelled: bool, source: Source) -> None:
        """A video of a file, if all is as this project writes it; `labelled`: it has to have labels."""
        links: dict[bytes, int] = {}
        group.links.iterate(lambda link, info: links.__setitem__(link, info.type), info=True)
        has_labels = b"labels" in links
        wanted = [array for array in ARRAYS if array != "labels" or has_labels]
        if labelled > has_labels or any(links.get(array.encode()) != h5l.TYPE_HARD for array in wanted):
            return
        about = _numbers(group)
        found = {array: _extent(h5d.open(group, array.encode()), array) for array in wanted}
        if about is None or not all(extent and extent.held(source.state[0]) for extent in found.values()):
            return
        extents = {array: extent for array, extent in found.items() if extent}
        read = {array: extent for array, extent in extents.items() if array in ("frame_indices", "labels")}
        arrays = {array: source.read(at.offset, np.dtype(at.dtype), at.shape) for array, at in read.items()}
        self._add(name, extents, arrays, *about)

    def written(
        self, name: str, data: Mapping[str, h5py.Dataset], arrays: Mapping[str, np.ndarray], about: Any
    ) -> None:
        """A video that has just been written. `arrays`: its `frame_indices`, `labels`; `about`: its attributes."""
        found = {array: _extent(values.id, array) for array, values in data.items()}
        extents = {array: extent for array, extent in found.items() if extent}
        if len(extents) == len(found):
            rows = extents["embeddings"].shape[0]
            self._add(name, extents, arrays, rows, int(about["original_frames"]), float(about["fps"]))

    def _add(
        self,
        name: str,
        found: Mapping[str, "Extent"],
        arrays: Mapping[str, np.ndarray],
        total: int,
        original: int,
        fps: float,
    ) -> None:
        rows = found["embeddings"]
        labels = arrays.get("labels", np.zeros(0, np.float32))
        shape = Shape(rows.shape[1], rows.dtype, len(labels))
        self._shape = self._shape if self._names else shape
        if shape != self._shape or {found[array].shape[0] for array in ARRAYS if array != "labels"} != {total}:
            return
        offsets = [found[array].offset if array in found else -1 for array in ARRAYS]
        first, step = _steps(arrays["frame_indices"])
        self._names.append(name)
        self._labels.append(labels)
        self._records.append((total, *offsets, first, step, original, fps))

    def made(self, state: list[int]) -> Index:
        """Of a file in this state."""
        records = np.array(self._records, RECORD)
        labels = np.array(self._labels).reshape(len(records), -1 if self._labels else 0)
        bits = np.packbits(labels == 1, axis=1)
        exact = np.array_equal(labels, labels == 1)
        return Index(self._shape, self._names, records, bits if exact else bits[:, :0], state)


@dataclass(frozen=True)
class Extent:
    """One array in a file, all of it in one piece from `offset` on."""

    offset: int
    shape: tuple[int, ...]
    dtype: str
    stored: int

    def held(self, size: int) -> bool:
        """Whether all of it is within a file of so many bytes."""
        declared = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        return 0 < declared == self.stored and self.offset + declared <= size


_TYPES = {
    array: {name: h5t.py_create(np.dtype(name)) for name in names}
    for array, names in {
        "embeddings": ("float32", "float16"),
        "frame_indices": ("int64",),
        "timestamps": ("float64",),
        "labels": ("float32",),
    }.items()
}


def _extent(data: h5d.DatasetID, array: str) -> Extent | None:
    offset, kind = data.get_offset(), data.get_type()  # no offset: in chunks, in other files, or not there yet
    dtype = next((name for name, known in _TYPES[array].items() if kind == known), None)
    if offset is None or dtype is None or data.rank != ARRAYS[array]:
        return None
    return Extent(offset, data.shape, dtype, data.get_storage_size())


def _numbers(group: h5g.GroupID) -> list[Any] | None:
    """The three that stand beside a video's arrays; None where there are others, or they are of another kind."""
    if h5a.get_num_attrs(group) != len(NUMBERS) or not all(h5a.exists(group, name.encode()) for name in NUMBERS):
        return None
    values = []
    for name in NUMBERS:
        attribute = h5a.open(group, name.encode())
        if attribute.shape != () or attribute.dtype != ("f8" if name == "fps" else "i8"):
            return None
        value = np.empty((), attribute.dtype)
        attribute.read(value)
        values.append(value.item())
    return values


def _steps(indices: np.ndarray) -> tuple[int, int]:
    """First and step of frame indices that rise evenly; (0, 0) for others."""
    first, last, length = int(indices[0]), int(indices[-1]), len(indices)
    step = max(1, (last - first) // max(1, length - 1))
    if not 0 <= first < FURTHEST or step >= FURTHEST:
        return 0, 0
    return (first, step) if np.array_equal(indices, np.arange(first, first + step * length, step)) else (0, 0)


def scan(file: h5py.File, keys: Iterable[str], labelled: bool, source: Source) -> Index:
    """The index of those of a file's videos that are as this project writes them. Takes 0.7 s for 1,000."""
    maker = Maker()
    for key in keys:
        with contextlib.suppress(Exception):  # damage is said of a video, in words, when it is asked for
            maker.add(h5g.open(file.id, key.encode()), key, labelled, source)
    return maker.made(source.state)


# --- on disk


def place(path: Path) -> Path:
    """Where the index of a file is kept."""
    return atomic.temporary_path(path, "index")


def state_of(found: os.stat_result) -> list[int]:
    """By which a file is told from another one, and from an earlier one of its name."""
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def save(path: Path, index: Index, videos: int, content: object) -> None:
    """Keep the index of a large file, if it has all of its videos, and where that can be done.

    `content`: the hash that the file says it has."""
    if not len(index.rows) == videos >= MANY:
        return
    names = "\n".join(index.rows).encode()
    body = names + index.records.tobytes() + index.bits.tobytes()
    head = {"format": FORMAT, "state": index.state, "content": content, "shape": index.shape}
    head |= {"names": len(names), "videos": len(index.rows), "bits": index.bits.shape[1]}
    head |= {"sha256": hashlib.sha256(body).hexdigest()}
    with contextlib.suppress(OSError), atomic.new_file(place(path)) as file:
        file.write(json.dumps(head).encode() + b"\n" + body)


def load(path: Path, content: object) -> Index | None:
    """The index that is kept of a file; None where there is none, it is damaged, or of another file."""
    try:
        state = state_of(os.stat(path))
        kept = place(path)
        if not kept.is_file() or kept.stat().st_size > state[0]:  # it is a fifth of the least that HDF5 needs
            return None
        line, _, body = kept.read_bytes().partition(b"\n")
        head = json.loads(line)
        if [head["format"], head["state"], head["content"]] != [FORMAT, state, content]:
            return None
        return _read(head, body, state) if hashlib.sha256(body).hexdigest() == head["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _read(head: Mapping[str, Any], body: bytes, state: list[int]) -> Index | None:
    videos, width, ends = head["videos"], head["bits"], head["names"]
    shape = Shape(*head["shape"])
    names = body[:ends].decode().split("\n")
    middle = ends + videos * RECORD.itemsize
    records = np.frombuffer(body[ends:middle], RECORD)
    bits = np.frombuffer(body[middle:], np.uint8).reshape(videos, width)
    index = Index(shape, names, records, bits, state)
    fits = len(names) == videos == len(records) == len(index.rows) and width in (0, -(-shape.classes // 8))
    safe = all(safe_name(name) and name[0] not in "=+@" for name in names)
    return index if fits and safe and _within(index, state[0]) else None


def _within(index: Index, size: int) -> bool:
    """Whether all that it names is within a file of so many bytes."""
    records, shape = index.records, index.shape
    if shape.dtype not in ("float32", "float16") or not (0 < shape.dim <= size and 0 <= shape.classes <= size):
        return False
    lengths, numbers = records["length"], np.stack([records["first"], records["step"]])
    if not ((lengths > 0) & (lengths <= size // shape.dim)).all() or not ((numbers >= 0) & (numbers < FURTHEST)).all():
        return False
    spans = [(records[name], bytes_) for name, bytes_ in shape.sizes(lengths).items()]
    return all(((start >= 0) & (start <= size - bytes_)).all() for start, bytes_ in spans)
