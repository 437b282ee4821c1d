"""Which videos can be trained on: those with RGB embeddings and the flow of the same frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip import cli, store, video
from vimoclip.check import compatibility
from vimoclip.errors import VideoError
from vimoclip.flow.flow_lookup import FlowFolder, settings_of


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
