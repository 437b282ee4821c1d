"""Behavioural events by media file, as coded in BORIS."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple

WHOLE_OBSERVATION = 0.0, float("inf")


class BehaviorEvent(NamedTuple):
    """A behaviour of a subject. `start`, `stop`: seconds since the file's first frame, equal for a point event."""

    behavior: str
    subject: str
    start: float
    stop: float
    is_point: bool


class MediaFile(NamedTuple):
    """A media file of an observation. `path`: as written in BORIS. `seconds`: duration, None if unknown."""

    path: str
    seconds: float | None


@dataclass
class Recording:
    """All events in one media file, from all observations of it.

    `media_path`: as written in BORIS. `seconds`: duration, None if unknown. `observations`: their ids.
    `coded_intervals`: (start, stop) of the part that each observation covers, in seconds."""

    media_path: str
    seconds: float | None
    events: list[BehaviorEvent] = field(default_factory=list)
    observations: list[str] = field(default_factory=list)
    coded_intervals: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class EventCollection:
    """Events of a BORIS file.

    `behaviors`: in the order of the ethogram, or sorted by name. `recordings`: by path of the media file. `skipped`:
    unusable entry -> reason."""

    behaviors: list[str] = field(default_factory=list)
    recordings: dict[str, Recording] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

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
        coded_interval: tuple[float, float] = WHOLE_OBSERVATION,
    ) -> None:
        """Add the events of an observation to the recordings of its media files.

        Times of `events` and `coded_interval` count from the start of the first of the media files, which follow each
        other. The observation is skipped if their durations are needed and unknown."""
        if len(media_files) > 1 and any(media.seconds is None for media in media_files[:-1]):
            self.add_skipped(observation, "has several media files, but not their durations")
            return
        start = 0.0
        for media in media_files:
            recording = self.recordings.setdefault(media.path, Recording(media.path, media.seconds))
            recording.seconds = recording.seconds or media.seconds
            recording.observations.append(observation)
            stop = float("inf") if media is media_files[-1] else start + (media.seconds or 0.0)
            recording.coded_intervals.append((max(coded_interval[0] - start, 0.0), coded_interval[1] - start))
            recording.events += [
                _shift_and_clip(event, start, stop) for event in events if _overlaps(event, start, stop)
            ]
            start = stop


def _overlaps(event: BehaviorEvent, start: float, stop: float) -> bool:
    return start <= event.start < stop if event.is_point else event.start < stop and event.stop > start


def _shift_and_clip(event: BehaviorEvent, start: float, stop: float) -> BehaviorEvent:
    """Return the part of an event between start and stop, with times relative to start."""
    event_start, event_stop = (round(min(max(time, start), stop) - start, 6) for time in (event.start, event.stop))
    return event._replace(start=event_start, stop=event_stop)


def media_file_name(media_path: str) -> str:
    """Return the file name of a path, which may come from another operating system."""
    return (PureWindowsPath if "\\" in media_path else PurePosixPath)(media_path).name


def merge_state_events(events: Sequence[BehaviorEvent]) -> Mapping[str, list[tuple[float, float]]]:
    """Return the sorted, disjoint intervals of the state events by behaviour; events of all subjects are merged."""
    intervals: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in sorted((event for event in events if not event.is_point), key=lambda event: event.start):
        merged = intervals[event.behavior]
        if merged and event.start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], event.stop)
        else:
            merged.append((event.start, event.stop))
    return intervals
