"""Projects of BORIS (.boris, .boris.gz): JSON."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from vimoclip.boris import review_mark
from vimoclip.boris.events import (
    OTHER_PLAYERS,
    BehaviorEvent,
    EventCollection,
    MediaFile,
    check_reviewed,
    choose_observations,
    class_names,
    media_length,
    media_starts,
)
from vimoclip.errors import UserError
from vimoclip.io import yaml_json
from vimoclip.io.names import normalize_name
from vimoclip.io.numbers import parse_seconds

ETHOGRAM_KEY, OBSERVATIONS_KEY = "behaviors_conf", "observations"
TIME, SUBJECT, CODE, MODIFIER, COMMENT = range(5)  # indices in an event of a project
AUTOMATIC_STOP = "Event automatically added by the fix unpaired state events function"  # BORIS' comment
STOP_TOLERANCE = 0.003  # seconds between an automatic stop and the end of the media file
PROJECT_HINT = "name a .boris file, or aggregated events"


def read_project(
    path: Path,
    merge_case: bool = False,
    include_unreviewed: bool = False,
    chosen: re.Pattern[str] | None = None,
) -> EventCollection:
    """Read the observations of a project whose ids `chosen` matches. Raises UserError if the file is none, or an
    observation can't be read.

    Unless `include_unreviewed`, predictions are left out that nobody has reviewed, and of a project that was written
    from predictions all other observations that are not marked as reviewed. Raises UserError if none is left."""
    try:
        project = yaml_json.read_json(path, PROJECT_HINT)
        ethogram = sorted(
            project[ETHOGRAM_KEY].items(), key=lambda item: int(item[0]) if item[0].isdecimal() else math.inf
        )
        event_types = {str(row["code"]): str(row["type"]).upper() for _, row in ethogram}
        observations = dict(project[OBSERVATIONS_KEY])
        is_ours = review_mark.is_predictions_project(project)
        predicted = {
            name
            for name, content in observations.items()
            if is_ours or (isinstance(content, dict) and review_mark.is_prediction(content))
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"is not a BORIS project ({error!r})", PROJECT_HINT, path=path) from None
    names = class_names(path, event_types, merge_case, bool(predicted))
    behaviors = list(dict.fromkeys(names[code] for code in event_types))
    collection = EventCollection(behaviors, has_predictions=bool(predicted))
    ids = choose_observations(path, observations, chosen)
    for observation, content in observations.items():
        if observation not in ids:
            continue
        try:
            if observation in predicted:
                is_reviewed = review_mark.is_reviewed(content)
                (collection.reviewed if is_reviewed else collection.unreviewed).append(observation)
                if not (is_reviewed or include_unreviewed):
                    continue
            _add_observation(collection, observation, content, event_types, names)
        except ValueError as error:
            raise UserError(f"observation {observation}: {error}", "correct it in BORIS", path=path) from None
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            problem = f"observation {observation} can't be read ({error!r})"
            raise UserError(problem, "open the project in BORIS and save it", path=path) from None
    if not include_unreviewed:
        check_reviewed(path, collection, len(ids))
    return collection


def _add_observation(
    collection: EventCollection,
    observation: str,
    content: dict[str, Any],
    event_types: Mapping[str, str],
    names: Mapping[str, str],
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
    media_files = [(file, media_length(lengths.get(file))) for file in players["1"]]
    start, stop = map(parse_seconds, (content.get("observation time interval") or (0, 0))[:2])
    coded_interval = (start or 0.0, stop or math.inf)  # [0, 0]: the whole observation
    times = _event_times(content, media_files)
    rows = sorted(zip(times, content["events"], strict=True), key=lambda item: item[0])
    events, unknown = _pair_state_events(collection, observation, rows, event_types, names)
    collection.add_observation(observation, media_files, events, coded_interval, unknown)


def _event_times(content: Mapping[str, Any], media_files: Sequence[MediaFile]) -> list[float]:
    """Return the time of each event in seconds since the start of the first media file. Raises ValueError.

    BORIS adds the observation's offset, and the creation date of the media file that is shown, if it is used."""
    offset = parse_seconds(content.get("time offset")) or 0.0  # BORIS treats a missing offset as 0
    creation_dates: list[float] = []
    if content.get("media_creation_date_as_offset") and content["events"]:
        dates = (content.get("media_info") or {}).get("media_creation_time") or {}
        creation_dates = [_creation_date(file, dates) for file, _ in media_files]
    ends = [
        start + seconds for start, (_, seconds) in zip(media_starts(media_files), media_files, strict=True) if seconds
    ]
    times = []
    for row in content["events"]:
        time = parse_seconds(row[TIME])
        if time is None:
            raise ValueError(f"an event of {row[CODE]} has no time")
        # BORIS stops state events at the end of a media file without adding the offset or the date
        is_stop = AUTOMATIC_STOP in row[COMMENT:] and any(abs(time - end) < STOP_TOLERANCE for end in ends)
        is_undated = bool(creation_dates) and 0 <= time < min(creation_dates)
        if not (is_stop or is_undated):
            time -= offset
            if creation_dates:
                time = _since_creation(time, creation_dates, media_files)
        times.append(round(time, 6))
    return times


def _creation_date(file: str, dates: Mapping[str, Any]) -> float:
    """Return a media file's creation date, in seconds since 1970. Raises ValueError if it is not there.

    BORIS records it by the path of the file when the observation was open, which may be longer than that of `file`."""
    parts = PureWindowsPath(file).parts
    found = {parse_seconds(dates[key]) for key in dates if key == file}
    found = found or {parse_seconds(date) for key, date in dates.items() if _ends_with(key, parts)}
    found = found or {parse_seconds(date) for key, date in dates.items() if _ends_with(key, parts[-1:])}
    date = next(iter(found), None)
    if date is None or len(found) > 1:
        raise ValueError(
            f"times count from the creation date of {file}, which it does not have; open it in BORIS, which reads the "
            "date, and save the project"
        )
    return date


def _ends_with(path: str, parts: tuple[str, ...]) -> bool:
    return PureWindowsPath(path).parts[-len(parts) :] == parts


def _since_creation(time: float, creation_dates: Sequence[float], media_files: Sequence[MediaFile]) -> float:
    """Return the time in the observation of an event whose time has the creation date of a media file added.

    It is the file in which the event then lies, else the nearest. Raises ValueError if it may be two files."""
    if len(set(creation_dates)) == 1:
        return time - creation_dates[0]
    if any(seconds is None for _, seconds in media_files[:-1]):
        return 0.0  # the observation is skipped
    candidates: dict[float, float] = {}
    for date, start, (_, seconds) in zip(creation_dates, media_starts(media_files), media_files, strict=True):
        in_observation = round(time - date, 6)
        outside = max(start - in_observation, in_observation - start - (seconds or math.inf), 0.0)
        candidates[in_observation] = min(outside, candidates.get(in_observation, math.inf))
    if sum(not outside for outside in candidates.values()) > 1:
        problem = "times count from the creation dates of its media files, which overlap, so an event may be in any"
        raise ValueError(f"{problem}; make an observation of each media file")
    return min(candidates, key=candidates.__getitem__)


def _pair_state_events(
    collection: EventCollection,
    observation: str,
    rows: Sequence[tuple[float, Sequence[Any]]],
    event_types: Mapping[str, str],
    names: Mapping[str, str],
) -> tuple[list[BehaviorEvent], list[BehaviorEvent]]:
    """Return the events of an observation, sorted by start, and those whose starts and stops are unknown.

    A project lists a state event as two rows: every second row of the same subject, behaviour and modifiers is a stop.
    State events with an odd number of rows are skipped, as are behaviours that are not in the ethogram. `rows`: time
    and row of each event, sorted by time."""
    codes = {normalize_name(code): code for code in event_types} | {code: code for code in event_types}
    start_times: dict[tuple[str, str, str], float] = {}
    events, not_defined = [], Counter[str]()
    keys = [(normalize_name(str(row[SUBJECT])), str(row[CODE]), str(row[MODIFIER])) for _, row in rows]
    num_rows = Counter(keys)
    for (time, _), key in zip(rows, keys, strict=True):
        subject, written, _ = key
        code = codes.get(written) or codes.get(normalize_name(written))
        if code is None:
            not_defined[written] += 1
        elif not event_types[code].startswith("STATE"):
            events.append(BehaviorEvent(names[code], subject, time, time, is_point=True))
        elif num_rows[key] % 2:  # starts and stops would be swapped after the missing one
            start_times.setdefault(key, time)
        elif (start := start_times.pop(key, None)) is None:
            start_times[key] = time
        else:
            events.append(BehaviorEvent(names[code], subject, start, time, is_point=False))
    for written, count in not_defined.items():
        collection.add_skipped(f"{observation}: {written}", f"is not in the ethogram ({count} events)")
    for key, start in start_times.items():
        entry = f"{observation}: {key[1]} of {key[0] or 'no subject'} from {start:g} s on"
        reason = f"has {num_rows[key]} starts and stops: one is missing; check state events in BORIS"
        collection.add_skipped(entry, reason)
    unknown = [
        BehaviorEvent(names[codes.get(code) or codes[normalize_name(code)]], subject, start, math.inf, is_point=False)
        for (subject, code, _), start in start_times.items()
    ]
    return sorted(events, key=lambda event: event.start), unknown
