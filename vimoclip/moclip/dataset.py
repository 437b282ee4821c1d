"""Segments of videos as items of a loader: flow frames prepared for the student, with the teacher's embeddings."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vimoclip import store, video
from vimoclip.errors import VideoError
from vimoclip.moclip.flow_pairing import Clip
from vimoclip.moclip.frame_cache import FrameCache


class Segment(NamedTuple):
    """Flows start..start+length-1 of a clip, with the RGB rows of the same indices."""

    clip: Clip
    start: int
    length: int


def segments(clips: Sequence[Clip], sequence_length: int) -> list[Segment]:
    """Segments of L frames and L - 1 flows, starting every L - 1 frames: each flow is in exactly one."""
    step = sequence_length - 1
    return [
        Segment(clip, start, min(step, clip.frames - 1 - start))
        for clip in clips
        for start in range(0, clip.frames - 1, step)
    ]


class Unreadable(NamedTuple):
    """A video whose flow broke on reading, and why."""

    key: str
    reason: str


class Batch(NamedTuple):
    """flow (B, L-1, 3, S, S) uint8 prepared; z_image (B, L-1, D); mask (B, L-1); labels (B, C).

    `keys` are the videos, `indices` the segments' numbers in their data set, where they have one."""

    flow: torch.Tensor
    z_image: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    keys: list[str]
    unreadable: list["Unreadable"]
    indices: Sequence[int] = ()


class SegmentDataset(Dataset):
    """Segments as items of `collate`; padded with zeros to L - 1."""

    def __init__(
        self,
        reader: store.Reader,
        clips: Sequence[Clip],
        sequence_length: int,
        preprocess: Callable[[np.ndarray], torch.Tensor],
        cache: FrameCache | None = None,
    ):
        self.reader, self.preprocess, self.steps, self.cache = reader, preprocess, sequence_length - 1, cache
        self.segments = segments(clips, sequence_length)

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> Batch | Unreadable:
        """A batch of one, or why there is none: one bad video is not the end of a run."""
        segment = self.segments[index]
        key, start, stop = segment.clip.key, segment.start, segment.start + segment.length
        try:
            prepared = self._prepared(segment.clip, start, stop)
        except VideoError as error:
            return Unreadable(key, f"its flow {segment.clip.flow.name} {error}")
        rows = torch.from_numpy(self.reader.embeddings(key, start, stop))
        mask = torch.arange(self.steps) < segment.length
        labels = torch.from_numpy(self.reader.labels(key))
        flow = _pad(prepared, self.steps)[None]
        return Batch(flow, _pad(rows, self.steps)[None], mask[None], labels[None], [key], [], [index])

    def _prepared(self, clip: Clip, start: int, stop: int) -> torch.Tensor:
        """(n, 3, S, S) uint8 of flows start..stop. Raises VideoError."""
        if self.cache is not None and (known := self.cache.read(clip.flow, start, stop)) is not None:
            return known
        return self.preprocess(span_reader(clip.flow).read(start, stop))


@lru_cache(maxsize=512)
def span_reader(path: Path) -> video.SpanReader:
    """Of a flow video, which a process reads more than once."""
    return video.SpanReader(path)


def _pad(rows: torch.Tensor, length: int) -> torch.Tensor:
    if len(rows) == length:
        return rows
    return torch.cat([rows, rows.new_zeros((length - len(rows), *rows.shape[1:]))])


def collate(items: list[Batch | Unreadable]) -> Batch:
    """Batches of one -> one batch; what could not be read stands beside it."""
    good = [item for item in items if isinstance(item, Batch)]
    errors = [item for item in items if isinstance(item, Unreadable)]
    if not good:
        empty = torch.empty(0)
        return Batch(empty, empty, empty, empty, [], errors)
    return Batch(
        torch.cat([item.flow for item in good]),
        torch.cat([item.z_image for item in good]),
        torch.cat([item.mask for item in good]),
        torch.cat([item.labels for item in good]),
        [item.keys[0] for item in good],
        errors,
        [index for item in good for index in item.indices],
    )
