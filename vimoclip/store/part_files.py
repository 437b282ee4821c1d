"""Part files: one embedded video each, merged into the HDF5 file at the end.

A part holds the embeddings, the small arrays, a JSON header and the header's length. It is not HDF5 because libhdf5 2.0
cannot close a file on a full disk and aborts the process."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.errors import UserError
from vimoclip.io import atomic

PART_SUFFIX = ".part"
SETTINGS_FILE = "settings.json"  # in a folder of parts: the settings that all its parts share
_ATTRIBUTES = ("original_frames", "fps")


class PartWriter:
    """Writer of a part: `append` rows, then `finalize` and `publish`, or `discard`.

    The file is created with the first rows. Raises OSError if a write fails, or if the folder of parts was deleted."""

    def __init__(self, path: Path, key: str, dtype: str, on_publish: Callable[[str], None] = lambda name: None):
        """`on_publish` is called with the file name after publication."""
        self.path, self.key, self.dtype, self._on_publish = path, key, np.dtype(dtype), on_publish
        self._file: atomic.AtomicFile | None = None
        self._rows = self._dim = 0
        self.is_finite = True  # whether all rows so far are

    def append(self, rows: np.ndarray) -> None:
        """Append (n, D) embeddings."""
        if self._file is None:
            os.stat(self.path.with_name(SETTINGS_FILE))  # raises if the folder was deleted
            self._file = atomic.AtomicFile(self.path)
        self._dim = rows.shape[1]
        self._rows += len(rows)
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(rows, self.dtype)
        self.is_finite = self.is_finite and bool(np.isfinite(values).all())
        self._file.write(values)
        self._file.check()

    def finalize(
        self,
        frame_indices: np.ndarray,
        timestamps: np.ndarray,
        original_frames: int,
        fps: float,
        labels: np.ndarray | None = None,
    ) -> None:
        """Complete the temporary file. Raises ValueError if the lengths of the arrays differ or there are no rows."""
        if self._file is None or self._rows != len(frame_indices) or self._rows != len(timestamps):
            raise ValueError(f"{self.key}: {self._rows} embeddings for {len(frame_indices)} frames")
        arrays = {
            "frame_indices": np.asarray(frame_indices, np.int64),
            "timestamps": np.asarray(timestamps, np.float64),
        }
        if labels is not None:
            arrays["labels"] = np.asarray(labels, np.float32)
        shapes = {"embeddings": (str(self.dtype), [self._rows, self._dim])}
        for name, array in arrays.items():
            self._file.write(np.ascontiguousarray(array))
            shapes[name] = (str(array.dtype), list(array.shape))
        header = {"key": self.key, "arrays": shapes, "original_frames": int(original_frames), "fps": float(fps)}
        encoded = json.dumps(header).encode()
        self._file.write(encoded + len(encoded).to_bytes(8, "little"))
        self._file.flush()
        self._file.check()

    def publish(self) -> None:
        """Give the file its final name."""
        assert self._file is not None, "finalize comes first"
        self._on_publish(self._file.publish().name)

    def discard(self) -> None:
        """Delete the file, if it was created."""
        if self._file is not None:
            self._file.discard()


class PartReader:
    """Reader of a file of `PartWriter`; `name in part` tests for an array, `attributes` holds original_frames and fps.

    Raises UserError for a damaged part, FileNotFoundError for a missing one."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with open(path, "rb") as file:
                size = file.seek(-8, 2) + 8
                header_size = int.from_bytes(file.read(8), "little")
                file.seek(size - 8 - header_size)
                header = json.loads(file.read(header_size))
            self.attributes = {name: header[name] for name in _ATTRIBUTES}
            self._arrays: dict[str, tuple[int, Any, list[int]]] = {}
            offset = 0
            for name, (dtype, shape) in header["arrays"].items():
                self._arrays[name] = (offset, np.dtype(dtype), shape)
                offset += np.dtype(dtype).itemsize * math.prod(shape)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError("is damaged", "delete it; its video is then processed again", path=path) from None
        if offset != size - 8 - header_size:
            raise UserError("is damaged", "delete it; its video is then processed again", path=path)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def shape(self, name: str) -> list[int]:
        """Return the shape of an array."""
        return self._arrays[name][2]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows start..stop of an array."""
        offset, dtype, shape = self._arrays[name]
        row_size = math.prod(shape[1:])
        count = (min(stop, shape[0]) if stop is not None else shape[0]) - start
        values = np.fromfile(self.path, dtype, count * row_size, offset=offset + start * row_size * dtype.itemsize)
        return values.reshape(count, *shape[1:])
