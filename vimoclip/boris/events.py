"""What BORIS' files tell: which behaviours are seen in which media file, and when."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple

NOT_AVAILABLE = "NA"  # as BORIS writes what there is not
WHOLE_OBSERVATION = 0.0, float("inf")


class BehaviorEvent(NamedTuple):
    """A behaviour from `start` to `stop`, in seconds since the media file's first frame; the same of a point event."""

    behavior: str
    subject: str
    start: float
    stop: float
    point: bool


class MediaFile(NamedTuple):
    """A media file of an observation, as it is written there; `seconds`: None where that isn't said."""

    path: str
    seconds: float | None


@dataclass
class Recording:
    """All events in one media file, of all observations of it. `observations`: their ids; `coded`: from when to when
    each of them was coded."""

    media: str
    seconds: float | None
    events: list[BehaviorEvent] = field(default_factory=list)
    observations: list[str] = field(default_factory=list)
    coded: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class EventCollection:
    """`behaviors`: in the order of the ethogram, or by name; `left_out`: what -> why."""

    behaviors: list[str] = field(default_factory=list)
    recordings: dict[str, Recording] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, what: str, why: str) -> None:
        """Note what isn't used; of the same, how many."""
        name, number = what, 1
        while name in self.left_out:
            number += 1
            name = f"{what} ({number})"
        self.left_out[name] = why

    def add(
        self,
        observation: str,
        media: Sequence[MediaFile],
        events: Sequence[BehaviorEvent],
        coded: tuple[float, float] = WHOLE_OBSERVATION,
    ) -> None:
        """Events of an observation, whose times run over its media files, one after the other; `coded`: within them."""
        if len(media) > 1 and any(one.seconds is None for one in media[:-1]):
            self.leave_out(observation, "its media files follow each other, but their lengths aren't said")
            return
        origin = 0.0
        for one in media:
            recording = self.recordings.setdefault(one.path, Recording(one.path, one.seconds))
            recording.seconds = recording.seconds or one.seconds
            recording.observations.append(observation)
            end = float("inf") if one is media[-1] else origin + (one.seconds or 0.0)
            recording.coded.append((max(coded[0] - origin, 0.0), coded[1] - origin))
            recording.events += [
                _shift_and_clip(event, origin, end) for event in events if _overlaps(event, origin, end)
            ]
            origin = end


def _overlaps(event: BehaviorEvent, origin: float, end: float) -> bool:
    return origin <= event.start < end if event.point else event.start < end and event.stop > origin


def _shift_and_clip(event: BehaviorEvent, origin: float, end: float) -> BehaviorEvent:
    start, stop = (round(min(max(time, origin), end) - origin, 6) for time in (event.start, event.stop))
    return event._replace(start=start, stop=stop)


def media_file_name(media: str) -> str:
    """The name of a file whose path may be of another computer."""
    return (PureWindowsPath if "\\" in media else PurePosixPath)(media).name


def merge_state_events(events: Sequence[BehaviorEvent]) -> Mapping[str, list[tuple[float, float]]]:
    """Behaviour -> the stretches of its state events, of all subjects, which don't touch each other."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in sorted((event for event in events if not event.point), key=lambda event: event.start):
        before = found[event.behavior]
        if before and event.start <= before[-1][1]:
            before[-1] = before[-1][0], max(before[-1][1], event.stop)
        else:
            before.append((event.start, event.stop))
    return found
