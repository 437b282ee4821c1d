"""Put videos into `dataset/videos/`: link whole files, and trim clips out of longer ones, exact to the frame."""

import os
import re
import shutil
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vimoclip import annotations, video
from vimoclip.errors import UserError, VideoError, escape_line
from vimoclip.io import atomic
from vimoclip.io.names import portable_stem
from vimoclip.io.numbers import TIME_TOLERANCE
from vimoclip.video.geometry import AS_DISPLAYED, Geometry
from vimoclip.video.trimmed_clip import first_frame_comment, is_trimmed_from, trimmed_comment, trimmed_name

CHUNK_FRAMES = 8  # frames decoded before they are written
MAX_OPEN_CLIPS = 8  # written at the same time: an encoder of 1080p takes 140 MB and a thread


class SourceClip(NamedTuple):
    """A file, or a part of it, that becomes a video of the data set.

    `start`, `end`: seconds; None: the whole file. `film_name`: begins the video id; default: the file's name without
    extension."""

    source: Path
    start: float | None = None
    end: float | None = None
    film_name: str = ""

    @property
    def name(self) -> str:
        """The video id; that of a part ends with its span in milliseconds."""
        stem = clean_name(self.film_name or self.source.stem)
        if self.start is None or self.end is None:
            return stem + self.source.suffix
        return trimmed_name(stem, self.start, self.end)


class TrimSpan(NamedTuple):
    """A clip to write: the frames with start <= time < stop, in seconds since the video's first frame."""

    target: Path
    start: float
    stop: float


def clean_name(name: str) -> str:
    """Return a video id without extension, in NFC.

    `-` replaces control characters, slashes, dots, what Windows refuses, and = + @ at the start."""
    name = re.sub(r"[\x00-\x1f\x7f/\\.]", "-", unicodedata.normalize("NFC", name.strip()))
    return portable_stem(re.sub(r"^[=+@]", "-", name))


def dataset_folders(dataset_dir: Path) -> list[Path]:
    """Return the folders of a data set, which may lie below a folder that is searched for videos to import."""
    return [dataset_dir, *(dataset_dir / name for name in ("videos", "flows", "embeddings", "annotations"))]


def add_clip(clips: dict[str, SourceClip], name: str, clip: SourceClip, skipped: dict[str, str]) -> bool:
    """Add a clip under its video id; if that is not valid, add its file to `skipped` and return False.

    Splits are drawn of the clips that are added. Raises UserError if another clip has the id."""
    if invalid := annotations.invalid_video_ids([name]):
        skipped[str(clip.source)] = invalid[name]
        return False
    if (other := clips.setdefault(name, clip)) != clip:
        raise UserError(f"{clip.source} and {other.source} would have the same name {name}", "rename one of them")
    return True


def place_clips(
    clips: Mapping[str, SourceClip], dataset_dir: Path, geometry: Geometry = AS_DISPLAYED
) -> tuple[dict[str, float], dict[str, str]]:
    """Link and trim all clips; return the seconds by video id, as far as known, and the reasons of those that failed.

    `geometry`: of the frames in trimmed clips.

    Raises UserError if a file of another video has the name of a clip, before anything is written."""
    folder = dataset_dir / "videos"
    whole_files = {key: clip.source for key, clip in clips.items() if clip.start is None}
    link_videos(whole_files, folder)
    seconds = {key: length for key, path in whole_files.items() if (length := video_seconds(path))}
    failed: dict[str, str] = {}
    spans_by_film: dict[tuple[Path, str], list[TrimSpan]] = defaultdict(list)
    for key, clip in clips.items():
        if clip.start is not None and clip.end is not None:
            film = clip.source, clip.film_name or clip.source.stem
            spans_by_film[film].append(TrimSpan(folder / key, clip.start, clip.end))
    for number, ((source, name), spans) in enumerate(spans_by_film.items(), start=1):
        film_name = name + source.suffix
        print(f"trimming {len(spans)} clips from {film_name} ({number} of {len(spans_by_film)})", flush=True)
        for target, result in trim_video(source, spans, geometry).items():
            if isinstance(result, str):
                failed[target.name] = result
            else:
                seconds[target.name] = result
    return seconds, failed


def check_names(clips: Mapping[str, SourceClip], origin: Path) -> None:
    """Raise UserError for names that are no valid video ids, or differ only by extension.

    `origin`: the file or folder that the clips come from."""
    names_by_stem: dict[str, str] = {}
    for name, clip in clips.items():
        if (other := names_by_stem.setdefault(annotations.stem(name), name)) != name:
            problem = f"{clip.source} and {clips[other].source} would have names that differ only by extension"
            raise UserError(problem, "rename one of them", path=origin)


def link_videos(paths: Mapping[str, Path], folder: Path) -> None:
    """Hard-link each video under its new name, or copy it if that fails. Existing files are kept.

    Raises UserError, before any is linked, if an existing file has another size."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = {name: path for name, path in paths.items() if not (folder / name).exists()}
    for name, path in paths.items():
        if name not in missing and (folder / name).stat().st_size != path.stat().st_size:
            hint = "choose another --dataset-dir, or delete this file"
            raise UserError(f"exists already, and is another video than {path}", hint, path=folder / name)
    for name, path in missing.items():
        try:
            os.link(path.resolve(), folder / name)
        except OSError:
            with atomic.open_atomic(folder / name) as copy, open(path, "rb") as source:
                shutil.copyfileobj(source, copy)


def trim_video(source: Path, spans: Iterable[TrimSpan], geometry: Geometry = AS_DISPLAYED) -> dict[Path, float | str]:
    """Write each clip that does not exist yet; return by target its seconds, or the reason why there is none.

    Clips are H.264 with the quality of flow videos, and keep the film's times. Time counts from the film's first frame,
    as in players. Spans that overlap too often are trimmed in several passes over the film. Raises OSError."""
    results: dict[Path, float | str] = {}
    pending = []
    for span in sorted(spans, key=lambda span: span.start):
        if _is_up_to_date(span, source, geometry):
            results[span.target] = video_seconds(span.target) or 0.0
        else:
            pending.append(span)
    try:
        while pending:
            spans_of_pass, pending = split_overlapping(pending)
            results |= _trim_in_one_pass(source, spans_of_pass, geometry)
    except VideoError as error:
        unwritten = [span.target for span in [*spans_of_pass, *pending]]
        return dict.fromkeys(unwritten, f"{source.name}: {error}") | results
    return results


def split_overlapping(spans: Sequence[TrimSpan]) -> tuple[list[TrimSpan], list[TrimSpan]]:
    """Return spans of which MAX_OPEN_CLIPS at most overlap anywhere, and the others; `spans` are sorted by start."""
    taken, others, stops = list[TrimSpan](), list[TrimSpan](), list[float]()
    for span in spans:
        stops = [stop for stop in stops if stop > span.start]
        if len(stops) < MAX_OPEN_CLIPS:
            taken.append(span)
            stops.append(span.stop)
        else:
            others.append(span)
    return taken, others


def _trim_in_one_pass(source: Path, spans: Sequence[TrimSpan], geometry: Geometry) -> dict[Path, float | str]:
    """Do the work of `trim_video` for spans that are sorted by start and whose clips do not exist."""
    results: dict[Path, float | str] = {}
    info = video.probe(source)
    pending, clips = list(spans), dict[TrimSpan, _ClipWriter]()
    first_time: float | None = None
    last_times = np.array([-1 / info.fps], float)  # of two frames, whose interval goes on behind the last one
    try:
        reader = video.VideoReader(source, CHUNK_FRAMES, geometry=geometry)
        for batch in reader:
            first_time = float(batch.timestamps[0]) if first_time is None else first_time
            times = batch.timestamps - first_time
            while pending and pending[0].start <= times[-1] + TIME_TOLERANCE:
                span = pending.pop(0)
                clips[span] = _ClipWriter(span, trimmed_comment(source, span.start, span.stop, geometry), info)
            for span, clip in list(clips.items()):
                clip.write(batch.frames, times)
                if len(after := times[times + TIME_TOLERANCE >= span.stop]):
                    results[span.target] = clips.pop(span).publish(float(after[0]))
            last_times = np.concatenate([last_times, times])[-2:]
        if reader.summary.note:
            print(escape_line(f"note: {source.name}: {reader.summary.note}"), flush=True)
        for span in list(clips):
            results[span.target] = clips.pop(span).publish(float(2 * last_times[1] - last_times[0]))
    finally:
        for clip in clips.values():
            clip.discard()
    reason = "it ends before" if first_time is not None else "it has no frame"
    return results | {span.target: f"{source.name}: {reason} {span.start:g} s" for span in pending}


class _ClipWriter:
    """Writer of one clip of a film. Times are seconds since the film's first frame."""

    def __init__(self, span: TrimSpan, comment: dict[str, Any], info: video.VideoInfo):
        self.span = span
        self._first_time = self._last_time = 0.0
        self._frame_seconds = float(1 / info.fps)
        self._writer = video.VideoWriter(span.target, info.fps, comment, tick=info.tick)
        self.discard = self._writer.discard

    def write(self, frames: np.ndarray, times: np.ndarray) -> None:
        """Append those of the frames that begin in the clip."""
        in_span = (times + TIME_TOLERANCE >= self.span.start) & (times + TIME_TOLERANCE < self.span.stop)
        if not in_span.any():
            return
        times = times[in_span]
        if "first_frame" not in self._writer.comment:
            self._first_time = float(times[0])
            self._writer.comment |= first_frame_comment(self._first_time)
        self._last_time = float(times[-1])
        self._writer.write(frames[in_span], times - self._first_time)

    def publish(self, next_time: float) -> float | str:
        """Publish the clip; return its seconds, or the reason why there is none. `next_time`: of the next frame.

        The last frame lasts until the next one, so that a constant frame rate stays one; if that begins after more than
        two frames, it lasts until the clip's end."""
        is_pause = next_time - self._last_time > 2 * self._frame_seconds
        end = min(next_time, self.span.stop) if is_pause else next_time
        self._writer.end = end - self._first_time
        try:
            with self._writer:
                pass
        except VideoError as error:
            return str(error)
        return (video_seconds(self.span.target) or 0.0) if self._writer.frames else "no frame begins in it"


def _is_up_to_date(span: TrimSpan, source: Path, geometry: Geometry) -> bool:
    """Return whether the clip exists, and was trimmed from this source with its times and this geometry."""
    try:
        if not span.target.exists():
            return False
        return is_trimmed_from(source, geometry, video.probe(span.target, check_complete=True))
    except (VideoError, OSError):
        return False


def video_seconds(path: Path) -> float | None:
    """Return the duration in a video's header; None if it has none, or can't be read."""
    try:
        return video.probe(path).seconds or None
    except VideoError:
        return None
