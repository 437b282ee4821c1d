"""Reading a file of embeddings, ours or published, and telling whether it is whole."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vimoclip import UserError

_JSON = ("sampling", "versions", "student", "flow")  # root attributes that are dictionaries, kept as JSON text


class Reader:
    """Reads a file of embeddings, ours or published. Opens it when first asked in a process; safe to pickle.

    `kind` is "rgb" or "motion" where the file says so; `known` is False for a file without a schema, of which
    nothing can be checked. Raises UserError for what is no such file."""

    def __init__(self, path: Path, kind: str | None = None):
        self.path = path
        self._file: Any = None
        self._pid = -1
        file = self._open()
        with _damage(path):
            self.attributes = {name: _decoded(name, value) for name, value in file.attrs.items()}
            # a published file has a stray data set `video_ids` at the root
            self.keys: list[str] = [key for key in file if isinstance(file.get(key), h5py.Group)]
            first = file[self.keys[0]].get("embeddings") if self.keys else None
            self.dim = int(first.shape[1]) if first is not None else 0
            self.dtype = str(first.dtype) if first is not None else ""
        self.known = "schema" in self.attributes
        if self.known and kind and self.attributes.get("kind") != kind:
            raise UserError(f"{path}: holds {self.attributes.get('kind')} embeddings, {kind} ones are needed here")
        if first is None and (self.keys or not self.known):
            raise UserError(f"{path}: holds no group <video>/embeddings; is it a file of embeddings?")

    def length(self, key: str) -> int:
        """T, the number of embedded frames."""
        with _damage(self.path):
            return int(self._open()[key]["embeddings"].shape[0])

    def embeddings(self, key: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start..stop as (n, D) float32."""
        with _damage(self.path):
            return self._open()[key]["embeddings"][start:stop].astype(np.float32, copy=False)

    def labels(self, key: str) -> np.ndarray:
        """(C,) float32 multi-hot. Raises UserError where the file has none."""
        labels = self._optional(key, "labels")
        if labels is None:
            raise UserError(f"{self.path}: {key} has no labels; is this a file of RGB embeddings?")
        return labels.astype(np.float32, copy=False)

    def frame_indices(self, key: str) -> np.ndarray | None:
        """(T,) int64, or None in a published file."""
        return self._optional(key, "frame_indices")

    def timestamps(self, key: str) -> np.ndarray | None:
        """(T,) float64 seconds, or None in a published file."""
        return self._optional(key, "timestamps")

    def video_attributes(self, key: str) -> dict[str, Any]:
        """`total_frames`, `original_frames`, `fps`, as far as the file has them."""
        with _damage(self.path):
            return {name: value.item() for name, value in self._open()[key].attrs.items() if hasattr(value, "item")}

    def _optional(self, key: str, name: str) -> np.ndarray | None:
        with _damage(self.path):
            group = self._open()[key]
            return group[name][:] if name in group else None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _open(self) -> Any:
        if self._file is None or self._pid != os.getpid():  # HDF5 handles don't survive a fork
            if not self.path.is_file():
                raise UserError(f"{self.path}: there is no such file; run the stage that writes it, or name another")
            try:
                self._file = h5py.File(self.path, "r")
            except OSError:
                raise UserError(f"{self.path}: is not an HDF5 file, or is damaged; make it anew") from None
            self._pid = os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_pid": -1}


def verify(path: Path) -> list[str]:
    """What is wrong with a file of embeddings that this project wrote: a line each, none if it is whole."""
    problems = []
    try:
        with _damage(path), h5py.File(path, "r") as file:
            needed = [
                "embeddings",
                "frame_indices",
                "timestamps",
                *(["labels"] if file.attrs.get("kind") == "rgb" else []),
            ]
            for key in file:
                group = file.get(key)
                if not isinstance(group, h5py.Group) or not set(needed) <= set(group):
                    problems.append(f"{key} lacks one of {', '.join(needed)}")
                elif {len(group[name]) for name in needed[:3]} != {int(group.attrs.get("total_frames", -1))}:
                    problems.append(f"{key}: embeddings, frame_indices and timestamps differ in length")
    except UserError:
        problems.append("is not an HDF5 file, or is damaged")
    return problems


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What h5py raises for a damaged file (it depends on where the damage is) becomes a UserError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:120]
        raise UserError(f"{path}: is not an HDF5 file of embeddings, or is damaged ({reason}); make it anew") from None


def _decoded(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and name in _JSON:
        try:
            return json.loads(value)
        except ValueError:
            return value
    if isinstance(value, np.ndarray):
        return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value.tolist()]
    return value.item() if hasattr(value, "item") else value
