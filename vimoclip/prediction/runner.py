"""Predict many videos: skip those that are done, record failures, show progress."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import cli, timeline, video
from vimoclip.errors import UserError, VideoError, escape_line
from vimoclip.io import predictions_csv, yaml_json
from vimoclip.io.atomic import MAX_NAME_BYTES
from vimoclip.io.names import portable_stem
from vimoclip.io.text import read_text
from vimoclip.metrics import descending_order
from vimoclip.prediction.frame_encoder import TwoStreamEncoder
from vimoclip.prediction.sliding_window import ScoreWindows, score_windows
from vimoclip.runtime import versions
from vimoclip.timeline import Timeline
from vimoclip.timeline.bouts import window_edges

WHOLE_VIDEOS_FILE = "whole_videos.csv"
PRINTED_ACTIONS = 5  # highest-scoring actions in the line of a video


@dataclass(frozen=True)
class TimelineOptions:
    """Window length, stride, shortest bout, longest gap within a bout; all in seconds."""

    window: float
    stride_seconds: float
    min_length: float
    max_gap: float


@dataclass(frozen=True)
class PredictionModel:
    """Encoders and classifier of one command; `metadata` describes both, as plain Python."""

    encoder: TwoStreamEncoder
    score: ScoreWindows
    classes: tuple[str, ...]
    thresholds: np.ndarray
    options: TimelineOptions
    metadata: dict[str, Any]

    def provenance(self) -> dict[str, Any]:
        """Return all that a result depends on, except the video, in the types that JSON has."""
        classes = {"classes": list(self.classes), "thresholds": self.thresholds.round(6).tolist()}
        return json.loads(json.dumps(classes | asdict(self.options) | self.metadata))


def find_input_videos(
    inputs: Sequence[Path], output_dir: Path, limit: int | None, report: cli.RunReport
) -> dict[str, Path]:
    """Return name -> video for videos, folders of videos, and lists (.txt, one path per line, relative to the list).

    The name is the video's without extension; with folders if several videos share it. Folders are searched with all
    folders below, except `output_dir`. Videos whose output can't be named are added to `report.failed`. Raises
    UserError if there is none, or if two would write the same files."""
    hint, paths = "name a video, a folder of videos or a list of videos (.txt)", list[Path]()
    for path in inputs:
        if path.is_dir():
            folder = video.VideoFolder(path, exclude=[output_dir])
            paths += folder.videos
            if left_out := folder.describe_left_out():
                print(left_out, flush=True)
        elif path.suffix.lower() == ".txt":
            for number, line in enumerate(map(str.strip, read_text(path, hint).splitlines()), start=1):
                if line:
                    file = video.existing_spelling(path.parent / line)
                    paths.append(cli.require_file(file, f"correct line {number} of {path}"))
        else:
            paths.append(cli.require_file(path, hint))
    if not paths:
        raise UserError("has no videos", hint, path=inputs[0])
    videos: dict[str, Path] = {}
    taken: dict[str, Path] = {}
    for path, name in video.unique_stems({os.path.abspath(path): path for path in paths}.values()).items():
        stem = portable_stem(name)
        if not _is_writable(f"{stem}{timeline.LONGEST_SUFFIX}"):
            report.failed[str(path)] = "its name is not UTF-8, or too long for those of its output files; rename it"
            continue
        for other_stem in (stem, f"{stem}_windows", stem.removesuffix("_windows")):
            if other := taken.get(other_stem):
                raise UserError(f"would write the same files as {other}", "use another folder for it: -o", path=path)
        if f"{stem}.csv" == WHOLE_VIDEOS_FILE:
            raise UserError(f"would write {WHOLE_VIDEOS_FILE}, the table of all videos", "rename the video", path=path)
        taken[stem] = videos[name] = path
    return dict(list(videos.items())[:limit])


def _is_writable(name: str) -> bool:
    """Return whether a file name can be written to disk, and into a text file."""
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def select_pending(
    videos: Mapping[str, Path], folder: Path, model: PredictionModel, report: cli.RunReport
) -> dict[str, Path]:
    """Return the videos without a result, or whose file has changed; count the others in `report`.

    Raises UserError if a result has other settings."""
    pending = {}
    for name, path in videos.items():
        json_path = _json_path(folder, name)
        existing = timeline.read_provenance(json_path)
        if existing is None:
            timeline.check_output_name(folder, json_path.stem)
        else:
            hint = "use --overwrite, or another folder with -o"
            recorded = existing | {"geometry": video.recorded_geometry(existing)}
            cli.check_settings_match(model.provenance(), recorded, "this command", str(json_path), hint)
            if existing.get("video_bytes") != _file_size(path):
                print(
                    f"{escape_line(path.name)} has changed since {json_path} was written; it is predicted again",
                    flush=True,
                )
                existing = None
        if existing is None:
            pending[name] = path
        else:
            report.already_done += 1
    return pending


def _json_path(folder: Path, name: str) -> Path:
    return folder / f"{portable_stem(name)}.json"


def predict_videos(
    videos: Mapping[str, Path],
    folder: Path,
    model: PredictionModel,
    report: cli.RunReport,
    batch_size: int,
    workers: int,
) -> None:
    """Predict each video and write its files; failures go into `report`."""
    sampling = replace(model.encoder.sampling, max_frames=None)  # the limit is for training clips, not for timelines
    total = round(video.estimate_kept_frames(list(videos.values()), sampling))
    meter = cli.ProgressMeter(total or None, "frame", "predicting")
    for name, path in videos.items():
        video_id = name + path.suffix
        try:
            predicted = predict_video(path, model, meter, batch_size, workers)
        except VideoError as error:
            report.failed[video_id] = str(error)
            _json_path(folder, name).unlink(missing_ok=True)  # an earlier result is out of date
            continue
        timeline.write_timeline(folder, replace(predicted, name=portable_stem(name)))
        if predicted.provenance["problem"]:
            report.partial[video_id] = predicted.provenance["problem"]
        else:
            report.done += 1
        best = descending_order(predicted.whole)[:PRINTED_ACTIONS]
        actions = ", ".join(f"{predicted.classes[c]} {predicted.whole[c]:.2f}" for c in best)
        result = f"{predicted.seconds:.1f} s, {len(predicted.bouts)} bouts; whole video: {actions}"
        print(escape_line(f"{video_id}: {result}"), flush=True)
    meter.close()


def _file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def predict_video(
    path: Path, model: PredictionModel, meter: cli.ProgressMeter, batch_size: int, workers: int
) -> Timeline:
    """Return one video's timeline. Raises VideoError."""
    options, size = model.options, _file_size(path)
    if size is None:
        raise VideoError("is a broken link" if path.is_symlink() else "there is no such file")
    result = score_windows(
        path,
        model.encoder,
        model.score,
        options.window,
        options.stride_seconds,
        batch_size,
        workers,
        lambda count: meter.add(items=count),
    )
    summary = result.summary
    if summary.note:
        print(f"{escape_line(path.name)}: {summary.note}", flush=True)
    if result.unscored:
        print(f"{escape_line(path.name)}: {result.unscored} windows have too few frames for a score", flush=True)
    edges = window_edges(result.starts, result.stops, result.seconds)
    times = summary.timestamps - summary.timestamps[0]
    bouts = timeline.find_bouts(
        result.starts,
        result.stops,
        result.scores,
        model.thresholds,
        model.classes,
        result.seconds,
        options.min_length,
        options.max_gap,
    )
    return Timeline(
        video=path,
        seconds=result.seconds,
        fps=summary.fps,
        frames=len(summary.timestamps),
        classes=model.classes,
        starts=result.starts,
        stops=result.stops,
        scores=result.scores,
        whole=result.whole,
        whole_by=result.whole_by,
        thresholds=model.thresholds,
        bouts=bouts,
        observed=timeline.observed_spans(times, edges, result.scores, result.seconds),
        provenance={
            **model.provenance(),
            "video_bytes": size,
            "problem": summary.problem,
            "note": summary.note,
            "windows_unscored": result.unscored,
            "versions": versions.package_versions(),
        },
    )


def write_whole_videos(folder: Path, videos: Mapping[str, Path], model: PredictionModel) -> None:
    """Write the whole-video scores of all videos with a result as predictions for evaluate.py."""
    rows = {}
    for name, path in videos.items():
        if (json_path := _json_path(folder, name)).is_file():
            whole = yaml_json.read_json(json_path)["whole"]
            rows[name + path.suffix] = [whole[name] for name in model.classes]
    if rows:
        predictions_csv.write(folder / WHOLE_VIDEOS_FILE, list(rows), np.array(list(rows.values())), model.classes)
