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
# of systems without locks: Windows, and some network file systems, depending on mount options
_NO_LOCK_ERRORS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPROTONOSUPPORT}


class LockHeldError(UserError):
    """Another process holds the lock."""


def lock_path(output: Path) -> Path:
    """Return `<output>.lock`, beside the output."""
    return sidecar_path(output, ".lock")


@contextlib.contextmanager
def exclusive_lock(output: Path, timeout: float = 0) -> Iterator[None]:
    """Hold `<output>.lock` within the block. Raises LockHeldError, which names the holder, after `timeout` seconds.

    A POSIX record lock: it ends with its process, workers don't inherit it (as they would inherit a flock), and it
    works over NFS and SMB. Prints a warning if the system has no locks."""
    yield from _hold_lock(output, _lock_bytes, timeout)


@contextlib.contextmanager
def shard_lock(output: Path, index: int, count: int) -> Iterator[None]:
    """Hold one shard's byte of `<output>.lock`, and the bytes of other counts together with shards of the same count.

    Raises LockHeldError if this shard, the output, or a shard of another count is locked."""

    def lock(descriptor: int) -> None:
        _lock_bytes(descriptor, count * _BYTES_PER_COUNT + index, 1)
        _lock_bytes(descriptor, 0, count * _BYTES_PER_COUNT, shared=True)
        _lock_bytes(descriptor, (count + 1) * _BYTES_PER_COUNT, shared=True)

    yield from _hold_lock(output, lock, _SHARD_TIMEOUT)


def _hold_lock(output: Path, lock: Callable[[int], None], timeout: float) -> Iterator[None]:
    path = lock_path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, output, lock, time.monotonic() + timeout)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _lock_bytes(descriptor)  # fails while other shards hold their bytes
            path.unlink()  # while locked, so that no other process can lock the deleted file
        os.close(descriptor)


def _acquire(path: Path, output: Path, lock: Callable[[int], None], deadline: float) -> int:
    """Return the descriptor of the locked file, which contains the holder."""
    while True:
        if path.is_symlink():
            raise UserError("is a symbolic link, which is not followed", "remove it", path=path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            lock(descriptor)
        except OSError as error:
            if error.errno in _NO_LOCK_ERRORS:
                print(f"{path}: this file system has no locks; start no second process on {output}", flush=True)
                return descriptor
            holder = _describe_holder(os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            if error.errno not in _HELD_ERRORS:
                raise OSError(error.errno, error.strerror, str(path)) from None
            if time.monotonic() >= deadline:
                hint = "wait for that, or name another output"
                raise LockHeldError(f"{holder} writes it", hint, path=output) from None
            time.sleep(0.2)
            continue
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):  # else the last holder has just deleted the file
                break
        os.close(descriptor)
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    info = {"process": os.getpid(), "host": socket.gethostname(), "since": time.ctime(), "command": command}
    with contextlib.suppress(OSError):  # on a full disk the lock is held without the holder's name
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(info).encode())
    return descriptor


def _lock_bytes(descriptor: int, start: int = 0, length: int = 0, shared: bool = False) -> None:
    """Lock bytes, to the end of the file if `length` is 0. Raises OSError if another process holds one of them."""
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, length, start)


def _describe_holder(content: bytes) -> str:
    try:
        info = json.loads(content)
        return f"process {info['process']} on {info['host']}, since {info['since']} ({info['command']}),"
    except (ValueError, KeyError, TypeError):  # the holder writes it a moment after it has the lock
        return "another process"
