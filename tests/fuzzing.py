"""Damaged copies of a file, given to a reader in a process of its own, so that crashes and hangs are counted."""

import collections
import multiprocessing
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY = 4 * 2**30  # on top of what the imports take, which for torch is as much
INTERESTING = (b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """1 to 6 changes: bits flipped, bytes overwritten, put in, taken out, moved, or the end cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at, span = rng.randrange(len(changed) or 1), rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.choice(("flip", "flip", "flip", "set", "set", "set", "insert", "delete", "copy", "cut"))
        if kind == "flip" and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == "set":
            piece = rng.choice((*INTERESTING, rng.randbytes(span)))
            changed[at : at + len(piece)] = piece
        elif kind == "insert":
            changed[at:at] = rng.randbytes(span)
        elif kind == "delete":
            del changed[at : at + span]
        elif kind == "copy":
            other = rng.randrange(len(changed) or 1)
            changed[at : at + span] = changed[other : other + span]
        elif rng.random() < 0.2:
            del changed[at:]
    return bytes(changed)


def count_results(
    read: Callable[[Path], str], originals: list[Path], folder: Path, count: int, seconds: float = 60
) -> collections.Counter[str]:
    """What became of `count` damaged copies: `read`'s word, the exception that got out of it, a signal, a hang."""
    found: collections.Counter[str] = collections.Counter()
    worker = None
    for number in range(count):
        worker = worker or _ReaderProcess(read, originals, folder)
        word = worker.ask(number, seconds)
        if word.startswith(("killed", "hang")):
            worker = None
            print(f"copy {number}: {word}", flush=True)
        found[word] += 1
    if worker:
        worker.stop()
    return found


class _ReaderProcess:
    def __init__(self, read: Callable[[Path], str], originals: list[Path], folder: Path):
        context: Any = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, read, originals, folder), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()  # it has imported what it needs

    def ask(self, number: int, seconds: float) -> str:
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
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what C libraries say of damaged files
    pipe.send("ready")
    while True:
        number = pipe.recv()
        original = originals[number % len(originals)]
        path = folder / f"{number}{original.suffix}"  # a name of its own: libraries may remember what they opened
        path.write_bytes(mutate(original.read_bytes(), random.Random(number)))
        try:
            word = read(path)
        except BaseException as error:
            word = f"{type(error).__module__}.{type(error).__name__}: {error}"[:200]
        pipe.send(word)
        path.unlink()
