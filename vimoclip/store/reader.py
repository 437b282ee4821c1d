"""Read and verify HDF5 files of embeddings: our own, and files published with the paper."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vimoclip.errors import GoneError, UserError
from vimoclip.store import offset_index, validation

_JSON_ATTRIBUTES = ("sampling", "geometry", "versions", "student")  # root attributes that hold a dictionary as JSON
MAX_JSON_BRACKETS = 100  # lists and dictionaries in such an attribute: bounds the levels of nesting


class EmbeddingReader:
    """Reader of a file of embeddings, which it opens in each process when needed; can be pickled.

    `kind`: "rgb" or "motion", the required kind. Attributes: `keys`, the videos; `dim` and `dtype` of the embeddings;
    `attributes`, those of the root; `has_schema`, False for a published file, which cannot be checked. Raises UserError
    for another kind of file and for content that `validation` refuses, GoneError if the file is deleted or replaced
    while the reader is used. Not thread-safe.

    Files with an offset index are read at known offsets, others through HDF5."""

    def __init__(self, path: Path, kind: str | None = None):
        self.path = path
        self._pid = -1
        self._file: Any = None
        self._raw_file: Any = None
        self._state: list[int] = []  # of the file when the reader was created
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
        self._may_build_index = self._index is None and self.has_schema and len(self.keys) >= offset_index.MIN_VIDEOS

    def _read_header(self, kind: str | None) -> None:
        path, file = self.path, self._open_hdf5()
        with _as_user_error(path):
            self.attributes = _read_root_attributes(path)
            self.has_schema = "schema" in self.attributes
            if self.has_schema:
                self._index = offset_index.load_index(path, self._state)
            if self._index:
                self.keys = list(self._index.videos)
                self.dim, self.dtype, self._classes = self._index.layout
                self.close()
            else:  # published files have an additional dataset `video_ids` at the root
                self.keys = validation.video_keys(file, path, self.has_schema)
                if self.keys and "embeddings" in file[self.keys[0]]:
                    first = self._open_array(self.keys[0], "embeddings")
                    self.dim, self.dtype = first.shape[1], str(first.dtype)
                    has_labels = "labels" in file[self.keys[0]]
                    self._classes = len(self._open_array(self.keys[0], "labels")) if has_labels else 0
        if self.has_schema and kind and self.attributes.get("kind") != kind:
            raise UserError(f"holds {self.attributes.get('kind')} embeddings, not {kind} embeddings", path=path)
        if not self.dim and (self.keys or not self.has_schema):
            raise UserError("holds no group <video>/embeddings", "name a file of embeddings", path=path)

    def length(self, key: str) -> int:
        """Return T, the number of embedded frames."""
        if index := self.load_index():
            return index.videos[key][0]
        with _as_user_error(self.path):
            return len(self._open_embeddings(key))

    def embeddings(self, key: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows start..stop as (n, D) float32."""
        values = self._read(key, "embeddings", start, stop)
        assert values is not None
        return values.astype(np.float32, copy=False)

    def labels(self, key: str) -> np.ndarray:
        """Return (C,) float32 multi-hot. Raises UserError if the file has no labels."""
        labels = self._read(key, "labels")
        if labels is None:
            raise UserError(f"{key} has no labels", "give RGB embeddings, of extract_embeddings.py", path=self.path)
        if len(labels) != self._classes:
            problem = f"{key} has {len(labels)} labels, other videos {self._classes}"
            raise UserError(problem, "create the file again", path=self.path)
        return labels.astype(np.float32, copy=False)

    def frame_indices(self, key: str) -> np.ndarray | None:
        """Return (T,) int64, None for a published file."""
        return self._read_per_frame(key, "frame_indices")

    def timestamps(self, key: str) -> np.ndarray | None:
        """Return (T,) float64 in seconds, None for a published file."""
        return self._read_per_frame(key, "timestamps")

    def _read_per_frame(self, key: str, name: str) -> np.ndarray | None:
        values, frames = self._read(key, name), self.length(key)
        if (values is None and self.has_schema) or (values is not None and len(values) != frames):
            count = "none" if values is None else len(values)
            raise UserError(
                f"{key} has {frames} embeddings but {count} of {name}", "create the file again", path=self.path
            )
        return values

    def _read(self, key: str, name: str, start: int = 0, stop: int | None = None) -> np.ndarray | None:
        """Return rows start..stop of an array, None if the video has no such array."""
        with _as_user_error(self.path):
            if index := self.load_index():
                array = index.find(key, name)
                return self._read_at(*array, start, stop) if array else None
            if name != "embeddings" and name not in self._open_hdf5()[key]:
                return None
            data = self._open_embeddings(key) if name == "embeddings" else self._open_array(key, name)
            if data.name not in self._checked_chunks:
                validation.check_chunk_sizes(data, self.path)
                self._checked_chunks.add(data.name)
            return data[start:stop]

    def _read_at(
        self, offset: int, dtype: np.dtype, shape: tuple[int, ...], start: int, stop: int | None
    ) -> np.ndarray:
        start, stop, _ = slice(start, stop).indices(shape[0])
        values = np.empty((max(0, stop - start), *shape[1:]), dtype)
        file = self._open_raw()
        file.seek(offset + start * dtype.itemsize * math.prod(shape[1:]))
        if file.readinto(values) < values.nbytes:
            raise EOFError("it is shorter than before")
        return values

    def load_index(self) -> offset_index.OffsetIndex | None:
        """Return the offset index, None if there is none; built at the first call if the file is large.

        Worker processes inherit it."""
        if self._may_build_index:
            self._may_build_index = False
            self._index = offset_index.load_index(self.path, self._state)  # written by another process since
            if self._index is None:
                with contextlib.suppress(Exception):  # damage is reported when the video is read
                    self._index, _ = _build_index(self._open_hdf5(), self.path, self.keys, self.attributes, self._state)
        return self._index

    def _open_array(self, key: str, name: str) -> Any:
        rank = 2 if name == "embeddings" else 1
        return validation.open_numeric_dataset(self._open_hdf5()[key], name, rank, self.path, self.has_schema)

    def _open_embeddings(self, key: str) -> Any:
        data = self._open_array(key, "embeddings")
        if data.shape[1] != self.dim:
            problem = f"{key} is {data.shape[1]} wide, other videos {self.dim}"
            raise UserError(problem, "create the file again", path=self.path)
        return data

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        for file in (self._file, self._raw_file):
            if file is not None:
                file.close()
        self._file = self._raw_file = None

    def _open_hdf5(self) -> Any:
        self._drop_inherited_handles()
        if self._file is None:
            self._check_unchanged()
            try:
                self._file = h5py.File(self.path, "r")
            except OSError:
                raise UserError("is not an HDF5 file, or is damaged", "create the file again", path=self.path) from None
        return self._file

    def _open_raw(self) -> Any:
        self._drop_inherited_handles()
        if self._raw_file is None:
            self._check_unchanged()
            self._raw_file = open(self.path, "rb")  # noqa: SIM115 - closed by close
        return self._raw_file

    def _drop_inherited_handles(self) -> None:
        if self._pid != os.getpid():  # HDF5 handles and file positions are not valid after a fork
            self._pid, self._file, self._raw_file = os.getpid(), None, None

    def _check_unchanged(self) -> None:
        """Check before the file is opened that it is the same as at first. Raises UserError."""
        if not self.path.is_file():
            if self._state:
                raise GoneError("was deleted during the run", "restore it, and resume the run", path=self.path)
            raise UserError("there is no such file", "run the stage that writes it, or name another", path=self.path)
        state = offset_index.file_state(self.path)
        self._state = self._state or state
        # ctime is ignored: it also changes with the permissions; a published file may have been touched
        if state[0] != self._state[0] or (state[1] != self._state[1] and self.has_schema):
            problem = "was replaced during the run"
            raise GoneError(
                problem, "start a new run, or restore the original file and resume this run", path=self.path
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_pid": -1, "_raw_file": None}


def _build_index(
    file: Any, path: Path, keys: list[str], attributes: dict[str, Any], state: list[int]
) -> tuple[offset_index.OffsetIndex | None, list[tuple[str, str]]]:
    """Check all videos of one of our files; return its index, None if it has problems, and (key, problem) of each.

    `state`: of the path before `file` was opened. The index of a large file is saved, unless the path has another state
    by now: then it names another file."""
    builder, problems = offset_index.check_videos(file, path, keys, attributes.get("kind") == "rgb")
    if problems or offset_index.file_state(path) != state:
        return None, problems
    index = builder.build(state)
    offset_index.save_index(path, index)
    return index, []


def verify(path: Path) -> list[tuple[str, str]]:
    """Return (key, problem) of each problem of a file that this project wrote; key "" for the file as a whole."""
    try:
        with _as_user_error(path):
            state = offset_index.file_state(path)
            with h5py.File(path, "r") as file:
                attributes = _read_root_attributes(path)
                if offset_index.load_index(path, state):
                    return []
                return _build_index(file, path, validation.video_keys(file, path, strict=True), attributes, state)[1]
    except UserError as error:
        return [("", error.problem)]


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
            f"is not an HDF5 file of embeddings, or is damaged ({reason})", "create the file again", path=path
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
        if value.count("[") + value.count("{") > MAX_JSON_BRACKETS:
            raise ValueError(f"{name} has too many levels")
        with contextlib.suppress(ValueError):
            value = json.loads(value)
        return value
    if isinstance(value, np.ndarray):
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value.tolist()]
    return value.item() if hasattr(value, "item") else value


def rgb_embeddings_path(folder: Path, dataset_name: str, split: str) -> Path:
    """Return the path of a split's RGB embeddings."""
    return folder / f"{dataset_name}_{split}_clip_embeddings.h5"
