"""The order in which chunks of several videos are encoded."""

from collections.abc import Iterator
from typing import Any

import pytest

from vimoclip.errors import VideoError
from vimoclip.extraction.embeddings import _read_in_turn


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
