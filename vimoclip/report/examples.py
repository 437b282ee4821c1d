"""The best and the worst clips: their labels, what they are taken for, and strips of frames and flow."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vimoclip.errors import UserError, VideoError
from vimoclip.flow.flow_lookup import FlowFolder
from vimoclip.io.names import safe_name
from vimoclip.report import confusion
from vimoclip.report.subject import Evaluation
from vimoclip.video import filmstrip

COUNT, TOP = 6, 5  # clips in each list, and predictions shown of a clip
FRAMES, HEIGHT, GAP, QUALITY = 6, 96, 4, 72  # of a strip: frames, pixels, and quality of the JPEG


@dataclass
class Clip:
    """A clip to show. `top`: name, probability and whether it is a label, the likeliest first."""

    video: str
    precision: float
    labels: list[str]
    top: list[tuple[str, float, bool]]
    strips: list[tuple[str, str]] = field(default_factory=list)  # text in the picture's stead, data URI
    missing: list[str] = field(default_factory=list)  # why there is no picture


def choose(evaluation: Evaluation) -> tuple[list[Clip], list[Clip]]:
    """The best and the worst clips, without pictures."""
    scores, targets = evaluation.scores, evaluation.targets
    precision = confusion.clip_precision(scores, targets)

    def show(clip: int) -> Clip:
        order = np.argsort(-scores[clip], kind="stable")[: max(TOP, int(targets[clip].sum()))].tolist()
        top = [(evaluation.classes[c], float(scores[clip, c]), bool(targets[clip, c])) for c in order]
        labels = [evaluation.classes[c] for c in np.flatnonzero(targets[clip]).tolist()]
        return Clip(evaluation.videos[clip], float(precision[clip]), labels, top)

    best, worst = confusion.best_and_worst(scores, targets, COUNT)
    return [show(clip) for clip in best], [show(clip) for clip in worst]


def add_strips(clips: list[Clip], videos_dir: Path | None, flows_dir: Path | None) -> list[str]:
    """Give clips their pictures, as far as there are any; where there are none, the reason.

    What is wrong for all of them is returned."""
    notes = []
    if videos_dir is None or not videos_dir.is_dir():
        notes.append(
            f"No frames: {'no folder of videos was given' if videos_dir is None else 'there is no such folder'}."
        )
    if flows_dir is None or not flows_dir.is_dir():
        notes.append(f"No flow: {'no folder of flow was given' if flows_dir is None else 'there is no such folder'}.")
    flows = FlowFolder(flows_dir, [clip.video for clip in clips]) if flows_dir and flows_dir.is_dir() else None
    for clip in clips:
        if videos_dir and videos_dir.is_dir():
            path = videos_dir / clip.video if safe_name(clip.video) else None
            _add(clip, f"{FRAMES} frames of {clip.video}, from its first to its last", path, "its video is missing")
        if flows:
            text = f"Optical flow of {clip.video} as colours, at {FRAMES} moments"
            try:
                _add(clip, text, flows.find(clip.video), "its flow is missing")
            except UserError:
                clip.missing.append("several files may be its flow")
    return notes


def _add(clip: Clip, text: str, path: Path | None, without: str) -> None:
    if path is None or not path.is_file():
        clip.missing.append(without)
        return
    try:
        clip.strips.append((text, data_uri(path)))
    except (VideoError, OSError) as error:
        clip.missing.append(f"{path.name} can't be read: {error}")


def data_uri(path: Path) -> str:
    """A video's strip as a small JPEG. Raises VideoError, OSError."""
    file = io.BytesIO()
    sheet = filmstrip.strip(path, FRAMES, HEIGHT, GAP, widest=3 * HEIGHT)  # of any odd video
    sheet.save(file, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
