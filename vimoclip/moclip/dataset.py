"""Videos with embeddings and fitting flow, and the dataset of their segments: flow frames and RGB embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vimoclip import cli, store
from vimoclip.annotations import split_protocol
from vimoclip.annotations.few_shot import draw_shots
from vimoclip.check import compatibility
from vimoclip.errors import UserError, VideoError
from vimoclip.flow.flow_folder import FlowFolder, settings_from_comment
from vimoclip.training import run_folder
from vimoclip.video import RandomAccessReader, probe

if TYPE_CHECKING:
    from vimoclip.moclip.frame_cache import FrameCache


class TrainingVideo(NamedTuple):
    """A video with RGB embeddings under `key` (`num_frames` rows) and a flow video (`num_frames` - 1 frames)."""

    key: str
    flow_path: Path
    num_frames: int


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
    `unreadable` the videos that are missing from the batch. `lengths`: numbers of real frames, once the batch is on its
    device, where counting `mask` would wait for a GPU."""

    flow: torch.Tensor
    z_image: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    keys: list[str]
    unreadable: list[UnreadableVideo]
    indices: Sequence[int] = ()
    lengths: Sequence[int] = ()


class SegmentDataset(Dataset):
    """Segments as batches of one, zero-padded to L - 1, for `collate`."""

    def __init__(
        self,
        reader: store.EmbeddingReader,
        videos: Sequence[TrainingVideo],
        sequence_length: int,
        preprocess: Callable[[np.ndarray], torch.Tensor],
        cache: "FrameCache | None" = None,
    ):
        self.reader, self.preprocess, self.cache = reader, preprocess, cache
        self.segment_length = sequence_length - 1
        self.segments = split_into_segments(videos, sequence_length)

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> SegmentBatch | UnreadableVideo:
        """Read a segment. Return an UnreadableVideo instead of raising: one bad video does not end a run."""
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

    @staticmethod
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

    def _read_flow(self, path: Path, start: int, stop: int) -> torch.Tensor:
        """Read flow frames start..stop as (n, 3, S, S) uint8. Raises VideoError."""
        if self.cache is not None and (frames := self.cache.read(path, start, stop)) is not None:
            return frames
        return self.preprocess(cached_video_reader(path).read(start, stop))


@lru_cache(maxsize=512)
def cached_video_reader(path: Path) -> RandomAccessReader:
    """Open a flow video, or return its open reader: a process reads several segments of a video."""
    return RandomAccessReader(path)


def _zero_pad(rows: torch.Tensor, length: int) -> torch.Tensor:
    if len(rows) == length:
        return rows
    return torch.cat([rows, rows.new_zeros((length - len(rows), *rows.shape[1:]))])


@dataclass
class PairedVideos:
    """Usable videos, excluded ones (key -> reason), and the settings with which the flow was extracted.

    `is_lossy`: whether a flow video is known to be made without --lossless."""

    videos: list[TrainingVideo]
    excluded: dict[str, str]
    flow_settings: dict[str, Any]
    is_lossy: bool = False


def pair_with_flow(reader: store.EmbeddingReader, flows: FlowFolder, keys: Sequence[str] | None = None) -> PairedVideos:
    """Pair the videos of an RGB file (default: all) with their flow.

    Raises UserError if embeddings and flow, or two flow videos, were extracted with different settings."""
    videos, excluded = [], {}
    flow_settings: dict[str, Any] = {}
    is_lossy = False
    for key in reader.keys if keys is None else keys:
        num_frames, path = reader.length(key), flows.find(key)
        if num_frames < 2 or path is None:
            excluded[key] = "has one frame, so no flow" if num_frames < 2 else f"has no flow video in {flows.folder}"
            continue
        try:
            info = probe(path)
        except VideoError as error:
            excluded[key] = f"its flow video {error}"
            continue
        settings = settings_from_comment(info.comment)
        hint = "extract all flow again with the same flags"
        cli.check_settings_match(flow_settings, settings, "the flow videos before it", str(path), hint)
        flow_settings = settings | flow_settings  # the first may lack a setting that later ones have
        compatibility.check_sampling(reader, settings, str(path))
        if problem := compatibility.flow_mismatch(num_frames, reader.frame_indices(key), info):
            excluded[key] = problem
            continue
        videos.append(TrainingVideo(key, path, num_frames))
        is_lossy = is_lossy or (info.comment or {}).get("lossless") is False
    return PairedVideos(videos, excluded, flow_settings, is_lossy)


@dataclass
class TrainingSplits:
    """Readers and videos of "train" and of the monitor split, "selection" or "val".

    `metadata`: the protocol, the shots, a hash of the model-selection split, and a hash of each file's content."""

    readers: dict[str, store.EmbeddingReader]
    paired_videos: dict[str, PairedVideos]
    metadata: dict[str, Any]

    def datasets(
        self, sequence_length: int, preprocess: Callable[[np.ndarray], torch.Tensor], cache: "FrameCache | None" = None
    ) -> dict[str, SegmentDataset]:
        return {
            split: SegmentDataset(self.readers[split], paired.videos, sequence_length, preprocess, cache)
            for split, paired in self.paired_videos.items()
        }

    def videos(self) -> list[TrainingVideo]:
        """Return the videos of both splits."""
        return [video for paired in self.paired_videos.values() for video in paired.videos]

    def excluded(self) -> list[tuple[str, str, str]]:
        """Return (split, video, reason) of the excluded videos."""
        return [(split, *item) for split, paired in self.paired_videos.items() for item in paired.excluded.items()]


def pair_splits(
    readers: dict[str, store.EmbeddingReader],
    flows: FlowFolder,
    annotations_dir: Path,
    limit: int | None,
    protocol: str,
    shots: int | None = None,
) -> tuple[dict[str, PairedVideos], dict[str, Any]]:
    """Return `paired_videos` and `metadata` of TrainingSplits, with at most `limit` videos a split.

    Without a "val" file, the clips of selection.txt move from "train" to "selection". `shots`: keep the training clips
    of `draw_shots`. Raises UserError."""
    train = readers["train"]
    metadata: dict[str, Any] = {"protocol": protocol, "shots": shots}
    if "val" in readers:
        keys = {split: reader.keys for split, reader in readers.items()}
    else:
        split_protocol.check_selection_keys(train.keys, annotations_dir, train.path)
        train_keys, selection_keys = split_protocol.split_train_selection(train.keys, annotations_dir, train.path)
        keys = {"train": train_keys, "selection": selection_keys}
        metadata["selection"] = run_folder.digest(selection_keys)
    metadata["embeddings"] = {split: reader.attributes.get("content_sha256") for split, reader in readers.items()}
    paired_videos = {
        split: pair_with_flow(readers.get(split, train), flows, split_keys[:limit])
        for split, split_keys in keys.items()
    }
    if shots:
        candidates = paired_videos["train"].videos
        drawn = set(
            draw_shots({video.key: train.labels(video.key).nonzero()[0].tolist() for video in candidates}, shots)
        )
        paired_videos["train"].videos = [video for video in candidates if video.key in drawn]
        print(f"{len(drawn)} of {len(candidates)} training videos are drawn, {shots} of each class")
    return paired_videos, metadata


def check_embedding_files(readers: dict[str, store.EmbeddingReader], num_classes: int | None) -> None:
    """Raise UserError if a file is empty, or if the files and the requested number of classes do not agree."""
    train = readers["train"]
    for reader in readers.values():
        if not reader.keys:
            raise UserError("has no videos", "run extract_embeddings.py again", path=reader.path)
        if not reader.has_schema:
            print(f"warning: {reader.path} has no metadata, so its encoder and sampling are not checked")
    train_classes = len(train.labels(train.keys[0]))
    if num_classes not in (None, train_classes):
        raise UserError(f"--num-classes is {num_classes}, but {train.path} has {train_classes}", "remove the flag")
    if val := readers.get("val"):
        names = str(train.path), str(val.path)
        compatibility.check_encoder(train.attributes, val.attributes, *names)
        compatibility.check_classes(compatibility.class_names(train), compatibility.class_names(val), *names)


def check_paired_videos(paired_videos: dict[str, PairedVideos], readers: dict[str, store.EmbeddingReader]) -> None:
    """Print the excluded videos. Raises UserError if a split has no video, or if the splits' flow settings differ."""
    for split, paired in paired_videos.items():
        print(f"{split}: {len(paired.videos)} videos, {len(paired.excluded)} excluded")
        for key, reason in paired.excluded.items():
            print(f"  excluded: {key}: {reason}")
        if not paired.videos:
            path = readers.get(split, readers["train"]).path
            source = "it" if split in readers else f"its {split} clips"
            raise UserError(
                f"no video of {source} has flow", "run extract_flows.py, or set --flow-videos-dir", path=path
            )
    train_settings, monitor_settings = (paired.flow_settings for paired in paired_videos.values())
    train_name, monitor_name = "the training videos' flow", "the validation videos' flow"
    hint = "extract all flow again with the same flags"
    cli.check_settings_match(train_settings, monitor_settings, train_name, monitor_name, hint)
