"""The order in which chunks of several videos are encoded, and the memory of chunks that are read ahead."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from vimoclip import video
from vimoclip.errors import VideoError
from vimoclip.extraction.embeddings import CHUNK_FRAMES, CUDA_CHUNK_BYTES, _read_in_turn, _reading_limits


def chunks(name: str, count: int, error: VideoError | None = None) -> Iterator[Any]:
    yield from (f"{name}{number}" for number in range(count))
    if error:
        raise error


@pytest.mark.parametrize(
    ("at_once", "expected"),
    [
        (1, ["a0", "a1", "a end", "b0", "b failed", "c0", "c1", "c2", "c end"]),
        (2, ["a0", "b0", "a1", "b failed", "a end", "c0", "c1", "c2", "c end"]),
        (9, ["a0", "b0", "c0", "a1", "b failed", "c1", "a end", "c2", "c end"]),
    ],
)
def test_each_video_ends_after_its_last_chunk(at_once: int, expected: list[str]) -> None:
    videos: Any = [("a", chunks("a", 2)), ("b", chunks("b", 1, VideoError("is cut"))), ("c", chunks("c", 3))]
    found = []
    for source, chunk in _read_in_turn(iter(videos), at_once):
        ending = "end" if chunk is None else "failed" if isinstance(chunk, VideoError) else None
        found.append(f"{source} {ending}" if ending else str(chunk))
    assert found == expected


@pytest.mark.parametrize("workers", [0, 1, 2, 14, 62, 254])
def test_memory_of_chunks_does_not_grow_with_the_threads(workers: int) -> None:
    """254 threads with chunks of 32 frames of 1920x1080 would take 200 GB of pinned memory."""
    limits = _reading_limits(torch.device("cuda:0"), workers, 2)
    chunks = video.batches_in_memory(workers, 2, limits.depth, limits.at_once)
    assert chunks * limits.chunk_pixels * 3 <= CUDA_CHUNK_BYTES
    assert limits.chunk_pixels >= (1920 * 1080 if workers < 100 else 640 * 360)
    if workers <= 14:
        assert limits.chunk_pixels >= CHUNK_FRAMES * 640 * 360
