"""Read a coding: a file of BORIS, a table of bouts, or a folder of predict.py's results."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from vimoclip import boris
from vimoclip.agreement.bout_table import CODING_HINT, find_video, read_bout_table, read_results_folder
from vimoclip.agreement.coding import Coding, FilmCoding
from vimoclip.agreement.spans import join_spans
from vimoclip.boris import BehaviorEvent, EventCollection, Recording
from vimoclip.boris.aggregated import TYPE_COLUMN
from vimoclip.boris.files import is_project
from vimoclip.errors import UserError
from vimoclip.io.names import common_tail, fold_name, list_some, path_parts
from vimoclip.io.text import read_text
from vimoclip.timeline import Span

HEADER_CHARACTERS = 100_000  # the first ones, which have the header of a table: a film may be given by mistake
NO_SUBJECT = "No focal subject"  # as BORIS' tables call it; projects leave it empty


def read_coding(
    path: Path,
    observations: re.Pattern[str] | None = None,
    subjects: Collection[str] = (),
    merge_case: bool = False,
) -> Coding:
    """Read all films of a file or folder. Raises UserError.

    `observations`: of BORIS, those whose id it matches are read. `subjects`: of BORIS, an action is present if any of
    them does it; without any, all subjects. `merge_case`: see `boris.read_events`. Predictions that nobody has reviewed
    are read too, and named."""
    if path.suffix.lower() == ".json":
        raise UserError("is not a coding", CODING_HINT, path=path)
    if not path.is_dir() and (is_project(path) or TYPE_COLUMN in read_text(path, CODING_HINT, HEADER_CHARACTERS)):
        return _read_boris(path, observations, subjects, merge_case)
    if observations:
        raise UserError("is not of BORIS, so it has no observations", "give . instead of its expression", path=path)
    coding = read_results_folder(path) if path.is_dir() else read_bout_table(path)
    return replace(coding, notes=(*coding.notes, *_no_subjects_note(str(path), subjects)))


def _read_boris(
    path: Path, observations: re.Pattern[str] | None, subjects: Collection[str], merge_case: bool
) -> Coding:
    name = f"{path} (observations that match {observations.pattern!r})" if observations else str(path)
    collection = boris.read_events(path, merge_case, include_unreviewed=True, observations=observations)
    recordings = _join_recordings(collection.recordings.values())
    if not recordings:
        reasons = (f"{entry}: {reason}" for entry, reason in collection.skipped.items())
        raise UserError(f"names no film ({list_some(reasons)})", "code media files in BORIS", path=path)
    named = _subjects(recordings)
    is_chosen = _subject_filter(path, named, subjects)
    films = tuple(_film(recording, path.parent, is_chosen) for recording in recordings)
    is_complete = is_project(path)
    occurring = {action for film in films for action in (*film.bouts, *film.points, *film.unknown)}
    actions = tuple(action for action in collection.behaviors if is_complete or action in occurring)
    notes = [
        *_no_subjects_note(name, () if named - {NO_SUBJECT} else subjects),
        *_subjects_note(name, sorted(filter(is_chosen, named))),
        *_review_notes(name, collection),
        *_overlap_note(name, recordings),
        *_skipped_note(name, collection),
    ]
    return Coding(path, actions, is_complete, films, tuple(notes), observations.pattern if observations else None)


def _join_recordings(recordings: Iterable[Recording]) -> list[Recording]:
    """Return one recording per film. A path is of the same film as the only longer one that ends with it."""
    paths = [(tuple(map(fold_name, path_parts(recording.media_path))), recording) for recording in recordings]
    joined: dict[tuple[str, ...], Recording] = {}
    same_name = defaultdict[tuple[str, ...], list[tuple[str, ...]]](list)
    for parts, recording in sorted(paths, key=lambda item: -len(item[0])):
        others = same_name[parts[-1:]]
        longer = [parts] if parts in joined else [other for other in others if common_tail(parts, other) == len(parts)]
        if len(longer) != 1:
            joined[parts] = recording
            others.append(parts)
            continue
        first = joined[longer[0]]
        joined[longer[0]] = replace(
            first,
            seconds=first.seconds or recording.seconds,
            events=first.events + recording.events,
            observations=first.observations + recording.observations,
            coded_intervals=first.coded_intervals + recording.coded_intervals,
            unknown_events=first.unknown_events + recording.unknown_events,
        )
    return [joined[parts] for parts in dict.fromkeys(parts for parts, _ in paths) if parts in joined]


def _film(recording: Recording, folder: Path, is_chosen: Callable[[str], bool]) -> FilmCoding:
    events = [event for event in recording.events if is_chosen(_subject(event))]
    unknown = [event for event in recording.unknown_events if is_chosen(_subject(event))]
    points: dict[str, set[float]] = {event.behavior: set() for event in events if event.is_point}
    for event in events:
        if event.is_point:
            points[event.behavior].add(event.start)
    return FilmCoding(
        recording.media_path,
        recording.seconds,
        _spans(event for event in events if not event.is_point),
        {action: tuple(sorted(times)) for action, times in points.items()},
        _spans(unknown),
        join_spans((start, stop) for start, stop in recording.coded_intervals if start < stop),
        find_video(folder, recording.media_path),
        tuple(dict.fromkeys(recording.observations)),
    )


def _spans(events: Iterable[BehaviorEvent]) -> dict[str, tuple[Span, ...]]:
    """Return the spans of each behaviour, of all subjects, modifiers and observations."""
    spans: dict[str, list[Span]] = {}
    for event in events:
        spans.setdefault(event.behavior, []).append((event.start, event.stop))
    return {behavior: join_spans(of_behavior) for behavior, of_behavior in spans.items()}


def _subject(event: BehaviorEvent) -> str:
    return event.subject or NO_SUBJECT


def _subjects(recordings: Iterable[Recording]) -> set[str]:
    return {_subject(event) for recording in recordings for event in (*recording.events, *recording.unknown_events)}


def _subject_filter(path: Path, named: Collection[str], subjects: Collection[str]) -> Callable[[str], bool]:
    """Return whether a subject is compared. Raises UserError for one that no event has, if events name subjects."""
    chosen = set(map(fold_name, subjects))
    if not chosen or not set(named) - {NO_SUBJECT}:
        return lambda subject: True
    if unknown := [name for name in subjects if fold_name(name) not in map(fold_name, named)]:
        raise UserError(
            f"has no subject {unknown[0]!r}", f"choose from {list_some(map(repr, sorted(named)), 20)}", path=path
        )
    return lambda subject: fold_name(subject) in chosen


def _no_subjects_note(name: str, subjects: Collection[str]) -> list[str]:
    if not subjects:
        return []
    return [f"{name} names no subjects, so its events are not restricted to those of {list_some(subjects)}."]


def _subjects_note(name: str, joined: Sequence[str]) -> list[str]:
    if len(joined) < 2:
        return []
    return [
        f"In {name}, an action counts as present while any of the subjects does it: {list_some(joined)}; "
        "--subjects chooses."
    ]


def _review_notes(name: str, collection: EventCollection) -> list[str]:
    notes, of_predictions = [], {*collection.unreviewed, *collection.reviewed}
    total = len(of_predictions.union(*(recording.observations for recording in collection.recordings.values())))
    if ids := collection.unreviewed:
        notes.append(
            f"{name} holds predictions, and {len(ids)} of {total} observations are not marked as reviewed: "
            f"{list_some(ids)}. They are what a model predicted, unless a person has changed them."
        )
    if ids := collection.reviewed:
        notes.append(
            f"{name} holds predictions that a person has reviewed ({len(ids)} of {total} observations): "
            f"{list_some(ids)}. Corrected predictions agree more with the model than a coding made without them."
        )
    return notes


def _overlap_note(name: str, recordings: Iterable[Recording]) -> list[str]:
    """Name the films that several observations cover at the same time: two observers may have coded them."""
    films = []
    for recording in recordings:
        spans = sorted(span for span in recording.coded_intervals if span[0] < span[1])
        if any(second[0] < first[1] for first, second in pairwise(spans)):
            films.append(f"{recording.media_path} ({list_some(dict.fromkeys(recording.observations))})")
    if not films:
        return []
    return [
        f"In {name}, several observations cover the same time of a film, and an action counts as present if any of "
        f"them says so: {list_some(films)}. If they are of several observers, choose with --observations."
    ]


def _skipped_note(name: str, collection: EventCollection) -> list[str]:
    if not collection.skipped:
        return []
    entries = list_some(f"{entry}: {reason}" for entry, reason in collection.skipped.items())
    return [f"Entries of {name} that can't be used: {entries}."]
