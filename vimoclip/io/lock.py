"""One process at a time on one output, or one a shard of a job array."""

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
from vimoclip.io.atomic import beside

_SHARDS = 2**20  # more than there can be of one count; each count has so many bytes of the lock
_PATIENCE = 1.0  # s: another shard that ends tries for a moment to have it all
_HELD = {errno.EACCES, errno.EAGAIN}  # what is said where another process has the lock
# what file systems answer that have no locks (some network ones, by how they were mounted)
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EPROTONOSUPPORT}


class Held(UserError):
    """Another process has it."""


def lock_path(output: Path) -> Path:
    """`<output>.lock`, beside it."""
    return beside(output, ".lock")


@contextlib.contextmanager
def only_process(output: Path, wait: float = 0) -> Iterator[None]:
    """Hold `<output>.lock` meanwhile. Raises UserError that names who holds it, after so many seconds of waiting.

    A record lock of the operating system: it ends with its process, however that ends, is not inherited by workers, and
    works over NFS and SMB. Where a file system has none, that is said."""
    yield from _held(output, _lock, time.monotonic() + wait)


@contextlib.contextmanager
def only_shard(output: Path, number: int, of: int) -> Iterator[None]:
    """Hold one shard's byte of `<output>.lock`: beside others of as many, but beside no process that has it all.

    Raises UserError where this shard is at work already, or a process on the whole, or shards of another count."""

    def lock(descriptor: int) -> None:
        _lock(descriptor, of * _SHARDS + number, 1)
        for start, length in ((0, of * _SHARDS), ((of + 1) * _SHARDS, 0)):  # where shards of other counts are
            _lock(descriptor, start, length, shared=True)
            _unlock(descriptor, start, length)

    yield from _held(output, lock, time.monotonic() + _PATIENCE)


def _held(output: Path, lock: Callable[[int], None], until: float) -> Iterator[None]:
    path = lock_path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, output, lock, until)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            _lock(descriptor)  # all of it, which fails where other shards are at work
            path.unlink()  # while it is held: nobody else can be given this file any more
        os.close(descriptor)


def _acquire(path: Path, output: Path, lock: Callable[[int], None], until: float) -> int:
    while True:
        descriptor = _open(path)
        try:
            lock(descriptor)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                print(f"{path}: this file system has no locks; start no second process on {output}", flush=True)
                return descriptor
            holder = _read(descriptor)
            os.close(descriptor)
            if error.errno not in _HELD:
                raise OSError(error.errno, error.strerror, str(path)) from None
            if time.monotonic() < until:
                time.sleep(0.2)
                continue
            raise Held(f"{_describe(holder)} writes it", "wait for that, or name another output", path=output) from None
        if _same_file(descriptor, path):  # else it was given back, and unlinked, in this very moment
            with contextlib.suppress(OSError):  # on a full disk it is held without a name
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, json.dumps(_me()).encode())
            return descriptor
        os.close(descriptor)


def _open(path: Path) -> int:
    if path.is_symlink():
        raise UserError("is a link, and nothing is written through one", "remove it", path=path)
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _read(descriptor: int) -> str:
    """Who holds the lock, which is written a moment after it was taken."""
    for _ in range(20):
        os.lseek(descriptor, 0, os.SEEK_SET)
        if text := os.read(descriptor, 4096).decode("utf-8", "replace"):
            return text
        time.sleep(0.05)
    return ""


def _lock(descriptor: int, start: int = 0, length: int = 0, shared: bool = False) -> None:
    """Lock bytes, to the end where `length` is 0. Raise OSError where another process has one of them.

    POSIX: lockf, as flock is inherited by forked workers. Windows: one byte, so that a shard and a process on the whole
    don't see each other there."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        os.lseek(descriptor, 2**40 + start, os.SEEK_SET)  # behind the text, which others may then read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        os.lseek(descriptor, 0, os.SEEK_SET)
        return
    fcntl.lockf(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, length, start)


def _unlock(descriptor: int, start: int, length: int) -> None:
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


def _me() -> dict[str, str | int]:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"process": os.getpid(), "host": socket.gethostname(), "since": time.ctime(), "command": command}


def _describe(holder: str) -> str:
    try:
        who = json.loads(holder)
        return f"process {who['process']} on {who['host']}, since {who['since']} ({who['command']}),"
    except (ValueError, KeyError, TypeError):
        return "another process"
