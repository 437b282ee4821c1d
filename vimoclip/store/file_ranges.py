"""Bytes at a place of an open file, also where the system has no pread (Windows)."""

import os
from pathlib import Path


def open_to_read(path: Path) -> int:
    """A descriptor. Raises OSError."""
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill a buffer of bytes from there on; how many were filled, 0 at the end of the file. Raises OSError."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    found = read_at(descriptor, len(buffer), offset)
    buffer[: len(found)] = found
    return len(found)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """At most so many bytes; where the file is read otherwise stays as it is. Raises OSError."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)
