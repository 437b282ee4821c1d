"""Events that were coded in BORIS, by media file."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from vimoclip.errors import UserError, escape_line
from vimoclip.io.names import fold_name, list_some, normalize_name
from vimoclip.io.numbers import parse_seconds

MediaFile = tuple[str, float | None]  # path as written in BORIS; duration in seconds, None if unknown
Interval = tuple[float, float]  # start and stop in seconds; inf for the end
WHOLE_OBSERVATION: Interval = (0.0, math.inf)
FULLWIDTH_BAR = "\uff5c"  # stands for | in a code
OTHER_PLAYERS = "only the media files of the first player are used"
REVIEW_HINT = (
    "after a correction, set the independent variable reviewed of the observation to yes in BORIS; "
    "--include-unreviewed takes predictions as they are"
)


class BehaviorEvent(NamedTuple):
    """A behaviour of a subject. `start`, `stop`: seconds since the file's first frame, equal for a point event."""

    behavior: str
    subject: str
    start: float
    stop: float
    is_point: bool


@dataclass
class Recording:
    """All events in one media file, from all observations of it.

    `media_path`: as written in BORIS. `seconds`: BORIS' duration, None if unknown. `events`: also those before the
    start and after the end of the file, at their own times. `observations`: their ids. `coded_intervals`: the part
    that each observation covers. `unknown_events`: events whose start or stop is unknown, each over the whole part of
    the file in which it may be."""

    media_path: str
    seconds: float | None
    events: list[BehaviorEvent] = field(default_factory=list)
    observations: list[str] = field(default_factory=list)
    coded_intervals: list[Interval] = field(default_factory=list)
    unknown_events: list[BehaviorEvent] = field(default_factory=list)


@dataclass
class EventCollection:
    """Events of a BORIS file.

    `behaviors`: in the order of the ethogram, or sorted by name. `recordings`: by path of the media file. `skipped`:
    unusable entry -> reason. `has_predictions`: whether the file holds observations that were written from predictions.
    `unreviewed`: ids of the observations that need a review and are not marked as reviewed; their events are in no
    recording, unless they were asked for. `reviewed`: those of the observations that need a review that are marked."""

    behaviors: list[str]
    recordings: dict[str, Recording] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    has_predictions: bool = False
    unreviewed: list[str] = field(default_factory=list)
    reviewed: list[str] = field(default_factory=list)

    def add_skipped(self, entry: str, reason: str) -> None:
        """Record an entry that can't be used; a repeated entry gets a number."""
        name, number = entry, 1
        while name in self.skipped:
            number += 1
            name = f"{entry} ({number})"
        self.skipped[name] = reason

    def add_observation(
        self,
        observation: str,
        media_files: Sequence[MediaFile],
        events: Sequence[BehaviorEvent],
        coded_interval: Interval = WHOLE_OBSERVATION,
        unknown_events: Sequence[BehaviorEvent] = (),
    ) -> None:
        """Add the events of an observation to the recordings of its media files.

        Times count from the start of the first of the media files, which follow each other. Events before it and after
        the last file belong to the first and the last file. If durations are needed and unknown, the observation is
        skipped, and each event may be anywhere in its files."""
        recordings = [self.recordings.setdefault(path, Recording(path, seconds)) for path, seconds in media_files]
        for recording, (_, seconds) in zip(recordings, media_files, strict=True):
            recording.seconds = recording.seconds or seconds
            recording.observations.append(observation)
        if any(seconds is None for _, seconds in media_files[:-1]):
            self.add_skipped(observation, "has several media files, but not their durations")
            anywhere = [event._replace(start=0.0, stop=math.inf, is_point=False) for event in events]
            for recording in recordings:
                recording.unknown_events += [*anywhere, *unknown_events]
            return
        starts = media_starts(media_files)
        for recording, start, stop in zip(recordings, starts, [*starts[1:], math.inf], strict=True):
            first = start if start else -math.inf  # no earlier file has the events before 0
            recording.coded_intervals.append(
                (max(coded_interval[0] - start, 0.0), min(coded_interval[1], stop) - start)
            )
            recording.events += _events_between(events, first, stop, start)
            for event in _events_between(unknown_events, first, stop, start):
                is_open = event.stop >= stop - start  # the file may be longer than BORIS says
                recording.unknown_events.append(event._replace(stop=math.inf) if is_open else event)


def choose_observations(path: Path, ids: Iterable[str], pattern: re.Pattern[str] | None) -> set[str]:
    """Return the ids of observations that match; all if `pattern` is None. Raises UserError if none matches."""
    known = list(dict.fromkeys(ids))
    chosen = {name for name in known if pattern is None or pattern.search(name)}
    if pattern and not chosen:
        problem = f"has no observation whose id matches {pattern.pattern!r}"
        raise UserError(problem, f"its ids are {list_some(map(repr, known), 20)}", path=path)
    return chosen


def check_reviewed(path: Path, collection: EventCollection, num_observations: int) -> None:
    """Raise UserError if all observations of the file need a review, and none is marked as reviewed."""
    if collection.unreviewed and len(collection.unreviewed) == num_observations:
        problem = f"holds predictions, and none of its {num_observations} observations is marked as reviewed"
        raise UserError(problem, REVIEW_HINT, path=path)


def _events_between(
    events: Iterable[BehaviorEvent], first: float, stop: float, file_start: float
) -> Iterator[BehaviorEvent]:
    """Yield the parts of the events from `first` to `stop`, with times relative to the start of their file."""
    for event in events:
        if first <= event.start < stop or event.start < first < event.stop:
            begin, end = (round(min(max(time, first), stop) - file_start, 6) for time in (event.start, event.stop))
            yield event._replace(start=begin, stop=end)


def media_length(value: object) -> float | None:
    """Return the length of a media file in seconds; None if it is unknown: BORIS writes NA, 0 or -1 then.

    Raises ValueError."""
    seconds = parse_seconds(value)
    return seconds if seconds is not None and seconds > 0 else None


def media_starts(media_files: Sequence[MediaFile]) -> list[float]:
    """Return when each of the media files of a player starts, in seconds since the first one does.

    Only the duration of the last one may be unknown."""
    starts = [0.0]
    for _, seconds in media_files[:-1]:
        starts.append(round(starts[-1] + (seconds or 0.0), 6))
    return starts


def behavior_code(class_name: str) -> str:
    """Return the code of a behaviour for a class: one line, and without |, which BORIS refuses in codes."""
    return escape_line(" ".join(class_name.split())).replace("|", FULLWIDTH_BAR)


def class_names(path: Path, codes: Iterable[str], merge_case: bool, has_predictions: bool = False) -> dict[str, str]:
    """Return the name of the class of each code of a behaviour.

    Raises UserError for codes that differ only in case, spaces or Unicode's form, unless `merge_case`: the first of
    them is then the name. `has_predictions`: ｜ stands for |, as `behavior_code` writes it."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for code in dict.fromkeys(codes):
        spellings[fold_name(code)].append(code)
    for same in spellings.values():
        if len(same) > 1 and not merge_case:
            problem = f"the behaviours {' and '.join(map(repr, same))} differ only in case, spaces or Unicode's form"
            hint = "rename one in BORIS, or make them one class with --merge-case"
            raise UserError(problem, hint, path=path)
    names = {code: normalize_name(same[0]).strip() for same in spellings.values() for code in same}
    return {code: name.replace(FULLWIDTH_BAR, "|") for code, name in names.items()} if has_predictions else names
