"""Run folders and what is in them: checkpoints, seeds, metrics, TensorBoard; and the device that a run computes on."""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw, ImageFont

from vimoclip import annotations
from vimoclip.errors import UserError, VideoError
from vimoclip.flow.flow_lookup import FlowFolder
from vimoclip.io import atomic
from vimoclip.video.filmstrip import strip

WRITTEN_ANEW = ("settings/", "_hparams_/")  # TensorBoard's tags of what every opening of a run says again


def tensorboard(folder: Path, epoch: int, step: int) -> Any:
    """A SummaryWriter in a folder of which only what a run knows stays: up to this epoch, and up to this step.

    Tags that begin with `step/` or end with `_by_step` count steps, the others epochs. (SummaryWriter's purge_step
    compares both with one number.) What a checkpoint covers must be flushed before it is saved."""
    from torch.utils.tensorboard import SummaryWriter

    keep_events(folder, epoch, step)
    return SummaryWriter(str(folder))


def keep_events(folder: Path, epoch: int, step: int) -> None:
    """Rewrite a folder's event files as one that holds each (tag, step) once, up to this epoch and this step.

    Stopped anywhere, it leaves nothing lost; what it leaves doubled the next call mends."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    if not (written := sorted(folder.glob("*tfevents*"))):
        return
    events = known_events(written, epoch, step)
    temporary = folder / "events.partial"  # TensorBoard reads what has tfevents in its name
    with open(temporary, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
    kept = folder / "events.out.tfevents.0000000000.kept"  # sorts, and so is read, before what SummaryWriter writes
    atomic.publish(temporary, kept)
    for path in written:
        if path != kept:
            path.unlink()


def known_events(paths: Iterable[Path], epoch: int, step: int) -> list[Any]:
    """Each (tag, step) of TensorBoard's files once, by step; a record that a kill cut short ends its file."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    found: dict[tuple[str, int], Event] = {}
    for path in paths:
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag.startswith(WRITTEN_ANEW):
                    continue
                counts_steps = value.tag.startswith("step/") or value.tag.endswith("_by_step")
                if event.step <= (step if counts_steps else epoch):
                    summary = Summary(value=[value])
                    found[value.tag, event.step] = Event(wall_time=event.wall_time, step=event.step, summary=summary)
    # from this version on TensorBoard takes a smaller step for no restart, which would hide what came before
    return [Event(file_version="brain.Event:2"), *sorted(found.values(), key=lambda event: event.step)]


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
