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

    Batches all have one size, filled across the borders of videos, the last one filled up with zeros: on one machine
    the same frame gives the same bytes, whatever shares its batch. What is no tensor passes in its turn."""
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
                batch_size = steady_batch_size(encode, item[:1], batch_size)
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


def steady_batch_size(encode: Callable[[torch.Tensor], torch.Tensor], frame: torch.Tensor, wished: int) -> int:
    """The first size from `wished` on in which a frame comes out the same at every place of the batch.

    A matrix product is cut into blocks and over threads, and what lies on a cut may be summed in another order:
    ViT-B/32 in batches of 5 on 2 threads gave one place other last bits (by 3e-6), in batches of 16 none."""
    noise = torch.randint(0, 256, frame.shape, dtype=frame.dtype, generator=torch.Generator().manual_seed(0))
    for size in range(wished, 2 * wished + 1):
        rows = encode(noise.expand(size, *frame.shape[1:]).contiguous())
        if (rows == rows[0]).all():
            if size != wished:
                print(f"--frame-batch-size {wished}: {size} are taken, in which all places give the same bytes")
            return size
    print(f"--frame-batch-size {wished}: frames go one by one, as no batch gives the same bytes at all places")
    return 1


class _Count(int):
    pass
