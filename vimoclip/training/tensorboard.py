"""TensorBoard of both trainings: event files that continue after a resume, epochs, settings, HParams, panels."""

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
from vimoclip.flow.flow_folder import FlowFolder
from vimoclip.io import atomic
from vimoclip.video.filmstrip import render_filmstrip

# prefixes of tags that are written whenever a run is opened
REWRITTEN_TAGS = ("settings/", "_hparams_/")
PANEL_CLIPS, STRIP_FRAMES, TOP_CLASSES = 4, 5, 5  # clips per panel, frames per strip, predicted classes per clip
STRIP_HEIGHT, GAP, FONT_SIZE, MIN_TEXT_WIDTH = 90, 6, 14, 300  # in pixels
LABEL_LINE_CHARACTERS = 40
CORRECT_COLOR, WRONG_COLOR = "#0072b2", "#6e6e6e"
GAP_COLOR = "#b0b0b0"  # between frames; not white, since flow without motion is white
PR_THRESHOLDS = 101


def open_writer(folder: Path, epoch: int, step: int) -> Any:
    """Open a SummaryWriter in a folder whose events are purged to this epoch and step.

    SummaryWriter's purge_step can't be used, since it compares steps and epochs with one number. The writer must be
    flushed before a checkpoint is saved."""
    from torch.utils.tensorboard import SummaryWriter

    purge_events(folder, epoch, step)
    return SummaryWriter(str(folder))


def purge_events(folder: Path, epoch: int, step: int) -> None:
    """Rewrite a folder's event files as one that holds each (tag, step) once, up to this epoch and step.

    If it is interrupted, no event is lost, and the next call removes duplicates."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    if not (paths := sorted(folder.glob("*tfevents*"))):
        return
    events = read_events(paths, epoch, step)
    temporary = folder / "events.partial"  # without tfevents in its name, so that TensorBoard ignores it
    with open(temporary, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
    purged_path = folder / "events.out.tfevents.0000000000.kept"  # sorts, and is read, before SummaryWriter's files
    atomic.publish(temporary, purged_path)
    for path in paths:
        if path != purged_path:
            path.unlink()


def read_events(paths: Iterable[Path], epoch: int, step: int) -> list[Any]:
    """Read each (tag, step) once, ordered by step, up to this epoch and step. A truncated record ends its file.

    Tags that begin with `step/` or end with `_by_step` are counted in steps, the others in epochs."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    events: dict[tuple[str, int], Event] = {}
    for path in paths:
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag.startswith(REWRITTEN_TAGS):
                    continue
                counts_steps = value.tag.startswith("step/") or value.tag.endswith("_by_step")
                if event.step <= (step if counts_steps else epoch):
                    summary = Summary(value=[value])
                    events[value.tag, event.step] = Event(wall_time=event.wall_time, step=event.step, summary=summary)
    # from this file version on, TensorBoard does not hide earlier events when the step decreases
    return [Event(file_version="brain.Event:2"), *sorted(events.values(), key=lambda event: event.step)]


def class_groups(annotations_dir: Path, class_names: Sequence[str]) -> dict[str, list[int]]:
    """Return class ids by group: `all`, and head, middle and tail if the annotations have segments of these classes."""
    groups = {"all": list(range(len(class_names)))}
    try:
        path = annotations_dir / f"{annotations.find_dataset_name(annotations_dir)}_action.csv"
        if annotations.read_classes(path) != tuple(class_names):
            return groups
        partitions = annotations.read_partitions(path)
    except UserError:
        return groups
    for class_segments in list(partitions.values())[:1]:  # the data set authors' partition comes first
        for name in annotations.SEGMENTS:
            groups[name] = [c for c, segment in enumerate(class_segments) if segment == name]
    return {name: classes for name, classes in groups.items() if classes}


def add_pr_curves(
    writer: Any,
    monitor_split: str,
    scores: torch.Tensor,
    targets: torch.Tensor,
    groups: Mapping[str, list[int]],
    epoch: int,
) -> None:
    """Write a precision-recall curve over all (clip, class) pairs of each group. scores, targets: (N, C)."""
    for name, classes in groups.items():
        labels, predictions = targets[:, classes].reshape(-1) > 0, scores[:, classes].reshape(-1)
        tag = f"{monitor_split}/precision_recall_{name}"
        writer.add_pr_curve(tag, labels, predictions, epoch, num_thresholds=PR_THRESHOLDS)


def add_settings(writer: Any, settings: Mapping[str, Any]) -> None:
    """Write the resolved settings as YAML. Call it whenever a run is opened, see REWRITTEN_TAGS."""
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    writer.add_text("settings", "".join(f"    {line}\n" for line in text.splitlines()), 0)


def add_hparams(writer: Any, settings: Mapping[str, Any], results: Mapping[str, float], epoch: int) -> None:
    """Write the run's row of the HParams tab, and its final metrics as scalars at the chosen epoch.

    No experiment summary is written, so that TensorBoard shows the columns of all runs of both stages."""
    from torch.utils.tensorboard.summary import hparams

    for name, value in results.items():
        writer.add_scalar(name, value, epoch)
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
    _, session_start, session_end = hparams(plain, dict(results))
    writer.file_writer.add_summary(session_start)
    writer.file_writer.add_summary(session_end)
    writer.flush()


class EpochLogger:
    """Log of the epochs of a run, with precision-recall curves and a panel of example clips of the monitor split."""

    def __init__(
        self,
        writer: Any,
        monitor_split: str,
        class_names: Sequence[str],
        annotations_dir: Path,
        panel_clips: Sequence["PanelClip"],
    ):
        self.writer, self.monitor_split, self.class_names = writer, monitor_split, class_names
        self.class_groups, self.panel_clips = class_groups(annotations_dir, class_names), panel_clips

    def log_epoch(
        self, epoch: int, scalars: Mapping[str, float], scores: Mapping[str, torch.Tensor], labels: torch.Tensor
    ) -> None:
        """Log `scalars` by tag, and the (C,) `scores` by video; `labels` (N, C) are in their order."""
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, value, epoch)
        all_scores = torch.stack(list(scores.values()))
        add_pr_curves(self.writer, self.monitor_split, all_scores, labels, self.class_groups, epoch)
        if (image := draw_panel(self.panel_clips, scores, self.class_names)) is not None:
            self.writer.add_image(f"{self.monitor_split}/rgb_flow_labels", image, epoch, dataformats="HWC")
        self.writer.flush()


class PanelClip(NamedTuple):
    """Clip of a panel: its name, its labels, and an image of its RGB and flow strips."""

    video: str
    labels: frozenset[int]
    strips: Image.Image


def load_panel_clips(
    videos: Sequence[str],
    get_labels: Callable[[str], np.ndarray],
    videos_dir: Path,
    flow_source: Mapping[str, Path] | Path,
) -> list[PanelClip]:
    """Load PANEL_CLIPS of the videos, evenly spaced; unreadable ones are skipped.

    `get_labels` returns (C,) multi-hot labels; `flow_source` is a folder of flow videos, or the paths by video."""
    panel_clips: list[PanelClip] = []
    flows = FlowFolder(flow_source) if isinstance(flow_source, Path) and flow_source.is_dir() else None
    for video in videos[:: max(1, len(videos) // PANEL_CLIPS)]:
        if len(panel_clips) == PANEL_CLIPS:
            break
        flow_path = flow_source.get(video) if isinstance(flow_source, Mapping) else _find_flow(flows, video)
        strips = [strip for path in (videos_dir / video, flow_path) if path and (strip := read_strip(path))]
        if strips:
            panel_clips.append(PanelClip(video, frozenset(get_labels(video).nonzero()[0].tolist()), _stack(strips)))
    return panel_clips


def _find_flow(flows: FlowFolder | None, video: str) -> Path | None:
    try:
        return flows.find(video) if flows else None
    except UserError:  # ambiguous
        return None


def read_strip(path: Path) -> Image.Image | None:
    """Return frames of a video side by side; None if it can't be decoded."""
    try:
        return render_filmstrip(path, STRIP_FRAMES, STRIP_HEIGHT, GAP, GAP_COLOR)
    except (VideoError, OSError):
        return None


def _stack(strips: Sequence[Image.Image]) -> Image.Image:
    """Stack strips vertically."""
    sheet = Image.new("RGB", (max(s.width for s in strips), len(strips) * (STRIP_HEIGHT + GAP) - GAP), "white")
    for i, strip in enumerate(strips):
        sheet.paste(strip, (0, i * (STRIP_HEIGHT + GAP)))
    return sheet


def draw_panel(
    panel_clips: Sequence[PanelClip], probabilities: Mapping[str, torch.Tensor], class_names: Sequence[str]
) -> np.ndarray | None:
    """Draw the panel as (H, W, 3) uint8: a row per clip with its strips, its labels and its top classes.

    Correct classes are marked by `+` and a colour. Return None if no clip has probabilities."""
    rows = [
        _draw_row(clip, probabilities[clip.video], class_names) for clip in panel_clips if clip.video in probabilities
    ]
    if not rows:
        return None
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height + 3 * GAP for row in rows)), "white")
    for i, row in enumerate(rows):
        sheet.paste(row, (0, sum(previous.height + 3 * GAP for previous in rows[:i])))
    return np.asarray(sheet)


def _draw_row(clip: PanelClip, probabilities: torch.Tensor, class_names: Sequence[str]) -> Image.Image:
    font, line_height = ImageFont.load_default(FONT_SIZE), FONT_SIZE + 4
    top = probabilities.topk(min(TOP_CLASSES, len(class_names)))
    labels = ", ".join(class_names[c] for c in sorted(clip.labels)) or "no label"
    lines = [(text, "black") for text in (clip.video, *textwrap.wrap(f"labels: {labels}", LABEL_LINE_CHARACTERS))]
    for value, c in zip(top.values.tolist(), top.indices.tolist(), strict=True):
        mark, color = ("+", CORRECT_COLOR) if c in clip.labels else ("-", WRONG_COLOR)
        lines.append((f"{mark} {value:.2f} {class_names[c]}", color))
    text_width = max(MIN_TEXT_WIDTH, *(int(font.getlength(_as_latin1(text))) + 2 * GAP for text, _ in lines))
    height = max(clip.strips.height, len(lines) * line_height)
    sheet = Image.new("RGB", (clip.strips.width + text_width, height), "white")
    sheet.paste(clip.strips, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for i, (text, color) in enumerate(lines):
        draw.text((clip.strips.width + GAP, i * line_height), _as_latin1(text), fill=color, font=font)
    return sheet


def _as_latin1(text: str) -> str:
    """Replace characters that PIL's built-in font lacks."""
    return text.encode("latin-1", "replace").decode("latin-1")
