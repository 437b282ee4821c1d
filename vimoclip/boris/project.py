"""A project of BORIS: JSON with an ethogram and observations, whose state events begin and end one after the other."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from vimoclip.boris.events import WHOLE_OBSERVATION, BehaviorEvent, EventCollection, MediaFile
from vimoclip.errors import UserError

ETHOGRAM_KEY, OBSERVATIONS_KEY = "behaviors_conf", "observations"
TIME, SUBJECT, CODE, MODIFIER = range(4)  # places in an event


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
