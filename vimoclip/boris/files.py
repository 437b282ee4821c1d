"""BORIS projects (.boris, JSON) and aggregated events (CSV, TSV) are read; bouts are exported as events to paste."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip.errors import UserError
from vimoclip.io import atomic, csv, yaml_json

BoutLike = tuple[str, float, float, float]  # action; start and stop in seconds since the video's first frame; score
MediaFile = tuple[str, float | None]  # path as written in BORIS; duration in seconds, None if unknown
WHOLE_OBSERVATION = 0.0, math.inf
ETHOGRAM_KEY, OBSERVATIONS_KEY = "behaviors_conf", "observations"
TIME, SUBJECT, CODE, MODIFIER = range(4)  # indices in an event of a project
NOT_AVAILABLE = "NA"  # a missing value in BORIS' table "aggregated events"
TYPE_COLUMN = "Behavior type"  # identifies the header
# each tuple: the name in BORIS 8 and later, then the names in earlier versions
COLUMN_NAMES = {
    "observation": ("Observation id",),
    "source": ("Source", "Media file"),
    "media": ("Media file name", "Media file"),
    "length": ("Media duration (s)", "Total length"),
    "offset": ("Time offset (s)",),
    "subject": ("Subject",),
    "behavior": ("Behavior",),
    "type": (TYPE_COLUMN,),
    "start": ("Start (s)",),
    "stop": ("Stop (s)",),
}
REQUIRED_COLUMNS = ("behavior", "type", "start", "stop")
EXPORT_HINT = "export aggregated events from BORIS"
PROJECT_HINT = "name a .boris file, or aggregated events"
OTHER_PLAYERS = "only the media files of the first player are used"
PLAYER_PREFIX = re.compile(r"^\s*player #(\d+):", re.IGNORECASE)


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

    `media_path`: as written in BORIS. `seconds`: duration, None if unknown. `observations`: their ids.
    `coded_intervals`: (start, stop) of the part that each observation covers, in seconds. `unknown_intervals`: (start,
    stop) of the parts in which a behaviour was coded that can't be read, in seconds; inf for the end."""

    media_path: str
    seconds: float | None
    events: list[BehaviorEvent] = field(default_factory=list)
    observations: list[str] = field(default_factory=list)
    coded_intervals: list[tuple[float, float]] = field(default_factory=list)
    unknown_intervals: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class EventCollection:
    """Events of a BORIS file.

    `behaviors`: in the order of the ethogram, or sorted by name. `recordings`: by path of the media file. `skipped`:
    unusable entry -> reason."""

    behaviors: list[str]
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
        if any(seconds is None for _, seconds in media_files[:-1]):
            self.add_skipped(observation, "has several media files, but not their durations")
            return
        start = 0.0
        for number, (path, seconds) in enumerate(media_files, start=1):
            recording = self.recordings.setdefault(path, Recording(path, seconds))
            recording.seconds = recording.seconds or seconds
            recording.observations.append(observation)
            stop = math.inf if number == len(media_files) else start + (seconds or 0.0)
            recording.coded_intervals.append((max(coded_interval[0] - start, 0.0), coded_interval[1] - start))
            for event in events:
                inside = start <= event.start < stop if event.is_point else event.start < stop and event.stop > start
                if inside:  # add the part of the event in this file, with times relative to the file's start
                    begin, end = (round(min(max(time, start), stop) - start, 6) for time in (event.start, event.stop))
                    recording.events.append(event._replace(start=begin, stop=end))
            start = stop


def read_events(path: Path) -> EventCollection:
    """Read a project or aggregated events. Raises UserError for any other file."""
    return read_project(path) if path.suffix.lower() == ".boris" else read_aggregated(path)


def read_aggregated(path: Path) -> EventCollection:
    """Read aggregated events. Raises UserError with the line."""
    lines = _read_lines(path)
    columns = _column_indices(path, lines[0].cells)
    rows = [(number, {key: _cell(cells, index) for key, index in columns.items()}) for number, cells in lines[1:]]
    collection = EventCollection(sorted({row["behavior"] for _, row in rows if row["behavior"]}, key=str.casefold))
    rows_by_observation: dict[str, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for number, row in rows:
        rows_by_observation[row["observation"]].append((number, row))
    for observation, numbered_rows in rows_by_observation.items():
        media_files = _media_files(collection, observation, [row for _, row in numbered_rows])
        if media_files:
            parsed = (_parse_row(path, number, row, collection) for number, row in numbered_rows)
            events = sorted((event for event in parsed if event), key=lambda event: event.start)
            collection.add_observation(observation, media_files, events)
    return collection


def _read_lines(path: Path) -> list[csv.CsvLine]:
    """Return the header and the lines below it. Raises UserError."""
    lines = csv.read_lines(path, "export it from BORIS", delimiters="\t,;", header_cell=TYPE_COLUMN)
    for index, (_, cells) in enumerate(lines):
        if TYPE_COLUMN in cells:
            return lines[index:]
    raise UserError(f"has no column {TYPE_COLUMN}", EXPORT_HINT, path=path)


def _column_indices(path: Path, header: list[str]) -> dict[str, int]:
    """Return the column index by key of COLUMN_NAMES, for existing columns. Raises UserError."""
    by_name = {cell: index for index, cell in reversed(list(enumerate(header)))}
    indices: dict[str, int] = {}
    for key, names in COLUMN_NAMES.items():
        index = next((by_name[name] for name in names if name in by_name), None)
        if index is not None:
            indices[key] = index
        elif key in REQUIRED_COLUMNS:
            raise UserError(f"has no column {names[0]}", EXPORT_HINT, path=path)
    if "source" not in indices and "media" not in indices:
        raise UserError("has no column with media files", EXPORT_HINT, path=path)
    return indices


def _cell(cells: list[str], index: int) -> str:
    """Return a cell; empty if it is missing or not available."""
    text = cells[index] if index < len(cells) else ""
    return "" if text == NOT_AVAILABLE else text


def _media_files(collection: EventCollection, observation: str, rows: list[dict[str, str]]) -> list[MediaFile]:
    """Return the first player's media files of an observation, in order. An observation without any is skipped."""
    source = rows[0].get("source", "")
    paths = _first_player_entries(source)
    seconds = [_parse_seconds(text) for text in _first_player_entries(rows[0].get("length", ""))]
    if not paths:  # some versions write only the media file of each event
        paths = list(dict.fromkeys(row["media"] for row in rows if row.get("media") not in ("", None, "Not found")))
    if not paths:
        reason = f"{len(rows)} events without a media file, as in a live observation"
        collection.add_skipped(observation or "an observation", reason)
    if "|" in source:
        collection.add_skipped(f"{observation}, players other than the first", OTHER_PLAYERS)
    return list(zip(paths, seconds if len(seconds) == len(paths) else [None] * len(paths), strict=True))


def _first_player_entries(text: str) -> list[str]:
    """Return what a cell holds for the first player, an entry per media file."""
    first = text.split("|")[0]
    return [entry.strip() for entry in PLAYER_PREFIX.sub("", first).split(";") if entry.strip()]


def _parse_row(path: Path, number: int, row: Mapping[str, str], collection: EventCollection) -> BehaviorEvent | None:
    """Return the event of a row. A row without start or stop is skipped, and gives None. Raises UserError."""
    location, hint = f"{path}:{number}", "correct the line"
    event_type = row["type"].upper()
    if not row["behavior"] or event_type not in ("STATE", "POINT"):
        raise UserError(f"behavior type {row['type']!r} is neither STATE nor POINT", hint, path=location)
    is_point, start = event_type == "POINT", _parse_seconds(row["start"])
    stop = start if is_point else _parse_seconds(row["stop"])
    if start is None or stop is None:
        entry = f"{row.get('observation', '')}: {row['behavior']} in line {number}"
        collection.add_skipped(entry, "has no start" if start is None else "has no stop")
        return None
    if stop < start:
        raise UserError(f"{row['behavior']} stops at {stop:g} s, before it starts", hint, path=location)
    offset = _parse_seconds(row.get("offset", "")) or 0.0
    start, stop = round(start - offset, 6), round(stop - offset, 6)
    return BehaviorEvent(row["behavior"], row.get("subject", ""), start, stop, is_point)


def _parse_seconds(text: str) -> float | None:
    """Return seconds from a number or h:mm:ss; None for anything else."""
    sign, text = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        return None
    seconds = sign * sum(part * 60**power for power, part in enumerate(reversed(parts)))
    return seconds if math.isfinite(seconds) else None


def read_project(path: Path) -> EventCollection:
    """Read a project. Raises UserError if the file is none, or an observation can't be read."""
    try:
        project = yaml_json.read_json(path, PROJECT_HINT)
        ethogram = sorted(
            project[ETHOGRAM_KEY].items(), key=lambda item: int(item[0]) if item[0].isdecimal() else math.inf
        )
        event_types = {row["code"]: str(row["type"]) for _, row in ethogram}
        observations = dict(project[OBSERVATIONS_KEY])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"is not a BORIS project ({error!r})", PROJECT_HINT, path=path) from None
    collection = EventCollection(list(event_types))
    for observation, content in observations.items():
        try:
            _add_observation(collection, observation, content, event_types)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            problem = f"observation {observation} can't be read ({error!r})"
            raise UserError(problem, "open the project in BORIS and save it", path=path) from None
    return collection


def _add_observation(
    collection: EventCollection, observation: str, content: dict[str, Any], event_types: dict[str, str]
) -> None:
    """Add the events in the first player's media files; other observations and players are skipped."""
    if content.get("type", "MEDIA") != "MEDIA":
        collection.add_skipped(observation, f"is of type {str(content['type']).lower()}, and has no media files")
        return
    players = {number: list(files) for number, files in (content.get("file") or {}).items() if files}
    if not players.get("1"):
        collection.add_skipped(observation, "names no media file")
        return
    if len(players) > 1:
        collection.add_skipped(f"{observation}, players other than the first", OTHER_PLAYERS)
    lengths = (content.get("media_info") or {}).get("length") or {}
    media_files = [(file, float(lengths[file]) if lengths.get(file) else None) for file in players["1"]]
    start, stop = (content.get("observation time interval") or (0, 0))[:2]  # [0, 0]: the whole observation
    coded_interval = (float(start), float(stop)) if stop else WHOLE_OBSERVATION
    events = _pair_state_events(collection, observation, content, event_types)
    collection.add_observation(observation, media_files, events, coded_interval)


def _pair_state_events(
    collection: EventCollection, observation: str, content: dict[str, Any], event_types: dict[str, str]
) -> list[BehaviorEvent]:
    """Return the events of an observation, sorted by start.

    A project lists a state event as two rows: every second row of the same subject, behaviour and modifiers is a stop.
    State events with an odd number of rows are skipped, as are behaviours that are not in the ethogram."""
    offset = float(content.get("time offset") or 0.0)
    start_times: dict[tuple[str, str, str], float] = {}
    events, unknown = [], Counter[str]()
    num_rows = Counter((str(row[SUBJECT]), str(row[CODE]), str(row[MODIFIER])) for row in content["events"])
    for row in sorted(content["events"], key=lambda row: float(row[TIME])):
        time, subject, code = round(float(row[TIME]) - offset, 6), str(row[SUBJECT]), str(row[CODE])
        event_type, key = event_types.get(code, ""), (subject, code, str(row[MODIFIER]))
        if not event_type:
            unknown[code] += 1
        elif not event_type.upper().startswith("STATE"):
            events.append(BehaviorEvent(code, subject, time, time, is_point=True))
        elif num_rows[key] % 2:  # starts and stops would be swapped after the missing one
            start_times.setdefault(key, time)
        elif (start := start_times.pop(key, None)) is None:
            start_times[key] = time
        else:
            events.append(BehaviorEvent(code, subject, start, time, is_point=False))
    for code, count in unknown.items():
        collection.add_skipped(f"{observation}: {code}", f"is not in the ethogram ({count} events)")
    for key, start in start_times.items():
        entry = f"{observation}: {key[1]} of {key[0] or 'no subject'} from {start:g} s on"
        reason = f"has {num_rows[key]} starts and stops: one is missing; check state events in BORIS"
        collection.add_skipped(entry, reason)
    return sorted(events, key=lambda event: event.start)


def export_bouts(path: Path, video: Path, fps: float, seconds: float, bouts: Iterable[BoutLike]) -> Path:
    """Write one line per start and per stop of a bout, sorted by time, and return the path. Raises OSError.

    The fields are those of an event of a media file: time, subject, code, modifier, comment, frame. To import them,
    open an observation of `video` in BORIS (the ethogram must have the actions as state events), copy the file's whole
    text, and choose Observations, Edit events, Paste events. The file has no header and no newline at its end, as BORIS
    (8.27) refuses both."""
    rows = []
    for action, start, stop, score in bouts:
        comment = " ".join(f"{video.name}, score {score:.3f}".split())
        for time in (start, min(stop, seconds)):
            rows.append((round(time, 3), "", " ".join(action.split()), "", comment, round(time * fps)))
    return atomic.write_text(path, "\n".join("\t".join(map(str, row)) for row in sorted(rows)))
