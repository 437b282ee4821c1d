"""Runs check tasks in several processes: HDF5 calls and the opening of files by PyAV hold Python's lock."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from vimoclip.check.video_checks import CheckResults, CheckTask, TaskRunner
from vimoclip.errors import UserError

_runner: list[TaskRunner] = []  # of this worker process


class WorkerKilledError(UserError):
    """A worker process was killed."""

    exit_code = 1


def map_in_processes(runner: TaskRunner, tasks: Sequence[CheckTask], num_workers: int) -> Iterator[CheckResults]:
    """Yield the results of the tasks in order. One worker or none runs in this process. Raises WorkerKilledError."""
    if num_workers < 2:
        yield from map(runner, tasks)
        return
    executor = ProcessPoolExecutor(num_workers, initializer=_start_worker, initargs=(runner,))
    try:
        yield from executor.map(_run_task, tasks)
    except BrokenProcessPool:
        problem = "a process that looked at videos was killed, which is what happens where memory is short"
        raise WorkerKilledError(problem, "try --num-workers 1") from None
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker(runner: TaskRunner) -> None:
    """Leave Ctrl-C to the main process, and exit when it exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _runner[:] = [runner]


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _run_task(task: CheckTask) -> CheckResults:
    return _runner[0](task)
