"""Reading several videos ahead of who needs their frames."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from vimoclip import VideoError

T = TypeVar("T")


def read_ahead(
    sources: Sequence[Callable[[], Iterator[T]]], workers: int, sources_ahead: int = 2, depth: int = 4
) -> Generator[tuple[int, T | VideoError], None, None]:
    """(source's index, item) of all sources in order, while threads work up to `sources_ahead` sources ahead.

    A VideoError ends its source and is handed on as its last item. At most `depth` items a source wait. Who may stop
    early closes it (contextlib.closing): its threads wait for room until then."""
    if workers <= 0:
        for index, source in enumerate(sources):
            yield from ((index, item) for item in _guarded(source))
        return
    stopped, done = threading.Event(), object()
    queues: list[queue.Queue[Any]] = []

    def put(target: "queue.Queue[Any]", item: Any) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                target.put(item, timeout=0.1)
                return

    def work(index: int) -> None:
        try:
            for item in _guarded(sources[index]):
                put(queues[index], item)
                if stopped.is_set():
                    return
            put(queues[index], done)
        except BaseException as error:  # a bug in a source: raised where it is consumed
            put(queues[index], error)

    with ThreadPoolExecutor(workers) as pool:
        try:
            for index in range(len(sources)):
                while len(queues) < min(index + 1 + max(sources_ahead, workers), len(sources)):
                    queues.append(queue.Queue(depth))
                    pool.submit(work, len(queues) - 1)
                while (item := queues[index].get()) is not done:
                    if isinstance(item, BaseException) and not isinstance(item, VideoError):
                        raise item
                    yield index, item
                queues[index] = queue.Queue(1)  # lets go of the frames
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)  # the context waits for what has begun


def _guarded(source: Callable[[], Iterator[T]]) -> Iterator[T | VideoError]:
    try:
        yield from source()
    except VideoError as error:
        yield error
