"""Encode the frames of one video into RGB and motion embeddings while it is decoded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vimoclip import video
from vimoclip.clip.encoder import EncodeFunction, LoadedFrames
from vimoclip.flow.factory import FlowRenderer
from vimoclip.runtime.device import copy_to_host

PREFETCH_BATCHES = 2  # decoded batches in the queue; 32 frames of 1080p, the most in a batch, take 200 MB


@dataclass(frozen=True)
class FrameEncoder:
    """An image encoder and its preprocessing, in steps that don't wait for a CUDA GPU.

    `load`: from (n, H, W, 3) uint8, in any thread; `prepare`: to (n, 3, S, S) uint8, on a CUDA GPU there; `encode`: to
    (n, D) on the encoder's device."""

    load: Callable[[np.ndarray], LoadedFrames]
    prepare: Callable[[LoadedFrames], torch.Tensor]
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
    geometry: video.Geometry = video.AS_DISPLAYED


class FrameEmbeddings(NamedTuple):
    """Embeddings of n consecutive frames: `times` (n,) in seconds, `rgb` (n, D), `motion` (m, D).

    Each motion is the flow from the previous frame to one of these, so m = n; in a video's first batch m = n - 1."""

    times: np.ndarray
    rgb: torch.Tensor | None
    motion: torch.Tensor | None


class _PreparedFrames(NamedTuple):
    times: np.ndarray  # (n,)
    rgb: LoadedFrames | None
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
        overlap = 1 if encoder.motion else 0
        self._reader = video.VideoReader(path, batch_size, sampling, sizes, overlap, geometry=encoder.geometry)

    def __iter__(self) -> Iterator[FrameEmbeddings]:
        prepare, workers = partial(_prepare_batch, encoder=self.encoder), min(self.workers, 1)
        with video.prefetch_videos([self._reader], prepare, workers, 1, PREFETCH_BATCHES) as videos:
            for _, batches in videos:
                launched: Callable[[], FrameEmbeddings] | None = None
                for batch in batches:  # embeddings are fetched after the next batch is launched
                    fetch, launched = launched, _launch_batch(batch, self.encoder)
                    if fetch:
                        yield fetch()
                if launched:
                    yield launched()
        self.summary = self._reader.summary


def _prepare_batch(batch: video.FrameBatch, encoder: TwoStreamEncoder) -> _PreparedFrames:
    (full, scaled), new = batch.images, slice(batch.repeated, None)
    rgb = encoder.rgb.load(full[new]) if encoder.rgb else None
    return _PreparedFrames(batch.timestamps[new], rgb, scaled if encoder.motion else None)


def _launch_batch(batch: _PreparedFrames, encoder: TwoStreamEncoder) -> Callable[[], FrameEmbeddings]:
    """Encode a batch; return a function that returns its embeddings, and waits for them on a CUDA GPU."""
    fetch_rgb = fetch_motion = None
    if encoder.rgb and batch.rgb is not None:
        fetch_rgb = copy_to_host(encoder.rgb.encode(encoder.rgb.prepare(batch.rgb)))
    frames = batch.flow_frames
    if encoder.motion and encoder.render and frames is not None and len(frames) > 1:
        pairs, motion = encoder.pair_batch_size, encoder.motion
        chunks = [frames[start : start + pairs + 1] for start in range(0, len(frames) - 1, pairs)]
        # padded like the frames of a flow video, which the student is trained on
        images = map(video.pad_to_even, encoder.render.render_batches(chunks))
        prepared = torch.cat([motion.prepare(motion.load(image)) for image in images])
        fetch_motion = copy_to_host(motion.encode(prepared))

    def fetch() -> FrameEmbeddings:
        rgb, motion = (None if fetch is None else torch.from_numpy(fetch()) for fetch in (fetch_rgb, fetch_motion))
        return FrameEmbeddings(batch.times, rgb, motion)

    return fetch
