"""Atomic files: complete or absent even if the disk is full, and never written through a symbolic link."""

import contextlib
import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# errno of link() on file systems without hard links
NO_HARD_LINK_ERRORS = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}
MAX_NAME_BYTES = 255  # the limit of common file systems


def temporary_path(path: Path, suffix: str = "partial") -> Path:
    """Return a hidden path beside `path`, to write to before renaming; the name is hashed if it is too long."""
    name = f".{path.name}.{suffix}"
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.{suffix}"
    return path.with_name(name)


def sidecar_path(output: Path, suffix: str) -> Path:
    """Return `<output><suffix>`, the same for all paths to one folder: by a link, or by `.` and `..`."""
    is_alias = output.is_dir() and (output.is_symlink() or output.name in ("", ".."))
    target = output.resolve() if is_alias else output
    return target.with_name(target.name + suffix)


def publish(temporary: Path, path: Path) -> None:
    """Flush a complete file to disk and rename it, so that no crash leaves half a file under the final name.

    Replaces a link under that name and leaves its target alone. Raises OSError with the final name."""
    try:
        with open(temporary, "r+b") as file:  # Windows can't fsync a file that is open for reading only
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


class AtomicFile:
    """Writable file object under a temporary name: `publish` renames it, `discard` deletes it.

    Some libraries crash when a write fails (HDF5, when it closes its file), others hide the reason (torch). So no write
    raises; the first error is kept, and `check` and `publish` raise it as OSError with the file's final name."""

    def __init__(self, path: Path):
        self.path, self.temporary = path, temporary_path(path)
        self._error: OSError | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self.temporary.unlink(missing_ok=True)  # of a killed run, or a link to elsewhere
        self._file = open(self.temporary, "x+b")  # noqa: SIM115 - closed by publish or discard

    def write(self, data: Any) -> int:
        """Write, and return the full length even if the write failed."""
        size = memoryview(data).nbytes
        if self._error is None:
            with self._deferred_errors():
                self._file.write(data)
        return size

    def flush(self) -> None:
        if self._error is None:
            with self._deferred_errors():
                self._file.flush()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with self._deferred_errors():
            return self._file.seek(offset, whence)
        return offset

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        with self._deferred_errors():
            return self._file.truncate(size)
        return size or 0

    def check(self) -> None:
        """Raise OSError if a write failed."""
        if self._error is not None:
            raise OSError(self._error.errno, self._error.strerror, str(self.path)) from None

    def publish(self) -> Path:
        """Give the file its final name. Raises OSError and deletes the file if a write failed."""
        self.flush()
        try:
            self.check()
            self._file.close()
            publish(self.temporary, self.path)
        except OSError as error:
            self._error = self._error or error
            self.discard()
            self.check()
        return self.path

    def discard(self) -> None:
        """Delete the file."""
        with contextlib.suppress(OSError):
            self._file.close()  # flushes, which may fail again
        self.temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _deferred_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._error = self._error or error


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[AtomicFile]:
    """Yield an AtomicFile; publish it at the end of the block, discard it after an exception. Raises OSError."""
    file = AtomicFile(path)
    try:
        yield file
    except BaseException:
        file.discard()
        file.check()  # the error of the disk is clearer than what a library makes of it
        raise
    file.publish()


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 text file atomically. Raises OSError."""
    with open_atomic(path) as file:
        file.write(text.encode("utf-8"))
    return path


def write_text_exclusive(path: Path, text: str) -> bool:
    """Create a text file atomically unless it exists; return whether it was created.

    Of several processes that try at once, one succeeds. Raises OSError."""
    temporary = temporary_path(path, f"{socket.gethostname()}-{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # before the link: no crash leaves an empty file under the final name
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_HARD_LINK_ERRORS:
            raise OSError(error.errno, error.strerror, str(path)) from None
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return True
