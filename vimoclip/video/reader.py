"""Stream the frames of a video in batches."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vimoclip.errors import VideoError
from vimoclip.video.container import MAX_PIXELS
from vimoclip.video.decoder import DecodedFrame, VideoDecoder
from vimoclip.video.geometry import AS_DISPLAYED, Geometry
from vimoclip.video.probe import probe
from vimoclip.video.sampling import EVERY_FRAME, ReadSummary, Sampling
from vimoclip.video.trimmed_clip import film_part

MAX_BATCH_PIXELS = MAX_PIXELS  # of all frames in a batch


class FrameBatch(NamedTuple):
    """n consecutive sampled frames.

    `images`: (n, H, W, 3) uint8 RGB at each requested size; `timestamps` (n,) in seconds; `repeated`: number of frames
    at the beginning that the previous batch has too."""

    images: list[np.ndarray]
    timestamps: np.ndarray
    repeated: int

    @property
    def frames(self) -> np.ndarray:
        """The images at the first requested size."""
        return self.images[0]


class VideoReader:
    """Iterable over the sampled frames of a video in batches, once. `summary` is valid after the last batch.

    `batch_size`: new frames per batch, at most; fewer for large frames, which have at most `max_batch_pixels` together.
    `shorter_sides`: sizes after scaling in pixels, None for the video's own size. `overlap`: frames of the previous
    batch that each batch repeats. `on_start` is called when iteration starts, in its thread. One batch is held in
    memory. Iteration raises VideoError, also for a video without frames."""

    summary: ReadSummary

    def __init__(
        self,
        path: Path,
        batch_size: int,
        sampling: Sampling = EVERY_FRAME,
        shorter_sides: Sequence[int | None] = (None,),
        overlap: int = 0,
        on_start: Callable[[], None] = lambda: None,
        max_batch_pixels: int = MAX_BATCH_PIXELS,
        geometry: Geometry = AS_DISPLAYED,
    ):
        self.path, self.batch_size, self.sampling = path, batch_size, sampling
        self.max_batch_pixels, self.geometry = max_batch_pixels, geometry
        self.shorter_sides, self.overlap, self.on_start = shorter_sides, overlap, on_start

    def __iter__(self) -> Iterator[FrameBatch]:
        self.on_start()
        part = None if self.sampling.fps is None else film_part(probe(self.path).comment)
        is_kept, batch_size = self.sampling.frame_filter(part), 0
        decoder = VideoDecoder(self.path, *self.shorter_sides, geometry=self.geometry)
        indices, timestamps = list[int](), list[float]()
        pending, repeated = list[list[np.ndarray]](), 0  # images of the next batch; how many of them are repeated
        for frame in decoder:
            if not is_kept(frame.index, frame.timestamp):
                continue
            indices.append(frame.index)
            timestamps.append(frame.timestamp)
            pending.append(_convert_sizes(frame, self.shorter_sides))
            if not batch_size:
                pixels = max(image[..., 0].size for image in pending[0])
                batch_size = min(self.batch_size, max(1, self.max_batch_pixels // pixels))
            if len(pending) == batch_size + self.overlap:
                yield FrameBatch(_stack_sizes(pending), np.array(timestamps[-len(pending) :]), repeated)
                pending, repeated = pending[len(pending) - self.overlap :], self.overlap
        if not decoder.decoded_frames:
            raise VideoError(decoder.problem or "has no frames")
        if not indices:
            raise VideoError("none of its frames that can be decoded is kept", "choose a smaller --stride")
        if len(pending) > repeated:
            yield FrameBatch(_stack_sizes(pending), np.array(timestamps[-len(pending) :]), repeated)
        self.summary = ReadSummary(
            np.array(indices, np.int64),
            np.array(timestamps, np.float64),
            decoder.decoded_frames,
            decoder.fps,
            decoder.expected_frames,
            decoder.problem,
            decoder.note,
        )


def _stack_sizes(frames: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Return one (n, H, W, 3) array per size; equal sizes share it."""
    stacked: dict[int, np.ndarray] = {}
    for images in zip(*frames, strict=True):
        if id(images[0]) not in stacked:
            stacked[id(images[0])] = np.stack(images)
    return [stacked[id(image)] for image in frames[0]]


def _convert_sizes(frame: DecodedFrame, shorter_sides: Sequence[int | None]) -> list[np.ndarray]:
    """Return the frame at each size; equal sizes are converted once."""
    converted: dict[int | None, np.ndarray] = {}
    for side, convert in zip(shorter_sides, frame.converters, strict=True):
        if side not in converted:
            converted[side] = convert()
    return [converted[side] for side in shorter_sides]
