"""Reading frames: stream batches of them, or some that are spread over a video."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vimoclip import VideoError
from vimoclip.video.decoding import Decoding
from vimoclip.video.opening import MAX_PIXELS, probe
from vimoclip.video.sampling import EVERY_FRAME, End, Sampling

BATCH_PIXELS = MAX_PIXELS  # of all frames in a batch


def read(
    path: Path, batch_size: int, sampling: Sampling = EVERY_FRAME, shorter_side: int | None = None, overlap: int = 0
) -> Iterator[np.ndarray | End]:
    """Stream the kept frames as (n, H, W, 3) uint8, n <= batch_size, then one `End`. Memory: one batch.

    Of frames that are very large there are fewer in a batch.

    `shorter_side` scales while colours are converted. With `overlap` each batch begins with that many of the
    last one's frames and holds batch_size new ones. Raises VideoError, also for a video without any frame."""
    keep, indices, timestamps = sampling.picker(), [], []
    pending: list[np.ndarray] = []
    fresh, decoding = 0, Decoding(path, shorter_side)
    for frame in decoding:
        if not keep(frame.index, frame.seconds):
            continue
        indices.append(frame.index)
        timestamps.append(frame.seconds)
        pending.append(frame.convert())
        if not fresh:
            batch_size = min(batch_size, max(1, BATCH_PIXELS // pending[0][..., 0].size))
        fresh += 1
        if fresh == batch_size + (overlap if len(indices) <= batch_size + overlap else 0):
            yield np.stack(pending)
            pending, fresh = pending[len(pending) - overlap :], 0
    if not decoding.decoded:
        raise VideoError(decoding.problem or "has no frames")
    if not indices:
        raise VideoError("none of its frames that can be decoded is kept; choose a smaller --stride")
    if fresh:
        yield np.stack(pending)
    yield End(
        np.array(indices, np.int64),
        np.array(timestamps, np.float64),
        decoding.decoded,
        decoding.fps,
        decoding.expected,
        decoding.problem,
        decoding.note,
    )


def read_evenly(path: Path, count: int) -> np.ndarray:
    """(count, H, W, 3) uint8: frames evenly spread from the first to the last. Raises VideoError."""
    total = probe(path).frames or sum(1 for _ in Decoding(path))
    wanted = np.linspace(0, max(total - 1, 0), count).astype(int).tolist()
    frames: list[np.ndarray] = []
    for number, frame in enumerate(Decoding(path)):
        frames += [frame.convert()] * wanted.count(number)
        if len(frames) == count:
            break
    if not frames:
        raise VideoError("has no frame that can be decoded")
    return np.stack(frames + frames[-1:] * (count - len(frames)))  # a header may promise more than there is
