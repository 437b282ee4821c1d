"""Which videos can be trained on: those with RGB embeddings and the flow of the same frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vimoclip import cli, store, video
from vimoclip.annotations import split_protocol
from vimoclip.check import compatibility
from vimoclip.errors import UserError, VideoError
from vimoclip.flow.flow_lookup import FlowFolder, settings_of
from vimoclip.moclip.dataset import SegmentDataset
from vimoclip.moclip.frame_cache import FrameCache
from vimoclip.training import run_folder


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


def pair(reader: store.Reader, flows: FlowFolder, keys: Sequence[str] | None = None) -> Pairing:
    """Match videos of an RGB file (default: all) with their flow.

    Raises UserError where the two were made with other frames."""
    clips, left_out = [], {}
    settings: dict[str, Any] = {}
    first: Path | None = None
    for key in reader.keys if keys is None else keys:
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
        compatibility.check_sampling(reader, made, str(path))
        if problem := compatibility.flow_misfit(frames, reader.frame_indices(key), info):
            left_out[key] = problem
            continue
        clips.append(Clip(key, path, frames))
    return Pairing(clips, left_out, settings)


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
