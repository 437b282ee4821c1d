"""Write a file of embeddings: one part per video, merged at the end."""

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

from vimoclip.errors import UserError
from vimoclip.io import atomic, yaml_json
from vimoclip.store import offset_index
from vimoclip.store.part_files import PART_SUFFIX, SETTINGS_FILE, PartReader, PartWriter
from vimoclip.store.reader import EmbeddingReader, verify
from vimoclip.video import recorded_geometry

SCHEMA = "vimoclip-embeddings-1"
COPY_ROWS = 4096  # rows copied at a time: bounds the memory of a merge
_UNCOMPARED_ATTRIBUTES = ("versions",)  # may differ between the runs that create one file
_CONTENT_ATTRIBUTES = ("schema", "content_sha256")  # describe the content, not the settings


class EmbeddingWriter:
    """Writer of one HDF5 file, which keeps the videos in the file and in parts of earlier runs.

    `attributes`: root attributes, also the settings that all runs must share; `overwrite`: delete the existing
    file and parts; `read_only`: check the existing output, but write nothing. Raises UserError if the output is another
    kind of file or was begun with other settings."""

    def __init__(
        self,
        path: Path,
        attributes: Mapping[str, Any],
        dtype: str = "float32",
        overwrite: bool = False,
        read_only: bool = False,
    ):
        self.path, self.attributes, self.dtype = path, dict(attributes), dtype
        self.parts_dir = path.with_name(path.name + ".parts")
        if self.parts_dir.is_symlink():
            raise UserError("is a symbolic link, which is not followed", "remove it", path=self.parts_dir)
        self._merged_keys, self._part_names = frozenset[str](), set[str]()
        if overwrite and read_only:
            return
        if overwrite:
            path.unlink(missing_ok=True)
            if self.parts_dir.exists():
                shutil.rmtree(self.parts_dir)
        if path.exists():
            self._merged_keys = self._read_merged_keys()
        if not read_only:
            self.parts_dir.mkdir(parents=True, exist_ok=True)
        self.refresh()
        settings = json.loads(json.dumps(self.settings(), sort_keys=True))
        settings_path = self.parts_dir / SETTINGS_FILE
        exists = settings_path.exists() or bool(self._part_names)  # parts without a settings file are not used
        if not (exists or read_only):
            exists = not atomic.write_text_exclusive(settings_path, json.dumps(settings, sort_keys=True))
        if exists:
            self._check_settings(_read_settings(settings_path), settings, self.parts_dir)

    @classmethod
    def reopen(cls, path: Path, versions: Mapping[str, str]) -> "EmbeddingWriter":
        """Return a writer with the settings of the existing parts or file. Raises UserError if there are none."""
        settings_path = path.with_name(path.name + ".parts") / SETTINGS_FILE
        if settings_path.exists():
            settings = _read_settings(settings_path)
        elif path.exists():
            reader = EmbeddingReader(path)
            excluded = _UNCOMPARED_ATTRIBUTES + _CONTENT_ATTRIBUTES
            settings = {name: value for name, value in reader.attributes.items() if name not in excluded}
            settings["dtype"] = reader.dtype
        else:
            raise UserError("has no finished videos to merge", "run the shards first: --shard I/N", path=path)
        dtype = settings.pop("dtype")
        return cls(path, settings | {"versions": dict(versions)}, dtype)

    def refresh(self) -> None:
        """Update the set of parts with those that other processes have written."""
        with contextlib.suppress(FileNotFoundError):  # another process has just merged the parts
            self._part_names |= {entry.name for entry in os.scandir(self.parts_dir) if entry.name.endswith(PART_SUFFIX)}

    def is_done(self, key: str) -> bool:
        """Return whether a video is in the output or in a part."""
        return key in self._merged_keys or _part_name(key) in self._part_names

    def open_part(self, key: str) -> PartWriter:
        """Return a writer for the part of a video."""
        return PartWriter(self.parts_dir / _part_name(key), key, self.dtype, self._part_names.add)

    def merge(self, keys: Iterable[str], labels: Mapping[str, np.ndarray] | None = None) -> Path | None:
        """Merge the parts of `keys` and the existing output into the output; return its path, None without any video.

        `labels`: the current labels of all videos that belong into the file. They replace stored labels, and a video
        without an entry is moved from the file to a part. Raises UserError for a damaged part, OSError for a missing
        part or an output that cannot be written."""
        self.refresh()
        names = {key: _part_name(key) for key in keys if key not in self._merged_keys}
        names = {key: name for key, name in names.items() if name in self._part_names}
        removed = [] if labels is None else sorted(self._merged_keys - labels.keys())
        if names or removed or self._labels_changed(labels):
            for key in removed:
                print(f"{self.path}: {key} is no longer annotated, so it is removed", flush=True)
                self._extract_to_part(key)
            with atomic.open_atomic(self.path) as file, h5py.File(file, "w") as target:
                for name, value in sorted(self.attributes.items()):
                    target.attrs[name] = _encode_attribute(value)
                target.attrs["schema"] = SCHEMA
                index_builder = offset_index.OffsetIndexBuilder()
                kept = self._merged_keys - set(removed)
                target.attrs["content_sha256"] = self._copy_all(file, target, names, kept, labels or {}, index_builder)
            offset_index.save_index(self.path, index_builder.build(offset_index.file_state(self.path)))
        self._remove_parts({_part_name(key) for key in self._merged_keys - set(removed)} | set(names.values()))
        return self.path if self.path.exists() else None

    def _copy_all(
        self,
        file: atomic.AtomicFile,
        target: Any,
        names: Mapping[str, str],
        merged_keys: frozenset[str],
        labels: Mapping[str, np.ndarray],
        index_builder: offset_index.OffsetIndexBuilder,
    ) -> str:
        """Return the SHA-256 of the copied data; trained models record it to identify their training data."""
        digest = hashlib.sha256()
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(h5py.File(self.path)) if merged_keys else None
            for key in sorted(merged_keys | names.keys()):
                part = self.parts_dir / names[key] if key in names else None
                source = PartReader(part) if part else _GroupReader(old[key] if old else None)
                digest.update(key.encode())
                index_builder.add(key, _copy_video(source, target.create_group(key), labels.get(key), digest))
                file.check()
        return digest.hexdigest()

    def _labels_changed(self, labels: Mapping[str, np.ndarray] | None) -> bool:
        if not labels or not self._merged_keys:
            return False
        reader = EmbeddingReader(self.path)
        return any(not np.array_equal(reader.labels(key), labels[key]) for key in self._merged_keys & labels.keys())

    def _extract_to_part(self, key: str) -> None:
        part = self.open_part(key)
        with h5py.File(self.path) as file:
            source = _GroupReader(file[key])
            for start in range(0, source.shape("embeddings")[0], COPY_ROWS):
                part.append(source.read("embeddings", start, start + COPY_ROWS))
            part.finalize(
                source.read("frame_indices"),
                source.read("timestamps"),
                source.attributes["original_frames"],
                source.attributes["fps"],
                source.read("labels") if "labels" in source else None,
            )
        part.publish()

    def _remove_parts(self, used: set[str]) -> None:
        """Delete merged parts; parts of other videos are kept."""
        for name in used:
            (self.parts_dir / name).unlink(missing_ok=True)
        if not any(entry.name.endswith(PART_SUFFIX) for entry in os.scandir(self.parts_dir)):
            shutil.rmtree(self.parts_dir)

    def settings(self) -> dict[str, Any]:
        """Return the attributes that must agree between the runs for one output."""
        return {k: v for k, v in self.attributes.items() if k not in _UNCOMPARED_ATTRIBUTES} | {"dtype": self.dtype}

    def _read_merged_keys(self) -> frozenset[str]:
        reader = EmbeddingReader(self.path)
        if not reader.has_schema:
            raise UserError(
                "was not written by this project", "name another output or give --overwrite", path=self.path
            )
        if problems := verify(self.path):
            key, problem = problems[0]
            raise UserError(
                f"{key}: {problem}" if key else problem, "give --overwrite to create it again", path=self.path
            )
        settings = json.loads(json.dumps(self.settings()))
        stored = {k: v for k, v in reader.attributes.items() if k != "schema" and k not in _UNCOMPARED_ATTRIBUTES}
        if reader.keys:
            stored["dtype"] = reader.dtype
        self._check_settings(stored, settings, self.path)
        return frozenset(reader.keys)

    def _check_settings(self, stored: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
        if "geometry" in settings:
            earlier = recorded_geometry(stored)
            if not earlier.keys() >= settings["geometry"].keys():
                self.attributes["geometry"] = earlier  # an earlier version made a part of the videos
            stored = {**stored, "geometry": settings["geometry"] | earlier}
        for key in settings.keys() - stored.keys():
            self.attributes.pop(key, None)  # an earlier version, which did not record it, made a part of the videos
        for key in sorted(settings.keys() & stored.keys()):
            if settings[key] != stored[key]:
                raise UserError(
                    f"was made with {key}={_truncate(stored[key])}, this run has {key}={_truncate(settings[key])}",
                    "use the same settings, another output, or --overwrite",
                    path=path,
                )


class _GroupReader:
    """Reader of a video of an HDF5 file, with the interface of PartReader."""

    def __init__(self, group: Any):
        self._group = group
        self.attributes = {name: group.attrs[name].item() for name in ("original_frames", "fps")}

    def __contains__(self, name: str) -> bool:
        return name in self._group

    def shape(self, name: str) -> list[int]:
        return list(self._group[name].shape)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self._group[name][start:stop]


def _copy_video(
    source: PartReader | _GroupReader, target: Any, labels: np.ndarray | None, digest: Any
) -> dict[str, Any]:
    """Copy one video and return its datasets; `labels` replace those of the source."""
    rows, dim = source.shape("embeddings")
    copy = target.create_dataset("embeddings", (rows, dim), source.read("embeddings", 0, 1).dtype)  # not compressed
    for start in range(0, rows, COPY_ROWS):
        values = source.read("embeddings", start, start + COPY_ROWS)
        copy[start : start + COPY_ROWS] = values
        digest.update(values)
    datasets = {"embeddings": copy}
    for name in ("frame_indices", "timestamps", "labels"):
        if name in source:
            values = labels if name == "labels" and labels is not None else source.read(name)
            datasets[name] = target.create_dataset(name, data=values)
            digest.update(np.ascontiguousarray(values))
    target.attrs["total_frames"] = rows
    for name, value in source.attributes.items():
        target.attrs[name] = value
    return datasets


def _read_settings(path: Path) -> dict[str, Any]:
    return yaml_json.read_json(path, f"delete {path.parent} or give --overwrite")


def _encode_attribute(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        return np.array(list(value), dtype=h5py.string_dtype())
    return value


def _part_name(key: str) -> str:
    """Return the file name of a part: the key if it fits into 255 bytes, else its beginning and a hash."""
    if len(key.encode()) <= 200:
        return key + PART_SUFFIX
    return f"{key[:40]}.{hashlib.sha256(key.encode()).hexdigest()}{PART_SUFFIX}"


def _truncate(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
