"""Index of the byte offsets of each video's arrays in our own files, so that they are read without HDF5.

Reading a video's rows takes 22 look-ups and 0.25 ms through HDF5, and 0.01 ms at a known offset. The index of a large
file is cached beside it in the hidden file `.<name>.index`, which may be deleted at any time. The cache is valid only
for the file it was built from, identified by size, content hash, mtime and ctime. Copies and archives do not preserve
ctime, so an index that was copied along with a file is ignored."""

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
from vimoclip.io.names import is_safe_name

MIN_VIDEOS = 100  # smaller files are not cached: building takes 0.7 s for 1,000 videos
FORMAT_VERSION = 1
ARRAY_RANKS = {"embeddings": 2, "frame_indices": 1, "timestamps": 1, "labels": 1}
MAX_FRAME_INDEX = 2**31  # also of the step between frames
VIDEO_ATTRIBUTES = ("total_frames", "original_frames", "fps")
# `length`: number of frames; `embeddings` to `labels`: byte offsets in the file (-1: no such array); the index of
# frame i is first + i * step unless step is 0
RECORD_DTYPE = np.dtype(
    [(name, "<i8") for name in ("length", *ARRAY_RANKS, "first", "step", "original_frames")] + [("fps", "<f8")]
)


class EmbeddingLayout(NamedTuple):
    """Properties common to all videos of a file: width and dtype of the embeddings, classes (0: no labels)."""

    dim: int
    dtype: str
    classes: int

    def types(self) -> dict[str, np.dtype]:
        """Return the dtype of each array."""
        types = {"embeddings": self.dtype, "frame_indices": "<i8", "timestamps": "<f8", "labels": "<f4"}
        return {name: np.dtype(dtype) for name, dtype in types.items() if self.classes or name != "labels"}

    def sizes(self, frames: Any) -> dict[str, Any]:
        """Return the bytes of each array for a number of frames, or for an array of such numbers."""
        values = {"embeddings": frames * self.dim, "frame_indices": frames, "timestamps": frames}
        values |= {"labels": frames * 0 + self.classes} if self.classes else {}
        return {name: count * self.types()[name].itemsize for name, count in values.items()}


class OffsetIndex:
    """Offsets and small values of the videos of one file.

    `rows`: video -> row in `records` (RECORD_DTYPE) and in `bits` (its labels, packed); `state`: the `file_state` that
    the index was built for."""

    def __init__(
        self, layout: EmbeddingLayout, names: Iterable[str], records: np.ndarray, bits: np.ndarray, state: list[int]
    ):
        self.layout, self.records, self.bits, self.state = layout, records, bits, state
        self.rows = {name: row for row, name in enumerate(names)}

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def __getitem__(self, key: str) -> Any:
        """Return the record of a video."""
        return self.records[self.rows[key]]

    def length(self, key: str) -> int:
        return int(self[key]["length"])

    def frame_indices(self, key: str) -> np.ndarray | None:
        """Return (T,) int64, None if they have to be read from the file."""
        record = self[key]
        first, step, length = int(record["first"]), int(record["step"]), int(record["length"])
        return np.arange(first, first + step * length, step) if step else None

    def labels(self, key: str) -> np.ndarray | None:
        """Return (C,) float32, None if they have to be read from the file."""
        if self.bits.shape[1] == 0:
            return None
        return np.unpackbits(self.bits[self.rows[key]], count=self.layout.classes).astype(np.float32)

    def attributes(self, key: str) -> dict[str, Any]:
        record = self[key]
        values = (int(record["length"]), int(record["original_frames"]), float(record["fps"]))
        return dict(zip(VIDEO_ATTRIBUTES, values, strict=True))


EMPTY_INDEX = OffsetIndex(EmbeddingLayout(0, "", 0), [], np.empty(0, RECORD_DTYPE), np.empty((0, 0), np.uint8), [])


class RawSource(Protocol):
    """The bytes of a file, and its `file_state`."""

    state: list[int]

    def read(self, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Return the array at a byte offset."""


class OffsetIndexBuilder:
    """Builder of an index, video by video; it leaves out videos that an index cannot describe."""

    def __init__(self) -> None:
        self._layout = EmbeddingLayout(0, "", 0)
        self._names: list[str] = []
        self._records: list[tuple[Any, ...]] = []
        self._labels: list[np.ndarray] = []

    def add_group(self, group: h5g.GroupID, name: str, labels_required: bool, source: RawSource) -> None:
        """Add a video of an HDF5 file if it is stored as this project does."""
        links: dict[bytes, int] = {}
        group.links.iterate(lambda link, info: links.__setitem__(link, info.type), info=True)
        has_labels = b"labels" in links
        names = [array for array in ARRAY_RANKS if array != "labels" or has_labels]
        if labels_required > has_labels or any(links.get(array.encode()) != h5l.TYPE_HARD for array in names):
            return
        attributes = _read_video_attributes(group)
        extents = _all_extents({array: h5d.open(group, array.encode()) for array in names})
        if attributes is None or not extents or not all(e.fits_in(source.state[0]) for e in extents.values()):
            return
        arrays = {
            array: source.read(extent.offset, np.dtype(extent.dtype), extent.shape)
            for array, extent in extents.items()
            if array in ("frame_indices", "labels")
        }
        self._add(name, extents, arrays, attributes)

    def add_written(
        self,
        name: str,
        datasets: Mapping[str, h5py.Dataset],
        arrays: Mapping[str, np.ndarray],
        attributes: Mapping[str, Any],
    ) -> None:
        """Add a video that has just been written. `arrays`: its `frame_indices` and `labels`."""
        if extents := _all_extents({array: dataset.id for array, dataset in datasets.items()}):
            self._add(name, extents, arrays, {"total_frames": extents["embeddings"].shape[0], **attributes})

    def _add(
        self,
        name: str,
        extents: Mapping[str, "DatasetExtent"],
        arrays: Mapping[str, np.ndarray],
        attributes: Mapping[str, Any],
    ) -> None:
        embeddings = extents["embeddings"]
        labels = arrays.get("labels", np.zeros(0, np.float32))
        layout = EmbeddingLayout(embeddings.shape[1], embeddings.dtype, len(labels))
        self._layout = self._layout if self._names else layout
        lengths = {extents[array].shape[0] for array in ARRAY_RANKS if array != "labels"}
        if layout != self._layout or lengths != {attributes["total_frames"]}:
            return
        offsets = [extents[array].offset if array in extents else -1 for array in ARRAY_RANKS]
        first, step = _first_and_step(arrays["frame_indices"])
        self._names.append(name)
        self._labels.append(labels)
        original_frames, fps = int(attributes["original_frames"]), float(attributes["fps"])
        self._records.append((attributes["total_frames"], *offsets, first, step, original_frames, fps))

    def build(self, state: list[int]) -> OffsetIndex:
        """Return the index for a file with this `file_state`."""
        records = np.array(self._records, RECORD_DTYPE)
        labels = np.array(self._labels).reshape(len(records), -1 if self._labels else 0)
        bits = np.packbits(labels == 1, axis=1)
        is_binary = (labels == 1).astype(labels.dtype).tobytes() == labels.tobytes()  # by bytes: -0.0 equals 0.0
        return OffsetIndex(self._layout, self._names, records, bits if is_binary else bits[:, :0], state)


@dataclass(frozen=True)
class DatasetExtent:
    """A contiguous dataset: byte offset, shape, dtype and stored bytes."""

    offset: int
    shape: tuple[int, ...]
    dtype: str
    stored: int

    def fits_in(self, file_size: int) -> bool:
        """Return whether the dataset is complete and within a file of this size."""
        declared = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        return 0 < declared == self.stored and self.offset + declared <= file_size


_HDF5_TYPES = {
    array: {name: h5t.py_create(np.dtype(name)) for name in names}
    for array, names in {
        "embeddings": ("float32", "float16"),
        "frame_indices": ("int64",),
        "timestamps": ("float64",),
        "labels": ("float32",),
    }.items()
}


def _all_extents(datasets: Mapping[str, h5d.DatasetID]) -> dict[str, DatasetExtent] | None:
    """Return the extents of a video's datasets, None if the index cannot describe one of them."""
    extents = {}
    for array, dataset in datasets.items():
        extent = _dataset_extent(dataset, array)
        if extent is None:
            return None
        extents[array] = extent
    return extents


def _dataset_extent(dataset: h5d.DatasetID, array: str) -> DatasetExtent | None:
    offset, hdf5_type = dataset.get_offset(), dataset.get_type()  # no offset: chunked, external or not allocated
    dtype = next((name for name, known_type in _HDF5_TYPES[array].items() if hdf5_type == known_type), None)
    if offset is None or dtype is None or dataset.rank != ARRAY_RANKS[array]:
        return None
    return DatasetExtent(offset, dataset.shape, dtype, dataset.get_storage_size())


def _read_video_attributes(group: h5g.GroupID) -> dict[str, Any] | None:
    """Return VIDEO_ATTRIBUTES, None if there are other attributes or types."""
    names = VIDEO_ATTRIBUTES
    if h5a.get_num_attrs(group) != len(names) or not all(h5a.exists(group, name.encode()) for name in names):
        return None
    values = {}
    for name in names:
        attribute = h5a.open(group, name.encode())
        if attribute.shape != () or attribute.dtype != ("f8" if name == "fps" else "i8"):
            return None
        value = np.empty((), attribute.dtype)
        attribute.read(value)
        values[name] = value.item()
    return values


def _first_and_step(indices: np.ndarray) -> tuple[int, int]:
    """Return first and step of evenly spaced, rising frame indices; (0, 0) for others."""
    first, last, length = int(indices[0]), int(indices[-1]), len(indices)
    step = max(1, (last - first) // max(1, length - 1))
    if not 0 <= first < MAX_FRAME_INDEX or step >= MAX_FRAME_INDEX:
        return 0, 0
    return (first, step) if np.array_equal(indices, np.arange(first, first + step * length, step)) else (0, 0)


def build_index(file: h5py.File, keys: Iterable[str], labels_required: bool, source: RawSource) -> OffsetIndex:
    """Index the videos of a file that are stored as this project does. Takes 0.7 s for 1,000 videos."""
    builder = OffsetIndexBuilder()
    for key in keys:
        with contextlib.suppress(Exception):  # damage is reported when the video is read
            builder.add_group(h5g.open(file.id, key.encode()), key, labels_required, source)
    return builder.build(source.state)


# --- cache on disk


def index_path(path: Path) -> Path:
    """Return the path of the cached index of a file."""
    return atomic.temporary_path(path, "index")


def file_state(status: os.stat_result) -> list[int]:
    """Return the values that identify a version of a file: size, mtime, ctime."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def save_index(path: Path, index: OffsetIndex, videos: int, content_sha256: object) -> None:
    """Cache the index of a large file if it covers all `videos`; errors of the disk are ignored.

    `content_sha256`: the root attribute of that name."""
    if not len(index.rows) == videos >= MIN_VIDEOS:
        return
    names = "\n".join(index.rows).encode()
    body = names + index.records.tobytes() + index.bits.tobytes()
    header = {"format": FORMAT_VERSION, "state": index.state, "content": content_sha256, "shape": index.layout}
    header |= {"names": len(names), "videos": len(index.rows), "bits": index.bits.shape[1]}
    header |= {"sha256": hashlib.sha256(body).hexdigest()}
    with contextlib.suppress(OSError), atomic.open_atomic(index_path(path)) as file:
        file.write(json.dumps(header).encode() + b"\n" + body)


def load_index(path: Path, content_sha256: object) -> OffsetIndex | None:
    """Return the cached index of a file, None if it is missing, damaged or of another version of the file."""
    try:
        state = file_state(os.stat(path))
        cache = index_path(path)
        if not cache.is_file() or cache.stat().st_size > state[0]:  # an index is at most a fifth of its HDF5 file
            return None
        line, _, body = cache.read_bytes().partition(b"\n")
        header = json.loads(line)
        if [header["format"], header["state"], header["content"]] != [FORMAT_VERSION, state, content_sha256]:
            return None
        return _parse_index(header, body, state) if hashlib.sha256(body).hexdigest() == header["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _parse_index(header: Mapping[str, Any], body: bytes, state: list[int]) -> OffsetIndex | None:
    videos, width, names_end = header["videos"], header["bits"], header["names"]
    layout = EmbeddingLayout(*header["shape"])
    names = body[:names_end].decode().split("\n")
    records_end = names_end + videos * RECORD_DTYPE.itemsize
    records = np.frombuffer(body[names_end:records_end], RECORD_DTYPE)
    bits = np.frombuffer(body[records_end:], np.uint8).reshape(videos, width)
    index = OffsetIndex(layout, names, records, bits, state)
    consistent = len(names) == videos == len(records) == len(index.rows) and width in (0, -(-layout.classes // 8))
    safe = all(is_safe_name(name) and name[0] not in "=+@" for name in names)
    return index if consistent and safe and _fits_in_file(index, state[0]) else None


def _fits_in_file(index: OffsetIndex, size: int) -> bool:
    """Return whether all arrays of the index are within a file of this size."""
    records, layout = index.records, index.layout
    if layout.dtype not in ("float32", "float16") or not (0 < layout.dim <= size and 0 <= layout.classes <= size):
        return False
    lengths, frames = records["length"], np.stack([records["first"], records["step"]])
    if not ((lengths > 0) & (lengths <= size // layout.dim)).all():
        return False
    if not ((frames >= 0) & (frames < MAX_FRAME_INDEX)).all():
        return False
    extents = [(records[name], stored) for name, stored in layout.sizes(lengths).items()]
    return all(((start >= 0) & (start <= size - stored)).all() for start, stored in extents)
