"""Frames of many videos through an encoder in batches of one shape."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch

Tag = TypeVar("Tag")
Item = TypeVar("Item")  # a tensor, or something else that passes


def encode_stream(
    items: Iterable[tuple[Tag, Item]], encode: Callable[[torch.Tensor], torch.Tensor], batch_size: int
) -> Iterator[tuple[Tag, Item]]:
    """Prepared frames in, embeddings out, each under the tag and in the order in which it came.

    Batches all have batch_size frames, filled across the borders of videos, the last one filled up with zeros: on
    one machine the same frame gives the same bytes, whatever shares its batch. What is no tensor passes in its turn."""
    waiting: deque[tuple[Tag, Any]] = deque()  # (tag, number of frames) in the batch, or (tag, other)
    batch: torch.Tensor | None = None
    filled = 0

    def flush() -> Iterator[tuple[Tag, Any]]:
        nonlocal filled
        rows, start = (encode(batch) if batch is not None and filled else None), 0
        while waiting:
            tag, what = waiting.popleft()
            if isinstance(what, _Count):
                assert rows is not None
                yield tag, rows[start : start + what]
                start += what
            else:
                yield tag, what
        filled = 0

    for tag, item in items:
        if not isinstance(item, torch.Tensor):
            waiting.append((tag, item))
            continue
        start = 0
        while start < len(item):
            if batch is None:
                batch = torch.zeros((batch_size, *item.shape[1:]), dtype=item.dtype)
            taken = item[start : start + batch_size - filled]
            batch[filled : filled + len(taken)] = taken
            filled += len(taken)
            start += len(taken)
            waiting.append((tag, _Count(len(taken))))
            if filled == batch_size:
                yield from flush()
    if batch is not None:
        batch[filled:] = 0
    yield from flush()


class _Count(int):
    pass
