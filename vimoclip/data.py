"""Training data of the student: segments of a video, aligned RGB embeddings and flow frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vimoclip import VideoError, cli, matching, store, video
from vimoclip.matching import FlowFolder, settings_of


class Clip(NamedTuple):
    """A video with both sides: its key in the RGB file, its flow video, T."""

    key: str
    flow: Path
    frames: int


@dataclass
class Pairing:
    """The videos that can be used, those that can't with the reason, and how the flow was made."""

    clips: list[Clip]
    left_out: dict[str, str]
    flow_settings: dict[str, Any]


def pair(reader: store.Reader, flows: FlowFolder, limit: int | None = None) -> Pairing:
    """Match each video of an RGB file with its flow. Raises UserError where the two were made with other frames."""
    clips, left_out = [], {}
    settings: dict[str, Any] = {}
    first: Path | None = None
    for key in reader.keys[:limit]:
        frames, path = reader.length(key), flows.find(key)
        if frames < 2 or path is None:
            left_out[key] = "has one frame, so no flow" if frames < 2 else f"has no flow video in {flows.folder}"
            continue
        try:
            info = video.probe(path)
        except VideoError as error:
            left_out[key] = f"its flow video {error}"
            continue
        made = settings_of(info.comment)
        if first is None or not settings:
            first, settings = path, made
        cli.check_same(settings, made, str(first), str(path), "make the flow anew with one set of flags")
        matching.check_sampling(reader, made, str(path))
        if problem := matching.flow_misfit(frames, reader.frame_indices(key), info):
            left_out[key] = problem
            continue
        clips.append(Clip(key, path, frames))
    return Pairing(clips, left_out, settings)


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
    """flow (B, L-1, 3, S, S) uint8 prepared; z_image (B, L-1, D); mask (B, L-1); labels (B, C)."""

    flow: torch.Tensor
    z_image: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    keys: list[str]
    unreadable: list["Unreadable"]


class SegmentDataset(Dataset):
    """Segments as items of `collate`; padded with zeros to L - 1."""

    def __init__(
        self,
        reader: store.Reader,
        clips: Sequence[Clip],
        sequence_length: int,
        preprocess: Callable[[np.ndarray], torch.Tensor],
    ):
        self.reader, self.preprocess, self.steps = reader, preprocess, sequence_length - 1
        self.segments = segments(clips, sequence_length)

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> Batch | Unreadable:
        """A batch of one, or why there is none: one bad video is not the end of a run."""
        segment = self.segments[index]
        key, start, stop = segment.clip.key, segment.start, segment.start + segment.length
        try:
            prepared = self.preprocess(_span_reader(segment.clip.flow).read(start, stop))
        except VideoError as error:
            return Unreadable(key, f"its flow {segment.clip.flow.name} {error}")
        rows = torch.from_numpy(self.reader.embeddings(key, start, stop))
        mask = torch.arange(self.steps) < segment.length
        labels = torch.from_numpy(self.reader.labels(key))
        return Batch(
            _pad(prepared, self.steps)[None], _pad(rows, self.steps)[None], mask[None], labels[None], [key], []
        )


@lru_cache(maxsize=512)
def _span_reader(path: Path) -> video.SpanReader:
    return video.SpanReader(path)


def _pad(rows: torch.Tensor, length: int) -> torch.Tensor:
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
    )
