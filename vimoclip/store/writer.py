"""Writing a file of embeddings: a part a video, put together at the end."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.store import offset_index
from vimoclip.store.part_files import SUFFIX, Part, WholePart
from vimoclip.store.reader import Reader, verify

SCHEMA = "vimoclip-embeddings-1"
ROWS = 4096  # rows copied at a time: bounds the memory of putting a file together
_NOT_SETTINGS = ("versions",)  # may differ between the runs that make one file
_OF_CONTENT = ("schema", "content_sha256")  # of what is in it, not of how it was made


class Writer:
    """Collects videos for one HDF5 file. `done(key)` tells which are there already, in the file or as parts.

    Raises UserError where the output is no such file, or was begun with other settings than `attributes`."""

    def __init__(self, path: Path, attributes: Mapping[str, Any], dtype: str = "float32", overwrite: bool = False):
        self.path, self.attributes, self.dtype = path, dict(attributes), dtype
        self.parts = path.with_name(path.name + ".parts")
        if self.parts.is_symlink():
            raise UserError(f"{self.parts}: is a link, and nothing is written through one", "remove it")
        if overwrite:
            path.unlink(missing_ok=True)
            if self.parts.exists():
                shutil.rmtree(self.parts)
        self._finished = self._read_finished() if path.exists() else frozenset()
        self.parts.mkdir(parents=True, exist_ok=True)
        self._parts = set[str]()
        self.look_again()
        mine = json.loads(json.dumps(self.settings(), sort_keys=True))
        self._about = self.parts / "settings.json"
        known = self._about.exists() or self._parts  # parts of unknown settings are nobody's
        if known or not atomic.write_text_once(self._about, json.dumps(mine, sort_keys=True)):
            self._compare(_read_settings(self._about), mine, self.parts)

    @classmethod
    def reopen(cls, path: Path, versions: Mapping[str, str]) -> "Writer":
        """The writer that a file's parts, or the file, were begun with. Raises UserError where there are none."""
        about = path.with_name(path.name + ".parts") / "settings.json"
        if about.exists():
            settings = _read_settings(about)
        elif path.exists():
            reader = Reader(path)
            settings = {k: v for k, v in reader.attributes.items() if k not in _NOT_SETTINGS + _OF_CONTENT}
            settings["dtype"] = reader.dtype
        else:
            raise UserError("nothing was begun for it, so there is nothing to put together", path=path)
        dtype = settings.pop("dtype")
        return cls(path, settings | {"versions": dict(versions)}, dtype)

    def look_again(self) -> None:
        """See which parts other processes have made since."""
        with contextlib.suppress(FileNotFoundError):  # another one has just put the file together
            self._parts |= {entry.name for entry in os.scandir(self.parts) if entry.name.endswith(SUFFIX)}

    def done(self, key: str) -> bool:
        return key in self._finished or _part_name(key) in self._parts

    def part(self, key: str) -> Part:
        """Raises OSError where the parts have vanished since, as a new folder of them would not say what made it."""
        os.stat(self._about)
        return Part(self.parts / _part_name(key), key, self.dtype, self._parts.add)

    def finish(self, keys: Iterable[str], labels: Mapping[str, np.ndarray] | None = None) -> Path | None:
        """Put what is there of `keys`, and what the output held before, into the output; None where that is nothing.

        `labels` of every video that belongs into the file, as the annotations have them today: they win over what was
        written before, and a video that is not among them leaves the file; it stays as a part, should it come back.
        Raises UserError where a part is damaged, OSError where one has vanished or the output can't be written."""
        self.look_again()
        names = {key: _part_name(key) for key in keys if key not in self._finished}
        names = {key: name for key, name in names.items() if name in self._parts}
        gone = [] if labels is None else sorted(self._finished - labels.keys())
        if names or gone or self._relabelled(labels):
            for key in gone:
                print(f"{self.path}: {key} is no longer annotated for it, so it is taken out", flush=True)
                self._keep_as_part(key)
            with atomic.new_file(self.path) as file, h5py.File(file, "w") as target:
                for name, value in sorted(self.attributes.items()):
                    target.attrs[name] = _encoded(value)
                target.attrs["schema"] = SCHEMA
                places = offset_index.Maker()
                digest = self._copy_all(file, target, names, self._finished - set(gone), labels or {}, places)
                target.attrs["content_sha256"] = digest
            made = places.made(offset_index.state_of(os.stat(self.path)))
            offset_index.save(self.path, made, len(self._finished) - len(gone) + len(names), digest)
        self._remove_parts({_part_name(key) for key in self._finished - set(gone)} | set(names.values()))
        return self.path if self.path.exists() else None

    def _copy_all(
        self,
        file: atomic.NewFile,
        target: Any,
        names: Mapping[str, str],
        finished: frozenset[str],
        labels: Mapping[str, np.ndarray],
        places: offset_index.Maker,
    ) -> str:
        """The SHA-256 of all that was copied, by which others tell whether they learnt from this very file."""
        digest = hashlib.sha256()
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(h5py.File(self.path)) if finished else None
            for key in sorted(finished | names.keys()):
                source = WholePart(self.parts / names[key]) if key in names else _Finished(old[key] if old else None)
                digest.update(key.encode())
                places.written(key, *_copy_video(source, target.create_group(key), labels.get(key), digest))
                file.check()
        return digest.hexdigest()

    def _relabelled(self, labels: Mapping[str, np.ndarray] | None) -> bool:
        if not labels or not self._finished:
            return False
        reader = Reader(self.path)
        return any(not np.array_equal(reader.labels(key), labels[key]) for key in self._finished & labels.keys())

    def _keep_as_part(self, key: str) -> None:
        part = self.part(key)
        with h5py.File(self.path) as file:
            source = _Finished(file[key])
            for start in range(0, source.shape("embeddings")[0], ROWS):
                part.append(source.read("embeddings", start, start + ROWS))
            part.complete(
                source.read("frame_indices"),
                source.read("timestamps"),
                source.attributes["original_frames"],
                source.attributes["fps"],
                source.read("labels") if "labels" in source else None,
            )
        part.publish()

    def _remove_parts(self, used: set[str]) -> None:
        """Parts that are in the output go; others, of videos that were not asked for this time, stay."""
        for name in used:
            (self.parts / name).unlink(missing_ok=True)
        if not any(entry.name.endswith(SUFFIX) for entry in os.scandir(self.parts)):
            shutil.rmtree(self.parts)

    def settings(self) -> dict[str, Any]:
        """What makes two runs one: attributes that must agree to go on."""
        return {k: v for k, v in self.attributes.items() if k not in _NOT_SETTINGS} | {"dtype": self.dtype}

    def _read_finished(self) -> frozenset[str]:
        reader = Reader(self.path)
        if not reader.known:
            raise UserError(
                "was not written by this project", "name another output or give --overwrite", path=self.path
            )
        if problems := verify(self.path):
            raise UserError(f"{problems[0]}", "give --overwrite to make it anew", path=self.path)
        mine = json.loads(json.dumps(self.settings()))
        theirs = {k: v for k, v in reader.attributes.items() if k != "schema" and k not in _NOT_SETTINGS}
        if reader.keys:
            theirs["dtype"] = reader.dtype
        self._compare(theirs, mine, self.path)
        return frozenset(reader.keys)

    def _compare(self, theirs: Mapping[str, Any], mine: Mapping[str, Any], where: Path) -> None:
        for key in sorted(mine.keys() & theirs.keys()):
            if mine[key] != theirs[key]:
                raise UserError(
                    f"{where}: was made with {key}={_short(theirs[key])}, this run has {key}={_short(mine[key])}",
                    "use the same settings, another output, or --overwrite",
                )


def done(path: Path) -> Callable[[str], bool]:
    """Tells which videos a file has, or its parts; writes nothing. Raises UserError for what is no such file."""
    parts = path.with_name(path.name + ".parts")
    names = set(os.listdir(parts)) if parts.is_dir() else set()
    finished = frozenset(Reader(path).keys) if path.exists() else frozenset[str]()
    return lambda key: key in finished or _part_name(key) in names


class _Finished:
    """A video of a finished file, with the interface of a WholePart."""

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
    source: WholePart | _Finished, target: Any, labels: np.ndarray | None, digest: Any
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    """What there is now: the arrays in the file, what the short ones hold, and what stands beside them."""
    rows, dim = source.shape("embeddings")
    copy = target.create_dataset("embeddings", (rows, dim), source.read("embeddings", 0, 1).dtype)  # not compressed
    for start in range(0, rows, ROWS):
        values = source.read("embeddings", start, start + ROWS)
        copy[start : start + ROWS] = values
        digest.update(values)
    data, short = {"embeddings": copy}, dict[str, np.ndarray]()
    for name in ("frame_indices", "timestamps", "labels"):
        if name in source:
            given = labels if name == "labels" and labels is not None else source.read(name)
            data[name], short[name] = target.create_dataset(name, data=given), given
            digest.update(np.ascontiguousarray(given))
    target.attrs["total_frames"] = rows
    for name, value in source.attributes.items():
        target.attrs[name] = value
    return data, short, source.attributes


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        raise UserError("is damaged", f"delete {path.parent} or give --overwrite", path=path) from None


def _encoded(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        return np.array(list(value), dtype=h5py.string_dtype())
    return value


def _part_name(key: str) -> str:
    """A file name for any key: itself where that fits into 255 bytes, else its beginning and a hash."""
    if len(key.encode()) <= 200:
        return key + SUFFIX
    return f"{key[:40]}.{hashlib.sha256(key.encode()).hexdigest()}{SUFFIX}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
