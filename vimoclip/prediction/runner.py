"""Many videos, each to its timeline: what is done already, what fails, how long it takes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import cli, timeline
from vimoclip.errors import VideoError
from vimoclip.io import predictions_csv
from vimoclip.prediction.frame_encoder import TwoStreamEncoder
from vimoclip.prediction.sliding_window import ScoreWindows, estimate_kept_frames, score_windows
from vimoclip.runtime import versions
from vimoclip.timeline import Timeline

WHOLE_VIDEOS_FILE = "whole_videos.csv"
PRINTED_ACTIONS = 5  # actions that are told of a video


@dataclass(frozen=True)
class TimelineOptions:
    """All in seconds: windows, from one to the next, the shortest bout, the longest gap within one."""

    window: float
    stride_seconds: float
    min_length: float
    max_gap: float


@dataclass(frozen=True)
class PredictionModel:
    """What scores windows, what it looks with, and what `described` says of both, as plain Python."""

    eyes: TwoStreamEncoder
    score: ScoreWindows
    classes: tuple[str, ...]
    thresholds: np.ndarray
    timing: TimelineOptions
    described: dict[str, Any]

    def made_with(self) -> dict[str, Any]:
        """All that a result depends on but the video, as a JSON file has it."""
        of_classes = {"classes": list(self.classes), "thresholds": self.thresholds.round(6).tolist()}
        return json.loads(json.dumps(of_classes | asdict(self.timing) | self.described))


def select_pending(
    videos: Mapping[str, Path], folder: Path, model: PredictionModel, report: cli.RunReport
) -> dict[str, Path]:
    """Those without a result, or with one of another file. Raises UserError where there is one of other settings."""
    todo = {}
    for stem, path in videos.items():
        place = folder / f"{stem}.json"
        there = timeline.read_provenance(place)
        if there is None:
            timeline.check_output_name(folder, stem)
        else:
            cure = "give --overwrite, or another folder with -o"
            cli.check_settings_match(model.made_with(), there, "this command", str(place), cure)
            if there.get("video_bytes") != _file_size(path):
                print(f"{path.name}: is another file than the one that {place} is of, and is done again", flush=True)
                there = None
        if there is None:
            todo[stem] = path
        else:
            report.already_done += 1
    return todo


def predict_videos(
    videos: Mapping[str, Path],
    folder: Path,
    model: PredictionModel,
    report: cli.RunReport,
    batch_size: int,
    workers: int,
) -> None:
    """Predict each video; what fails is in the report."""
    meter = cli.ProgressMeter(_estimate_frames(videos, model) or None, "frame", "predicting")
    for path in videos.values():
        try:
            found = predict_video(path, model, meter, batch_size, workers)
        except VideoError as error:
            report.failed[path.name] = str(error)
            (folder / f"{path.stem}.json").unlink(missing_ok=True)  # what was there is of another file, or not wanted
            continue
        timeline.write_timeline(folder, found)
        if found.made_with["problem"]:
            report.partial[path.name] = found.made_with["problem"]
        else:
            report.done += 1
        best = sorted(zip(found.whole.tolist(), found.classes, strict=True), reverse=True)[:PRINTED_ACTIONS]
        likely = ", ".join(f"{name} {score:.2f}" for score, name in best)
        print(f"{path.name}: {found.seconds:.1f} s, {len(found.bouts)} bouts; as a whole: {likely}", flush=True)
    meter.close()


def _file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _estimate_frames(videos: Mapping[str, Path], model: PredictionModel) -> int:
    total = 0
    for path in videos.values():
        try:
            total += estimate_kept_frames(path, model.eyes)
        except VideoError:
            continue  # said when its turn comes
    return total


def predict_video(
    path: Path, model: PredictionModel, meter: cli.ProgressMeter, batch_size: int, workers: int
) -> Timeline:
    """One video's timeline. Raises VideoError."""
    timing, size = model.timing, _file_size(path)
    if size is None:
        raise VideoError("there is no such file" + (", the link points nowhere" if path.is_symlink() else ""))
    how = timing.window, timing.stride_seconds, batch_size, workers
    seen = score_windows(path, model.eyes, model.score, *how, on_frames=lambda count: meter.add(items=count))
    if seen.end.note:
        print(f"{path.name}: {seen.end.note}", flush=True)
    if seen.unscored:
        print(f"{path.name}: {seen.unscored} windows hold too few frames to be scored", flush=True)
    spans = seen.starts, seen.stops, seen.scores
    lengths = timing.min_length, timing.max_gap
    of_video = {"video_bytes": size, "problem": seen.end.problem, "note": seen.end.note}
    return Timeline(
        path,
        seen.seconds,
        seen.end.fps,
        len(seen.end.timestamps),
        model.classes,
        *spans,
        seen.whole,
        seen.whole_by,
        model.thresholds,
        timeline.find_bouts(*spans, model.thresholds, model.classes, seen.seconds, *lengths),
        model.made_with() | of_video | {"windows_unscored": seen.unscored, "versions": versions.package_versions()},
    )


def write_whole_videos(folder: Path, videos: Mapping[str, Path], model: PredictionModel) -> None:
    """A table of all videos that are done, a row each, which evaluate.py reads."""
    rows = {}
    for stem, path in videos.items():
        if (place := folder / f"{stem}.json").is_file():
            whole = json.loads(place.read_text(encoding="utf-8"))["whole"]
            rows[path.name] = [whole[name] for name in model.classes]
    if rows:
        predictions_csv.write(folder / WHOLE_VIDEOS_FILE, list(rows), np.array(list(rows.values())), model.classes)
