"""Trimming of clips from longer videos, exact to the frame, in one pass over each video."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from vimoclip import annotations, video
from vimoclip.errors import UserError, VideoError
from vimoclip.prepare.write_dataset import clean_name
from vimoclip.timeline.windows import TIME_TOLERANCE

CLIP_SUFFIX = ".mp4"  # of trimmed clips
CHUNK_FRAMES = 8  # frames decoded before they are written


class SourceClip(NamedTuple):
    """A file, or a part of it, that becomes a video of the data set. `start`, `end`: seconds; None: the whole file."""

    source: Path
    start: float | None
    end: float | None

    @property
    def name(self) -> str:
        """The video id; that of a part ends with its span in milliseconds."""
        stem = clean_name(self.source.stem.strip())
        if self.start is None or self.end is None:
            return stem + self.source.suffix
        return f"{stem}_{round(1000 * self.start)}-{round(1000 * self.end)}ms{CLIP_SUFFIX}"


class TrimSpan(NamedTuple):
    """A clip to write: the frames with start <= time < stop, in seconds since the video's first frame."""

    target: Path
    start: float
    stop: float


def trim_clips(clips: Mapping[str, SourceClip], folder: Path, skipped: dict[str, str]) -> dict[str, float]:
    """Trim all clips that are parts of a file; return their seconds by video id.

    Clips that can't be trimmed are added to `skipped`, with the reason."""
    spans_by_source: dict[Path, list[TrimSpan]] = defaultdict(list)
    for key, clip in clips.items():
        if clip.start is not None and clip.end is not None:
            spans_by_source[clip.source].append(TrimSpan(folder / key, clip.start, clip.end))
    seconds = {}
    for number, (source, spans) in enumerate(spans_by_source.items(), start=1):
        print(f"cutting {len(spans)} clips out of {source.name} ({number} of {len(spans_by_source)})", flush=True)
        for target, result in trim_video(source, spans).items():
            if isinstance(result, str):
                skipped[target.name] = result
            else:
                seconds[target.name] = result
    return seconds


def trim_video(source: Path, spans: Sequence[TrimSpan]) -> dict[Path, float | str]:
    """Write each clip that does not exist yet; return by target its seconds, or the reason why there is none.

    Clips are H.264 with the quality of flow videos. Time counts from the first frame, as in players. Raises OSError."""
    results: dict[Path, float | str] = {}
    missing = []
    for span in sorted(spans, key=lambda span: span.start):
        if _is_up_to_date(span, source):
            results[span.target] = video_seconds(span.target) or 0.0
        else:
            missing.append(span)
    if not missing:
        return results
    try:
        results |= _trim_missing(source, missing)
    except VideoError as error:
        for span in missing:
            results.setdefault(span.target, f"{source.name}: {error}")
    return results


def _trim_missing(source: Path, spans: Sequence[TrimSpan]) -> dict[Path, float | str]:
    """Do the work of `trim_video` for spans that are sorted by start and whose clips do not exist."""
    results: dict[Path, float | str] = {}
    rate = video.probe(source).fps
    pending, writers = list(spans), dict[TrimSpan, video.VideoWriter]()
    first_time: float | None = None
    with ExitStack() as stack:
        stack.callback(_abandon_writers, writers)
        reader = video.VideoReader(source, CHUNK_FRAMES)
        for batch in reader:
            first_time = float(batch.timestamps[0]) if first_time is None else first_time
            seconds = batch.timestamps - first_time + TIME_TOLERANCE
            while pending and pending[0].start <= seconds[-1]:
                span = pending.pop(0)
                writers[span] = video.VideoWriter(span.target, rate, _clip_comment(source))
            for span, writer in list(writers.items()):
                in_span = (seconds >= span.start) & (seconds < span.stop)
                if in_span.any():
                    writer.write(batch.frames[in_span])
                if seconds[-1] >= span.stop:
                    results[span.target] = _publish_clip(writers.pop(span), float(rate))
        if reader.summary.problem:
            print(f"{source.name}: {reader.summary.problem}", flush=True)
        for span in list(writers):
            results[span.target] = _publish_clip(writers.pop(span), float(rate))
    reason = "it ends before" if first_time is not None else "it has no frame"
    return results | {span.target: f"{source.name}: {reason} {span.start:g} s" for span in pending}


def _clip_comment(source: Path) -> dict[str, str | int]:
    """Return the comment of a clip's container, which identifies its source."""
    return {"cut_from": source.name, "bytes": source.stat().st_size}


def _is_up_to_date(span: TrimSpan, source: Path) -> bool:
    """Return whether the clip exists and was trimmed from this source."""
    try:
        return span.target.exists() and video.probe(span.target, check_complete=True).comment == _clip_comment(source)
    except (VideoError, OSError):
        return False


def _abandon_writers(writers: dict[TrimSpan, video.VideoWriter]) -> None:
    for writer in writers.values():
        writer.discard()


def _publish_clip(writer: video.VideoWriter, rate: float) -> float | str:
    """Publish a clip; return its seconds, or the reason why there is none."""
    try:
        with writer:
            pass
    except VideoError as error:
        return str(error)
    return writer.frames / rate if writer.frames else "no frame begins in it"


def video_seconds(path: Path) -> float | None:
    """Return the duration in a video's header; None if it has none, or can't be read."""
    try:
        return video.probe(path).seconds or None
    except VideoError:
        return None


def check_video_names(path: Path, names: Iterable[str]) -> None:
    """Raise UserError if names are no valid video ids or share a stem. `path`: the file or folder they come from."""
    names_by_stem: dict[str, str] = {}
    for name in names:
        try:
            annotations.check_video_id(name)
        except UserError as error:
            raise UserError(error.problem, error.hint, path=path) from None
        if other := names_by_stem.get(annotations.stem(name)):
            raise UserError(f"{other} and {name} would share their flow's name", "rename one of them", path=path)
        names_by_stem[annotations.stem(name)] = name
