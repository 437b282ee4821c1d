"""BORIS' table "aggregated events" (CSV, TSV): a row per event."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from vimoclip.boris.events import (
    OTHER_PLAYERS,
    BehaviorEvent,
    EventCollection,
    MediaFile,
    check_reviewed,
    choose_observations,
    class_names,
    media_length,
)
from vimoclip.boris.review_mark import REVIEWED_VARIABLE, is_prediction_row, is_reviewed_value
from vimoclip.errors import UserError
from vimoclip.io import csv
from vimoclip.io.names import normalize_name
from vimoclip.io.numbers import MISSING, TIME_HINT, check_decimal_mark, parse_seconds

TYPE_COLUMN = "Behavior type"  # identifies the header
# each tuple: the name in BORIS 8 and later, then the names in earlier versions
COLUMN_NAMES = {
    "observation": ("Observation id",),
    "description": ("Description",),
    "kind": ("Observation type",),
    "source": ("Source", "Media file"),
    "media": ("Media file name", "Media file"),
    "length": ("Media duration (s)", "Total length"),
    "offset": ("Time offset (s)",),
    "reviewed": (REVIEWED_VARIABLE,),
    "subject": ("Subject",),
    "behavior": ("Behavior",),
    "type": (TYPE_COLUMN,),
    "start": ("Start (s)",),
    "stop": ("Stop (s)",),
    "comment": ("Comment start",),
}
REQUIRED_COLUMNS = ("behavior", "type", "start", "stop")
NOT_FOUND = "Not found"  # BORIS' media file of an event that lies in none
EXPORT_HINT = "export aggregated events from BORIS"
MAX_SECONDS = 1e8  # three years; later times are dates, which count from 1970
PLAYER_PREFIX = re.compile(r"^\s*player #(\d+):", re.IGNORECASE)


def read_aggregated(
    path: Path,
    merge_case: bool = False,
    include_unreviewed: bool = False,
    chosen: re.Pattern[str] | None = None,
) -> EventCollection:
    """Read aggregated events of the observations whose ids `chosen` matches. Raises UserError with the line.

    If an observation has the description of a prediction, or an event its comment, observations that are not marked as
    reviewed are left out, unless `include_unreviewed`: the table does not say which of them somebody coded. Raises
    UserError if none is left."""
    header, *lines = _read_lines(path)
    columns = _column_indices(path, header.cells)
    rows = [(number, {key: _cell(cells, index) for key, index in columns.items()}) for number, cells in lines]
    check_decimal_mark(path, ((number, row[key]) for number, row in rows for key in ("start", "stop")))
    has_predictions = any(is_prediction_row(row.get("description", ""), row.get("comment", "")) for _, row in rows)
    ids = choose_observations(path, (row.get("observation", "") for _, row in rows), chosen)
    rows = [(number, row) for number, row in rows if row.get("observation", "") in ids]
    codes = (row["behavior"] for _, row in rows if row["behavior"])
    names = class_names(path, codes, merge_case, has_predictions)
    collection = EventCollection(sorted(set(names.values()), key=str.casefold), has_predictions=has_predictions)
    # tables of two projects may be joined in one file, with one id for two observations
    rows_by_observation: dict[tuple[str, str], list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for number, row in rows:
        rows_by_observation[row.get("observation", ""), row.get("source", "")].append((number, row))
    for (observation, _), numbered_rows in rows_by_observation.items():
        if has_predictions:
            is_reviewed = all(is_reviewed_value(row.get("reviewed", "")) for _, row in numbered_rows)
            (collection.reviewed if is_reviewed else collection.unreviewed).append(observation)
            if not (is_reviewed or include_unreviewed):
                continue
        media_files = _media_files(path, collection, observation, numbered_rows)
        has_all_files = _has_all_files(numbered_rows, media_files)
        if media_files and not has_all_files:
            reason = "names only the media files with events (no column Source), so the starts of these are unknown"
            collection.add_skipped(observation, reason)
        events: list[BehaviorEvent] = []
        unknown: list[BehaviorEvent] = []
        for number, row in numbered_rows if media_files else ():
            start, stop, is_point = _parse_times(f"{path}:{number}", row)
            behavior, subject = names[row["behavior"]], normalize_name(row.get("subject", ""))
            if start is None or stop is None:
                reason = "has no start" if start is None else "has no stop"
                collection.add_skipped(f"{observation}: {row['behavior']} in line {number}", reason)
                begin, end = 0.0 if start is None else start, math.inf if stop is None else stop
                unknown.append(BehaviorEvent(behavior, subject, begin, end, is_point=False))
            elif not has_all_files:
                unknown.append(BehaviorEvent(behavior, subject, 0.0, math.inf, is_point=False))
            elif row.get("media") == NOT_FOUND and not row.get("source"):
                entry = f"{observation}: {row['behavior']} in line {number}"
                collection.add_skipped(entry, "its media file is not named (no column Source)")
                unknown.append(BehaviorEvent(behavior, subject, start, stop, is_point))
            else:
                events.append(BehaviorEvent(behavior, subject, start, stop, is_point))
        if media_files:
            events.sort(key=lambda event: event.start)
            collection.add_observation(observation, media_files, events, unknown_events=unknown)
    if not include_unreviewed:
        check_reviewed(path, collection, len(rows_by_observation))
    return collection


def _read_lines(path: Path) -> list[csv.CsvLine]:
    """Return the header and the lines below it, without repetitions of the header. Raises UserError."""
    lines = csv.read_lines(path, "export it from BORIS", delimiters="\t,;", header_cell=TYPE_COLUMN)
    headers = [line for line in lines if TYPE_COLUMN in line.cells]
    if not headers:
        raise UserError(f"has no column {TYPE_COLUMN}", EXPORT_HINT, path=path)
    for header in headers:
        if header.cells != headers[0].cells:
            problem = f"is a second header, with other columns than that in line {headers[0].number}"
            raise UserError(problem, "arrange the columns of all tables in one order", path=f"{path}:{header.number}")
    return [headers[0], *(line for line in lines[lines.index(headers[0]) :] if line.cells != headers[0].cells)]


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
    return "" if text in MISSING else text


def _media_files(
    path: Path, collection: EventCollection, observation: str, rows: list[tuple[int, dict[str, str]]]
) -> list[MediaFile]:
    """Return the first player's media files of an observation, in order. An observation without any is skipped."""
    number, first = rows[0]
    source = first.get("source", "")
    named = dict.fromkeys(row.get("media", "") for _, row in sorted(rows, key=lambda item: _start(path, *item)))
    media = [name for name in named if name not in ("", NOT_FOUND)]
    paths = _first_player_entries(source, media if source not in media else ()) or media
    if not paths or "picture" in first.get("kind", "").lower():
        reason = f"{len(rows)} events without a media file, as in a live observation or one of pictures"
        collection.add_skipped(observation or "an observation", reason)
        return []
    if "|" in source:
        collection.add_skipped(f"{observation}, players other than the first", OTHER_PLAYERS)
    seconds: list[float | None] = []
    for text in _first_player_entries(first.get("length", "")):
        try:
            seconds.append(media_length(text))
        except ValueError as error:
            raise UserError(str(error), TIME_HINT, path=f"{path}:{number}") from None
    return list(zip(paths, seconds if len(seconds) == len(paths) else [None] * len(paths), strict=True))


def _has_all_files(rows: list[tuple[int, dict[str, str]]], media_files: list[MediaFile]) -> bool:
    """Return whether an observation's media files are all named: without Source, those without an event are not."""
    first = rows[0][1]
    return bool(first.get("source")) or len(_first_player_entries(first.get("length", ""))) <= len(media_files)


def _start(path: Path, number: int, row: dict[str, str]) -> float:
    return _parse_seconds(f"{path}:{number}", row["start"]) or 0.0


def _first_player_entries(text: str, media: Iterable[str] = ()) -> list[str]:
    """Return what a cell holds for the first player, an entry per media file. `media`: names, which may have a ;."""
    first = PLAYER_PREFIX.sub("", text.split("|")[0])
    for name in media:
        first = first.replace(name, name.replace(";", "\0"))
    return [entry.strip().replace("\0", ";") for entry in first.split(";") if entry.strip()]


def _parse_times(location: str, row: Mapping[str, str]) -> tuple[float | None, float | None, bool]:
    """Return (start, stop, whether it is a point) of an event; a missing time is None. Raises UserError."""
    hint, event_type = "correct the line", row["type"].upper().removesuffix(" EVENT")
    if not row["behavior"] or event_type not in ("STATE", "POINT"):
        raise UserError(f"behavior type {row['type']!r} is neither STATE nor POINT", hint, path=location)
    start = _parse_seconds(location, row["start"])
    stop = start if event_type == "POINT" else _parse_seconds(location, row["stop"])
    if start is not None and stop is not None and stop < start:
        raise UserError(f"{row['behavior']} stops at {stop:g} s, before it starts", hint, path=location)
    offset = _parse_seconds(location, row.get("offset", "")) or 0.0  # BORIS treats a missing offset as 0
    start, stop = (None if time is None else round(time - offset, 6) for time in (start, stop))
    if max(start or 0.0, stop or 0.0) > MAX_SECONDS:
        problem = "its time is a date, as the media file's creation date was used as offset"
        raise UserError(problem, "import the project (.boris), which has the creation dates", path=location)
    return start, stop, event_type == "POINT"


def _parse_seconds(location: str, text: str) -> float | None:
    """Return seconds from a number or h:mm:ss; None if it is missing. Raises UserError."""
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise UserError(str(error), TIME_HINT, path=location) from None
