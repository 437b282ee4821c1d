"""Lock files: one process at a time per output, or one per shard of a job array."""

import contextlib
import errno
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vimoclip.errors import UserError
from vimoclip.io.atomic import sidecar_path

_BYTES_PER_COUNT = 2**20  # bytes of the lock file for each number of shards; above the largest number of shards
_SHARD_TIMEOUT = 1.0  # s; a shard that ends locks the whole file for a moment
_HELD_ERRORS = {errno.EACCES, errno.EAGAIN}  # another process holds the lock
# of file systems without locks (some network file systems, depending on mount options)
_NO_LOCK_ERRORS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPROTONOSUPPORT}


class LockHeldError(UserError):
    """Another process holds the lock."""


def lock_path(output: Path) -> Path:
    """Return `<output>.lock`, beside the output."""
    return sidecar_path(output, ".lock")


@contextlib.contextmanager
def exclusive_lock(output: Path, timeout: float = 0) -> Iterator[None]:
    """Hold `<output>.lock` within the block. Raises LockHeldError, which names the holder, after `timeout` seconds.

    A POSIX record lock: it ends with its process, workers don't inherit it, and it works over NFS and SMB. Prints a
    warning if the file system has no locks."""
    yield from _hold_lock(output, _lock_bytes, time.monotonic() + timeout)


@contextlib.contextmanager
def shard_lock(output: Path, index: int, count: int) -> Iterator[None]:
    """Hold one shard's byte of `<output>.lock`, beside other shards of the same count.

    Raises LockHeldError if this shard, the output, or a shard of another count is locked."""

    def lock(descriptor: int) -> None:
        _lock_bytes(descriptor, count * _BYTES_PER_COUNT + index, 1)
        # the bytes of shards of other counts
        for start, length in ((0, count * _BYTES_PER_COUNT), ((count + 1) * _BYTES_PER_COUNT, 0)):
            _lock_bytes(descriptor, start, length, shared=True)
            _unlock_bytes(descriptor, start, length)

    yield from _hold_lock(output, lock, time.monotonic() + _SHARD_TIMEOUT)


def _hold_lock(output: Path, lock: Callable[[int], None], deadline: float) -> Iterator[None]:
    path = lock_path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, output, lock, deadline)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _lock_bytes(descriptor)  # fails while other shards hold their bytes
            path.unlink()  # while locked, so that no other process can lock the deleted file
        os.close(descriptor)


def _acquire(path: Path, output: Path, lock: Callable[[int], None], deadline: float) -> int:
    while True:
        descriptor = _open_lock_file(path)
        try:
            lock(descriptor)
        except OSError as error:
            if error.errno in _NO_LOCK_ERRORS:
                print(f"{path}: this file system has no locks; start no second process on {output}", flush=True)
                return descriptor
            holder = _read_holder(descriptor)
            os.close(descriptor)
            if error.errno not in _HELD_ERRORS:
                raise OSError(error.errno, error.strerror, str(path)) from None
            if time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            problem = f"{_describe_holder(holder)} writes it"
            raise LockHeldError(problem, "wait for that, or name another output", path=output) from None
        if _same_file(descriptor, path):  # else the last holder has just deleted the file
            with contextlib.suppress(OSError):  # on a full disk the lock is held without the holder's name
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, json.dumps(_process_info()).encode())
            return descriptor
        os.close(descriptor)


def _open_lock_file(path: Path) -> int:
    if path.is_symlink():
        raise UserError("is a link, and nothing is written through one", "remove it", path=path)
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _read_holder(descriptor: int) -> str:
    """Return the holder's JSON, which is written a moment after the lock is taken."""
    for _ in range(20):
        os.lseek(descriptor, 0, os.SEEK_SET)
        if text := os.read(descriptor, 4096).decode("utf-8", "replace"):
            return text
        time.sleep(0.05)
    return ""


def _lock_bytes(descriptor: int, start: int = 0, length: int = 0, shared: bool = False) -> None:
    """Lock bytes, to the end of the file if `length` is 0. Raises OSError if another process holds one of them.

    POSIX: lockf, as forked workers inherit a flock. Windows: one byte, so a shard and a process on the whole output
    don't exclude each other."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        os.lseek(descriptor, 2**40 + start, os.SEEK_SET)  # beyond the text, which must stay readable
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return
    fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, length, start)


def _unlock_bytes(descriptor: int, start: int, length: int) -> None:
    try:
        import fcntl
    except ImportError:
        import msvcrt

        os.lseek(descriptor, 2**40 + start, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
        return
    fcntl.lockf(descriptor, fcntl.LOCK_UN, length, start)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _process_info() -> dict[str, str | int]:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"process": os.getpid(), "host": socket.gethostname(), "since": time.ctime(), "command": command}


def _describe_holder(text: str) -> str:
    try:
        info = json.loads(text)
        return f"process {info['process']} on {info['host']}, since {info['since']} ({info['command']}),"
    except (ValueError, KeyError, TypeError):
        return "another process"
