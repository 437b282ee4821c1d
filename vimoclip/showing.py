"""What TensorBoard shows of a run of either training stage, beside its scalars.

Curves of precision and recall of common and rare classes, strips of some clips with labels and guesses, the settings as
text, and a row of the HParams tab. All of it goes into the run's own folder, and is the same after a stop."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw, ImageFont

from vimoclip import UserError, VideoError, annotations
from vimoclip.matching import FlowFolder
from vimoclip.strips import strip

CLIPS, FRAMES, TOP = 4, 5, 5  # clips of a panel, frames of a strip, guesses of a clip
HEIGHT, GAP, TEXT, COLUMN = 90, 6, 14, 300  # pixels: of a strip, between things, of letters, of what stands beside
LETTERS = 40  # of a line of labels
RIGHT, WRONG = "#0072b2", "#6e6e6e"
BETWEEN = "#b0b0b0"  # of frames: flow that stands still is white
THRESHOLDS = 101  # of a curve


def class_groups(notes: Path, class_names: Sequence[str]) -> dict[str, list[int]]:
    """`all` classes, and those of head, middle and tail where the annotations in `notes` say it of these classes."""
    groups = {"all": list(range(len(class_names)))}
    try:
        path = notes / f"{annotations.name_in(notes)}_action.csv"
        if annotations.read_classes(path) != tuple(class_names):
            return groups
        partitions = annotations.read_partitions(path)
    except UserError:
        return groups
    for segments in list(partitions.values())[:1]:  # the authors', where there is one
        for name in annotations.SEGMENTS:
            groups[name] = [c for c, segment in enumerate(segments) if segment == name]
    return {name: classes for name, classes in groups.items() if classes}


def add_curves(
    writer: Any, watched: str, scores: torch.Tensor, targets: torch.Tensor, groups: Mapping[str, list[int]], epoch: int
) -> None:
    """Precision and recall over all pairs of clip and class of each group; scores and targets (N, C)."""
    for name, classes in groups.items():
        truth, said = targets[:, classes].reshape(-1) > 0, scores[:, classes].reshape(-1)
        writer.add_pr_curve(f"{watched}/precision_recall_{name}", truth, said, epoch, num_thresholds=THRESHOLDS)


def add_settings(writer: Any, settings: Mapping[str, Any]) -> None:
    """The resolved settings, as YAML; each opening of a run writes them."""
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    writer.add_text("settings", "".join(f"    {line}\n" for line in text.splitlines()), 0)


def add_row(writer: Any, settings: Mapping[str, Any], results: Mapping[str, float], epoch: int) -> None:
    """The run's row of the HParams tab, and its final metrics as scalars of the same names, at the epoch that was kept.

    No list of columns is written: TensorBoard then takes those of all runs, of either stage, together."""
    from torch.utils.tensorboard.summary import hparams

    for name, value in results.items():
        writer.add_scalar(name, value, epoch)
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
    _, started, ended = hparams(plain, dict(results))
    writer.file_writer.add_summary(started)
    writer.file_writer.add_summary(ended)
    writer.flush()


class Scene(NamedTuple):
    """A clip of a panel: its id, its labels, and the picture of its strips."""

    video: str
    labels: frozenset[int]
    strips: Image.Image


def scenes(
    clips: Sequence[str], labels_of: Callable[[str], np.ndarray], videos_dir: Path, flow_of: Mapping[str, Path] | Path
) -> list[Scene]:
    """Some of these clips, the same in each epoch; those that can't be read are left out.

    `labels_of`: (C,) multi-hot; `flow_of`: a folder of flow videos, or the one of each clip."""
    found: list[Scene] = []
    flows = FlowFolder(flow_of) if isinstance(flow_of, Path) and flow_of.is_dir() else None
    for name in clips[:: max(1, len(clips) // CLIPS)]:
        if len(found) == CLIPS:
            break
        flow = flow_of.get(name) if isinstance(flow_of, Mapping) else _found(flows, name)
        strips = [drawn for path in (videos_dir / name, flow) if path and (drawn := strip_of(path))]
        if strips:
            found.append(Scene(name, frozenset(labels_of(name).nonzero()[0].tolist()), _stacked(strips)))
    return found


def _found(flows: FlowFolder | None, name: str) -> Path | None:
    try:
        return flows.find(name) if flows else None
    except UserError:  # several may be its flow
        return None


def strip_of(path: Path) -> Image.Image | None:
    """Frames of a video side by side; None where it can't be read."""
    try:
        return strip(path, FRAMES, HEIGHT, GAP, BETWEEN)
    except (VideoError, OSError):
        return None


def _stacked(strips: Sequence[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (max(s.width for s in strips), len(strips) * (HEIGHT + GAP) - GAP), "white")
    for i, one in enumerate(strips):
        sheet.paste(one, (0, i * (HEIGHT + GAP)))
    return sheet


def panel(
    shown: Sequence[Scene], probabilities: Mapping[str, torch.Tensor], class_names: Sequence[str]
) -> np.ndarray | None:
    """(H, W, 3) uint8: RGB strip over flow strip of each clip, beside them its labels and its likeliest actions.

    What is right is marked by `+` and its colour. None where there is nothing to show."""
    rows = [_beside(scene, probabilities[scene.video], class_names) for scene in shown if scene.video in probabilities]
    if not rows:
        return None
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height + 3 * GAP for r in rows)), "white")
    for i, row in enumerate(rows):
        sheet.paste(row, (0, sum(other.height + 3 * GAP for other in rows[:i])))
    return np.asarray(sheet)


def _beside(scene: Scene, probabilities: torch.Tensor, class_names: Sequence[str]) -> Image.Image:
    font, line = ImageFont.load_default(TEXT), TEXT + 4
    top = probabilities.topk(min(TOP, len(class_names)))
    true = ", ".join(class_names[c] for c in sorted(scene.labels)) or "no label"
    texts = [(text, "black") for text in (scene.video, *textwrap.wrap(f"labels: {true}", LETTERS))]
    for value, c in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        right = c in scene.labels
        texts.append((f"{'+' if right else '-'} {value:.2f} {class_names[c]}", RIGHT if right else WRONG))
    width = max(COLUMN, *(int(font.getlength(_plain(text))) + 2 * GAP for text, _ in texts))
    sheet = Image.new("RGB", (scene.strips.width + width, max(scene.strips.height, len(texts) * line)), "white")
    sheet.paste(scene.strips, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for i, (text, color) in enumerate(texts):
        draw.text((scene.strips.width + GAP, i * line), _plain(text), fill=color, font=font)
    return sheet


def _plain(text: str) -> str:
    """What the built-in font has letters for."""
    return text.encode("latin-1", "replace").decode("latin-1")
