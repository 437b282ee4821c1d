"""Predict many videos: skip those that are done, record failures, show progress."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import cli, timeline, video
from vimoclip.errors import UserError, VideoError, escape_line
from vimoclip.ethogram import folder_files
from vimoclip.io.names import list_some, portable_stem, relative_path
from vimoclip.io.written_files import WrittenFiles
from vimoclip.metrics import descending_order
from vimoclip.prediction.frame_encoder import TwoStreamEncoder
from vimoclip.prediction.sliding_window import ScoreStreams, ScoreWindows, score_windows
from vimoclip.runtime import versions
from vimoclip.timeline import Timeline
from vimoclip.timeline.bouts import window_edges

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
    """Encoders and classifier of one command; `metadata` describes both, as plain Python.

    `score_streams`: scores by each stream alone; None for a model of one stream. `positives`: number of clips on which
    the calibration of each class rests; empty without calibration."""

    encoder: TwoStreamEncoder
    score: ScoreWindows
    classes: tuple[str, ...]
    thresholds: np.ndarray
    options: TimelineOptions
    metadata: dict[str, Any]
    score_streams: ScoreStreams | None = None
    positives: Mapping[str, int] = field(default_factory=dict)

    def provenance(self) -> dict[str, Any]:
        """Return all that a result depends on, except the video, in the types that JSON has."""
        classes = {"classes": list(self.classes), "thresholds": self.thresholds.round(6).tolist()}
        # in this order the message about a result with other settings names the model before its thresholds
        return json.loads(json.dumps(self.metadata | classes | asdict(self.options)))


def select_pending(
    videos: Mapping[str, Path], folder: Path, model: PredictionModel, report: cli.RunReport
) -> dict[str, Path]:
    """Return the videos without a result, or whose file has changed; count the others in `report`.

    Raises UserError if a result has other settings."""
    pending = {}
    for name, path in videos.items():
        json_path = _json_path(folder, name)
        header = timeline.read_header(json_path)
        if header is None:
            timeline.check_output_name(folder, json_path.stem)
            pending[name] = path
            continue
        _check_same_video(json_path, header.video, path)
        if error := _settings_problem(model, header.provenance, json_path):
            raise error
        if header.provenance.get("video_bytes") == _file_size(path):
            report.already_done += 1
        else:
            changed = f"{path.name} has changed since {json_path} was written; it is predicted again"
            print(escape_line(changed), flush=True)
            pending[name] = path
    return pending


def _settings_problem(model: PredictionModel, provenance: Mapping[str, Any], json_path: Path) -> UserError | None:
    """Return what is wrong if a result has other settings than `model`."""
    # results of earlier versions are not calibrated
    recorded = {"calibration": None, **provenance, "geometry": video.recorded_geometry(provenance)}
    hint = "use --overwrite, or another folder with -o"
    if model.metadata.get("calibration") and not recorded["calibration"]:
        hint = f"{hint}, or --raw for scores without calibration"
    try:
        cli.check_settings_match(model.provenance(), recorded, "this command", str(json_path), hint)
    except UserError as error:
        return error
    return None


def _check_same_video(json_path: Path, recorded: Path | None, path: Path) -> None:
    """Raise UserError if a result is of another video that is still there, such as one of another day's folder."""
    if recorded and recorded.is_file() and path.is_file() and not recorded.samefile(path):
        problem, hint = f"is the result of another video, {recorded}", "use another folder with -o"
        raise UserError(problem, hint, path=json_path)


def _json_path(folder: Path, name: str) -> Path:
    return folder / f"{portable_stem(name)}.json"


def predict_videos(
    videos: Mapping[str, Path],
    folder: Path,
    model: PredictionModel,
    report: cli.RunReport,
    batch_size: int,
    workers: int,
    written: WrittenFiles,
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
        timeline.write_timeline(folder, replace(predicted, name=portable_stem(name)), written, folder_files.INDEX_FILE)
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
        model.score_streams,
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
        disagreements=timeline.find_disagreements(result.stream_scores, model.classes),
        positives=model.positives,
        score_sd=result.score_sd,
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


def write_frames(
    videos: Mapping[str, Path], folder: Path, model: PredictionModel, written: WrittenFiles, report: cli.RunReport
) -> None:
    """Write the table of frames of each video that has a result and no such table; failures go into `report`.

    The videos are decoded once more, as fast as they decode, for the times of the frames that are not sampled."""
    missing = {
        name: path
        for name, path in videos.items()
        if _json_path(folder, name).is_file() and not timeline.frames_file(folder, portable_stem(name)).exists()
    }
    for name, path in cli.progress(missing.items(), len(missing), "video", "writing frames"):
        try:
            measured = video.measure(path)
        except VideoError as error:
            report.failed[name + path.suffix] = str(error)
            continue
        is_kept = model.encoder.sampling.frame_filter()
        start = next(time for index, time in zip(measured.indices, measured.times, strict=True) if is_kept(index, time))
        result = timeline.read_timeline(_json_path(folder, name))
        indices, times = measured.indices, measured.times - start
        written.replace(
            timeline.frames_file(folder, portable_stem(name)),
            partial(timeline.write_frames, timeline=result, indices=indices, times=times),
        )


def write_folder_files(
    folder: Path,
    videos: Mapping[str, Path],
    model: PredictionModel,
    time_bin: float | None,
    written: WrittenFiles,
) -> None:
    """Write the files about all results in a folder that have the settings of this command.

    If several processes write into the folder, they wait for each other: the last one finds the results of all."""
    if not folder.is_dir():
        return
    with written.lock():
        names = {portable_stem(name): name + path.suffix for name, path in videos.items()} if len(videos) > 1 else {}
        folder_files.write(folder, read_results(folder, videos, model), names, time_bin, written)


def read_results(folder: Path, videos: Mapping[str, Path], model: PredictionModel) -> Iterator[Timeline]:
    """Yield the results in a folder that have the settings of this command; print which others there are.

    `videos`: name -> path; results of which these are not the recorded ones get them."""
    given = {portable_stem(name): path for name, path in videos.items()}
    seen = {path.resolve() for stem, path in given.items() if _json_path(folder, stem).is_file()}
    other_settings, duplicates, damaged = list[str](), list[str](), list[str]()
    for json_path in sorted(folder.glob("*.json")):
        try:
            result = _update_video_path(timeline.read_timeline(json_path), given.get(json_path.stem), folder)
        except UserError:
            if (folder / f"{json_path.stem}.html").exists():  # else it is a file of another program
                damaged.append(json_path.stem)
            continue
        if _settings_problem(model, result.provenance, json_path):
            other_settings.append(result.stem)
        elif result.stem not in given and result.video.resolve() in seen and result.video.is_file():
            duplicates.append(result.stem)  # its name did not yet begin with its folder's
        else:
            seen.add(result.video.resolve())
            yield result
    reasons = {
        "their settings are others": other_settings,
        "their videos have results of other names": duplicates,
        "their JSON files are damaged": damaged,
    }
    for reason, stems in reasons.items():
        if stems:
            names = escape_line(list_some(stems))
            print(f"left out of the files about all videos, as {reason}: {names}", flush=True)


def _update_video_path(result: Timeline, video: Path | None, folder: Path) -> Timeline:
    """Return a result with the path of its video, if that is known, and write the path into its JSON if it is new."""
    if video and relative_path(video, folder) != relative_path(result.video, folder):
        result = replace(result, video=video)
        timeline.write_result(folder, result)
    return result
