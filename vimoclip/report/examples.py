"""Examples of the report: labels, highest scores and filmstrips of the best and worst clips."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vimoclip import metrics
from vimoclip.errors import UserError, VideoError
from vimoclip.flow.flow_folder import FlowFolder
from vimoclip.io.names import is_safe_name
from vimoclip.report import confusion
from vimoclip.video import filmstrip

if TYPE_CHECKING:
    from vimoclip.evaluation import Evaluation

CLIPS_PER_LIST, TOP_CLASSES = 6, 5
STRIP_FRAMES, STRIP_HEIGHT, STRIP_GAP, JPEG_QUALITY = 6, 96, 4, 72  # height and gap in pixels


@dataclass
class ExampleClip:
    """A clip of the report. `top_classes`: (class, probability, whether it is a label), highest first."""

    video: str
    average_precision: float
    labels: list[str]
    top_classes: list[tuple[str, float, bool]]
    strips: list[tuple[str, str]] = field(default_factory=list)  # (alternative text, data URI)
    missing: list[str] = field(default_factory=list)  # reasons for missing strips


def choose_examples(evaluation: "Evaluation") -> tuple[list[ExampleClip], list[ExampleClip]]:
    """Return the best and worst clips, without filmstrips."""
    scores, targets, classes = evaluation.scores, evaluation.targets, evaluation.classes
    precision = confusion.clip_average_precision(scores, targets)

    def example(clip: int) -> ExampleClip:
        order = metrics.descending_order(scores[clip])[: max(TOP_CLASSES, int(targets[clip].sum()))].tolist()
        top_classes = [(classes[c], float(scores[clip, c]), bool(targets[clip, c])) for c in order]
        labels = [classes[c] for c in np.flatnonzero(targets[clip]).tolist()]
        return ExampleClip(evaluation.videos[clip], float(precision[clip]), labels, top_classes)

    best, worst = confusion.best_and_worst(scores, targets, CLIPS_PER_LIST)
    return [example(clip) for clip in best], [example(clip) for clip in worst]


def add_filmstrips(clips: list[ExampleClip], videos_dir: Path | None, flows_dir: Path | None) -> list[str]:
    """Add filmstrips, or the reasons for missing ones, to each clip; return the reasons that apply to all clips."""
    notes = [] if videos_dir else ["Frames are not shown: the folder of videos is missing."]
    notes += [] if flows_dir else ["Flow is not shown: the folder of flow videos is missing."]
    flows = FlowFolder(flows_dir, [clip.video for clip in clips]) if flows_dir else None
    for clip in clips:
        if videos_dir:
            path = videos_dir / clip.video if is_safe_name(clip.video) else None
            alt_text = f"{STRIP_FRAMES} frames of {clip.video}, from first to last"
            _add_filmstrip(clip, alt_text, path, "the video is missing")
        if flows:
            alt_text = f"Optical flow of {clip.video} as colours, {STRIP_FRAMES} frames"
            try:
                _add_filmstrip(clip, alt_text, flows.find(clip.video), "the flow video is missing")
            except UserError:
                clip.missing.append("several flow videos match")
    return notes


def _add_filmstrip(clip: ExampleClip, alt_text: str, path: Path | None, missing_reason: str) -> None:
    if path is None or not path.is_file():
        clip.missing.append(missing_reason)
        return
    try:
        clip.strips.append((alt_text, filmstrip_data_uri(path)))
    except (VideoError, OSError) as error:
        clip.missing.append(f"{path.name} is unreadable: {error}")


def filmstrip_data_uri(path: Path) -> str:
    """Return the filmstrip of a video as a JPEG in a data URI. Raises VideoError, OSError."""
    file = io.BytesIO()
    # very wide videos are squeezed to three times the height
    image = filmstrip.render_filmstrip(path, STRIP_FRAMES, STRIP_HEIGHT, STRIP_GAP, max_width=3 * STRIP_HEIGHT)
    image.save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
