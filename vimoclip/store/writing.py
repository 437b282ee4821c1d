"""Writing a file of embeddings: a part a video, put together at the end."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vimoclip import UserError, publish
from vimoclip.store.reading import Reader, verify

SCHEMA = "vimoclip-embeddings-1"
ROWS = 4096  # rows copied at a time: bounds the memory of putting a file together
_NOT_SETTINGS = ("versions",)  # may differ between the runs that make one file


class Part:
    """One video on its way into the file: append rows, then `finish`, or `abandon` it."""

    def __init__(self, path: Path, key: str, dtype: str):
        self.path, self.key, self.dtype = path, key, dtype
        self._temporary = path.with_name(path.name + ".partial")
        self._file = h5py.File(self._temporary, "w")
        self._rows: Any = None

    def append(self, rows: np.ndarray) -> None:
        """Add (n, D) embeddings behind those that are there."""
        if self._rows is None:
            dim = rows.shape[1]
            self._rows = self._file.create_dataset(
                "embeddings", (0, dim), self.dtype, maxshape=(None, dim), chunks=(256, dim)
            )
        self._rows.resize(len(self._rows) + len(rows), axis=0)
        self._rows[-len(rows) :] = rows

    def finish(
        self,
        frame_indices: np.ndarray,
        timestamps: np.ndarray,
        original_frames: int,
        fps: float,
        labels: np.ndarray | None = None,
    ) -> None:
        """Make the part whole and visible. Raises ValueError where rows and indices don't agree."""
        rows = 0 if self._rows is None else len(self._rows)
        if not rows or rows != len(frame_indices) or rows != len(timestamps):
            raise ValueError(f"{self.key}: {rows} embeddings for {len(frame_indices)} frames")
        self._file.create_dataset("frame_indices", data=np.asarray(frame_indices, np.int64))
        self._file.create_dataset("timestamps", data=np.asarray(timestamps, np.float64))
        if labels is not None:
            self._file.create_dataset("labels", data=np.asarray(labels, np.float32))
        self._file.attrs.update(total_frames=rows, original_frames=int(original_frames), fps=float(fps), key=self.key)
        self._file.close()
        publish(self._temporary, self.path)

    def abandon(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class Writer:
    """Collects videos for one HDF5 file. `done(key)` tells which are there already, in the file or as parts.

    Raises UserError where the output is no such file, or was begun with other settings than `attributes`."""

    def __init__(self, path: Path, attributes: Mapping[str, Any], dtype: str = "float32", overwrite: bool = False):
        self.path, self.attributes, self.dtype = path, dict(attributes), dtype
        self.parts = path.with_name(path.name + ".parts")
        if overwrite:
            path.unlink(missing_ok=True)
            shutil.rmtree(self.parts, ignore_errors=True)
        self._finished = self._read_finished() if path.exists() else frozenset()
        self.parts.mkdir(parents=True, exist_ok=True)
        settings = self.parts / "settings.json"
        mine = json.loads(json.dumps(self._settings(), sort_keys=True))
        if settings.exists():
            self._compare(json.loads(settings.read_text()), mine, self.parts)
        else:
            temporary = settings.with_name("settings.json.partial")
            temporary.write_text(json.dumps(mine, sort_keys=True))
            publish(temporary, settings)
        self._parts = {entry.name for entry in os.scandir(self.parts)}

    def done(self, key: str) -> bool:
        return key in self._finished or _part_name(key) in self._parts

    def part(self, key: str) -> Part:
        return Part(self.parts / _part_name(key), key, self.dtype)

    def finish(self, keys: Iterable[str], labels: Mapping[str, np.ndarray] | None = None) -> Path | None:
        """Put what is there of `keys`, and what the output held before, into the output; None where that is nothing.

        `labels` of every video that belongs into the file, as the annotations have them today: they win over what was
        written before, and a video that is not among them leaves the file; it stays as a part, should it come back."""
        names = {key: _part_name(key) for key in keys if key not in self._finished}
        names = {key: name for key, name in names.items() if (self.parts / name).exists()}
        gone = [] if labels is None else sorted(self._finished - labels.keys())
        if names or gone or self._relabelled(labels):
            for key in gone:
                print(f"{self.path}: {key} is no longer annotated for it, so it is taken out", flush=True)
                self._keep_as_part(key)
            temporary = self.path.with_name(self.path.name + ".partial")
            with h5py.File(temporary, "w") as target:
                for name, value in sorted(self.attributes.items()):
                    target.attrs[name] = _encoded(value)
                target.attrs["schema"] = SCHEMA
                self._copy_all(target, names, self._finished - set(gone), labels or {})
            publish(temporary, self.path)
        self._remove_parts({_part_name(key) for key in self._finished - set(gone)} | set(names.values()))
        return self.path if self.path.exists() else None

    def _copy_all(
        self, target: Any, names: Mapping[str, str], finished: frozenset[str], labels: Mapping[str, np.ndarray]
    ) -> None:
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(h5py.File(self.path)) if finished else None
            for key in sorted(finished | names.keys()):
                if key in names:
                    with h5py.File(self.parts / names[key]) as part:
                        _copy_video(part, target.create_group(key), labels.get(key))
                elif old is not None:
                    _copy_video(old[key], target.create_group(key), labels.get(key))

    def _relabelled(self, labels: Mapping[str, np.ndarray] | None) -> bool:
        if not labels or not self._finished:
            return False
        with h5py.File(self.path) as file:
            return any(
                not np.array_equal(file[key]["labels"][:], labels[key]) for key in self._finished & labels.keys()
            )

    def _keep_as_part(self, key: str) -> None:
        path = self.parts / _part_name(key)
        temporary = path.with_name(path.name + ".partial")
        with h5py.File(self.path) as file, h5py.File(temporary, "w") as part:
            _copy_video(file[key], part)
        publish(temporary, path)

    def _remove_parts(self, used: set[str]) -> None:
        """Parts that are in the output go; others, of videos that were not asked for this time, stay."""
        for name in used:
            (self.parts / name).unlink(missing_ok=True)
        if not any(entry.name.endswith(".h5") for entry in os.scandir(self.parts)):
            shutil.rmtree(self.parts)

    def _settings(self) -> dict[str, Any]:
        return {k: v for k, v in self.attributes.items() if k not in _NOT_SETTINGS} | {"dtype": self.dtype}

    def _read_finished(self) -> frozenset[str]:
        reader = Reader(self.path)
        if not reader.known:
            raise UserError(f"{self.path}: was not written by this project; name another output or give --overwrite")
        if problems := verify(self.path):
            raise UserError(f"{self.path}: {problems[0]}; give --overwrite to make it anew")
        mine = json.loads(json.dumps(self._settings()))
        theirs = {k: v for k, v in reader.attributes.items() if k != "schema" and k not in _NOT_SETTINGS}
        if reader.keys:
            theirs["dtype"] = reader.dtype
        self._compare(theirs, mine, self.path)
        return frozenset(reader.keys)

    def _compare(self, theirs: Mapping[str, Any], mine: Mapping[str, Any], where: Path) -> None:
        for key in sorted(mine.keys() & theirs.keys()):
            if mine[key] != theirs[key]:
                raise UserError(
                    f"{where}: was made with {key}={_short(theirs[key])}, this run has {key}={_short(mine[key])}; "
                    "use the same settings, another output, or --overwrite"
                )


def _copy_video(source: Any, target: Any, labels: np.ndarray | None = None) -> None:
    rows = source["embeddings"]
    copy = target.create_dataset("embeddings", rows.shape, rows.dtype)  # contiguous, not compressed
    for start in range(0, len(rows), ROWS):
        copy[start : start + ROWS] = rows[start : start + ROWS]
    for name in ("frame_indices", "timestamps", "labels"):
        if name in source:
            given = labels if name == "labels" and labels is not None else source[name][:]
            target.create_dataset(name, data=given)
    for name in ("total_frames", "original_frames", "fps"):
        target.attrs[name] = source.attrs[name]


def _encoded(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        return np.array(list(value), dtype=h5py.string_dtype())
    return value


def _part_name(key: str) -> str:
    """A file name for any key: itself where that fits into 255 bytes, else its beginning and a hash."""
    if len(key.encode()) <= 200:
        return key + ".h5"
    return f"{key[:40]}.{hashlib.sha256(key.encode()).hexdigest()}.h5"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
