"""Writing files that are whole or not there, also where the disk is full, and never through a link."""

import contextlib
import errno
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# said by file systems that have no hard links
NO_LINKS = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}
LONGEST_NAME = 255  # bytes: what file systems take


def temporary_path(path: Path, what: str = "partial") -> Path:
    """Where a file is while it is being written: beside it, hidden, under a name that any file system takes."""
    name = f".{path.name}.{what}"
    if len(name.encode()) > LONGEST_NAME:
        name = f".{hashlib.sha256(path.name.encode()).hexdigest()}.{what}"
    return path.with_name(name)


def beside(output: Path, ending: str) -> Path:
    """`<output><ending>`, the same for every path that leads to one folder: by a link, or by `.` and `..`."""
    place = output.resolve() if output.is_dir() and (output.is_symlink() or output.name in ("", "..")) else output
    return place.with_name(place.name + ending)


def publish(temporary: Path, path: Path) -> None:
    """Give a file that is whole its name, so that a name never stands for half a file, after a power cut neither.

    A link under that name is replaced; what it points to stays as it is. Raises OSError with that name."""
    try:
        with open(temporary, "r+b") as file:  # Windows flushes none that is open to read only
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


class NewFile:
    """A file on its way to its name: `finish` publishes it, `abandon` leaves no trace.

    A file object for any library. Some crash where a write fails (HDF5, when it closes its file), or hide why (torch):
    so here no write fails; what went wrong first is raised by `check` and `finish`, as OSError with the file's name."""

    def __init__(self, path: Path):
        self.path, self.temporary = path, temporary_path(path)
        self._error: OSError | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self.temporary.unlink(missing_ok=True)  # what a killed run left, or a link to elsewhere
        self._file = open(self.temporary, "x+b")  # noqa: SIM115 - closed by finish or abandon

    def write(self, data: Any) -> int:
        """Take all of it, room or not."""
        size = memoryview(data).nbytes
        if self._error is None:
            with self._remembering():
                self._file.write(data)
        return size

    def flush(self) -> None:
        """As `write`."""
        if self._error is None:
            with self._remembering():
                self._file.flush()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        with self._remembering():
            return self._file.seek(place, whence)
        return place

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        with self._remembering():
            return self._file.truncate(size)
        return size or 0

    def check(self) -> None:
        """Raise OSError where something could not be written."""
        if self._error is not None:
            raise OSError(self._error.errno, self._error.strerror, str(self.path)) from None

    def finish(self) -> Path:
        """Make it appear under its name. Raises OSError, and then leaves nothing."""
        self.flush()
        try:
            self.check()
            self._file.close()
            publish(self.temporary, self.path)
        except OSError as error:
            self._error = self._error or error
            self.abandon()
            self.check()
        return self.path

    def abandon(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):
            self._file.close()  # flushes, which may fail again
        self.temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._error = self._error or error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[NewFile]:
    """A NewFile that is finished at the end, or abandoned where an error leaves the block. Raises OSError."""
    file = NewFile(path)
    try:
        yield file
    except BaseException:
        file.abandon()
        file.check()  # what a library said of a full disk is less clear than what the disk said
        raise
    file.finish()


def write_text(path: Path, text: str) -> Path:
    """A whole text file, or none. Raises OSError."""
    with new_file(path) as file:
        file.write(text.encode("utf-8"))
    return path


def write_text_once(path: Path, text: str) -> bool:
    """Write a whole text file unless there is one; whether there was none. Several may try at the same moment.

    Raises OSError."""
    mine = temporary_path(path, f"{socket.gethostname()}-{os.getpid()}")
    try:
        mine.write_text(text, encoding="utf-8")
        os.link(mine, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise OSError(error.errno, error.strerror, str(path)) from None
        publish(mine, path)
    finally:
        mine.unlink(missing_ok=True)
    return True
