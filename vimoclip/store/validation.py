"""What a file of embeddings from a stranger must not do: name what isn't its own, or claim more than it holds."""

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
from vimoclip.io.names import safe_name
from vimoclip.store.file_ranges import read_at

LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}
FILTERS = {h5z.FILTER_DEFLATE: "gzip", h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_FLETCHER32: "checksum"}
GZIP_RATIO = 1100  # zeros shrink to 1/1032
ENTRIES = 10_000  # of an attribute, as class names are
HEAP_HEAD = 16  # bytes, of a heap of texts (HDF5's "global heap") and of each entry in it
HEAP_MOST = 2**17  # libhdf5 makes no larger one, but for a single text
LEVELS = 32  # of JSON in an attribute
OURS = {"embeddings": ("float32", "float16"), "frame_indices": ("int64",), "timestamps": ("float64",)}


class Watched(io.FileIO):
    """A file for h5py that looks at each heap of texts before libhdf5 does.

    libhdf5 2.0 walks such a heap for ever, deaf to Ctrl-C, where an entry says that 0 bytes are free."""

    def readinto(self, buffer: Any) -> int:
        start = self.tell()
        around = max(0, start - HEAP_HEAD)  # libhdf5 may have a heap's first bytes already
        near = read_at(self.fileno(), start - around + len(buffer) + HEAP_HEAD, around)
        at = near.find(b"GCOL")
        while at >= 0:
            self._check_heap(around + at)
            at = near.find(b"GCOL", at + 1)
        return super().readinto(buffer)

    def _check_heap(self, start: int) -> None:
        at, size = HEAP_HEAD, int.from_bytes(read_at(self.fileno(), 8, start + 8), "little")
        if size > HEAP_MOST:  # or a list that names one text 10,000 times would take gigabytes
            raise OSError(f"a heap of texts in it has {size} bytes")
        heap = read_at(self.fileno(), size, start)
        while at + HEAP_HEAD <= len(heap):
            index, length = struct.unpack_from("<H6xQ", heap, at)
            if not index and length < HEAP_HEAD:
                raise OSError("a heap of texts in it has no end")
            at += HEAP_HEAD + -(-length // 8) * 8 if index else length


def video_keys(file: Any, path: Path, ours: bool) -> list[str]:
    """The names of the root's groups. Raises UserError for links, for what can't name a file, in our files for others.

    30,000 groups take 0.3 s; to open each would take twice that."""
    links: list[tuple[bytes, int]] = []
    file.id.links.iterate(lambda name, info: links.append((name, info.type)), info=True)
    keys = []
    for raw, kind in links:
        name = raw.decode("utf-8", "surrogateescape")
        _refuse_link(path, name, kind)
        if not safe_name(name) or (ours and name[0] in "=+@"):
            raise UserError(f"{name!r} can't be a video's name", "make the file anew with other names", path=path)
        if h5g.get_objinfo(file.id, raw).type == h5g.GROUP:
            keys.append(name)
        elif ours:
            raise UserError(f"{name!r} is no group of a video", "make it anew", path=path)
    return keys


def numbers(group: Any, name: str, rank: int, path: Path, ours: bool) -> Any:
    """A data set of a video's group: numbers, all of them in this file. Raises UserError, KeyError if there is none."""
    where = f"{path}: {group.name[1:]!r}/{name}"
    _refuse_link(path, f"{group.name[1:]}/{name}", group.id.links.get_info(name.encode()).type)
    data = group[name]
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "iuf":
        raise UserError(f"{where} holds no numbers", "make it anew")
    if ours and data.dtype not in map(np.dtype, OURS.get(name, ("float32",))):
        raise UserError(f"{where} is {data.dtype}, which this project doesn't write", "make it anew")
    if data.shape is None or len(data.shape) != rank or not all(data.shape):
        raise UserError(f"{where} has the shape {data.shape}, not {rank} sizes above 0", "make it anew")
    if problem := _not_held(data):
        raise UserError(f"{where} {problem}", "make it anew")
    return data


def check_unpacked(data: Any, path: Path) -> None:
    """Raise UserError where a chunk under gzip isn't what it says: the library unpacks whatever there is.

    Costs as much as reading; nothing for what this project writes, which isn't packed."""
    plist = data.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if h5z.FILTER_DEFLATE not in filters:
        return
    size = math.prod(data.chunks) * data.dtype.itemsize
    skipped = 1 << filters.index(h5z.FILTER_DEFLATE)
    chunks: list[Any] = []
    data.id.chunk_iter(chunks.append)
    for chunk in chunks:
        mask, raw = data.id.read_direct_chunk(chunk.chunk_offset)
        if not mask & skipped and len(zlib.decompressobj().decompress(raw, size + 1)) != size:
            raise UserError(f"{data.name[1:]!r} has a part that unpacks to another size", "make it anew", path=path)


def attributes(of: Any, texts: bool = False) -> dict[str, Any]:
    """Those attributes that are numbers, or `texts` too, or short lists, as h5py gives them; others aren't read.

    Texts only of a file that is `Watched`."""
    found = {}
    for name in of:
        kept = of.get_id(name)
        readable = kept.dtype.kind in "iufb" or (texts and h5py.check_string_dtype(kept.dtype) is not None)
        if readable and kept.shape is not None and math.prod(kept.shape) <= ENTRIES:
            found[name] = of[name]
    return found


def check_levels(value: Any, levels: int = LEVELS) -> None:
    """Raise ValueError for what was read from JSON and is nested deeper than anything of ours."""
    if isinstance(value, (dict, list)):
        if not levels:
            raise ValueError(f"nested deeper than {LEVELS} levels")
        for child in value.values() if isinstance(value, dict) else value:
            check_levels(child, levels - 1)


def _refuse_link(path: Path, name: str, kind: int) -> None:
    if kind != h5l.TYPE_HARD:
        what = LINKS.get(kind, "a link of an unknown kind")
        raise UserError(
            f"{name!r} is {what}, which is not followed", "make the file anew, with everything in it", path=path
        )


def _not_held(data: Any) -> str | None:
    """Why a data set's values aren't all in its file, as far as can be told without reading them."""
    plist = data.id.get_create_plist()
    layout, filters = plist.get_layout(), {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if layout == h5d.VIRTUAL or plist.get_external_count():
        return "takes its values from other files, which are not opened"
    if filters - FILTERS.keys() or plist.get_nfilters() != len(filters):
        return "is packed by something other than gzip"
    size, declared, stored = data.file.id.get_filesize(), math.prod(data.shape) * data.dtype.itemsize, 0
    if layout == h5d.CHUNKED:
        chunk_bytes = math.prod(data.chunks) * data.dtype.itemsize
        declared = chunk_bytes * math.prod(-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True))
        chunks: list[Any] = []
        data.id.chunk_iter(chunks.append)
        stored = sum(chunk.size for chunk in chunks)
        ends = [chunk.byte_offset + chunk.size for chunk in chunks]
        whole = declared == chunk_bytes * len(chunks) and all(end <= size for end in ends)
    else:
        stored = data.id.get_storage_size()
        whole = layout == h5d.COMPACT or (data.id.get_offset() or size) + stored <= size
    if not whole or stored > size or declared > stored * (GZIP_RATIO if filters else 1):
        return f"claims {declared} bytes, but its file of {size} bytes holds fewer"
    return None
