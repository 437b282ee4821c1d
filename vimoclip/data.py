"""Training data of the student: segments of a video, aligned RGB embeddings and flow frames."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vimoclip import UserError, VideoError, annotations, cli, store, video

# <stem>_<method>_<checkpoint>.mp4, as the published script names flow videos: what ptlflow's models and checkpoints are
# called. Both may hold underscores; so may stems.
_METHODS = (
    "ccmr craft csflow dicl dip dpflow fastflownet flow1d flow_anything flowformer flownet[a-z0-9]* flowseek gma "
    "gmflow gmflownet hd3 irr lcv liteflownet[a-z0-9]* llaflow maskflownet matchflow memflow memfof ms neuflow[0-9]* "
    "pwcnet raft rapidflow recover rpknet scopeflow scv[0-9]* sea separableflow skflow splatflow starflow streamflow "
    "unimatch vcn videoflow waft"
)
_CHECKPOINTS = "chairs highres kitti mix sintel spring tar things tskh universal zero"
_PUBLISHED = re.compile(
    rf"(.+?)_(?:{'|'.join(_METHODS.split())})(?:_[a-z0-9+]+){{0,3}}"
    rf"_(?:{'|'.join(_CHECKPOINTS.split())})[a-z0-9-]*(?:_[a-z0-9]+)?"
)
# in a flow video's comment; the rest are settings
_PER_VIDEO = ("video", "kept_frames", "frame_indices", "timestamps")


class FlowFolder:
    """The flow videos of a folder, ours (`<stem>.mp4`) or published (`<stem>_<method>_<checkpoint>.mp4`)."""

    def __init__(self, folder: Path, videos: Iterable[str] = ()):
        """`videos`: ids that are known, whose own flow is never taken for another's."""
        self.folder = folder
        self.paths = {path.name: path for path in video.find(folder)[0]}
        own = {annotations.stem(video_id) for video_id in videos}
        self._published: dict[str, list[Path]] = {}
        for path in self.paths.values():
            for stem in _published_stems(path.stem) if path.stem not in own else []:
                self._published.setdefault(stem, []).append(path)

    def find(self, video_id: str) -> Path | None:
        """The flow of a video: same file name, `<stem>.mp4`, or the one published name. UserError for several."""
        stem = annotations.stem(video_id) or video_id
        for name in (video_id, f"{stem}.mp4"):
            if name in self.paths:
                return self.paths[name]
        matches = [path for path in self._published.get(stem, []) if _made_from(path) in (None, stem)]
        if len(matches) > 1:
            names = ", ".join(path.name for path in matches)
            raise UserError(f"{self.folder}: {names} may all be the flow of {video_id}; keep one of them")
        return matches[0] if matches else None

    def by_stem(self) -> dict[str, Path]:
        """Every flow video under the stem of the video that it was made from."""
        found: dict[str, Path] = {}
        for path in self.paths.values():
            published = _PUBLISHED.fullmatch(path.stem)
            stem = (_made_from(path) or published[1]) if published else path.stem
            if stem in found:
                raise UserError(
                    f"{self.folder}: {found[stem].name} and {path.name} are both the flow of {stem}; keep one"
                )
            found[stem] = path
        return found


def _published_stems(name: str) -> list[str]:
    """The stems that `<stem>_<method>_<checkpoint>` may stand for: one where the checkpoint is a known one."""
    if known := _PUBLISHED.fullmatch(name):
        return [known[1]]
    parts = name.split("_")
    return ["_".join(parts[:cut]) for cut in range(1, len(parts) - 1)]


def _made_from(path: Path) -> str | None:
    """The stem of the video that a flow video says it shows; None where it says nothing."""
    try:
        return (video.probe(path).comment or {}).get("video")
    except VideoError:
        return None  # who reads it says so


def settings_of(comment: dict[str, Any] | None) -> dict[str, Any]:
    """How a flow video was made (method, checkpoint, size, normalisation, sampling); empty where unknown."""
    return {k: v for k, v in (comment or {}).items() if k not in _PER_VIDEO}


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
        if reader.known:
            sampling = {"sampling": reader.attributes.get("sampling")}
            cli.check_same(sampling, made, str(reader.path), str(path), "give both extractors the same flags")
        if problem := _misaligned(reader, key, frames, info):
            left_out[key] = problem
            continue
        clips.append(Clip(key, path, frames))
    return Pairing(clips, left_out, settings)


def _misaligned(reader: store.Reader, key: str, frames: int, info: video.Info) -> str | None:
    if info.frames and info.frames != frames - 1:
        return f"has {frames} RGB frames but {info.frames} flow frames, not {frames - 1}"
    kept, embedded = video.described_indices(info.comment), reader.frame_indices(key)
    if kept is not None and embedded is not None and not np.array_equal(kept, embedded):
        return "its flow is of other frames than its embeddings (was the video replaced?)"
    return None


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
