"""Encode the frames of one video into RGB and motion embeddings while it is decoded."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vimoclip import video
from vimoclip.clip.encoder import EncodeFunction
from vimoclip.flow.factory import FlowRenderer

PrepareFrames = Callable[[np.ndarray], torch.Tensor]  # (n, H, W, 3) uint8 -> (n, 3, S, S) uint8
PREFETCH_BATCHES = 2  # decoded batches in the queue; 17 frames of 1080p take 106 MB


@dataclass(frozen=True)
class FrameEncoder:
    """An image encoder and its preprocessing."""

    prepare: PrepareFrames
    encode: EncodeFunction


@dataclass(frozen=True)
class TwoStreamEncoder:
    """The encoders of both streams, and the sampling of frames.

    `rgb`, `motion`: None if the model does not use the stream. `render`: of flow images. `flow_side`: shorter side in
    pixels at which flow is computed; None for the video's own size. `pair_batch_size`: pairs of frames per flow batch;
    `flow_precision`: of a learned flow method, else None."""

    sampling: video.Sampling
    rgb: FrameEncoder | None
    motion: FrameEncoder | None = None
    render: FlowRenderer | None = None
    flow_side: int | None = None
    pair_batch_size: int = 1
    flow_precision: str | None = None


class FrameEmbeddings(NamedTuple):
    """Embeddings of n consecutive frames: `times` (n,) in seconds, `rgb` (n, D), `motion` (m, D).

    Each motion is the flow from the previous frame to one of these, so m = n; in a video's first batch m = n - 1."""

    times: np.ndarray
    rgb: torch.Tensor | None
    motion: torch.Tensor | None


class _PreparedFrames(NamedTuple):
    times: np.ndarray  # (n,)
    prepared: torch.Tensor | None
    flow_frames: np.ndarray | None  # the last frame of the previous batch, then these


class EncodedVideo:
    """Iterable over the embeddings of a video's frames, once; `summary` is valid after the last batch.

    A thread decodes ahead if `workers` > 0. Memory does not grow with the video's length. Raises VideoError."""

    summary: video.ReadSummary

    def __init__(self, path: Path, encoder: TwoStreamEncoder, batch_size: int = 16, workers: int = 1):
        self.encoder, self.workers = encoder, workers
        # max_frames limits training clips; a timeline covers the whole video
        sampling = replace(encoder.sampling, max_frames=None)
        sizes = [None if encoder.rgb else encoder.flow_side, encoder.flow_side]
        self._reader = video.VideoReader(path, batch_size, sampling, sizes, overlap=1 if encoder.motion else 0)

    def __iter__(self) -> Iterator[FrameEmbeddings]:
        prepare, workers = partial(_prepare_batch, encoder=self.encoder), min(self.workers, 1)
        with closing(video.prefetch_videos([self._reader], prepare, workers, 1, PREFETCH_BATCHES)) as videos:
            for _, batches in videos:
                for batch in batches:
                    yield _encode_batch(batch, self.encoder)
        self.summary = self._reader.summary


def _prepare_batch(batch: video.FrameBatch, encoder: TwoStreamEncoder) -> _PreparedFrames:
    (full, scaled), new = batch.images, slice(batch.repeated, None)
    prepared = encoder.rgb.prepare(full[new]) if encoder.rgb else None
    return _PreparedFrames(batch.timestamps[new], prepared, scaled if encoder.motion else None)


def _encode_batch(batch: _PreparedFrames, encoder: TwoStreamEncoder) -> FrameEmbeddings:
    rgb = encoder.rgb.encode(batch.prepared) if encoder.rgb and batch.prepared is not None else None
    motion, frames = None, batch.flow_frames
    if encoder.motion and encoder.render and frames is not None and len(frames) > 1:
        pairs = encoder.pair_batch_size
        chunks = [frames[start : start + pairs + 1] for start in range(0, len(frames) - 1, pairs)]
        # padded like the frames of a flow video, which the student is trained on
        images = map(video.pad_to_even, encoder.render.render_batches(chunks))
        motion = encoder.motion.encode(torch.cat([encoder.motion.prepare(image) for image in images]))
    return FrameEmbeddings(batch.times, rgb, motion)
