"""Reading frames: stream batches of them, or some that are spread over a video."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vimoclip.errors import VideoError
from vimoclip.video.container import MAX_PIXELS
from vimoclip.video.decoder import Decoding, Frame
from vimoclip.video.probe import probe
from vimoclip.video.sampling import EVERY_FRAME, End, Sampling

BATCH_PIXELS = MAX_PIXELS  # of all frames in a batch


def read(
    path: Path, batch_size: int, sampling: Sampling = EVERY_FRAME, shorter_side: int | None = None, overlap: int = 0
) -> Iterator[np.ndarray | End]:
    """Stream the kept frames as (n, H, W, 3) uint8, n <= batch_size, then one `End`. Memory: one batch.

    Of frames that are very large there are fewer in a batch.

    `shorter_side` scales while colours are converted. With `overlap` each batch begins with that many of the
    last one's frames and holds batch_size new ones. Raises VideoError, also for a video without any frame."""
    for item in read_sizes(path, batch_size, [shorter_side], sampling, overlap):
        yield item if isinstance(item, End) else item[1][0]


def read_sizes(
    path: Path,
    batch_size: int,
    shorter_sides: Sequence[int | None],
    sampling: Sampling = EVERY_FRAME,
    overlap: int = 0,
) -> Iterator[tuple[np.ndarray, list[np.ndarray]] | End]:
    """As `read`, of one decoding at several sizes: (timestamps (n,) in seconds, frames at each size)."""
    keep, indices = sampling.picker(), list[int]()
    timestamps: list[float] = []
    pending: list[list[np.ndarray]] = []
    fresh, decoding = 0, Decoding(path, *shorter_sides)

    def batch() -> tuple[np.ndarray, list[np.ndarray]]:
        return np.array(timestamps[-len(pending) :]), [np.stack(of_size) for of_size in zip(*pending, strict=True)]

    for frame in decoding:
        if not keep(frame.index, frame.seconds):
            continue
        indices.append(frame.index)
        timestamps.append(frame.seconds)
        pending.append(_converted(frame, shorter_sides))
        if not fresh:
            batch_size = min(batch_size, max(1, BATCH_PIXELS // max(image[..., 0].size for image in pending[0])))
        fresh += 1
        if fresh == batch_size + (overlap if len(indices) <= batch_size + overlap else 0):
            yield batch()
            pending, fresh = pending[len(pending) - overlap :], 0
    if not decoding.decoded:
        raise VideoError(decoding.problem or "has no frames")
    if not indices:
        raise VideoError("none of its frames that can be decoded is kept", "choose a smaller --stride")
    if fresh:
        yield batch()
    yield End(
        np.array(indices, np.int64),
        np.array(timestamps, np.float64),
        decoding.decoded,
        decoding.fps,
        decoding.expected,
        decoding.problem,
        decoding.note,
    )


def _converted(frame: Frame, shorter_sides: Sequence[int | None]) -> list[np.ndarray]:
    """The frame at each size, each made once."""
    made: dict[int | None, np.ndarray] = {}
    for side, convert in zip(shorter_sides, frame.converts, strict=True):
        if side not in made:
            made[side] = convert()
    return [made[side] for side in shorter_sides]


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
