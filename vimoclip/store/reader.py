"""Reading a file of embeddings, ours or published, and telling whether it is whole."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vimoclip.errors import GoneError, UserError
from vimoclip.store import file_ranges, offset_index, validation

_JSON = ("sampling", "versions", "student", "flow")  # root attributes that are dictionaries, kept as JSON text


class Reader:
    """Reads a file of embeddings, ours or published. Opens it when first asked in a process; safe to pickle.

    `kind` is "rgb" or "motion" where the file says so; `known` is False for a file without a schema, of which
    nothing can be checked. Raises UserError for what is no such file, and where it holds what `checks` refuses.

    What this project wrote is read by its `index`, at 20 times the speed; the rest, and what is damaged, by HDF5."""

    def __init__(self, path: Path, kind: str | None = None):
        self.path = path
        self._file: Any = None
        self._pid = -1
        self._values: _Values | None = None
        self._index: offset_index.Index | None = None
        self._unpacked: set[str] = set()
        self.known, self.dim, self.dtype, self._classes = False, 0, "", 0
        self.attributes: dict[str, Any] = {}
        self.keys: list[str] = []
        try:
            self._read_header(kind)
        except UserError:
            self.close()
            raise

    def _read_header(self, kind: str | None) -> None:
        path, file = self.path, self._open()
        with _damage(path):
            self.attributes = _attributes(path)
            self.known = "schema" in self.attributes
            self._index = offset_index.load(path, self.attributes.get("content_sha256")) if self.known else None
            # a published file has a stray data set `video_ids` at the root
            self.keys = list(self._index.rows) if self._index else validation.video_keys(file, path, self.known)
            if self._index:
                self.dim, self.dtype, self._classes = self._index.shape
                self.close()
            elif self.keys and "embeddings" in file[self.keys[0]]:
                first = self._numbers(self.keys[0], "embeddings", rank=2)
                self.dim, self.dtype = first.shape[1], str(first.dtype)
                self._classes = self._classes_of(self.keys[0])
        if self.known and kind and self.attributes.get("kind") != kind:
            raise UserError(f"holds {self.attributes.get('kind')} embeddings, {kind} ones are needed here", path=path)
        if not self.dim and (self.keys or not self.known):
            raise UserError("holds no group <video>/embeddings", "is it a file of embeddings?", path=path)

    def length(self, key: str) -> int:
        """T, the number of embedded frames."""
        if key in self.places:
            return self.places.length(key)
        with _damage(self.path):
            return self._embeddings(key).shape[0]

    def embeddings(self, key: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start..stop as (n, D) float32."""
        with _damage(self.path):
            if key in self.places:
                return self._rows(key, start, stop).astype(np.float32, copy=False)
            data = self._embeddings(key)
            if key not in self._unpacked:
                validation.check_unpacked(data, self.path)
                self._unpacked.add(key)
            return data[start:stop].astype(np.float32, copy=False)

    def labels(self, key: str) -> np.ndarray:
        """(C,) float32 multi-hot. Raises UserError where the file has none."""
        labels = self._optional(key, "labels")
        if labels is None:
            raise UserError(f"{key} has no labels", "is this a file of RGB embeddings?", path=self.path)
        if len(labels) != self._classes:
            raise UserError(f"{key} has {len(labels)} labels, others {self._classes}", "make it anew", path=self.path)
        return labels.astype(np.float32, copy=False)

    def frame_indices(self, key: str) -> np.ndarray | None:
        """(T,) int64, or None in a published file."""
        return self._of_each_frame(key, "frame_indices")

    def timestamps(self, key: str) -> np.ndarray | None:
        """(T,) float64 seconds, or None in a published file."""
        return self._of_each_frame(key, "timestamps")

    def video_attributes(self, key: str) -> dict[str, Any]:
        """`total_frames`, `original_frames`, `fps`, as far as the file has them."""
        if key in self.places:
            return self.places.attributes(key)
        with _damage(self.path):
            found = validation.attributes(self._open()[key].attrs)
            return {name: value.item() for name, value in found.items() if hasattr(value, "item")}

    def prepare(self) -> None:
        """Look up now where everything is, so that of several processes not each has to."""
        self._index = self.places

    @property
    def places(self) -> offset_index.Index:
        """Where the values are of those videos that can be read without HDF5. Made when it is first asked for."""
        if self._index is None:
            with _damage(self.path):
                self._index = self._made_index()
        return self._index

    def _made_index(self) -> offset_index.Index:
        if not self.known or not self.keys:
            return offset_index.NOTHING
        made = offset_index.load(self.path, self.attributes.get("content_sha256"))  # by another process, since
        made = made or _make_index(self._open(), self._opened(), self.path, self.keys, self.attributes)
        return made if made.shape == offset_index.Shape(self.dim, self.dtype, self._classes) else offset_index.NOTHING

    def _rows(self, key: str, start: int, stop: int | None) -> np.ndarray:
        record, shape = self.places[key], self.places.shape
        first, behind, _ = slice(start, stop).indices(int(record["length"]))
        dtype = np.dtype(shape.dtype)
        offset = int(record["embeddings"]) + first * shape.dim * dtype.itemsize
        return self._opened().read(offset, dtype, (max(0, behind - first), shape.dim))

    def _short(self, key: str, name: str) -> np.ndarray | None:
        """Values beside the embeddings, as the index has them or tells where they are."""
        places, record = self.places, self.places[key]
        known = {"frame_indices": places.indices, "labels": places.labels}.get(name, lambda key: None)(key)
        if known is not None or record[name] < 0:
            return known
        count = places.shape.classes if name == "labels" else int(record["length"])
        with _damage(self.path):
            return self._opened().read(int(record[name]), places.shape.types()[name], (count,))

    def _numbers(self, key: str, name: str, rank: int = 1) -> Any:
        return validation.numbers(self._open()[key], name, rank, self.path, self.known)

    def _embeddings(self, key: str) -> Any:
        data = self._numbers(key, "embeddings", rank=2)
        if data.shape[1] != self.dim:
            raise UserError(f"{key} is {data.shape[1]} wide, other videos {self.dim}", "make it anew", path=self.path)
        return data

    def _classes_of(self, key: str) -> int:
        return len(self._numbers(key, "labels")) if "labels" in self._open()[key] else 0

    def _of_each_frame(self, key: str, name: str) -> np.ndarray | None:
        found, frames = self._optional(key, name), self.length(key)
        if (found is None and self.known) or (found is not None and len(found) != frames):
            there = "none" if found is None else len(found)
            raise UserError(f"{key} has {frames} embeddings but {there} of {name}", "make it anew", path=self.path)
        return found

    def _optional(self, key: str, name: str) -> np.ndarray | None:
        if key in self.places:
            return self._short(key, name)
        with _damage(self.path):
            if name not in self._open()[key]:
                return None
            data = self._numbers(key, name)
            validation.check_unpacked(data, self.path)
            return data[:]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._values = None

    def _check_there(self) -> None:
        if not self.path.is_file() and self.dim:
            raise GoneError("was there when this run began and is gone", "bring it back, and go on", path=self.path)
        if not self.path.is_file():
            raise UserError("there is no such file", "run the stage that writes it, or name another", path=self.path)

    def _opened(self) -> "_Values":
        """The file's bytes, of that file which the index is of. Raises GoneError where another has taken its name."""
        if self._values is None:
            self._check_there()
            self._values = _Values(self.path)
            indexed = self._index.state if self._index else self._values.state
            if self._values.state[:2] != indexed[:2]:  # the third also changes where its rights do
                what = "is another file than when this run began"
                raise GoneError(what, "start anew, or bring the old one back and go on", path=self.path)
        return self._values

    def _open(self) -> Any:
        if self._file is None or self._pid != os.getpid():  # HDF5 handles don't survive a fork
            self._check_there()
            try:
                self._file = h5py.File(self.path, "r")
            except OSError:
                raise UserError("is not an HDF5 file, or is damaged", "make it anew", path=self.path) from None
            self._pid = os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_pid": -1, "_values": None}


class _Values(offset_index.Source):
    """A file's bytes as arrays. Read with pread: a map of it would count as memory of the process."""

    def __init__(self, path: Path):
        self._descriptor = file_ranges.open_to_read(path)
        self.state = offset_index.state_of(os.fstat(self._descriptor))

    def is_file(self, path: Path) -> bool:
        """Whether this is what still stands under a name."""
        return offset_index.state_of(os.stat(path)) == self.state

    def read(self, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Values from a place on. Raises EOFError where the file has become shorter."""
        values = np.empty(shape, dtype)
        rest = memoryview(values.reshape(-1).view(np.uint8).data)
        while len(rest):
            count = file_ranges.read_into(self._descriptor, rest, offset)
            if not count:
                raise EOFError(f"it ends before byte {offset}")
            rest, offset = rest[count:], offset + count
        return values

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


def _make_index(
    file: Any, values: _Values, path: Path, keys: list[str], attributes: dict[str, Any]
) -> offset_index.Index:
    """Of those videos that are as they should be."""
    made = offset_index.scan(file, keys, attributes.get("kind") == "rgb", values)
    if not values.is_file(path):
        return offset_index.NOTHING
    offset_index.save(path, made, len(keys), attributes.get("content_sha256"))
    return made


def verify(path: Path) -> list[str]:
    """What is wrong with a file of embeddings that this project wrote: a line each, none if it is whole."""
    problems: list[str] = []
    try:
        with _damage(path), h5py.File(path, "r") as file:
            attributes = _attributes(path)
            if offset_index.load(path, attributes.get("content_sha256")):
                return []
            names = [name for name in offset_index.ARRAYS if name != "labels" or attributes.get("kind") == "rgb"]
            keys = validation.video_keys(file, path, ours=True)
            whole = _make_index(file, _Values(path), path, keys, attributes)
            for key in keys:
                problems += [] if key in whole else _problems(file[key], names, path)
    except UserError as error:
        problems.append(error.problem)
    return problems


def _problems(group: Any, names: list[str], path: Path) -> list[str]:
    """What is wrong with one video, if anything."""
    key = group.name[1:]
    if not set(names) <= set(group):
        return [f"{key} lacks one of {', '.join(names)}"]
    about = {name: value for name, value in validation.attributes(group.attrs).items() if np.ndim(value) == 0}
    if not {"total_frames", "original_frames", "fps"} <= set(about):
        return [f"{key} lacks one of the numbers total_frames, original_frames, fps"]
    data = {name: validation.numbers(group, name, 2 if name == "embeddings" else 1, path, ours=True) for name in names}
    if {len(data[name]) for name in names[:3]} != {about["total_frames"]}:
        return [f"{key}: embeddings, frame_indices and timestamps differ in length"]
    return []


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What h5py raises for a damaged file (it depends on where the damage is) becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0][:120]
        raise UserError(
            f"is not an HDF5 file of embeddings, or is damaged ({reason})", "make it anew", path=path
        ) from None


def _attributes(path: Path) -> dict[str, Any]:
    with validation.Watched(path) as watched, h5py.File(watched, "r") as file:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise ValueError("its addresses are not 64 bits wide")
        found = {name: _decoded(name, value) for name, value in validation.attributes(file.attrs, texts=True).items()}
    if "schema" not in found:
        return found
    for name in _JSON:
        if not isinstance(found.get(name, {}), dict):
            raise ValueError(f"{name} is no dictionary")
    if not isinstance(found.get("class_names", []), list):
        raise ValueError("class_names is no list")
    return found


def _decoded(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and name in _JSON:
        try:
            value = json.loads(value)
        except RecursionError:
            raise ValueError(f"{name} is nested too deep") from None
        except ValueError:
            return value
        validation.check_levels(value)
        return value
    if isinstance(value, np.ndarray):
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value.tolist()]
    return value.item() if hasattr(value, "item") else value


def rgb_path(folder: Path, dataset_name: str, split: str) -> Path:
    """A split's file of RGB embeddings in the folder of embeddings."""
    return folder / f"{dataset_name}_{split}_clip_embeddings.h5"
