"""Read and verify HDF5 files of embeddings: our own, and files published with the paper."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vimoclip.errors import GoneError, UserError
from vimoclip.store import offset_index, positional_io, validation

_JSON_ATTRIBUTES = ("sampling", "versions", "student")  # root attributes that hold a dictionary as JSON


class EmbeddingReader:
    """Reader of a file of embeddings, which it opens lazily in each process; can be pickled.

    `kind`: "rgb" or "motion", the required kind. Attributes: `keys`, the videos; `dim` and `dtype` of the embeddings;
    `attributes`, those of the root; `has_schema`, False for a published file, which cannot be checked. Raises UserError
    for another kind of file and for content that `validation` refuses.

    Videos in the `index` are read directly from the file, 20 times as fast as through HDF5; others, and damaged ones,
    through HDF5."""

    def __init__(self, path: Path, kind: str | None = None):
        self.path = path
        self._file: Any = None
        self._pid = -1
        self._raw_file: _RawFile | None = None
        self._index: offset_index.OffsetIndex | None = None
        self._checked_chunks: set[str] = set()
        self.has_schema, self.dim, self.dtype, self._classes = False, 0, "", 0
        self.attributes: dict[str, Any] = {}
        self.keys: list[str] = []
        try:
            self._read_header(kind)
        except UserError:
            self.close()
            raise

    def _read_header(self, kind: str | None) -> None:
        path, file = self.path, self._open_hdf5()
        with _as_user_error(path):
            self.attributes = _read_root_attributes(path)
            self.has_schema = "schema" in self.attributes
            if self.has_schema:
                self._index = offset_index.load_index(path, self.attributes.get("content_sha256"))
            # published files have an additional dataset `video_ids` at the root
            self.keys = list(self._index.rows) if self._index else validation.video_keys(file, path, self.has_schema)
            if self._index:
                self.dim, self.dtype, self._classes = self._index.layout
                self.close()
            elif self.keys and "embeddings" in file[self.keys[0]]:
                first = self._open_array(self.keys[0], "embeddings", rank=2)
                self.dim, self.dtype = first.shape[1], str(first.dtype)
                self._classes = self._count_classes(self.keys[0])
        if self.has_schema and kind and self.attributes.get("kind") != kind:
            raise UserError(f"holds {self.attributes.get('kind')} embeddings, {kind} ones are needed here", path=path)
        if not self.dim and (self.keys or not self.has_schema):
            raise UserError("holds no group <video>/embeddings", "is it a file of embeddings?", path=path)

    def length(self, key: str) -> int:
        """Return T, the number of embedded frames."""
        if key in self.index:
            return self.index.length(key)
        with _as_user_error(self.path):
            return self._open_embeddings(key).shape[0]

    def embeddings(self, key: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows start..stop as (n, D) float32."""
        with _as_user_error(self.path):
            if key in self.index:
                return self._read_indexed_rows(key, start, stop).astype(np.float32, copy=False)
            data = self._open_embeddings(key)
            if key not in self._checked_chunks:
                validation.check_chunk_sizes(data, self.path)
                self._checked_chunks.add(key)
            return data[start:stop].astype(np.float32, copy=False)

    def labels(self, key: str) -> np.ndarray:
        """Return (C,) float32 multi-hot. Raises UserError if the file has no labels."""
        labels = self._read_small_array(key, "labels")
        if labels is None:
            raise UserError(f"{key} has no labels", "is this a file of RGB embeddings?", path=self.path)
        if len(labels) != self._classes:
            problem = f"{key} has {len(labels)} labels, others {self._classes}"
            raise UserError(problem, "create it again", path=self.path)
        return labels.astype(np.float32, copy=False)

    def frame_indices(self, key: str) -> np.ndarray | None:
        """Return (T,) int64, None for a published file."""
        return self._read_per_frame(key, "frame_indices")

    def timestamps(self, key: str) -> np.ndarray | None:
        """Return (T,) float64 in seconds, None for a published file."""
        return self._read_per_frame(key, "timestamps")

    def video_attributes(self, key: str) -> dict[str, Any]:
        """Return `total_frames`, `original_frames` and `fps`, as far as the file has them."""
        if key in self.index:
            return self.index.attributes(key)
        with _as_user_error(self.path):
            attributes = validation.read_attributes(self._open_hdf5()[key].attrs)
            return {name: value.item() for name, value in attributes.items() if hasattr(value, "item")}

    def build_index(self) -> None:
        """Build the index now, so that worker processes inherit it."""
        self._index = self.index

    @property
    def index(self) -> offset_index.OffsetIndex:
        """Offsets of the videos that can be read without HDF5; built or loaded at first use."""
        if self._index is None:
            with _as_user_error(self.path):
                self._index = self._load_or_build_index()
        return self._index

    def _load_or_build_index(self) -> offset_index.OffsetIndex:
        if not self.has_schema or not self.keys:
            return offset_index.EMPTY_INDEX
        # another process may have saved the index after this reader was created
        index = offset_index.load_index(self.path, self.attributes.get("content_sha256"))
        if index is None:
            file, raw_file = self._open_hdf5(), self._open_raw_file()
            index = _build_and_save_index(file, raw_file, self.path, self.keys, self.attributes)
        layout = offset_index.EmbeddingLayout(self.dim, self.dtype, self._classes)
        return index if index.layout == layout else offset_index.EMPTY_INDEX

    def _read_indexed_rows(self, key: str, start: int, stop: int | None) -> np.ndarray:
        record, layout = self.index[key], self.index.layout
        start, stop, _ = slice(start, stop).indices(int(record["length"]))
        dtype = np.dtype(layout.dtype)
        offset = int(record["embeddings"]) + start * layout.dim * dtype.itemsize
        return self._open_raw_file().read(offset, dtype, (max(0, stop - start), layout.dim))

    def _read_indexed_array(self, key: str, name: str) -> np.ndarray | None:
        """Return an array other than the embeddings, from the index or from its offset in the file."""
        index, record = self.index, self.index[key]
        values = {"frame_indices": index.frame_indices, "labels": index.labels}.get(name, lambda key: None)(key)
        if values is not None or record[name] < 0:
            return values
        count = index.layout.classes if name == "labels" else int(record["length"])
        with _as_user_error(self.path):
            return self._open_raw_file().read(int(record[name]), index.layout.types()[name], (count,))

    def _open_array(self, key: str, name: str, rank: int = 1) -> Any:
        return validation.open_numeric_dataset(self._open_hdf5()[key], name, rank, self.path, self.has_schema)

    def _open_embeddings(self, key: str) -> Any:
        data = self._open_array(key, "embeddings", rank=2)
        if data.shape[1] != self.dim:
            problem = f"{key} is {data.shape[1]} wide, other videos {self.dim}"
            raise UserError(problem, "create it again", path=self.path)
        return data

    def _count_classes(self, key: str) -> int:
        return len(self._open_array(key, "labels")) if "labels" in self._open_hdf5()[key] else 0

    def _read_per_frame(self, key: str, name: str) -> np.ndarray | None:
        values, frames = self._read_small_array(key, name), self.length(key)
        if (values is None and self.has_schema) or (values is not None and len(values) != frames):
            count = "none" if values is None else len(values)
            raise UserError(f"{key} has {frames} embeddings but {count} of {name}", "create it again", path=self.path)
        return values

    def _read_small_array(self, key: str, name: str) -> np.ndarray | None:
        if key in self.index:
            return self._read_indexed_array(key, name)
        with _as_user_error(self.path):
            if name not in self._open_hdf5()[key]:
                return None
            data = self._open_array(key, name)
            validation.check_chunk_sizes(data, self.path)
            return data[:]

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        if self._file is not None:
            self._file.close()
        self._file = self._raw_file = None

    def _check_exists(self) -> None:
        if not self.path.is_file() and self.dim:
            raise GoneError("was there when this run began and is gone", "restore it, and continue", path=self.path)
        if not self.path.is_file():
            raise UserError("there is no such file", "run the stage that writes it, or name another", path=self.path)

    def _open_raw_file(self) -> "_RawFile":
        """Open the file for direct reads. Raises GoneError if it was replaced after the index was built."""
        if self._raw_file is None:
            self._check_exists()
            self._raw_file = _RawFile(self.path)
            indexed_state = self._index.state if self._index else self._raw_file.state
            if self._raw_file.state[:2] != indexed_state[:2]:  # ctime is ignored: it also changes with the permissions
                problem = "is another file than when this run began"
                raise GoneError(problem, "start again, or restore the old one and continue", path=self.path)
        return self._raw_file

    def _open_hdf5(self) -> Any:
        if self._file is None or self._pid != os.getpid():  # HDF5 handles are not valid after a fork
            self._check_exists()
            try:
                self._file = h5py.File(self.path, "r")
            except OSError:
                raise UserError("is not an HDF5 file, or is damaged", "create it again", path=self.path) from None
            self._pid = os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_pid": -1, "_raw_file": None}


class _RawFile(offset_index.RawSource):
    """Reader of arrays at byte offsets, with pread: a memory map would count as memory of the process."""

    def __init__(self, path: Path):
        self._descriptor = positional_io.open_read_only(path)
        self.state = offset_index.file_state(os.fstat(self._descriptor))

    def is_unchanged(self, path: Path) -> bool:
        """Return whether `path` still is this version of the file."""
        return offset_index.file_state(os.stat(path)) == self.state

    def read(self, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Return the array at a byte offset. Raises EOFError if the file has become shorter."""
        values = np.empty(shape, dtype)
        buffer = memoryview(values.reshape(-1).view(np.uint8).data)
        while len(buffer):
            count = positional_io.read_into(self._descriptor, buffer, offset)
            if not count:
                raise EOFError(f"it ends before byte {offset}")
            buffer, offset = buffer[count:], offset + count
        return values

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _build_and_save_index(
    file: Any, raw_file: _RawFile, path: Path, keys: list[str], attributes: dict[str, Any]
) -> offset_index.OffsetIndex:
    """Index the valid videos of a file; the index is empty if the file was replaced meanwhile."""
    index = offset_index.build_index(file, keys, attributes.get("kind") == "rgb", raw_file)
    if not raw_file.is_unchanged(path):
        return offset_index.EMPTY_INDEX
    offset_index.save_index(path, index, len(keys), attributes.get("content_sha256"))
    return index


def verify(path: Path) -> list[tuple[str, str]]:
    """Return (key, problem) of each problem of a file that this project wrote; key "" for the file as a whole."""
    problems: list[tuple[str, str]] = []
    try:
        with _as_user_error(path), h5py.File(path, "r") as file:
            attributes = _read_root_attributes(path)
            if offset_index.load_index(path, attributes.get("content_sha256")):
                return []
            names = [name for name in offset_index.ARRAY_RANKS if name != "labels" or attributes.get("kind") == "rgb"]
            keys = validation.video_keys(file, path, strict=True)
            index = _build_and_save_index(file, _RawFile(path), path, keys, attributes)
            for key in keys:
                if key not in index and (problem := _video_problem(file[key], names, path)):
                    problems.append((key, problem))
    except UserError as error:
        problems.append(("", error.problem))
    return problems


def _video_problem(group: Any, names: list[str], path: Path) -> str | None:
    """Return the problem of one video, None if there is none."""
    if not set(names) <= set(group):
        return f"lacks one of {', '.join(names)}"
    attributes = {name: value for name, value in validation.read_attributes(group.attrs).items() if np.ndim(value) == 0}
    if not {"total_frames", "original_frames", "fps"} <= set(attributes):
        return "lacks one of the numbers total_frames, original_frames, fps"
    try:
        arrays = {
            name: validation.open_numeric_dataset(group, name, 2 if name == "embeddings" else 1, path, strict=True)
            for name in names
        }
    except UserError as error:
        return error.problem
    if {len(arrays[name]) for name in names[:3]} != {attributes["total_frames"]}:
        return "embeddings, frame_indices and timestamps differ in length"
    return None


@contextlib.contextmanager
def _as_user_error(path: Path) -> Iterator[None]:
    """Convert the exceptions that h5py raises for a damaged file, of many types, to UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:120]
        raise UserError(
            f"is not an HDF5 file of embeddings, or is damaged ({reason})", "create it again", path=path
        ) from None


def _read_root_attributes(path: Path) -> dict[str, Any]:
    with validation.HeapCheckedFile(path) as checked, h5py.File(checked, "r") as file:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise ValueError("its addresses are not 64 bits wide")
        attributes = {
            name: _decode_attribute(name, value)
            for name, value in validation.read_attributes(file.attrs, strings=True).items()
        }
    if "schema" not in attributes:
        return attributes
    for name in _JSON_ATTRIBUTES:
        if not isinstance(attributes.get(name, {}), dict):
            raise ValueError(f"{name} is no dictionary")
    if not isinstance(attributes.get("class_names", []), list):
        raise ValueError("class_names is no list")
    return attributes


def _decode_attribute(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and name in _JSON_ATTRIBUTES:
        try:
            value = json.loads(value)
        except RecursionError:
            raise ValueError(f"{name} is nested too deep") from None
        except ValueError:
            return value
        validation.check_json_depth(value)
        return value
    if isinstance(value, np.ndarray):
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value.tolist()]
    return value.item() if hasattr(value, "item") else value


def rgb_embeddings_path(folder: Path, dataset_name: str, split: str) -> Path:
    """Return the path of a split's RGB embeddings."""
    return folder / f"{dataset_name}_{split}_clip_embeddings.h5"
