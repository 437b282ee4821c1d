"""Events of BORIS become a data set: windows slide over each media file, and are labelled by what is seen in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimoclip import boris, video
from vimoclip.boris import Event, Events, Recording
from vimoclip.boris.events import file_name, union
from vimoclip.errors import UserError, VideoError
from vimoclip.prepare import grouped_split
from vimoclip.prepare.trim_clips import Clip, check_names, cut_all
from vimoclip.prepare.write_dataset import Prepared, finish

BLOCKS = 10  # stretches that a single recording is split into
NEAR = 1e-6  # s


@dataclass(frozen=True)
class Windows:
    """How windows lie and what labels them. `length`, `stride`, `margin`: in seconds; `overlap`: a share."""

    length: float = 6.0
    stride: float = 3.0
    overlap: float = 0.5
    margin: float = 1.0
    unlabelled: bool = True

    def spans(self, seconds: float) -> list[tuple[float, float]]:
        """Whole ones, and one that ends with the recording; a shorter recording is one."""
        if seconds <= self.length:
            return [(0.0, seconds)]
        count = int((seconds - self.length + NEAR) / self.stride) + 1
        starts = [round(place * self.stride, 6) for place in range(count)]
        if seconds - (starts[-1] + self.length) > NEAR:
            starts.append(round(seconds - self.length, 6))
        return [(start, round(start + self.length, 6)) for start in starts]

    def stretches(self, events: Sequence[Event]) -> list[tuple[str, float, float]]:
        """(behaviour, start, stop) of all events; a point counts as the `margin` seconds on both sides of it."""
        found = [(name, start, stop) for name, of in union(events).items() for start, stop in of]
        points = (event for event in events if event.point)
        return found + [(event.behavior, event.start - self.margin, event.start + self.margin) for event in points]

    def labels(self, span: tuple[float, float], stretches: Sequence[tuple[str, float, float]]) -> set[str]:
        """What is seen in a window: what overlaps it by `overlap` of the window, or of itself where that is shorter.

        A point without a margin must lie in the window."""
        return {name for name, start, stop in stretches if self._enough(span, start, stop)}

    def _enough(self, span: tuple[float, float], start: float, stop: float) -> bool:
        if start == stop:
            return span[0] <= start < span[1]
        shared = min(span[1], stop) - max(span[0], start)
        least = self.overlap * min(span[1] - span[0], stop - start)
        return shared > NEAR and shared + NEAR >= least


def prepare(
    path: Path,
    videos_dir: Path | None,
    dataset: Path,
    name: str,
    windows: Windows,
    shares: Mapping[str, float],
    seed: int,
    subjects: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    group_by: str = "media",
) -> Path:
    """The folder of the annotations. `group_by`: media or observation. Raises UserError."""
    events = boris.read(path)
    left_out = dict(events.left_out)
    keep(path, events, subjects, exclude)
    clips: dict[str, Clip] = {}
    labels: dict[str, set[str]] = {}
    sources: dict[str, str] = {}
    for source, (recording, seconds) in _of_files(path, videos_dir, events, left_out).items():
        stretches = windows.stretches(recording.events)
        for span in (span for span in windows.spans(seconds) if _was_coded(span, recording)):
            seen = windows.labels(span, stretches)
            if seen or windows.unlabelled:
                clip = Clip(source, *span)
                if clips.setdefault(clip.name, clip) != clip:
                    raise UserError(
                        f"{source} and {clips[clip.name].source} share a name", "rename one of them", path=path
                    )
                labels[clip.name] = seen
                of = recording.observations[0] if group_by == "observation" else source.name
                sources[clip.name] = of
    if not any(labels.values()):
        why = next(iter(left_out.items()), ("it", "holds no event"))
        raise UserError(f"labels no window ({why[0]}: {why[1]})", "see --videos-dir, --subjects, --exclude", path=path)
    if len(set(sources.values())) == 1:
        sources = in_blocks(clips, windows)
        for key in clips.keys() - sources.keys():
            del clips[key]
    check_names(path, clips)
    seconds_of = cut_all(clips, dataset / "videos", left_out)
    kept = {key: labels[key] for key in clips if key not in left_out}
    classes = tuple(behavior for behavior in events.behaviors if any(behavior in seen for seen in kept.values()))
    ids = {behavior: number for number, behavior in enumerate(classes)}
    of_video = {key: tuple(sorted(ids[behavior] for behavior in seen)) for key, seen in kept.items()}
    sources = {key: sources[key] for key in kept}
    data = grouped_split.split(classes, of_video, shares, seed, sources)
    return finish(dataset / "annotations", name, Prepared(data, seconds_of, left_out, sources), seed)


def keep(path: Path, events: Events, subjects: Sequence[str] | None, exclude: Sequence[str]) -> None:
    """Only events of these subjects, without these behaviours; says how many go. Raises UserError for unknown names."""
    every = [event for recording in events.recordings.values() for event in recording.events]
    known = {event.subject for event in every}
    for name in subjects or ():
        if name not in known:
            raise UserError(f"has no subject {name} (there are: {', '.join(sorted(filter(None, known)))})", path=path)
    for name in exclude:
        if name not in events.behaviors:
            raise UserError(f"has no behaviour {name} to exclude (there are: {', '.join(events.behaviors)})", path=path)
    for recording in events.recordings.values():
        recording.events = [
            event
            for event in recording.events
            if event.behavior not in exclude and (subjects is None or event.subject in subjects)
        ]
    left = sum(len(recording.events) for recording in events.recordings.values())
    points = sum(event.point for recording in events.recordings.values() for event in recording.events)
    print(
        f"{path}: {left} events ({points} of them points) in {len(events.recordings)} media files, of "
        f"{len(known)} subjects; {len(every) - left} are not asked for",
        flush=True,
    )


def _was_coded(span: tuple[float, float], recording: Recording) -> bool:
    """Whether an observation looked at all of a window: else it might be called empty where nobody looked."""
    return any(begin <= span[0] + NEAR and span[1] <= end + NEAR for begin, end in recording.coded)


def _of_files(
    path: Path, videos_dir: Path | None, events: Events, left_out: dict[str, str]
) -> dict[Path, tuple[Recording, float]]:
    """File -> all that was coded in it, and its seconds. Observers may have had it at other places."""
    found: dict[Path, tuple[Recording, float]] = {}
    for recording in events.recordings.values():
        source, seconds = _open(path, videos_dir, recording, left_out)
        if source is None:
            continue
        if source not in found:
            found[source] = recording, seconds
            continue
        one = found[source][0]
        print(f"warning: {one.media} and {recording.media} are both taken for {source}; are they one film?", flush=True)
        one.events = sorted([*one.events, *recording.events], key=lambda event: event.start)
        one.observations += recording.observations
        one.coded += recording.coded
    return found


def _open(
    path: Path, videos_dir: Path | None, recording: Recording, left_out: dict[str, str]
) -> tuple[Path | None, float]:
    """(file, seconds) of a recording; None, and noted, where it isn't there or can't be read."""
    source = find_media(path, videos_dir, recording.media)
    if source is None:
        left_out[recording.media] = f"is not there, and no {file_name(recording.media)} beside the file of events"
        return None, 0.0
    try:
        return source, video.probe(source).seconds or recording.seconds or 0.0
    except VideoError as error:
        left_out[recording.media] = str(error)
        return None, 0.0


def find_media(path: Path, videos_dir: Path | None, media: str) -> Path | None:
    """A media file, whose path may be of another computer: as written, or by its name where videos are."""
    places = [] if videos_dir is None else [videos_dir / media, videos_dir / file_name(media)]
    places += [path.parent / media, path.parent / file_name(media)]
    return next((place for place in places if place.is_file()), None)


def in_blocks(clips: Mapping[str, Clip], windows: Windows) -> dict[str, str]:
    """Window -> the stretch of the one recording that it lies in; windows across two stretches are in none."""
    whole = max(clip.end or 0.0 for clip in clips.values())
    length = max(whole / BLOCKS, 2 * windows.length)
    found = {}
    for key, clip in clips.items():
        first, last = int((clip.start or 0.0) / length), int(((clip.end or 0.0) - NEAR) / length)
        if first == last:
            found[key] = f"{clip.source.name}, from {first * length:g} s on"
    print(
        f"warning: there is one recording only. It is split by stretches of {length:.0f} s, without the "
        f"{len(clips) - len(found)} windows that lie across two of them; the numbers will say how well the rest of "
        "this recording is recognised, and nothing of another one",
        flush=True,
    )
    return found
