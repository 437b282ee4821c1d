"""Reading several videos ahead of who needs their frames."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import Any, TypeVar

from vimoclip.errors import VideoError

T = TypeVar("T")


def read_ahead(
    sources: Iterable[Callable[[], Iterator[T]]], workers: int, sources_ahead: int = 2, depth: int = 4
) -> Generator[tuple[int, T | VideoError], None, None]:
    """(source's index, item) of all sources in order, while threads work up to `sources_ahead` sources ahead.

    A source is taken from `sources` only when its turn to be read comes. A VideoError ends its source and is handed on
    as its last item. At most `depth` items a source wait. Who may stop early closes it (contextlib.closing): until then
    its threads wait for room."""
    if workers <= 0:
        for index, source in enumerate(sources):
            yield from ((index, item) for item in _guarded(source))
        return
    stopped, done = threading.Event(), object()

    def put(target: "queue.Queue[Any]", item: Any) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                target.put(item, timeout=0.1)
                return

    def work(source: Callable[[], Iterator[T]], target: "queue.Queue[Any]") -> None:
        try:
            for item in _guarded(source):
                put(target, item)
                if stopped.is_set():
                    return
            put(target, done)
        except BaseException as error:  # a bug in a source: raised where it is consumed
            put(target, error)

    with ThreadPoolExecutor(workers) as pool:

        def begin(source: Callable[[], Iterator[T]]) -> "queue.Queue[Any]":
            target: queue.Queue[Any] = queue.Queue(depth)
            pool.submit(work, source, target)
            return target

        try:
            waiting = map(begin, sources)
            begun = deque(islice(waiting, 1 + max(sources_ahead, workers)))
            for index in count():
                if not begun:
                    return
                while (item := begun[0].get()) is not done:
                    if isinstance(item, BaseException) and not isinstance(item, VideoError):
                        raise item
                    yield index, item
                begun.popleft()
                begun.extend(islice(waiting, 1))
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)  # the context waits for what has begun


def _guarded(source: Callable[[], Iterator[T]]) -> Iterator[T | VideoError]:
    try:
        yield from source()
    except VideoError as error:
        yield error
