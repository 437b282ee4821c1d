"""Reader of BORIS projects (.boris, JSON) and of the aggregated events that BORIS exports (CSV, TSV)."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vimoclip.boris.events import WHOLE_OBSERVATION, BehaviorEvent, EventCollection, MediaFile
from vimoclip.errors import UserError
from vimoclip.io import csv, yaml_json

ETHOGRAM_KEY, OBSERVATIONS_KEY = "behaviors_conf", "observations"
TIME, SUBJECT, CODE, MODIFIER = range(4)  # indices in an event of a project
NOT_AVAILABLE = "NA"  # in a cell of aggregated events
TYPE_COLUMN = "Behavior type"  # identifies the header
# names in version 8 and later first, then those of earlier versions
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
PLAYER_PREFIX = re.compile(r"^\s*player #(\d+):", re.IGNORECASE)


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
    raise UserError(f"is no table of aggregated events of BORIS (it has no column {TYPE_COLUMN})", path=path)


def _column_indices(path: Path, header: list[str]) -> dict[str, int]:
    """Return the column index by key of COLUMN_NAMES, for existing columns. Raises UserError."""
    hint = "export aggregated events from BORIS again"
    by_name = {cell: index for index, cell in reversed(list(enumerate(header)))}
    indices: dict[str, int] = {}
    for key, names in COLUMN_NAMES.items():
        index = next((by_name[name] for name in names if name in by_name), None)
        if index is not None:
            indices[key] = index
        elif key in REQUIRED_COLUMNS:
            raise UserError(f"has no column {names[0]}", hint, path=path)
    if "source" not in indices and "media" not in indices:
        raise UserError("has no column with the media file of an event", hint, path=path)
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
        reason = f"{len(rows)} events that are in no media file (a live observation?)"
        collection.add_skipped(observation or "an observation", reason)
    if "|" in source:
        collection.add_skipped(f"{observation}, players other than the first", "media files that show it again")
    if len(seconds) != len(paths):
        seconds = [None] * len(paths)
    return [MediaFile(file, length) for file, length in zip(paths, seconds, strict=True)]


def _first_player_entries(text: str) -> list[str]:
    """Return what a cell holds for the first player, an entry per media file."""
    first = text.split("|")[0]
    return [entry.strip() for entry in PLAYER_PREFIX.sub("", first).split(";") if entry.strip()]


def _parse_row(path: Path, number: int, row: Mapping[str, str], collection: EventCollection) -> BehaviorEvent | None:
    """Return the event of a row. A row without start or stop is skipped, and gives None. Raises UserError."""
    location, hint = f"{path}:{number}", "fix the line"
    event_type = row["type"].upper()
    if not row["behavior"] or event_type not in ("STATE", "POINT"):
        raise UserError(f"the behavior type {row['type']!r} is neither STATE nor POINT", hint, path=location)
    is_point = event_type == "POINT"
    start, stop = _parse_seconds(row["start"]), _parse_seconds(row["stop"])
    if is_point:
        stop = start
    if start is None or stop is None:
        entry = f"{row.get('observation', '')}: {row['behavior']} in line {number}"
        collection.add_skipped(entry, "has no time" if start is None else "has no end")
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
        project = yaml_json.read_json(path, "name a .boris file, or aggregated events")
        event_types = {row["code"]: str(row["type"]) for row in _sorted_ethogram(project[ETHOGRAM_KEY])}
        observations = dict(project[OBSERVATIONS_KEY])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem, hint = f"is no project of BORIS ({error!r})", "name a .boris file, or aggregated events"
        raise UserError(problem, hint, path=path) from None
    collection = EventCollection(list(event_types))
    for observation, content in observations.items():
        try:
            _add_observation(collection, observation, content, event_types)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            problem = f"the observation {observation} can't be read ({error!r})"
            raise UserError(problem, "open and save it in BORIS", path=path) from None
    return collection


def _sorted_ethogram(ethogram: dict[str, Any]) -> list[Any]:
    """Return the behaviours in the order of their numeric keys."""
    keys = sorted(ethogram, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0))
    return [ethogram[key] for key in keys]


def _add_observation(
    collection: EventCollection, observation: str, content: dict[str, Any], event_types: dict[str, str]
) -> None:
    """Add the events in the first player's media files; other observations and players are skipped."""
    if content.get("type", "MEDIA") != "MEDIA":
        reason = f"is an observation of {str(content['type']).lower()}, not of media files"
        collection.add_skipped(observation, reason)
        return
    players = {number: list(files) for number, files in (content.get("file") or {}).items() if files}
    if not players.get("1"):
        collection.add_skipped(observation, "names no media file")
        return
    if len(players) > 1:
        num_others = sum(len(files) for number, files in players.items() if number != "1")
        reason = f"{num_others} media files that show it again"
        collection.add_skipped(f"{observation}, players other than the first", reason)
    lengths = (content.get("media_info") or {}).get("length") or {}
    media_files = [MediaFile(file, float(lengths[file]) if lengths.get(file) else None) for file in players["1"]]
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
        collection.add_skipped(f"{observation}: {code}", f"{count} events of a behaviour that is not in the ethogram")
    for key, start in start_times.items():
        entry = f"{observation}: {key[1]} of {key[0] or 'no subject'} from {start:g} s on"
        reason = f"has {num_rows[key]} starts and stops, so that one is missing; check state events in BORIS"
        collection.add_skipped(entry, reason)
    return sorted(events, key=lambda event: event.start)
