"""Projects of predictions: an observation per video, with the predicted bouts, to be reviewed and corrected in BORIS.

A prediction replaces an earlier one of the same video; what somebody has edited, reviewed, renamed or deleted stays."""

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip.boris.files import BoutLike, behavior_code, event_rows
from vimoclip.boris.project import COMMENT, ETHOGRAM_KEY, OBSERVATIONS_KEY, SUBJECT, TIME
from vimoclip.boris.review_mark import (
    DESCRIPTION_START,
    NOT_REVIEWED,
    OBSERVATION_MARK,
    PROJECT_MARK,
    REVIEWED,
    REVIEWED_VARIABLE,
    VARIABLES_KEY,
    is_reviewed,
)
from vimoclip.errors import UserError, escape_line
from vimoclip.io import atomic, yaml_json
from vimoclip.io.palette import distinct_colors

SCHEMA = 1
PLAYERS = tuple(map(str, range(1, 9)))
PROJECT_NAME = "Predictions of ViMoCLIP"
PROJECT_DESCRIPTION = (
    "Each observation holds the behaviours that ViMoCLIP predicted in a video. The comment of an event is its score.\n"
    f"Correct the events of an observation, then edit the observation and set its independent variable "
    f'"{REVIEWED_VARIABLE}" to "{REVIEWED}". Only reviewed observations are imported as training data.\n'
    "A new prediction replaces an observation only if nobody has edited, reviewed or renamed it."
)
REVIEWED_DEFINITION = {
    "label": REVIEWED_VARIABLE,
    "description": f'"{REVIEWED}": somebody has corrected the predicted events',
    "type": "value from set",
    "default value": NOT_REVIEWED,
    "possible values": f"{NOT_REVIEWED},{REVIEWED}",
}
HINT = "rename it, or use another folder with -o"


@dataclass(frozen=True)
class PredictedObservation:
    """The bouts of one video. `name`: unique; `media`: path relative to the project, with /; `note`: added to the
    description."""

    name: str
    media: str
    seconds: float
    fps: float
    bouts: tuple[BoutLike, ...]
    note: str = ""


class PredictionsUpdate(NamedTuple):
    """Names of the given observations: new ones, replaced ones, those left as somebody changed or deleted them, and
    those that are marked as reviewed."""

    added: list[str]
    replaced: list[str]
    kept: list[str]
    reviewed: list[str]


def check_predictions(path: Path) -> None:
    """Raise UserError if a file exists that is not a project of predictions."""
    if path.exists():
        _read_own_project(path)


def write_predictions(
    path: Path, observations: Sequence[PredictedObservation], behaviors: Sequence[str]
) -> PredictionsUpdate:
    """Write predictions into a project, a new one or one that exists. Raises UserError, OSError.

    `behaviors`: the ethogram. Everything else in an existing project stays as it is, also what BORIS has added."""
    project = _read_own_project(path) if path.exists() else _new_project()
    before = json.dumps(project) if path.exists() else ""
    mark, contents = project[PROJECT_MARK], project[OBSERVATIONS_KEY]
    actions = [*behaviors, *(bout[0] for item in observations for bout in item.bouts)]
    codes, ids_by_name = _behavior_codes(actions), _ids_by_name(contents)
    update, used = PredictionsUpdate([], [], [], []), set[str]()
    for item in observations:
        name, ids = item.name, ids_by_name[item.name]
        digest = mark["observations"].get(name)
        unedited = next((id_ for id_ in ids if digest and _digest(id_, contents[id_]) == digest), None)
        if unedited is not None:
            update.replaced.append(name)
            observation_id, content = unedited, contents[unedited]
        elif ids or digest:  # edited, or deleted
            update.kept.append(name)
            update.reviewed.extend([name] if any(is_reviewed(contents[id_]) for id_ in ids) else ())
            continue
        else:
            update.added.append(name)
            observation_id, content = _unique(_observation_id(name), contents), _new_observation()
        contents[observation_id] = content = _with_prediction(content, item, codes)
        mark["observations"][name] = _digest(observation_id, content)
        used |= {codes[bout[0]] for bout in item.bouts}
    _add_behaviors(project, codes.values(), used)
    _define_variable(project)
    if json.dumps(project) != before:
        # ASCII, since BORIS reads a project in the encoding of the system
        atomic.write_text(path, json.dumps(project, indent=1) + "\n")
    return update


def _read_own_project(path: Path) -> dict[str, Any]:
    """Return a project of predictions. Raises UserError for any other file."""
    project = yaml_json.read_json(path, HINT)
    try:
        mark = project[PROJECT_MARK]
        has_members = all(isinstance(mark[key], kind) for key, kind in (("observations", dict), ("behaviors", list)))
        is_own = has_members and mark["schema"] == SCHEMA
        is_own &= all(isinstance(content, dict) for content in project[OBSERVATIONS_KEY].values())
        is_own &= all(key.isdecimal() and isinstance(row["code"], str) for key, row in project[ETHOGRAM_KEY].items())
        variables = project.get(VARIABLES_KEY, {})
        is_own &= all(key.isdecimal() and isinstance(row["label"], str) for key, row in variables.items())
    except (KeyError, TypeError, AttributeError):
        is_own = False
    if not is_own:
        raise UserError("exists and is not a project of predictions of this version", HINT, path=path)
    return project


def _new_project() -> dict[str, Any]:
    return {
        "time_format": "hh:mm:ss",
        "project_date": "",
        "project_name": PROJECT_NAME,
        "project_description": PROJECT_DESCRIPTION,
        "project_format_version": "7.0",
        "subjects_conf": {},
        ETHOGRAM_KEY: {},
        OBSERVATIONS_KEY: {},
        "behavioral_categories": [],
        VARIABLES_KEY: {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
        PROJECT_MARK: {"schema": SCHEMA, "observations": {}, "behaviors": []},
    }


def _new_observation() -> dict[str, Any]:
    """Return what BORIS writes for an observation of media files, besides the prediction."""
    return {
        "type": "MEDIA",
        "date": "",  # nobody has observed it
        "time offset": 0.0,
        "observation time interval": [0, 0],
        VARIABLES_KEY: {REVIEWED_VARIABLE: NOT_REVIEWED},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "media_creation_date_as_offset": False,
        "media_scan_sampling_duration": 0,
        "image_display_duration": 1,
        "close_behaviors_between_videos": False,
    }


def _behavior_codes(actions: Iterable[str]) -> dict[str, str]:
    """Return the code of each action; those of two actions differ."""
    codes: dict[str, str] = {}
    for action in dict.fromkeys(actions):
        codes[action] = _unique(behavior_code(action), codes.values())
    return codes


def _ids_by_name(contents: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the ids of predicted observations by the names that they had when they were written."""
    ids: dict[str, list[str]] = defaultdict(list)
    for observation_id, content in contents.items():
        if isinstance(name := _mark_of(content).get("name"), str):
            ids[name].append(observation_id)
    return ids


def _with_prediction(
    content: Mapping[str, Any], item: PredictedObservation, codes: Mapping[str, str]
) -> dict[str, Any]:
    """Return an observation with the events, description and media file of a prediction, else as it is.

    The media file stays if somebody has exchanged it, or changed its path."""
    bouts = [(codes[action], start, stop, score) for action, start, stop, score in item.bouts]
    new = {
        **content,
        "description": " ".join(f"{DESCRIPTION_START} {item.note}".split()),
        "events": event_rows(bouts, item.fps, item.seconds),
        OBSERVATION_MARK: {"name": item.name, "media": item.media},
    }
    files = content.get("file") or {}
    if {player: paths for player, paths in files.items() if paths} in ({}, {"1": [_mark_of(content).get("media")]}):
        new["file"] = {player: [item.media] if player == "1" else [] for player in PLAYERS}
        facts = {"length": item.seconds, "fps": item.fps, "hasVideo": True, "hasAudio": False}
        info = {key: {item.media: fact} for key, fact in facts.items()}
        new["media_info"] = {**(content.get("media_info") or {}), **info, "offset": {"1": 0.0}}
    return new


def _mark_of(content: Mapping[str, Any]) -> dict[str, Any]:
    mark = content.get(OBSERVATION_MARK)
    return mark if isinstance(mark, dict) else {}


def _digest(observation_id: str, content: Mapping[str, Any]) -> str | None:
    """Return a hash of what somebody edits in a prediction, or None if it can't be read.

    BORIS changes the order and format of these when it saves, but not this hash."""
    try:
        rows = sorted([f"{float(row[TIME]):.3f}", *map(str, row[SUBJECT : COMMENT + 1])] for row in content["events"])
        parts = [
            observation_id,
            content["description"],
            content[VARIABLES_KEY][REVIEWED_VARIABLE],
            float(content["time offset"] or 0),
            bool(content.get("media_creation_date_as_offset")),
            rows,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _add_behaviors(project: dict[str, Any], codes: Collection[str], used: Container[str]) -> None:
    """Add codes to the ethogram: new ones, and those that somebody has renamed or deleted if predicted events have
    them."""
    ethogram, written = project[ETHOGRAM_KEY], project[PROJECT_MARK]["behaviors"]
    existing = {row["code"] for row in ethogram.values()}
    used_colors = {str(row.get("color")).lower() for row in ethogram.values()}
    colors = (color for color in distinct_colors() if color.lower() not in used_colors)
    for code in codes:
        if code not in existing and (code in used or code not in written):
            row = {"type": "State event", "key": "", "code": code, "description": "", "color": next(colors)}
            ethogram[_next_key(ethogram)] = row | {"category": "", "modifiers": {}, "excluded": "", "coding map": ""}
    written += [code for code in codes if code not in written]


def _define_variable(project: dict[str, Any]) -> None:
    variables = project.setdefault(VARIABLES_KEY, {})
    if all(row["label"] != REVIEWED_VARIABLE for row in variables.values()):
        variables[_next_key(variables)] = dict(REVIEWED_DEFINITION)


def _next_key(rows: Mapping[str, Any]) -> str:
    return str(max(map(int, rows), default=-1) + 1)


def _observation_id(name: str) -> str:
    """Return a name as BORIS accepts it: without spaces at its ends and control characters."""
    return escape_line(name).strip() or "video"


def _unique(text: str, others: Container[str]) -> str:
    numbered = (f"{text} ({number})" for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([text], numbered) if candidate not in others)
