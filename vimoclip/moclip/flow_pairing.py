"""Pairing of videos that have RGB embeddings with the flow videos of the same frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip import cli, store, video
from vimoclip.check import compatibility
from vimoclip.errors import VideoError
from vimoclip.flow.flow_folder import FlowFolder, settings_from_comment


class TrainingVideo(NamedTuple):
    """A video with RGB embeddings under `key` (`num_frames` rows) and a flow video (`num_frames` - 1 frames)."""

    key: str
    flow_path: Path
    num_frames: int


@dataclass
class PairedVideos:
    """Usable videos, excluded ones (key -> reason), and the settings with which the flow was extracted."""

    videos: list[TrainingVideo]
    excluded: dict[str, str]
    flow_settings: dict[str, Any]


def pair_with_flow(reader: store.EmbeddingReader, flows: FlowFolder, keys: Sequence[str] | None = None) -> PairedVideos:
    """Pair the videos of an RGB file (default: all) with their flow.

    Raises UserError if embeddings and flow, or two flow videos, were extracted with different settings."""
    videos, excluded = [], {}
    flow_settings: dict[str, Any] = {}
    first_path: Path | None = None
    for key in reader.keys if keys is None else keys:
        num_frames, path = reader.length(key), flows.find(key)
        if num_frames < 2 or path is None:
            excluded[key] = "has one frame, so no flow" if num_frames < 2 else f"has no flow video in {flows.folder}"
            continue
        try:
            info = video.probe(path)
        except VideoError as error:
            excluded[key] = f"its flow video {error}"
            continue
        settings = settings_from_comment(info.comment)
        if first_path is None or not flow_settings:
            first_path, flow_settings = path, settings
        hint = "extract all flow again with the same flags"
        cli.check_settings_match(flow_settings, settings, str(first_path), str(path), hint)
        compatibility.check_sampling(reader, settings, str(path))
        if problem := compatibility.flow_mismatch(num_frames, reader.frame_indices(key), info):
            excluded[key] = problem
            continue
        videos.append(TrainingVideo(key, path, num_frames))
    return PairedVideos(videos, excluded, flow_settings)
