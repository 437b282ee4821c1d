"""Checks for HDF5 files from untrusted sources: no references to other files, no sizes beyond the file's content."""

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5z

from vimoclip.errors import UserError
from vimoclip.io.names import is_safe_name

ARRAYS = ("embeddings", "frame_indices", "timestamps", "labels")  # of a video; labels for RGB only
OWN_DTYPES = {
    "embeddings": ("float32", "float16"),
    "frame_indices": ("int64",),
    "timestamps": ("float64",),
    "labels": ("float32",),
}
ALLOWED_FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}  # gzip, with its options
MAX_GZIP_RATIO = 1100  # gzip compresses zeros by 1032
MAX_ATTRIBUTE_ENTRIES = 10_000  # e.g. class names
HEAP_HEADER = 16  # bytes, of a global heap (HDF5's storage of variable-length strings) and of each object in it
MAX_HEAP_SIZE = 2**17  # libhdf5 creates larger heaps only for a single longer string


class HeapCheckedFile(io.FileIO):
    """File object for h5py that checks each global heap before libhdf5 parses it.

    libhdf5 2.0 loops forever, ignoring Ctrl-C, over a heap whose free space object has size 0."""

    def readinto(self, buffer: Any) -> int | None:
        position = self.tell()
        start = max(0, position - HEAP_HEADER)  # libhdf5 may have read the beginning of a heap before
        data = self._read_at(start, position - start + len(buffer) + HEAP_HEADER)
        heap_offset = data.find(b"GCOL")
        while heap_offset >= 0:
            self._check_heap(start + heap_offset)
            heap_offset = data.find(b"GCOL", heap_offset + 1)
        self.seek(position)
        return super().readinto(buffer)

    def _read_at(self, offset: int, size: int) -> bytes:
        self.seek(offset)
        return self.read(size) or b""

    def _check_heap(self, start: int) -> None:
        size = int.from_bytes(self._read_at(start + 8, 8), "little")
        if size > MAX_HEAP_SIZE:  # a list that references one string 10,000 times would take gigabytes
            raise OSError(f"a heap of texts in it has {size} bytes")
        heap, offset = self._read_at(start, size), HEAP_HEADER
        while offset + HEAP_HEADER <= len(heap):
            index, length = struct.unpack_from("<H6xQ", heap, offset)
            if not index and length < HEAP_HEADER:
                raise OSError("a heap of texts in it has no end")
            offset += HEAP_HEADER + -(-length // 8) * 8 if index else length


def video_keys(file: Any, path: Path, strict: bool) -> list[str]:
    """Return the names of the groups at the root. Raises UserError for links and for names unsafe as file names.

    `strict`: for our own files, where other objects at the root are errors too. 30,000 groups take 0.3 s; opening each
    would take twice as long."""
    links: list[tuple[bytes, int]] = []
    file.id.links.iterate(lambda name, info: links.append((name, info.type)), info=True)
    keys = []
    for encoded_name, link_type in links:
        name = encoded_name.decode("utf-8", "surrogateescape")
        _check_hard_link(path, name, link_type)
        if not is_safe_name(name) or (strict and name[0] in "=+@"):
            raise UserError(f"{name!r} can't be a video's name", "create the file again with other names", path=path)
        if h5g.get_objinfo(file.id, encoded_name).type == h5g.GROUP:
            keys.append(name)
        elif strict:
            raise UserError(f"{name!r} is not a group of a video", "create the file again", path=path)
    return keys


def open_video(group: Any, path: Path, is_rgb: bool) -> dict[str, Any]:
    """Return the datasets of a video of one of our files. Raises UserError if the video is invalid."""
    names = ARRAYS if is_rgb else ARRAYS[:3]
    if missing := [name for name in names if name not in group]:
        raise UserError(f"lacks the datasets {', '.join(missing)}", "create the file again", path=path)
    attributes = {name: value for name, value in read_attributes(group.attrs).items() if np.ndim(value) == 0}
    if missing := [name for name in ("total_frames", "original_frames", "fps") if name not in attributes]:
        raise UserError(f"lacks the attributes {', '.join(missing)}", "create the file again", path=path)
    datasets = {
        name: open_numeric_dataset(group, name, 2 if name == "embeddings" else 1, path, strict=True) for name in names
    }
    if {len(datasets[name]) for name in ARRAYS[:3]} != {attributes["total_frames"]}:
        raise UserError("embeddings, frame_indices and timestamps differ in length", "create the file again", path=path)
    return datasets


def open_numeric_dataset(group: Any, name: str, rank: int, path: Path, strict: bool) -> Any:
    """Return a numeric dataset of a video's group, stored in this file. Raises UserError, KeyError if it is missing."""
    label = f"{group.name[1:]!r}/{name}"
    _check_hard_link(path, f"{group.name[1:]}/{name}", group.id.links.get_info(name.encode()).type)
    data = group[name]
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "iuf":
        problem: str | None = "holds no numbers"
    elif strict and data.dtype not in map(np.dtype, OWN_DTYPES[name]):
        problem = f"is {data.dtype}, which this project doesn't write"
    elif data.shape is None or len(data.shape) != rank or not all(data.shape):
        problem = f"has the shape {data.shape}, not {rank} sizes above 0"
    else:
        problem = _storage_problem(data)
    if problem:
        raise UserError(f"{label} {problem}", "create the file again", path=path)
    return data


def check_chunk_sizes(data: Any, path: Path) -> None:
    """Raise UserError if a gzip chunk decompresses to another size than declared, which libhdf5 does not check.

    Takes as long as reading the data, and no time for uncompressed data, as this project writes."""
    plist = data.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if h5z.FILTER_DEFLATE not in filters:
        return
    size = math.prod(data.chunks) * data.dtype.itemsize
    gzip_skipped = 1 << filters.index(h5z.FILTER_DEFLATE)  # bit in the filter mask of a chunk
    chunks: list[Any] = []
    data.id.chunk_iter(chunks.append)
    for chunk in chunks:
        mask, raw = data.id.read_direct_chunk(chunk.chunk_offset)
        if not mask & gzip_skipped and len(zlib.decompressobj().decompress(raw, size + 1)) != size:
            raise UserError(
                f"{data.name[1:]!r} has a chunk that unpacks to another size", "create the file again", path=path
            )


def read_attributes(attributes: Any, strings: bool = False) -> dict[str, Any]:
    """Return the attributes of an h5py object that are numbers or short lists of numbers; others are not read.

    `strings`: read strings as well, only for a `HeapCheckedFile`."""
    values = {}
    for name in attributes:
        attribute = attributes.get_id(name)
        is_string = h5py.check_string_dtype(attribute.dtype) is not None
        readable = attribute.dtype.kind in "iufb" or (strings and is_string)
        if readable and attribute.shape is not None and math.prod(attribute.shape) <= MAX_ATTRIBUTE_ENTRIES:
            values[name] = attributes[name]
    return values


def _check_hard_link(path: Path, name: str, link_type: int) -> None:
    if link_type != h5l.TYPE_HARD:
        hint = "create the file again, with everything in it"
        raise UserError(f"{name!r} is a link, which is not followed", hint, path=path)


def _storage_problem(data: Any) -> str | None:
    """Return why the values of a dataset are not all in its file, None if they are; the values are not read."""
    plist = data.id.get_create_plist()
    layout, filters = plist.get_layout(), [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if layout == h5d.VIRTUAL or plist.get_external_count():
        return "takes its values from other files, which are not opened"
    if len(filters) != len(ALLOWED_FILTERS.intersection(filters)):
        return "has a compression other than gzip"
    size, declared = data.file.id.get_filesize(), math.prod(data.shape) * data.dtype.itemsize
    if layout == h5d.CHUNKED:
        chunk_bytes = math.prod(data.chunks) * data.dtype.itemsize
        declared = chunk_bytes * math.prod(-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True))
        chunks: list[Any] = []
        data.id.chunk_iter(chunks.append)
        stored = sum(chunk.size for chunk in chunks)
        end = max((chunk.byte_offset + chunk.size for chunk in chunks), default=0)
        complete = declared == chunk_bytes * len(chunks) and end <= size
    else:
        stored = data.id.get_storage_size()
        complete = layout == h5d.COMPACT or (data.id.get_offset() or size) + stored <= size
    if not complete or stored > size or declared > stored * (MAX_GZIP_RATIO if filters else 1):
        return f"claims {declared} bytes, but its file of {size} bytes holds fewer"
    return None
