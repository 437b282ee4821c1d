"""Dataset of video segments: preprocessed flow frames with the teacher's embeddings of the same frames."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vimoclip import store
from vimoclip.errors import VideoError
from vimoclip.moclip.flow_pairing import TrainingVideo
from vimoclip.moclip.frame_cache import FrameCache
from vimoclip.video import RandomAccessReader


class FlowSegment(NamedTuple):
    """Flow frames start..start+length-1 of a video, paired with the RGB rows of the same indices."""

    video: TrainingVideo
    start: int
    length: int


def split_into_segments(videos: Sequence[TrainingVideo], sequence_length: int) -> list[FlowSegment]:
    """Split videos into segments of L frames, that is L - 1 flow frames; the last segment of a video may be shorter.

    Segments start every L - 1 frames, so each flow frame is in exactly one."""
    step = sequence_length - 1
    return [
        FlowSegment(video, start, min(step, video.num_frames - 1 - start))
        for video in videos
        for start in range(0, video.num_frames - 1, step)
    ]


class UnreadableVideo(NamedTuple):
    """A video whose flow could not be decoded, and the reason."""

    key: str
    reason: str


class SegmentBatch(NamedTuple):
    """flow (B, L-1, 3, S, S) uint8, preprocessed; z_image (B, L-1, D); mask (B, L-1), true for real frames;
    labels (B, C).

    `keys` are the videos of the segments, `indices` the segments' positions in their dataset (may be empty),
    `unreadable` the videos that are missing from the batch."""

    flow: torch.Tensor
    z_image: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    keys: list[str]
    unreadable: list[UnreadableVideo]
    indices: Sequence[int] = ()


class SegmentDataset(Dataset):
    """Segments as batches of one, zero-padded to L - 1, for `collate`."""

    def __init__(
        self,
        reader: store.EmbeddingReader,
        videos: Sequence[TrainingVideo],
        sequence_length: int,
        preprocess: Callable[[np.ndarray], torch.Tensor],
        cache: FrameCache | None = None,
    ):
        self.reader, self.preprocess, self.cache = reader, preprocess, cache
        self.segment_length = sequence_length - 1
        self.segments = split_into_segments(videos, sequence_length)

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> SegmentBatch | UnreadableVideo:
        """Return an UnreadableVideo instead of raising: one bad video does not end a run."""
        training_video, start, length = self.segments[index]
        key = training_video.key
        try:
            frames = self._read_flow(training_video.flow_path, start, start + length)
        except VideoError as error:
            return UnreadableVideo(key, f"its flow {training_video.flow_path.name} {error}")
        flow = _zero_pad(frames, self.segment_length)
        z_image = _zero_pad(torch.from_numpy(self.reader.embeddings(key, start, start + length)), self.segment_length)
        mask = torch.arange(self.segment_length) < length
        labels = torch.from_numpy(self.reader.labels(key))
        return SegmentBatch(flow[None], z_image[None], mask[None], labels[None], [key], [], [index])

    def _read_flow(self, path: Path, start: int, stop: int) -> torch.Tensor:
        """Flow frames start..stop as (n, 3, S, S) uint8. Raises VideoError."""
        if self.cache is not None and (frames := self.cache.read(path, start, stop)) is not None:
            return frames
        return self.preprocess(cached_span_reader(path).read(start, stop))


@lru_cache(maxsize=512)
def cached_span_reader(path: Path) -> RandomAccessReader:
    """Reader of a flow video, kept because a process reads several segments of it."""
    return RandomAccessReader(path)


def _zero_pad(rows: torch.Tensor, length: int) -> torch.Tensor:
    if len(rows) == length:
        return rows
    return torch.cat([rows, rows.new_zeros((length - len(rows), *rows.shape[1:]))])


def collate(items: list[SegmentBatch | UnreadableVideo]) -> SegmentBatch:
    """Concatenate batches of one; unreadable videos are listed in the batch."""
    batches = [item for item in items if isinstance(item, SegmentBatch)]
    unreadable = [item for item in items if isinstance(item, UnreadableVideo)]
    if not batches:
        empty = torch.empty(0)
        return SegmentBatch(empty, empty, empty, empty, [], unreadable)
    return SegmentBatch(
        torch.cat([batch.flow for batch in batches]),
        torch.cat([batch.z_image for batch in batches]),
        torch.cat([batch.mask for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        [batch.keys[0] for batch in batches],
        unreadable,
        [index for batch in batches for index in batch.indices],
    )
