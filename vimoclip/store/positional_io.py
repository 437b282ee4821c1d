"""Positional reads of an open file, also on systems without `os.pread` (Windows)."""

import os
from pathlib import Path


def open_read_only(path: Path) -> int:
    """Open a file and return its descriptor. Raises OSError."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read bytes at `offset` into a buffer; return their number, 0 at the end of the file. Raises OSError."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    data = read_at(descriptor, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Return up to `size` bytes at `offset`; the file position is unchanged. Raises OSError."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)
