"""Importer of BORIS events: sliding windows over each media file, labelled with the behaviours in them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimoclip import boris, cli, video
from vimoclip.boris import BehaviorEvent, EventCollection, Recording
from vimoclip.errors import UserError, VideoError
from vimoclip.prepare import grouped_split
from vimoclip.prepare.find_media import Film, locate_films
from vimoclip.prepare.place_videos import SourceClip, add_clip, dataset_folders, place_clips
from vimoclip.prepare.write_dataset import PreparedDataset, write_dataset
from vimoclip.timeline.bouts import TIME_TOLERANCE, WindowGrid

NUM_BLOCKS = 10  # a data set of only one recording is divided into blocks of time, which are split


@dataclass(frozen=True)
class WindowLabeler:
    """Rules for the positions and labels of windows.

    `point_margin`: seconds. `min_overlap`: a fraction. `keep_unlabelled`: keep windows without a behaviour."""

    grid: WindowGrid
    min_overlap: float = 0.5
    point_margin: float = 1.0
    keep_unlabelled: bool = True

    def event_intervals(self, events: Sequence[BehaviorEvent]) -> list[tuple[str, float, float]]:
        """Return (behaviour, start, stop) of all events; a point event covers `point_margin` on both sides of it.

        State events of one behaviour that touch or overlap are merged, also those of different subjects."""
        intervals: list[tuple[str, float, float]] = []
        spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for event in sorted(events, key=lambda event: event.start):
            merged = spans[event.behavior]
            if event.is_point:
                start = event.start
                intervals.append((event.behavior, start - self.point_margin, start + self.point_margin))
            elif merged and event.start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], event.stop)
            else:
                merged.append((event.start, event.stop))
        return intervals + [(name, start, stop) for name, merged in spans.items() for start, stop in merged]

    def labels(self, span: tuple[float, float], intervals: Sequence[tuple[str, float, float]]) -> set[str]:
        """Return the behaviours that overlap a window by `min_overlap` of the window, or of the shorter interval.

        A point event without margin must lie in the window."""
        return {name for name, start, stop in intervals if self._overlaps(span, start, stop)}

    def _overlaps(self, span: tuple[float, float], start: float, stop: float) -> bool:
        if start == stop:
            return span[0] <= start < span[1]
        overlap = min(span[1], stop) - max(span[0], start)
        required = self.min_overlap * min(span[1] - span[0], stop - start)
        return overlap > TIME_TOLERANCE and overlap + TIME_TOLERANCE >= required


def prepare(
    events_path: Path,
    videos_dir: Path | None,
    dataset_dir: Path,
    name: str,
    labeler: WindowLabeler,
    fractions: Mapping[str, float],
    seed: int,
    subjects: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    group_by: str = "media",
) -> cli.RunReport:
    """Write the data set and return the report of the run. Raises UserError.

    `events_path`: a project or aggregated events. `fractions`: of val and test. `group_by`: media or observation."""
    events = boris.read_events(events_path)
    skipped = dict(events.skipped)
    filter_events(events_path, events, subjects, exclude)
    clips: dict[str, SourceClip] = {}
    labels: dict[str, set[str]] = {}
    sources: dict[str, str] = {}
    for film, (recording, seconds) in _recordings_by_film(
        events_path, videos_dir, dataset_dir, events, skipped
    ).items():
        intervals = labeler.event_intervals(recording.events)
        for span in labeler.grid.spans(seconds):
            if not _is_fully_coded(span, recording):
                continue
            behaviors = labeler.labels(span, intervals)
            if not (behaviors or labeler.keep_unlabelled):
                continue
            clip = SourceClip(film.file, *span, film.name)
            add_clip(clips, clip.name, clip)
            labels[clip.name] = behaviors
            sources[clip.name] = recording.observations[0] if group_by == "observation" else film.source
    if not any(labels.values()):
        entry, reason = next(iter(skipped.items()), ("the file", "has no event"))
        hint = "see --videos-dir, --subjects and --exclude"
        raise UserError(f"no window has a label ({entry}: {reason})", hint, path=events_path)
    if len(set(sources.values())) == 1:
        sources = split_into_blocks(clips, labeler)
        clips = {key: clip for key, clip in clips.items() if key in sources}
    seconds_of = place_clips(clips, dataset_dir, skipped, events_path)
    labels = {key: labels[key] for key in clips if key not in skipped}
    sources = {key: sources[key] for key in labels}
    classes = tuple(name for name in events.behaviors if any(name in behaviors for behaviors in labels.values()))
    ids = {name: class_id for class_id, name in enumerate(classes)}
    label_ids = {key: tuple(sorted(ids[name] for name in behaviors)) for key, behaviors in labels.items()}
    data = grouped_split.split_videos(classes, label_ids, fractions, seed, sources)
    return write_dataset(dataset_dir / "annotations", name, PreparedDataset(data, seconds_of, skipped, sources), seed)


def filter_events(
    events_path: Path, events: EventCollection, subjects: Sequence[str] | None, exclude: Sequence[str]
) -> None:
    """Remove the events of other subjects and of excluded behaviours, and print the counts.

    Raises UserError for unknown names."""
    all_events = [event for recording in events.recordings.values() for event in recording.events]
    all_subjects = {event.subject for event in all_events}
    for kind, names, known in (
        ("subject", subjects or (), sorted(all_subjects)),
        ("behaviour", exclude, events.behaviors),
    ):
        if unknown := [name for name in names if name not in known]:
            problem = f"has no {kind} {unknown[0]!r}"
            raise UserError(problem, f"choose from {', '.join(map(repr, known))}", path=events_path)
    num_kept = num_points = 0
    for recording in events.recordings.values():
        recording.events = [
            event
            for event in recording.events
            if event.behavior not in exclude and (subjects is None or event.subject in subjects)
        ]
        num_kept += len(recording.events)
        num_points += sum(event.is_point for event in recording.events)
    print(
        f"{events_path}: {num_kept} events ({num_points} of them points) in {len(events.recordings)} media files, of "
        f"{len(all_subjects)} subjects; {len(all_events) - num_kept} events are excluded",
        flush=True,
    )


def _is_fully_coded(span: tuple[float, float], recording: Recording) -> bool:
    """Return whether an observation covers the whole window; without one, a window is not known to be unlabelled."""
    intervals = recording.coded_intervals
    return any(start <= span[0] + TIME_TOLERANCE and span[1] <= stop + TIME_TOLERANCE for start, stop in intervals)


def _recordings_by_film(
    events_path: Path, videos_dir: Path | None, dataset_dir: Path, events: EventCollection, skipped: dict[str, str]
) -> dict[Film, tuple[Recording, float]]:
    """Return (recording, seconds) by film; films that are missing or unreadable are added to `skipped`.

    Recordings of one film, whose paths are written differently, are merged. Raises UserError for different films."""
    folders = [folder for folder in (videos_dir, events_path.parent) if folder]
    films, not_found = locate_films(events.recordings, folders, events_path, dataset_folders(dataset_dir))
    skipped |= not_found
    recordings: dict[Film, tuple[Recording, float]] = {}
    for path, film in films.items():
        recording = events.recordings[path]
        if film in recordings:
            merged = recordings[film][0]
            merged.events = sorted([*merged.events, *recording.events], key=lambda event: event.start)
            merged.observations += recording.observations
            merged.coded_intervals += recording.coded_intervals
            continue
        try:
            recordings[film] = recording, video.probe(film.file).seconds or recording.seconds or 0.0
        except VideoError as error:
            skipped[path] = str(error)
    return recordings


def split_into_blocks(clips: Mapping[str, SourceClip], labeler: WindowLabeler) -> dict[str, str]:
    """Return the block by window of the only recording, and print a warning. Windows across two blocks are dropped."""
    recording_end = max(clip.end or 0.0 for clip in clips.values())
    length = max(recording_end / NUM_BLOCKS, 2 * labeler.grid.length)
    blocks = {}
    for key, clip in clips.items():
        first, last = int((clip.start or 0.0) / length), int(((clip.end or 0.0) - TIME_TOLERANCE) / length)
        if first == last:
            blocks[key] = f"{clip.source.name}, from {first * length:g} s on"
    print(
        f"warning: there is only one recording. It is split into blocks of {length:.0f} s, without the "
        f"{len(clips) - len(blocks)} windows that cover parts of two blocks; results hold for this recording only, not "
        "for others",
        flush=True,
    )
    return blocks
