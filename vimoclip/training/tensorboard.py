"""TensorBoard of both trainings: event files that continue after a resume, epochs, settings, HParams, panels."""

import contextlib
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw, ImageFont

from vimoclip import annotations
from vimoclip.errors import UserError, VideoError
from vimoclip.io.names import normalize_name
from vimoclip.video import VideoFolder
from vimoclip.video.filmstrip import render_filmstrip

HPARAMS_FOLDER = "hparams"  # in a run's folder of logs
PANEL_CLIPS, STRIP_FRAMES, TOP_CLASSES = 4, 5, 5  # clips per panel, frames per strip, predicted classes per clip
STRIP_HEIGHT, GAP, FONT_SIZE, MIN_TEXT_WIDTH = 90, 6, 14, 300  # in pixels
LABEL_LINE_CHARACTERS = 40
CORRECT_COLOR, WRONG_COLOR = "#0072b2", "#6e6e6e"
GAP_COLOR = "#b0b0b0"  # between frames; not white, since flow without motion is white
PR_THRESHOLDS = 101


def open_writer(folder: Path, step: int) -> Any:
    """Open a SummaryWriter; TensorBoard then hides earlier events of this step or a later one.

    The writer must be flushed before a checkpoint is saved. TensorBoard reads event files in the order of their names,
    which begin with a time; earlier files get a number instead, since they may be of the same second, or of a machine
    with another clock."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from torch.utils.tensorboard import SummaryWriter

    for number, path in enumerate(sorted(folder.glob("events.out.tfevents.*"))):
        path.rename(path.with_name(re.sub(r"tfevents\.\d+", f"tfevents.{number:010}", path.name)))
    writer: Any = SummaryWriter(str(folder), purge_step=step)
    # TensorBoard ignores the first session start of a folder, and earlier versions of this project wrote none
    start = Event(step=step, session_log=SessionLog(status=SessionLog.START))
    writer.file_writer.add_event(start, step)
    return writer


def class_groups(annotations_dir: Path, class_names: Sequence[str]) -> dict[str, list[int]]:
    """Return class ids by group: `all`, and head, middle and tail if the annotations have segments of these classes."""
    groups = {"all": list(range(len(class_names)))}
    try:
        path = annotations_dir / f"{annotations.find_dataset_name(annotations_dir)}_action.csv"
        classes, partitions = annotations.read_classes(path)
    except UserError:
        return groups
    if tuple(map(normalize_name, classes)) != tuple(map(normalize_name, class_names)):
        return groups
    # only the first partition: that of the data set's authors, if there is one
    for class_segments in list(partitions.values())[:1]:
        for name in annotations.SEGMENTS:
            groups[name] = [c for c, segment in enumerate(class_segments) if segment == name]
    return {name: classes for name, classes in groups.items() if classes}


def add_settings(writer: Any, settings: Mapping[str, Any], step: int) -> None:
    """Write the resolved settings as YAML."""
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
    writer.add_text("settings", "".join(f"    {line}\n" for line in text.splitlines()), step)


def write_hparams(logs_dir: Path, settings: Mapping[str, Any], results: Mapping[str, float], step: int) -> None:
    """Write a run's row of the HParams tab, with its final metrics, or replace it.

    The row is in a separate folder, since TensorBoard takes all scalars of a folder with a row for metrics. No
    experiment summary is written, so that TensorBoard shows the columns of all runs of both stages."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    folder = logs_dir / HPARAMS_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
    _, session_start, session_end = hparams(plain, dict(results))
    with SummaryWriter(str(folder)) as writer:
        writer.file_writer.add_summary(session_start)
        for name, value in results.items():
            writer.add_scalar(name, value, step)
        writer.file_writer.add_summary(session_end)


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
        self,
        step: int,
        scalars: Mapping[str, float],
        videos: Sequence[str],
        probabilities: torch.Tensor,
        labels: torch.Tensor,
    ) -> None:
        """Log `scalars` by tag, and the probabilities and labels (N, C) of N videos."""
        for tag, value in scalars.items():
            self.writer.add_scalar(tag, value, step)
        for name, classes in self.class_groups.items():  # a curve over all (clip, class) pairs
            targets, scores = labels[:, classes].reshape(-1) > 0, probabilities[:, classes].reshape(-1)
            tag = f"{self.monitor_split}/precision_recall_{name}"
            self.writer.add_pr_curve(tag, targets, scores, step, num_thresholds=PR_THRESHOLDS)
        by_video = dict(zip(videos, probabilities, strict=True))
        if (image := draw_panel(self.panel_clips, by_video, self.class_names)) is not None:
            self.writer.add_image(f"{self.monitor_split}/rgb_flow_labels", image, step, dataformats="HWC")
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
    find_flow: Callable[[str], Path | None],
) -> list[PanelClip]:
    """Load PANEL_CLIPS of the videos, evenly spaced; unreadable ones are skipped.

    `get_labels` returns (C,) multi-hot labels, `find_flow` the flow video; it may raise UserError."""
    panel_clips: list[PanelClip] = []
    folder = VideoFolder(videos_dir) if videos_dir.is_dir() else None
    for video in videos[:: max(1, len(videos) // PANEL_CLIPS)]:
        if len(panel_clips) == PANEL_CLIPS:
            break
        files = folder.matches(video) if folder else []
        paths = files if len(files) == 1 else list[Path]()
        with contextlib.suppress(UserError):  # ambiguous
            paths = [*paths, *filter(None, [find_flow(video)])]
        if strips := list(filter(None, map(read_strip, paths))):
            labels = frozenset(get_labels(video).nonzero()[0].tolist())
            panel_clips.append(PanelClip(video, labels, _stack(strips, GAP)))
    return panel_clips


def read_strip(path: Path) -> Image.Image | None:
    """Return frames of a video side by side; None if it can't be decoded."""
    try:
        return render_filmstrip(path, STRIP_FRAMES, STRIP_HEIGHT, GAP, GAP_COLOR)
    except (VideoError, OSError):
        return None


def _stack(images: Sequence[Image.Image], gap: int) -> Image.Image:
    """Stack images vertically with `gap` white lines between them."""
    height = sum(image.height + gap for image in images) - gap
    sheet, top = Image.new("RGB", (max(image.width for image in images), height), "white"), 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + gap
    return sheet


def draw_panel(
    panel_clips: Sequence[PanelClip], probabilities: Mapping[str, torch.Tensor], class_names: Sequence[str]
) -> np.ndarray | None:
    """Draw the panel as (H, W, 3) uint8: a row per clip with its strips, its labels and its top classes.

    Correct classes are marked by `+` and a colour. Return None if no clip has probabilities."""
    rows = [
        _draw_row(clip, probabilities[clip.video], class_names) for clip in panel_clips if clip.video in probabilities
    ]
    return np.asarray(_stack(rows, 3 * GAP)) if rows else None


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
