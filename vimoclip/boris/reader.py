"""Read behavioural events from BORIS projects (.boris, JSON) and from its exported aggregated events (CSV, TSV)."""

import csv
import io
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vimoclip.boris.events import NOT_AVAILABLE, WHOLE_OBSERVATION, BehaviorEvent, EventCollection, MediaFile
from vimoclip.errors import UserError

ETHOGRAM_KEY, OBSERVATIONS_KEY = "behaviors_conf", "observations"
TIME, SUBJECT, CODE, MODIFIER = range(4)  # places in an event
# names since version 8 first, then those of versions before
COLUMN_NAMES = {
    "observation": ("Observation id",),
    "source": ("Source", "Media file"),
    "media": ("Media file name", "Media file"),
    "length": ("Media duration (s)", "Total length"),
    "offset": ("Time offset (s)",),
    "subject": ("Subject",),
    "behavior": ("Behavior",),
    "kind": ("Behavior type",),
    "start": ("Start (s)",),
    "stop": ("Stop (s)",),
}
REQUIRED_COLUMNS = ("behavior", "kind", "start", "stop")
PLAYER_PREFIX = re.compile(r"^\s*player #(\d+):", re.IGNORECASE)


def read_events(path: Path) -> EventCollection:
    """Read a project or aggregated events. Raises UserError for any other file."""
    return read_project(path) if path.suffix.lower() == ".boris" else read_aggregated(path)


def read_aggregated(path: Path) -> EventCollection:
    """Events of all observations. Raises UserError, with the line, for what can't be read."""
    lines = _read_rows(path)
    columns = _column_indices(path, lines[0][1])
    rows = [(number, {key: _cell(row, place) for key, place in columns.items()}) for number, row in lines[1:]]
    found = EventCollection(sorted({row["behavior"] for _, row in rows if row["behavior"]}, key=str.casefold))
    by_observation: dict[str, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for number, row in rows:
        by_observation[row["observation"]].append((number, row))
    for name, of_one in by_observation.items():
        media = _media_files(found, name, [row for _, row in of_one])
        if media:
            events = [event for number, row in of_one if (event := _parse_event(path, number, row, found))]
            found.add(name, media, sorted(events, key=lambda event: event.start))
    return found


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """(number, cells) of the header and of what follows it; blank lines, and what stands before the header, go."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", "export it from BORIS as TSV or CSV", path=path) from None
    head = next((line for line in text.splitlines() if "Behavior type" in line), "")
    between = max("\t,;", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=between)
    try:
        found = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise UserError(f"is no table that can be read ({error})", "export it from BORIS again", path=path) from None
    begin = next((i for i, (_, row) in enumerate(found) if "Behavior type" in [cell.strip() for cell in row]), None)
    if begin is None:
        raise UserError("is no table of aggregated events of BORIS (it has no column Behavior type)", path=path)
    return found[begin:]


def _column_indices(path: Path, header: list[str]) -> dict[str, int]:
    """Key of COLUMNS -> place."""
    places = {cell.strip(): place for place, cell in reversed(list(enumerate(header)))}
    found = {key: next((places[n] for n in names if n in places), None) for key, names in COLUMN_NAMES.items()}
    for key in REQUIRED_COLUMNS:
        if found[key] is None:
            raise UserError(
                f"has no column {COLUMN_NAMES[key][0]}", "export aggregated events from BORIS again", path=path
            )
    if found["source"] is None and found["media"] is None:
        raise UserError("says of no event which media file it is in", "export it from BORIS again", path=path)
    return {key: place for key, place in found.items() if place is not None}


def _cell(row: list[str], place: int) -> str:
    text = row[place].strip() if place < len(row) else ""
    return "" if text == NOT_AVAILABLE else text


def _media_files(found: EventCollection, name: str, rows: list[dict[str, str]]) -> list[MediaFile]:
    """The media files of an observation, in order; none where it has none, which is noted."""
    source, lengths = rows[0].get("source", ""), rows[0].get("length", "")
    files, seconds = _first_player_entries(source), _first_player_entries(lengths)
    if not files:  # as some versions have it: each event's own file only
        files = list(dict.fromkeys(row["media"] for row in rows if row.get("media") not in ("", None, "Not found")))
    if not files:
        found.leave_out(name or "an observation", f"{len(rows)} events that are in no media file (a live observation?)")
    if "|" in source:
        found.leave_out(f"{name}, players beside the first", "media files that show the same from elsewhere")
    of_each = [_parse_seconds(text) for text in seconds] if len(seconds) == len(files) else [None] * len(files)
    return [MediaFile(file, length) for file, length in zip(files, of_each, strict=True)]


def _first_player_entries(text: str) -> list[str]:
    """What a cell says of the first player, an entry a media file."""
    first = text.split("|")[0]
    return [part.strip() for part in PLAYER_PREFIX.sub("", first).split(";") if part.strip()]


def _parse_event(path: Path, number: int, row: Mapping[str, str], found: EventCollection) -> BehaviorEvent | None:
    """None, and noted, for what has no time or no end."""
    what = f"{row.get('observation', '')}: {row['behavior']} in line {number}"
    start, stop = _parse_seconds(row["start"]), _parse_seconds(row["stop"])
    kind = row["kind"].upper()
    if not row["behavior"] or kind not in ("STATE", "POINT"):
        raise UserError(
            f"{path}:{number}: the behavior type {row['kind']!r} is neither STATE nor POINT", "mend the line"
        )
    if start is None or (kind == "STATE" and stop is None):
        found.leave_out(what, "has no time" if start is None else "has no end")
        return None
    offset = _parse_seconds(row.get("offset", "")) or 0.0
    point = kind == "POINT"
    end = start if point or stop is None else stop
    if end < start:
        raise UserError(f"{path}:{number}: {row['behavior']} stops at {end:g} s, before it starts", "mend the line")
    subject = row.get("subject", "")
    return BehaviorEvent(row["behavior"], subject, round(start - offset, 6), round(end - offset, 6), point)


def _parse_seconds(text: str) -> float | None:
    """Seconds, or h:mm:ss; None where there are none."""
    sign, text = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        return None
    value = sign * sum(part * 60**place for place, part in enumerate(reversed(parts)))
    return value if math.isfinite(value) else None


def read_project(path: Path) -> EventCollection:
    """Events of all observations of media files. Raises UserError for what is no project."""
    try:
        project = json.loads(path.read_text(encoding="utf-8-sig"))
        kinds = {row["code"]: str(row["type"]) for _, row in _sorted_ethogram(project[ETHOGRAM_KEY])}
        observations = dict(project[OBSERVATIONS_KEY])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"is no project of BORIS ({error!r})", "name a .boris file, or aggregated events", path=path
        ) from None
    found = EventCollection(list(kinds))
    for name, observation in observations.items():
        try:
            _add_observation(found, name, observation, kinds)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(
                f"the observation {name} can't be read ({error!r})", "open and save it in BORIS", path=path
            ) from None
    return found


def _sorted_ethogram(ethogram: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(
        ethogram.items(), key=lambda item: (not item[0].isdecimal(), int(item[0]) if item[0].isdecimal() else 0)
    )


def _add_observation(found: EventCollection, name: str, observation: dict[str, Any], kinds: dict[str, str]) -> None:
    if observation.get("type", "MEDIA") != "MEDIA":
        found.leave_out(name, f"is an observation of {str(observation['type']).lower()}, not of media files")
        return
    players = {number: list(files) for number, files in (observation.get("file") or {}).items() if files}
    if not players.get("1"):
        found.leave_out(name, "names no media file")
        return
    if len(players) > 1:
        others = sum(len(files) for number, files in players.items() if number != "1")
        found.leave_out(f"{name}, players beside the first", f"{others} media files that show the same from elsewhere")
    lengths = (observation.get("media_info") or {}).get("length") or {}
    media = [MediaFile(file, float(lengths[file]) if lengths.get(file) else None) for file in players["1"]]
    begin, end = (observation.get("observation time interval") or (0, 0))[:2]  # [0, 0]: all of it
    coded = (float(begin), float(end)) if end else WHOLE_OBSERVATION
    found.add(name, media, _pair_state_events(found, name, observation, kinds), coded)


def _pair_state_events(
    found: EventCollection, name: str, observation: dict[str, Any], kinds: dict[str, str]
) -> list[BehaviorEvent]:
    """Events with their ends. Of a state each second event of a subject, behaviour and modifiers is the end."""
    offset = float(observation.get("time offset") or 0.0)
    open_since: dict[tuple[str, str, str], float] = {}
    events, unknown = [], defaultdict[str, int](int)
    keys = Counter((str(row[SUBJECT]), str(row[CODE]), str(row[MODIFIER])) for row in observation["events"])
    for row in sorted(observation["events"], key=lambda row: float(row[TIME])):
        time, subject, code = round(float(row[TIME]) - offset, 6), str(row[SUBJECT]), str(row[CODE])
        kind, key = kinds.get(code, ""), (subject, code, str(row[MODIFIER]))
        if not kind:
            unknown[code] += 1
        elif not kind.upper().startswith("STATE"):
            events.append(BehaviorEvent(code, subject, time, time, point=True))
        elif keys[key] % 2:  # where one is missing all behind it would be turned round
            open_since.setdefault(key, time)
        elif (start := open_since.pop(key, None)) is None:
            open_since[key] = time
        else:
            events.append(BehaviorEvent(code, subject, start, time, point=False))
    for code, count in unknown.items():
        found.leave_out(f"{name}: {code}", f"{count} events of a behaviour that the ethogram has not")
    for key, start in open_since.items():
        what = f"{name}: {key[1]} of {key[0] or 'no subject'} from {start:g} s on"
        found.leave_out(what, f"has {keys[key]} starts and stops, so that one is missing; check state events in BORIS")
    return sorted(events, key=lambda event: event.start)
