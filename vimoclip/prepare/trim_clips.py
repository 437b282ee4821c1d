"""Clips cut out of longer videos, exact to the frame, in one pass over each video."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from vimoclip import annotations, video
from vimoclip.errors import UserError, VideoError
from vimoclip.prepare.write_dataset import clean

LATE = 1e-6  # s
AT_ONCE = 8  # frames decoded before they are written


class Span(NamedTuple):
    """A clip: the frames with start <= time < stop, in seconds since the video's first frame."""

    target: Path
    start: float
    stop: float


def cut(source: Path, spans: Sequence[Span]) -> dict[Path, float | str]:
    """Write each clip that isn't there yet; its seconds, or why there is none, by target. Raises OSError.

    H.264 of high quality, as flow videos are. Time is counted from the first frame, as players do."""
    found: dict[Path, float | str] = {}
    todo = []
    for span in sorted(spans, key=lambda span: span.start):
        if _is_cut(span, source):
            found[span.target] = seconds_of(span.target) or 0.0
        else:
            todo.append(span)
    if not todo:
        return found
    try:
        found |= _cut(source, todo)
    except VideoError as error:
        for span in todo:
            found.setdefault(span.target, f"{source.name}: {error}")
    return found


def _cut(source: Path, spans: Sequence[Span]) -> dict[Path, float | str]:
    """As `cut`, of clips that aren't there, in the order in which they begin."""
    found: dict[Path, float | str] = {}
    rate = video.probe(source).fps
    waiting, writers = list(spans), dict[Span, video.Writer]()
    origin: float | None = None
    with ExitStack() as stack:
        stack.callback(_abandon, writers)
        for item in video.read_sizes(source, AT_ONCE, [None]):
            if isinstance(item, video.End):
                if item.problem:
                    print(f"{source.name}: {item.problem}", flush=True)
                break
            times, (frames,) = item
            origin = float(times[0]) if origin is None else origin
            seconds = times - origin + LATE
            while waiting and waiting[0].start <= seconds[-1]:
                span = waiting.pop(0)
                writers[span] = video.Writer(span.target, rate, _made_from(source))
            for span, writer in list(writers.items()):
                inside = (seconds >= span.start) & (seconds < span.stop)
                if inside.any():
                    writer.write(frames[inside])
                if seconds[-1] >= span.stop:
                    found[span.target] = _close(writers.pop(span), float(rate))
        for span in list(writers):
            found[span.target] = _close(writers.pop(span), float(rate))
    end = "it ends before" if origin is not None else "it has no frame"
    return found | {span.target: f"{source.name}: {end} {span.start:g} s" for span in waiting}


def _made_from(source: Path) -> dict[str, str | int]:
    """What a clip says of its film, by which it is known again."""
    return {"cut_from": source.name, "bytes": source.stat().st_size}


def _is_cut(span: Span, source: Path) -> bool:
    """Whether a clip is there already, of this very film."""
    try:
        return span.target.exists() and video.probe(span.target, whole=True).comment == _made_from(source)
    except (VideoError, OSError):
        return False


def _abandon(writers: dict[Span, video.Writer]) -> None:
    for writer in writers.values():
        writer.abandon()


def _close(writer: video.Writer, rate: float) -> float | str:
    """Publish a clip; its seconds, or why there is none."""
    try:
        with writer:
            pass
    except VideoError as error:
        return str(error)
    return writer.frames / rate if writer.frames else "no frame begins in it"


def seconds_of(path: Path) -> float | None:
    """How long a video is by its header; None where that doesn't say, or can't be read."""
    try:
        return video.probe(path).seconds or None
    except VideoError:
        return None


SUFFIX = ".mp4"  # of clips that are cut


class Clip(NamedTuple):
    """What becomes a video of the data set. `start`, `end`: in seconds, None where the whole file is meant."""

    source: Path
    start: float | None
    end: float | None

    @property
    def name(self) -> str:
        """The video's own name; of a part with its span in ms behind it."""
        stem = clean(self.source.stem.strip())
        if self.start is None or self.end is None:
            return stem + self.source.suffix
        return f"{stem}_{round(1000 * self.start)}-{round(1000 * self.end)}ms{SUFFIX}"


def check_names(table: Path, names: Iterable[str]) -> None:
    """Raise UserError where names can't be those of videos, or would share one of a flow video."""
    stems: dict[str, str] = {}
    for name in names:
        try:
            annotations.check_video_id(name)
        except UserError as error:
            raise UserError(error.problem, error.hint, path=table) from None
        if other := stems.get(annotations.stem(name)):
            raise UserError(f"{other} and {name} would share their flow's name", "rename one of them", path=table)
        stems[annotations.stem(name)] = name


def cut_all(clips: Mapping[str, Clip], folder: Path, left_out: dict[str, str]) -> dict[str, float]:
    """Cut what is to be cut, a pass a video; seconds by video id. What fails goes into `left_out`."""
    spans: dict[Path, list[Span]] = defaultdict(list)
    for key, clip in clips.items():
        if clip.start is not None and clip.end is not None:
            spans[clip.source].append(Span(folder / key, clip.start, clip.end))
    seconds = {}
    for number, (source, of_source) in enumerate(spans.items(), start=1):
        print(f"cutting {len(of_source)} clips out of {source.name} ({number} of {len(spans)})", flush=True)
        for target, outcome in cut(source, of_source).items():
            if isinstance(outcome, str):
                left_out[target.name] = outcome
            else:
                seconds[target.name] = outcome
    return seconds
