"""Prefetching: order, errors, limits of the queues, and closing early."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import read_index
from vimoclip import video
from vimoclip.errors import VideoError


class NumberReader:
    """Reader of numbers for video batches; raises `error` after the last."""

    def __init__(self, *values: int, error: Exception | None = None, delay: float = 0):
        self.values, self.error, self.delay = values, error, delay

    def __iter__(self) -> Iterator[int]:
        for value in self.values:
            time.sleep(self.delay)
            yield value
        if self.error is not None:
            raise self.error


def collect_items(readers: Sequence[NumberReader], workers: int) -> list[tuple[int, int | str]]:
    """Return (index of the reader, twice the number) of all numbers, with the text of a VideoError after them."""
    received: list[tuple[int, int | str]] = []
    with video.prefetch_videos(readers, lambda number: 2 * number, workers) as videos:
        for reader, numbers in videos:
            index = readers.index(reader)
            try:
                received += [(index, number) for number in numbers]
            except VideoError as error:
                received.append((index, str(error)))
    return received


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_come_in_order_for_any_number_of_workers(workers: int) -> None:
    rng = np.random.default_rng(0)
    sources = [NumberReader(*range(10 * i, 10 * i + i % 7), delay=rng.random() / 300) for i in range(12)]
    expected = [(i, 2 * value) for i in range(12) for value in range(10 * i, 10 * i + i % 7)]
    assert collect_items(sources, workers) == expected


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_video_error_ends_its_video_only(workers: int) -> None:
    sources = [
        NumberReader(1, 2),
        NumberReader(3, error=VideoError("is damaged")),
        NumberReader(error=VideoError("is empty")),
        NumberReader(4),
    ]
    assert collect_items(sources, workers) == [(0, 2), (0, 4), (1, "is damaged"), (2, "is empty"), (3, 8)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_exceptions_are_raised_after_the_batches_before(workers: int) -> None:
    received = []
    readers = [NumberReader(1), NumberReader(2, error=ZeroDivisionError()), NumberReader(3)]
    with (
        pytest.raises(ZeroDivisionError),
        video.prefetch_videos(readers, lambda number: number, workers) as videos,
    ):
        for _, numbers in videos:
            for number in numbers:
                received.append(number)
    assert received == [1, 2]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_closed_batches_are_not_read_further(workers: int) -> None:
    readers = [NumberReader(*range(100)) for _ in range(4)]
    first_numbers = []
    with video.prefetch_videos(readers, lambda number: number, workers) as videos:
        for _, numbers in videos:
            with closing(numbers):
                first_numbers.append(next(numbers))
    assert first_numbers == [0] * 4


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_no_videos_yield_nothing(workers: int) -> None:
    assert collect_items([], workers) == []


@pytest.mark.parametrize("num_videos", [1, 5])
@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_of_the_consumer_stops_the_threads(workers: int, num_videos: int) -> None:
    """Also when all videos are iterated in turn: with a full queue, their threads would run for ever."""

    class EndlessReader:
        def __iter__(self) -> Iterator[int]:
            while True:
                yield 1

    before = threading.active_count()
    readers = [EndlessReader() for _ in range(num_videos)]
    with pytest.raises(OSError), video.prefetch_videos(readers, lambda number: number, workers) as videos:
        iterated = [numbers for _, numbers in islice(videos, workers + 1)]
        assert next(iterated[0]) == 1
        time.sleep(0.1)  # the queue is full
        start = time.monotonic()
        raise OSError("no space left on device")
    assert time.monotonic() - start < 2
    assert threading.active_count() == before


def test_queues_are_limited_to_the_depth() -> None:
    produced = [0, 0, 0]

    class CountingReader:
        def __init__(self, index: int):
            self.index = index

        def __iter__(self) -> Iterator[int]:
            for value in range(50):
                produced[self.index] += 1
                yield value

    readers = [CountingReader(i) for i in range(3)]
    with video.prefetch_videos(readers, lambda number: number, workers=3, videos_ahead=2, depth=4) as videos:
        next(next(videos)[1])
        time.sleep(0.3)
        assert all(number <= 4 + 2 for number in produced)
        assert produced[1] > 0


def test_prefetched_videos_equal_sequential_reading(indexed_clip: Path, b_frame_clip: Path, tmp_path: Path) -> None:
    paths = (indexed_clip, tmp_path / "missing.mp4", b_frame_clip)
    readers = [video.VideoReader(path, 10) for path in paths]
    received: list[list[int]] = []
    with video.prefetch_videos(readers, lambda batch: batch.frames, workers=2) as videos:
        for reader, batches in videos:
            received.append([])
            with suppress(VideoError):
                for frames in batches:
                    received[-1] += [read_index(frame) for frame in frames]
                assert reader.summary.original_frames == 77
    assert received == [list(range(77)), [], list(range(77))]


@pytest.mark.parametrize("workers", [0, 3])
def test_several_videos_are_iterated_in_turn(workers: int) -> None:
    readers = [NumberReader(*range(10 * i, 10 * i + 6)) for i in range(3)]
    with video.prefetch_videos(readers, lambda number: number, workers) as videos:
        first, second, third = (numbers for _, numbers in videos)
        assert [next(numbers) for numbers in (first, second, first, third)] == [0, 10, 1, 20]
        second.close()
        assert [*first, *third, *second] == [2, 3, 4, 5, 21, 22, 23, 24, 25]
