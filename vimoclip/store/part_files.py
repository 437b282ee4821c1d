"""A finished video on its way into a file of embeddings: rows, then the small arrays, then a line that describes them.

Not HDF5: where a disk becomes full in the middle, libhdf5 2.0 can't close its file and takes the process with it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.errors import UserError
from vimoclip.io import atomic

SUFFIX = ".part"
_ATTRIBUTES = ("original_frames", "fps")


class Part:
    """Append rows, then `complete` and `publish` it, or `abandon` it. Raises OSError where it can't be written."""

    def __init__(self, path: Path, key: str, dtype: str, tell: Callable[[str], None] = lambda name: None):
        """`tell` hears its file's name once it is published."""
        self.key, self.dtype, self._tell = key, np.dtype(dtype), tell
        self._file = atomic.NewFile(path)
        self._rows = self._dim = 0

    def append(self, rows: np.ndarray) -> None:
        """Add (n, D) embeddings behind those that are there."""
        self._dim = rows.shape[1]
        self._rows += len(rows)
        self._file.write(np.ascontiguousarray(rows, self.dtype))
        self._file.check()

    def complete(
        self,
        frame_indices: np.ndarray,
        timestamps: np.ndarray,
        original_frames: int,
        fps: float,
        labels: np.ndarray | None = None,
    ) -> None:
        """Make the part whole, not yet visible. Raises ValueError where rows and indices don't agree."""
        if not self._rows or self._rows != len(frame_indices) or self._rows != len(timestamps):
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
        about = {"key": self.key, "arrays": shapes, "original_frames": int(original_frames), "fps": float(fps)}
        line = json.dumps(about).encode()
        self._file.write(line + len(line).to_bytes(8, "little"))
        self._file.flush()
        self._file.check()

    def publish(self) -> None:
        """Make it visible under its name."""
        self._tell(self._file.finish().name)

    def finish(self, *args: Any, **kwargs: Any) -> None:
        """`complete`, then `publish`."""
        self.complete(*args, **kwargs)
        self.publish()

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.abandon()


class WholePart:
    """Reads what `Part` wrote: which arrays are in it, their `shape`, `read`, `attributes`.

    Raises UserError for a damaged one, FileNotFoundError for one that has vanished."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with open(path, "rb") as file:
                size = file.seek(-8, 2) + 8
                length = int.from_bytes(file.read(8), "little")
                file.seek(size - 8 - length)
                about = json.loads(file.read(length))
            self.attributes = {name: about[name] for name in _ATTRIBUTES}
            self._arrays: dict[str, tuple[int, Any, list[int]]] = {}
            offset = 0
            for name, (dtype, shape) in about["arrays"].items():
                self._arrays[name] = (offset, np.dtype(dtype), shape)
                offset += np.dtype(dtype).itemsize * math.prod(shape)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError("is damaged", "delete it, and its video is done again", path=path) from None
        if offset != size - 8 - length:
            raise UserError("is damaged", "delete it, and its video is done again", path=path)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def shape(self, name: str) -> list[int]:
        """Of one of its arrays."""
        return self._arrays[name][2]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start..stop of an array."""
        offset, dtype, shape = self._arrays[name]
        row = math.prod(shape[1:])
        count = (min(stop, shape[0]) if stop is not None else shape[0]) - start
        values = np.fromfile(self.path, dtype, count * row, offset=offset + start * row * dtype.itemsize)
        return values.reshape(count, *shape[1:])
