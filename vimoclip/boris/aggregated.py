"""Aggregated events of BORIS, a line an event with start and stop, as CSV or TSV; columns differ between versions."""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from vimoclip.boris.events import NOT_AVAILABLE, BehaviorEvent, EventCollection, MediaFile
from vimoclip.errors import UserError

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
