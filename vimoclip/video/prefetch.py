"""Decode several videos in background threads, ahead of the consumer."""

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Generic, TypeVar

Reader = TypeVar("Reader", bound=Iterable[Any])  # of the batches of one video, as VideoReader
Converted = TypeVar("Converted")


def prefetch_videos(
    readers: Iterable[Reader],
    convert: Callable[[Any], Converted],
    workers: int,
    videos_ahead: int = 2,
    depth: int = 4,
) -> Generator[tuple[Reader, Iterator[Converted]], None, None]:
    """Yield (reader, its converted batches) in order; threads read up to `videos_ahead` videos ahead.

    `readers` is consumed lazily; each is iterated, and its batches converted, in one thread. An exception of a reader
    is raised where its batches are iterated; batches that the consumer leaves out are dropped. At most `depth` batches
    per video are queued. A consumer that may stop early must close the generator (contextlib.closing), otherwise the
    threads wait for space in the queues. Without `workers` the videos are read in the calling thread."""
    if workers <= 0:
        yield from ((reader, map(convert, reader)) for reader in readers)
        return
    import torch  # here, as importing it takes seconds, which scripts that only probe videos don't need

    torch.get_num_threads()  # fixes the count of this thread before other threads set theirs
    # one thread of torch per prefetch thread: 1.07 times as fast with several of them
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def start(reader: Reader) -> tuple[Reader, _BatchQueue[Converted]]:
            batches = _BatchQueue[Converted](depth)
            pool.submit(batches.fill, reader, convert)
            return reader, batches

        not_started, started = map(start, readers), deque[tuple[Reader, _BatchQueue[Converted]]]()
        try:
            started.extend(islice(not_started, 1 + max(videos_ahead, workers)))
            while started:
                reader, batches = started[0]
                yield reader, iter(batches)
                batches.close()
                started.popleft()
                started.extend(islice(not_started, 1))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for _, batches in started:
                batches.close()  # the pool's context manager waits for the running threads


class _BatchQueue(Generic[Converted]):
    """Queue of the batches of one video, between the thread that reads them and the consumer."""

    def __init__(self, depth: int):
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._closed = threading.Event()
        self._end = object()  # follows the last batch
        self._error: BaseException | None = None

    def fill(self, reader: Iterable[Any], convert: Callable[[Any], Converted]) -> None:
        """Read all batches; to be called in a thread."""
        try:
            for batch in reader:
                self._put(convert(batch))
                if self._closed.is_set():
                    return
        except BaseException as error:
            self._error = error
        self._put(self._end)

    def _put(self, item: Any) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return

    def __iter__(self) -> Iterator[Converted]:
        while (item := self._queue.get()) is not self._end:
            yield item
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop the thread at its next batch."""
        self._closed.set()
