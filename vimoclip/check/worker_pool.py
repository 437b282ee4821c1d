"""The same question to many things, by several processes: HDF5 and PyAV's opening of files hold Python's lock."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from vimoclip.check.video_checks import Look, Seen, Task
from vimoclip.errors import UserError

_look: list[Look] = []  # a worker's


class Killed(UserError):
    """A worker is gone."""

    exit_code = 1


def in_processes(look: Look, tasks: Sequence[Task], workers: int) -> Iterator[Seen]:
    """The answers, in order; without processes where there is one worker or none. Raises Killed."""
    if workers < 2:
        yield from map(look, tasks)
        return
    executor = ProcessPoolExecutor(workers, initializer=_begin, initargs=(look,))
    try:
        yield from executor.map(_ask, tasks)
    except BrokenProcessPool:
        what = "a process that looked at videos was killed, which is what happens where memory is short"
        raise Killed(what, "try --num-workers 1") from None
    finally:
        executor.shutdown(cancel_futures=True)


def _begin(look: Look) -> None:
    """Ctrl-C is the first process's to hear, and no worker outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _look[:] = [look]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _ask(task: Task) -> Seen:
    return _look[0](task)
