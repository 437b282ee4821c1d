"""What a run learns from and is validated on: both splits' embeddings with the flow of their videos."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vimoclip import UserError, cli, store
from vimoclip.data.cache import FrameCache
from vimoclip.data.pairing import Clip, Pairing
from vimoclip.data.segments import SegmentDataset


@dataclass
class Splits:
    """`readers` and `pairings` of train and val."""

    readers: dict[str, store.Reader]
    pairings: dict[str, Pairing]

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


def check_readers(readers: dict[str, store.Reader], num_classes: int | None) -> None:
    """Raise UserError where the two splits, or the number of classes asked for, don't fit together."""
    train, val = readers["train"], readers["val"]
    for reader in (train, val):
        if not reader.keys:
            raise UserError(f"{reader.path}: holds no video; run extract_embeddings.py again")
        if not reader.known:
            print(f"warning: {reader.path} does not say what made it, so nothing can be checked against it")
    classes = {split: len(reader.labels(reader.keys[0])) for split, reader in readers.items()}
    cure = "make both with one set of flags"
    cli.check_same({"classes": classes["train"]}, {"classes": classes["val"]}, str(train.path), str(val.path), cure)
    if num_classes not in (None, classes["train"]):
        raise UserError(f"--num-classes {num_classes}: {train.path} has {classes['train']}; leave the flag out")
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
            raise UserError(
                f"{readers[split].path}: no video of it has flow; run extract_flows.py, see --flow-videos-dir"
            )
    ours, theirs = pairings["train"].flow_settings, pairings["val"].flow_settings
    cli.check_same(ours, theirs, "the training videos' flow", "the validation videos' flow", "make the flow anew")
