"""Decode several videos in background threads, ahead of the consumer."""

import contextlib
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

BATCHES_PER_THREAD = 3  # that are not queued: frames as decoded, stacked, and converted
Reader = TypeVar("Reader", bound=Iterable[Any])  # of the batches of one video, as VideoReader
Converted = TypeVar("Converted")
Item = TypeVar("Item", covariant=True)


class BatchIterator(Protocol[Item]):
    """The batches of one video; `close` drops the remaining ones and ends their reading."""

    def __iter__(self) -> "BatchIterator[Item]": ...
    def __next__(self) -> Item: ...
    def close(self) -> None: ...


@contextlib.contextmanager
def prefetch_videos(
    readers: Iterable[Reader],
    convert: Callable[[Any], Converted],
    workers: int,
    videos_ahead: int = 2,
    depth: int = 4,
) -> Iterator[Iterator[tuple[Reader, BatchIterator[Converted]]]]:
    """Return a context with an iterator over (reader, its converted batches), in order.

    Threads read up to `videos_ahead` videos ahead. They end with the context, also while batches are left, as after an
    error. `readers` is consumed lazily; each is iterated, and its batches converted, in one thread. An exception of a
    reader is raised where its batches are iterated. At most `depth` batches per video are queued: a consumer that
    leaves out the rest of a video must close its batches, otherwise the thread waits for space in the queue. So at most
    `workers` videos can be iterated in turn. Without `workers` the videos are read in the calling thread."""
    if workers <= 0:
        yield ((reader, (convert(batch) for batch in reader)) for reader in readers)
        return
    import torch  # here, as importing it takes seconds, which scripts that only probe videos don't need

    torch.get_num_threads()  # fixes the count of this thread before other threads set theirs
    # one thread of torch per prefetch thread: 1.07 times as fast with several of them
    queues = weakref.WeakSet[_BatchQueue[Converted]]()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def start(reader: Reader) -> tuple[Reader, _BatchQueue[Converted]]:
        batches = _BatchQueue[Converted](depth)
        queues.add(batches)
        pool.submit(batches.fill, reader, convert)
        return reader, batches

    def start_ahead() -> Iterator[tuple[Reader, _BatchQueue[Converted]]]:
        not_started = map(start, readers)
        started = deque(islice(not_started, 1 + max(videos_ahead, workers)))
        while started:
            yield started.popleft()
            started.extend(islice(not_started, 1))

    try:
        yield start_ahead()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for batches in queues:
            batches.close()
        pool.shutdown()  # waits for the running threads


def batches_in_memory(workers: int, videos_ahead: int, depth: int, at_once: int) -> int:
    """Return how many batches `prefetch_videos` holds at most while `at_once` videos are iterated in turn."""
    return depth * (at_once + 1 + max(videos_ahead, workers)) + BATCHES_PER_THREAD * max(1, workers)


class _BatchQueue(Generic[Converted]):
    """Queue of the batches of one video, between the thread that reads them and the consumer."""

    def __init__(self, depth: int):
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._closed = threading.Event()
        self._end: Any = object()  # follows the last batch
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

    def __iter__(self) -> "_BatchQueue[Converted]":
        return self

    def __next__(self) -> Converted:
        item = self._end if self._closed.is_set() else self._queue.get()
        if item is not self._end:
            return item
        self.close()
        error, self._error = self._error, None
        raise error or StopIteration

    def close(self) -> None:
        """Stop the thread at its next batch."""
        self._closed.set()
