"""Stream the frames of a video in batches, or read evenly spaced frames."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vimoclip.errors import VideoError
from vimoclip.video.container import MAX_PIXELS
from vimoclip.video.decoder import DecodedFrame, VideoDecoder
from vimoclip.video.probe import probe
from vimoclip.video.sampling import EVERY_FRAME, ReadSummary, Sampling

MAX_BATCH_PIXELS = MAX_PIXELS  # of all frames in a batch


def read_batches(
    path: Path, batch_size: int, sampling: Sampling = EVERY_FRAME, shorter_side: int | None = None, overlap: int = 0
) -> Iterator[np.ndarray | ReadSummary]:
    """Yield the sampled frames as (n, H, W, 3) uint8, n <= batch_size, then one `ReadSummary`.

    `shorter_side`: size after scaling, in pixels. `overlap`: each batch repeats that many frames of the batch before
    and adds `batch_size` new ones. Batches are smaller for very large frames (MAX_BATCH_PIXELS). One batch is held in
    memory. Raises VideoError, also for a video without frames."""
    for item in read_batches_multiscale(path, batch_size, [shorter_side], sampling, overlap):
        yield item if isinstance(item, ReadSummary) else item[1][0]


def read_batches_multiscale(
    path: Path,
    batch_size: int,
    shorter_sides: Sequence[int | None],
    sampling: Sampling = EVERY_FRAME,
    overlap: int = 0,
) -> Iterator[tuple[np.ndarray, list[np.ndarray]] | ReadSummary]:
    """Like `read_batches` at several sizes with one decoder; yield (timestamps (n,) in s, frames at each size)."""
    is_kept, indices = sampling.frame_filter(), list[int]()
    timestamps: list[float] = []
    pending: list[list[np.ndarray]] = []
    new_frames, decoder = 0, VideoDecoder(path, *shorter_sides)

    def batch() -> tuple[np.ndarray, list[np.ndarray]]:
        return np.array(timestamps[-len(pending) :]), [np.stack(images) for images in zip(*pending, strict=True)]

    for frame in decoder:
        if not is_kept(frame.index, frame.timestamp):
            continue
        indices.append(frame.index)
        timestamps.append(frame.timestamp)
        pending.append(_convert_sizes(frame, shorter_sides))
        if not new_frames:
            batch_size = min(batch_size, max(1, MAX_BATCH_PIXELS // max(image[..., 0].size for image in pending[0])))
        new_frames += 1
        if new_frames == batch_size + (overlap if len(indices) <= batch_size + overlap else 0):
            yield batch()
            pending, new_frames = pending[len(pending) - overlap :], 0
    if not decoder.decoded_frames:
        raise VideoError(decoder.problem or "has no frames")
    if not indices:
        raise VideoError("none of its frames that can be decoded is kept", "choose a smaller --stride")
    if new_frames:
        yield batch()
    yield ReadSummary(
        np.array(indices, np.int64),
        np.array(timestamps, np.float64),
        decoder.decoded_frames,
        decoder.fps,
        decoder.expected_frames,
        decoder.problem,
        decoder.note,
    )


def _convert_sizes(frame: DecodedFrame, shorter_sides: Sequence[int | None]) -> list[np.ndarray]:
    """Return the frame at each size; equal sizes are converted once."""
    converted: dict[int | None, np.ndarray] = {}
    for side, convert in zip(shorter_sides, frame.converters, strict=True):
        if side not in converted:
            converted[side] = convert()
    return [converted[side] for side in shorter_sides]


def read_evenly_spaced(path: Path, count: int) -> np.ndarray:
    """Return (count, H, W, 3) uint8: frames evenly spaced from the first to the last. Raises VideoError."""
    total = probe(path).frames or sum(1 for _ in VideoDecoder(path))
    positions = np.linspace(0, max(total - 1, 0), count).astype(int).tolist()
    frames: list[np.ndarray] = []
    for position, frame in enumerate(VideoDecoder(path)):
        frames += [frame.to_rgb()] * positions.count(position)
        if len(frames) == count:
            break
    if not frames:
        raise VideoError("has no frame that can be decoded")
    return np.stack(frames + frames[-1:] * (count - len(frames)))  # the header may overstate the number of frames
