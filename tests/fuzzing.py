"""Damaged copies of files, read in a child process, so that crashes and hangs are counted."""

import collections
import multiprocessing
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY_LIMIT = 4 * 2**30  # bytes, in addition to those of the imports (4 GiB for torch)
BOUNDARY_VALUES = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Apply 1 to 6 changes: flip bits, overwrite, insert, delete or copy bytes, or cut off the end."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        offset, length = rng.randrange(len(changed) or 1), rng.choice((1, 1, 2, 4, 8, 64))
        change = rng.choice(("flip", "flip", "flip", "set", "set", "set", "insert", "delete", "copy", "cut"))
        if change == "flip" and changed:
            changed[offset] ^= 1 << rng.randrange(8)
        elif change == "set":
            new = rng.choice((*BOUNDARY_VALUES, rng.randbytes(length)))
            changed[offset : offset + len(new)] = new
        elif change == "insert":
            changed[offset:offset] = rng.randbytes(length)
        elif change == "delete":
            del changed[offset : offset + length]
        elif change == "copy":
            source = rng.randrange(len(changed) or 1)
            changed[offset : offset + length] = changed[source : source + length]
        elif rng.random() < 0.2:
            del changed[offset:]
    return bytes(changed)


def count_results(
    read: Callable[[Path], str], originals: list[Path], folder: Path, count: int, seconds: float = 60
) -> collections.Counter[str]:
    """Count the results of `count` damaged copies: the value of `read`, an exception, a signal or a hang."""
    results: collections.Counter[str] = collections.Counter()
    worker = None
    for number in range(count):
        worker = worker or _ReaderProcess(read, originals, folder)
        result = worker.read(number, seconds)
        if result.startswith(("killed", "hang")):
            worker = None
            print(f"copy {number}: {result}", flush=True)
        results[result] += 1
    if worker:
        worker.stop()
    return results


class _ReaderProcess:
    def __init__(self, read: Callable[[Path], str], originals: list[Path], folder: Path):
        context: Any = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, read, originals, folder), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()  # sent after the imports

    def read(self, number: int, seconds: float) -> str:
        self.pipe.send(number)
        try:
            if self.pipe.poll(seconds):
                return self.pipe.recv()
        except EOFError:
            self.process.join()
            return f"killed by signal {-self.process.exitcode}"
        self.stop()
        return f"hang of more than {seconds:.0f} s"

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def _serve(pipe: Any, read: Callable[[Path], str], originals: list[Path], folder: Path) -> None:
    used_memory = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_memory + MEMORY_LIMIT, used_memory + MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # messages of C libraries
    pipe.send("ready")
    while True:
        number = pipe.recv()
        original = originals[number % len(originals)]
        path = folder / f"{number}{original.suffix}"  # a new name each time: libraries may cache by name
        path.write_bytes(mutate(original.read_bytes(), random.Random(number)))
        try:
            result = read(path)
        except BaseException as error:
            result = f"{type(error).__module__}.{type(error).__name__}: {error}"[:200]
        pipe.send(result)
        path.unlink()
