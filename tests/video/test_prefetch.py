"""Prefetching: order, errors, limits of the queues, and closing early."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import read_index
from vimoclip import video
from vimoclip.errors import VideoError

ItemSource = Callable[[], Iterator[int]]


def number_source(*values: int, error: Exception | None = None, delay: float = 0) -> ItemSource:
    def source() -> Iterator[int]:
        for value in values:
            time.sleep(delay)
            yield value
        if error is not None:
            raise error

    return source


def collect_items(sources: Sequence[ItemSource], workers: int) -> list[tuple[int, int | str]]:
    return [
        (index, str(item) if isinstance(item, VideoError) else item)
        for index, item in video.prefetch_videos(sources, workers)
    ]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_items_come_in_order_for_any_number_of_workers(workers: int) -> None:
    rng = np.random.default_rng(0)
    sources = [number_source(*range(10 * i, 10 * i + i % 7), delay=rng.random() / 300) for i in range(12)]
    expected = [(i, value) for i in range(12) for value in range(10 * i, 10 * i + i % 7)]
    assert collect_items(sources, workers) == expected


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_video_error_ends_its_source_only(workers: int) -> None:
    sources = [
        number_source(1, 2),
        number_source(3, error=VideoError("is damaged")),
        number_source(error=VideoError("is empty")),
        number_source(4),
    ]
    assert collect_items(sources, workers) == [(0, 1), (0, 2), (1, 3), (1, "is damaged"), (2, "is empty"), (3, 4)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_other_exceptions_are_raised_after_the_items_before(workers: int) -> None:
    received = []
    with pytest.raises(ZeroDivisionError):
        for index, item in video.prefetch_videos(
            [number_source(1), number_source(2, error=ZeroDivisionError()), number_source(3)], workers
        ):
            received.append((index, item))
    assert received == [(0, 1), (1, 2)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_no_sources_yield_nothing(workers: int) -> None:
    assert collect_items([], workers) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_closing_the_generator_stops_the_threads(workers: int) -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    before = threading.active_count()
    items = video.prefetch_videos([endless] * 5, workers)
    assert next(items) == (0, 1)
    start = time.monotonic()
    items.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 2
    assert threading.active_count() == before


def test_queues_are_limited_to_the_depth() -> None:
    produced = [0, 0, 0]

    def counting_source(index: int) -> ItemSource:
        def source() -> Iterator[int]:
            for value in range(50):
                produced[index] += 1
                yield value

        return source

    items = video.prefetch_videos([counting_source(i) for i in range(3)], workers=3, sources_ahead=2, depth=4)
    next(items)
    time.sleep(0.3)
    assert all(number <= 4 + 2 for number in produced)
    assert produced[1] > 0
    items.close()  # type: ignore[attr-defined]


def test_prefetched_videos_equal_sequential_reading(indexed_clip: Path, b_frame_clip: Path, tmp_path: Path) -> None:
    def source(path: Path) -> Callable[[], Iterator[np.ndarray | video.ReadSummary]]:
        return lambda: video.read_batches(path, 10)

    sources = [source(path) for path in (indexed_clip, tmp_path / "missing.mp4", b_frame_clip)]
    received: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for index, item in video.prefetch_videos(sources, workers=2):
        if isinstance(item, np.ndarray):
            received[index] += [read_index(frame) for frame in item]
    assert received == {0: list(range(77)), 1: [], 2: list(range(77))}
