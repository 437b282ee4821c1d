"""Segments of videos as items of a loader: flow frames prepared for the student, with the teacher's embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vimoclip import cli, store, video
from vimoclip.annotations import split_protocol
from vimoclip.errors import UserError, VideoError
from vimoclip.flow.flow_lookup import FlowFolder
from vimoclip.moclip.flow_pairing import Clip, Pairing, pair
from vimoclip.moclip.frame_cache import FrameCache
from vimoclip.training import run_folder


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


@dataclass
class Splits:
    """`readers` and `pairings` of "train" and of what epochs are chosen on: "selection", or "val".

    `about`: the protocol, a hash of the selection clips, and one of what is in each file."""

    readers: dict[str, store.Reader]
    pairings: dict[str, Pairing]
    about: dict[str, Any]

    def sets(
        self, length: int, preprocess: Callable[[np.ndarray], torch.Tensor], cache: FrameCache | None = None
    ) -> dict[str, SegmentDataset]:
        """The segments of `length` frames of each."""
        return {
            split: SegmentDataset(self.readers[split], pairing.clips, length, preprocess, cache)
            for split, pairing in self.pairings.items()
        }

    def clips(self) -> list[Clip]:
        """Of both."""
        return [clip for pairing in self.pairings.values() for clip in pairing.clips]

    def left_out(self) -> list[tuple[str, str, str]]:
        """(split, video, reason)."""
        return [(split, *line) for split, pairing in self.pairings.items() for line in pairing.left_out.items()]


def pair_splits(
    readers: dict[str, store.Reader], flows: FlowFolder, notes: Path, limit: int | None, kind: str
) -> tuple[dict[str, Pairing], dict[str, Any]]:
    """(pairings, about) of Splits; without a "val" file some videos of "train" are the selection clips.

    `notes`: the annotations, which say which. `limit`: only so many videos of each split; `kind`: the protocol.
    Raises UserError."""
    train, keys = readers["train"], dict[str, Sequence[str]]()
    about: dict[str, Any] = {"protocol": kind}
    if "val" in readers:
        keys.update({split: reader.keys for split, reader in readers.items()})
    else:
        split_protocol.check_names(train.keys, notes, train.path)
        keys["train"], keys["selection"] = split_protocol.divide(train.keys, notes, train.path)
        about["selection"] = run_folder.digest(keys["selection"])
    about["embeddings"] = {split: reader.attributes.get("content_sha256") for split, reader in readers.items()}
    return {split: pair(readers.get(split, train), flows, of[:limit]) for split, of in keys.items()}, about


def check_readers(readers: dict[str, store.Reader], num_classes: int | None) -> None:
    """Raise UserError where the files, or the number of classes asked for, don't fit together."""
    train = readers["train"]
    for reader in readers.values():
        if not reader.keys:
            raise UserError("holds no video", "run extract_embeddings.py again", path=reader.path)
        if not reader.known:
            print(f"warning: {reader.path} does not say what made it, so nothing can be checked against it")
    classes = len(train.labels(train.keys[0]))
    if num_classes not in (None, classes):
        raise UserError(f"--num-classes {num_classes}: {train.path} has {classes}", "leave the flag out")
    if "val" not in readers:
        return
    val, cure = readers["val"], "make both with one set of flags"
    width = len(val.labels(val.keys[0]))
    cli.check_same({"classes": classes}, {"classes": width}, str(train.path), str(val.path), cure)
    if train.known and val.known:
        keys = ("clip_model", "weights_sha256", "quick_gelu", "resize", "sampling", "class_names")
        ours, theirs = ({k: r.attributes.get(k) for k in keys} for r in (train, val))
        cli.check_same(ours, theirs, str(train.path), str(val.path), cure)


def check_pairings(pairings: dict[str, Pairing], readers: dict[str, store.Reader]) -> None:
    """Say which videos can't be used. Raises UserError where none can, or the splits' flow differs."""
    for split, pairing in pairings.items():
        print(f"{split}: {len(pairing.clips)} videos, {len(pairing.left_out)} left out")
        for key, why in pairing.left_out.items():
            print(f"  left out: {key}: {why}")
        if not pairing.clips:
            path, of = readers.get(split, readers["train"]).path, "it" if split in readers else f"its {split} clips"
            raise UserError(f"no video of {of} has flow", "run extract_flows.py, see --flow-videos-dir", path=path)
    ours, theirs = (pairing.flow_settings for pairing in pairings.values())
    cli.check_same(ours, theirs, "the training videos' flow", "the validation videos' flow", "make the flow anew")
