"""Frames of one video -> their RGB embeddings, and the motion embeddings between them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vimoclip import video
from vimoclip.errors import VideoError

EncodeBatch = Callable[[torch.Tensor], torch.Tensor]  # (n, 3, S, S) uint8 -> (n, D)
PrepareFrames = Callable[[np.ndarray], torch.Tensor]  # (n, H, W, 3) uint8 -> (n, 3, S, S) uint8
FLOW_BATCH_PAIRS = 8  # of frames whose flow is computed at a time, as extract_flows.py does
PREFETCH_BATCHES = 2  # batches of frames that wait: of 1080p at full size 17 are 106 MB


@dataclass(frozen=True)
class FrameEncoder:
    """An encoder with its preprocessing."""

    prepare: PrepareFrames
    encode: EncodeBatch


@dataclass(frozen=True)
class TwoStreamEncoder:
    """What looks at frames. `rgb`, `motion`: None where a model does without; `render`: frames -> frames of flow.

    `side`: the shorter one at which flow is computed, None for the video's own."""

    sampling: video.Sampling
    rgb: FrameEncoder | None
    motion: FrameEncoder | None = None
    render: Callable[[np.ndarray], np.ndarray] | None = None
    side: int | None = None


class FrameEmbeddings(NamedTuple):
    """Of n new frames: `times` (n,) in seconds, `rgb` (n, D), `motion` (m, D): flow from each frame to the next one.

    The flow to the first of the new frames is among these; so m is n, but in a video's first batch n - 1."""

    times: np.ndarray
    rgb: torch.Tensor | None
    motion: torch.Tensor | None


class _PreparedFrames(NamedTuple):
    times: np.ndarray  # of the new frames
    prepared: torch.Tensor | None
    frames: np.ndarray | None  # for the flow, with the last one of the batch before


def encode_video(
    path: Path, eyes: TwoStreamEncoder, batch_size: int = 16, workers: int = 1
) -> Iterator[FrameEmbeddings | video.ReadSummary]:
    """Batches of embeddings, then one End. A thread decodes ahead, if there are `workers`. Raises VideoError.

    Memory doesn't grow with the video's length."""
    with closing(
        video.prefetch_videos([lambda: _decode_batches(path, eyes, batch_size)], min(workers, 1), 1, PREFETCH_BATCHES)
    ) as ahead:
        for _, item in ahead:
            if isinstance(item, VideoError):
                raise item
            yield item if isinstance(item, video.ReadSummary) else _encode_batch(item, eyes)


def _decode_batches(
    path: Path, eyes: TwoStreamEncoder, batch_size: int
) -> Iterator[_PreparedFrames | video.ReadSummary]:
    if threading.current_thread() is not threading.main_thread():
        torch.set_num_threads(1)  # of this thread: the encoder has the others
    # max_frames belongs to the clips that were learnt from; a timeline goes on to the end
    sampling, first = replace(eyes.sampling, max_frames=None), True
    overlap = 1 if eyes.motion else 0
    sizes = [None if eyes.rgb else eyes.side, eyes.side]
    for item in video.read_batches_multiscale(path, batch_size, sizes, sampling, overlap):
        if isinstance(item, video.ReadSummary):
            yield item
            continue
        times, (full, scaled) = item
        new = slice(0 if first else overlap, None)
        first = False
        prepared = eyes.rgb.prepare(full[new]) if eyes.rgb and len(full[new]) else None
        yield _PreparedFrames(times[new], prepared, scaled if eyes.motion else None)


def _encode_batch(batch: _PreparedFrames, eyes: TwoStreamEncoder) -> FrameEmbeddings:
    rgb = eyes.rgb.encode(batch.prepared) if eyes.rgb and batch.prepared is not None else None
    motion = None
    if eyes.motion and eyes.render and batch.frames is not None and len(batch.frames) > 1:
        starts = range(0, len(batch.frames) - 1, FLOW_BATCH_PAIRS)
        # padded as a flow video is, of which the student sees the whole picture
        colors = [
            video.pad_to_even(eyes.render(batch.frames[start : start + FLOW_BATCH_PAIRS + 1])) for start in starts
        ]
        motion = eyes.motion.encode(torch.cat([eyes.motion.prepare(part) for part in colors]))
    return FrameEmbeddings(batch.times, rgb, motion)
