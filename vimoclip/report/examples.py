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
from vimoclip.video import VideoFolder, filmstrip

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
    precision = clip_average_precision(scores, targets)

    def example(clip: int) -> ExampleClip:
        order = metrics.descending_order(scores[clip])[: max(TOP_CLASSES, int(targets[clip].sum()))].tolist()
        top_classes = [(classes[c], float(scores[clip, c]), bool(targets[clip, c])) for c in order]
        labels = [classes[c] for c in np.flatnonzero(targets[clip]).tolist()]
        return ExampleClip(evaluation.videos[clip], float(precision[clip]), labels, top_classes)

    best, worst = best_and_worst(scores, targets, CLIPS_PER_LIST)
    return [example(clip) for clip in best], [example(clip) for clip in worst]


def clip_average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N,) float64: AP of each clip over the classes; NaN without a label.

    It is 1 if all labels score above all other classes."""
    return metrics.bootstrap_ap_per_class(scores.T, targets.T, np.ones((1, scores.shape[1]), np.int64))[0]


def clip_cross_entropy(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N,) float64: mean binary cross-entropy of each clip over the classes. `scores` are probabilities."""
    likelihood = np.where(targets, scores, 1 - scores)
    return -np.log(np.clip(likelihood, 1e-9, 1)).mean(axis=1)


def best_and_worst(scores: np.ndarray, targets: np.ndarray, count: int) -> tuple[list[int], list[int]]:
    """Return (best, worst): the indices of at most `count` clips each, by AP; ties are ordered by cross-entropy.

    Clips with a label set that is not in the list yet come first, so that a frequent class does not fill it. The best
    are from the better half of the clips, the worst from the other half and with an AP below 1."""
    precision, loss = clip_average_precision(scores, targets), clip_cross_entropy(scores, targets)
    labelled = np.flatnonzero(targets.any(axis=1))
    ranked = labelled[np.lexsort((loss[labelled], -precision[labelled]))].tolist()
    half = (len(ranked) + 1) // 2
    wrong = [clip for clip in ranked[half:] if precision[clip] < 1]
    best, worst = _distinct_labels_first(ranked[:half], targets), _distinct_labels_first(wrong[::-1], targets)
    return best[:count], worst[:count]


def _distinct_labels_first(ranked: list[int], targets: np.ndarray) -> list[int]:
    """Return the first clip of each label set, then the others."""
    label_sets: set[bytes] = set()
    first: list[int] = []
    others: list[int] = []
    for clip in ranked:
        labels = targets[clip].tobytes()
        (others if labels in label_sets else first).append(clip)
        label_sets.add(labels)
    return first + others


def add_filmstrips(clips: list[ExampleClip], videos_dir: Path | None, flows_dir: Path | None) -> list[str]:
    """Add filmstrips, or the reasons for missing ones, to each clip; return the reasons that apply to all clips."""
    notes = [] if videos_dir else ["Frames are not shown: the folder of videos is missing."]
    notes += [] if flows_dir else ["Flow is not shown: the folder of flow videos is missing."]
    videos = VideoFolder(videos_dir) if videos_dir else None
    flows = FlowFolder(flows_dir, [clip.video for clip in clips]) if flows_dir else None
    for clip in clips:
        if videos:
            alt_text = f"{STRIP_FRAMES} frames of {clip.video}, from first to last"
            paths = videos.matches(clip.video)
            if len(paths) > 1:
                clip.missing.append("several videos have its name")
            else:
                _add_filmstrip(clip, alt_text, paths[0] if paths else None, "the video is missing")
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
