"""Byte offsets of each video's arrays in our own files, so that they are read without HDF5.

Reading a video takes 22 look-ups and 0.25 ms through HDF5, and 0.02 ms at a known offset. The index of a large file is
kept beside it in the hidden file `.<name>.index`, which may be deleted at any time. It is valid only for the file it
was made for, identified by size, mtime and ctime. Copies and archives do not preserve ctime, so an index that was
copied or downloaded along with a file is ignored."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.store.validation import ARRAYS, OWN_DTYPES, open_video

MIN_VIDEOS = 100  # smaller files have no index
FORMAT_VERSION = 2
RECORD_DTYPE = np.dtype([(name, "<i8") for name in ("frames", *ARRAYS)])  # number of frames, byte offsets


class EmbeddingLayout(NamedTuple):
    """Properties common to all videos of a file: width and dtype of the embeddings, classes (0: no labels)."""

    dim: int
    dtype: str
    classes: int


@dataclass
class OffsetIndex:
    """`videos`: key -> number of frames, then the byte offsets of ARRAYS; `state`: `file_state` of the file."""

    layout: EmbeddingLayout
    state: list[int]
    videos: dict[str, tuple[int, ...]]

    def find(self, key: str, name: str) -> tuple[int, np.dtype, tuple[int, ...]] | None:
        """Return offset, dtype and shape of an array of a video, None if the file has no such array."""
        frames, *offsets = self.videos[key]
        if name == "embeddings":
            return offsets[0], np.dtype(self.layout.dtype), (frames, self.layout.dim)
        if name == "labels" and not self.layout.classes:
            return None
        shape = (self.layout.classes if name == "labels" else frames,)
        return offsets[ARRAYS.index(name)], np.dtype(OWN_DTYPES[name][0]), shape


class OffsetIndexBuilder:
    """Builder of an index. `build` returns None if the videos differ in layout or are not stored contiguously."""

    def __init__(self) -> None:
        self._layouts: set[EmbeddingLayout] = set()
        self._videos: dict[str, tuple[int, ...]] = {}
        self._is_contiguous = True

    def add(self, key: str, datasets: Mapping[str, Any]) -> None:
        """Add a video. `datasets`: its h5py datasets by name."""
        embeddings = datasets["embeddings"]
        classes = len(datasets["labels"]) if "labels" in datasets else 0
        self._layouts.add(EmbeddingLayout(embeddings.shape[1], str(embeddings.dtype), classes))
        offsets = [datasets[name].id.get_offset() if name in datasets else 0 for name in ARRAYS]
        self._is_contiguous &= None not in offsets  # None: chunked or compact
        self._videos[key] = (len(embeddings), *offsets)

    def build(self, state: list[int]) -> OffsetIndex | None:
        """Return the index for a file with this `file_state`."""
        if len(self._layouts) != 1 or not self._is_contiguous:
            return None
        return OffsetIndex(self._layouts.pop(), state, self._videos)


def check_videos(
    file: Any, path: Path, keys: Iterable[str], is_rgb: bool
) -> tuple[OffsetIndexBuilder, list[tuple[str, str]]]:
    """Check all videos of one of our files; return the builder of its index, and (key, problem) of each problem.

    Takes 1.2 s for 1,000 videos."""
    builder, problems = OffsetIndexBuilder(), []
    for key in keys:
        try:
            builder.add(key, open_video(file[key], path, is_rgb))
        except UserError as error:
            problems.append((key, error.problem))
    return builder, problems


def index_path(path: Path) -> Path:
    """Return the path of a file's index."""
    return atomic.temporary_path(path, "index")


def file_state(path: Path) -> list[int]:
    """Return the values that identify a version of a file: size, mtime, ctime. Raises OSError."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def save_index(path: Path, index: OffsetIndex | None) -> None:
    """Write the index of a large file; errors of the disk are ignored."""
    if index is None or len(index.videos) < MIN_VIDEOS:
        return
    names = "\n".join(index.videos).encode()
    header = {"format": FORMAT_VERSION, "state": index.state, "layout": index.layout, "names": len(names)}
    records = np.array(list(index.videos.values()), RECORD_DTYPE)
    content = json.dumps(header).encode() + b"\n" + names + records.tobytes()
    with contextlib.suppress(OSError), atomic.open_atomic(index_path(path)) as file:
        file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def load_index(path: Path, state: list[int]) -> OffsetIndex | None:
    """Return the index of a file with this `file_state`; None if it is missing, damaged or of another version."""
    if not index_path(path).is_file():
        return None
    try:
        digest, _, content = index_path(path).read_bytes().partition(b"\n")
        if digest != hashlib.sha256(content).hexdigest().encode():
            return None
        line, _, body = content.partition(b"\n")
        header = json.loads(line)
        if [header["format"], header["state"]] != [FORMAT_VERSION, state]:
            return None
        names = body[: header["names"]].decode().split("\n")
        records = np.frombuffer(body[header["names"] :], RECORD_DTYPE).tolist()
        layout = EmbeddingLayout(*header["layout"])
        return OffsetIndex(layout, state, dict(zip(names, records, strict=True)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
