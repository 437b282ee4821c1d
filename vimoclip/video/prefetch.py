"""Decode several videos in background threads, ahead of the consumer."""

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


def prefetch_videos(
    sources: Iterable[Callable[[], Iterator[T]]], workers: int, sources_ahead: int = 2, depth: int = 4
) -> Generator[tuple[int, T | VideoError], None, None]:
    """Yield (index of the source, item) of all sources in order; threads read up to `sources_ahead` sources ahead.

    `sources` is consumed lazily. A VideoError ends its source and is yielded as the last item. At most `depth` items
    per source are queued. A consumer that may stop early must close the generator (contextlib.closing), otherwise the
    threads wait for space in the queues. Without `workers` the sources are read in the calling thread."""
    if workers <= 0:
        for index, source in enumerate(sources):
            yield from ((index, item) for item in _with_error_item(source))
        return
    stop, end_of_source = threading.Event(), object()

    def put(items: "queue.Queue[Any]", item: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                items.put(item, timeout=0.1)
                return

    def read_source(source: Callable[[], Iterator[T]], items: "queue.Queue[Any]") -> None:
        try:
            for item in _with_error_item(source):
                put(items, item)
                if stop.is_set():
                    return
            put(items, end_of_source)
        except BaseException as error:  # a bug in a source: raised in the consumer
            put(items, error)

    with ThreadPoolExecutor(workers) as pool:

        def start(source: Callable[[], Iterator[T]]) -> "queue.Queue[Any]":
            items: queue.Queue[Any] = queue.Queue(depth)
            pool.submit(read_source, source, items)
            return items

        try:
            not_started = map(start, sources)
            queues = deque(islice(not_started, 1 + max(sources_ahead, workers)))
            for index in count():
                if not queues:
                    return
                while (item := queues[0].get()) is not end_of_source:
                    if isinstance(item, BaseException) and not isinstance(item, VideoError):
                        raise item
                    yield index, item
                queues.popleft()
                queues.extend(islice(not_started, 1))
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)  # the context manager waits for running threads


def _with_error_item(source: Callable[[], Iterator[T]]) -> Iterator[T | VideoError]:
    try:
        yield from source()
    except VideoError as error:
        yield error
