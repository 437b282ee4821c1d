"""Runs BORIS' own code on projects: `python -m tests.boris.boris_program` reads a job from stdin, prints the result.

Runs in a separate process with an offscreen Qt. The video player (libmpv) is not loaded."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import types
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from tests.conftest import REPOSITORY


def run(job: str, **content: Any) -> Any:
    """Run a job of JOBS in BORIS and return its result."""
    text = json.dumps({"job": job, **content})
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-m", "tests.boris.boris_program"]
    process = subprocess.run(command, input=text, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def project(
    behaviors: dict[str, str], observations: dict[str, list[list[Any]]], media: dict[str, float], offset: float = 0.0
) -> dict[str, Any]:
    """Return a project as BORIS 8 saves it.

    `behaviors`: code -> State event or Point event. `observations`: id -> events. `media`: file -> seconds; all
    observations have these media files, which follow each other."""
    config = _modules("config")[0]
    ethogram = {
        str(number): {"type": event_type, "key": "", "code": code, "description": "", "color": "", "category": "",
                      "modifiers": "", "excluded": "", "coding map": ""}
        for number, (code, event_type) in enumerate(behaviors.items())
    }  # fmt: skip
    subjects = sorted({row[1] for events in observations.values() for row in events} - {""})
    content = json.loads(json.dumps(config.EMPTY_PROJECT))
    content["behaviors_conf"] = ethogram
    content["subjects_conf"] = {str(i): {"key": "", "name": name, "description": ""} for i, name in enumerate(subjects)}
    for name, events in observations.items():
        content["observations"][name] = {
            "file": {str(player): list(media) if player == 1 else [] for player in range(1, 9)},
            "type": "MEDIA",
            "date": "2026-01-01T10:00:00",
            "description": "",
            "time offset": offset,
            "events": events,
            "observation time interval": [0, 0],
            "independent_variables": {},
            "media_info": {
                "length": media,
                "fps": dict.fromkeys(media, 25.0),
                "hasVideo": dict.fromkeys(media, True),
                "hasAudio": dict.fromkeys(media, False),
                "offset": {"1": 0.0},
            },
        }
    return content


def _modules(*names: str) -> list[Any]:
    """Import modules of BORIS without running its package, which opens the program's window."""
    if "boris" not in sys.modules:
        spec = importlib.util.find_spec("boris")
        assert spec and spec.submodule_search_locations
        package, player = types.ModuleType("boris"), types.ModuleType("boris.mpv2")
        package.__path__ = list(spec.submodule_search_locations)
        player.__dict__.update(sofile="", dll="", MPV=object)
        sys.modules |= {"boris": package, "boris.mpv2": player}
        setattr(package, "mpv2", player)  # noqa: B010
    return [importlib.import_module(f"boris.{name}") for name in names]


def paste(content: dict[str, Any]) -> Any:
    """Paste a text into an empty observation; return its events and the warnings."""
    from PyQt5.QtWidgets import QApplication, QMessageBox

    (operations,) = _modules("event_operations")
    application = QApplication([])
    warnings: list[str] = []
    setattr(QMessageBox, "warning", lambda *args: warnings.append(str(args[2])))  # noqa: B010 - it would block
    clipboard: Any = application.clipboard()
    clipboard.setText(content["text"])
    events: list[Any] = []
    window = types.SimpleNamespace(playerType="MEDIA", observationId="one", pj={"observations": {"one": {}}})
    window.pj["observations"]["one"]["events"] = events
    for name in ("project_changed", "load_tw_events", "update_realtime_plot"):
        setattr(window, name, lambda *_, **__: None)
    operations.paste_clipboard_to_events(window)
    return {"events": window.pj["observations"]["one"]["events"], "warnings": warnings}


def aggregate(content: dict[str, Any]) -> Any:
    """Return the aggregated events of all observations as tsv and as csv. Asserts that state events are valid."""
    export, config, functions, utilities = _modules("export_observation", "config", "project_functions", "utilities")
    pj = utilities.convert_time_to_decimal(content["project"])
    behaviors = [row["code"] for row in pj["behaviors_conf"].values()]
    subjects = [config.NO_FOCAL_SUBJECT, *(row["name"] for row in pj["subjects_conf"].values())]
    # TIME_EVENTS: for the full observation, BORIS cuts at the media's duration, also if times have an offset
    parameters = {"time": config.TIME_EVENTS, config.SELECTED_SUBJECTS: subjects, config.SELECTED_BEHAVIORS: behaviors}
    rows: list[list[Any]] = []
    for name, observation in pj["observations"].items():
        is_valid, message = functions.check_state_events_obs(name, pj["behaviors_conf"], observation)
        assert is_valid, message
        data, _ = export.export_aggregated_events(pj, parameters, name)
        rows += [list(row) for row in data]
    tablib = importlib.import_module("tablib")
    subject = HEADER.index("Subject")
    variables = [row["label"] for row in pj["independent_variables"].values()]
    table = tablib.Dataset(*rows, headers=[*HEADER[:subject], *variables, *HEADER[subject:]])
    return {suffix: table.export(suffix) for suffix in ("tsv", "csv")}


def code(content: dict[str, Any]) -> Any:
    """Code behaviours in the only observation of a project, and return its events.

    `coded`: (file that is shown, seconds since the start of the first file, behaviour)."""
    write_event, utilities = _modules("write_event", "utilities")
    pj = utilities.convert_time_to_decimal(content["project"])
    ((name, observation),) = pj["observations"].items()
    window = MagicMock(pj=pj, observationId=name, playerType="MEDIA", currentSubject="", subject_name_index={})
    window.liveObservationStarted, window.state_behaviors_codes = False, []
    window.checkSameEvent.return_value = False
    window.getLaps.return_value = Decimal(0)
    for file, seconds, behavior in content["coded"]:
        window.dw_player = [types.SimpleNamespace(player=types.SimpleNamespace(playlist=[{"filename": file}]))]
        window.dw_player[0].player.playlist_pos = 0
        row = next(row for row in pj["behaviors_conf"].values() if row["code"] == behavior)
        assert write_event.write_event(window, {**row, "modifiers": {}}, Decimal(str(seconds))) == 0
    return observation["events"]


def analyse(content: dict[str, Any]) -> Any:
    """Return BORIS' analyses of each observation, over its whole length.

    `budget`: behaviour -> its row of the synthetic time budget; `pauses`: behaviour -> its row of the time budget with
    inter-event durations; `bins`: interval -> behaviour -> its row, in `bin_seconds`; `states`: the behavioural string
    as a list; `matrices`: of transitions, mode -> text. The key "" is of all observations, with `matrices` only."""
    budgets, config, database, utilities = _modules("time_budget_functions", "config", "db_functions", "utilities")
    pj = utilities.convert_time_to_decimal(content["project"])
    behaviors = [row["code"] for row in pj["behaviors_conf"].values()]
    parameters = {
        config.SELECTED_SUBJECTS: [config.NO_FOCAL_SUBJECT],
        config.SELECTED_BEHAVIORS: behaviors,
        config.INCLUDE_MODIFIERS: False,
        config.EXCLUDE_BEHAVIORS: False,
        config.EXCLUDED_BEHAVIORS: [],
        "time": config.TIME_FULL_OBS,
        config.START_TIME: Decimal(0),
        config.END_TIME: Decimal(1),  # not used; both 0 mean that there are no times
        config.TIME_BIN_SIZE: content["bin_seconds"],
    }
    found, strings = {}, []
    for name in pj["observations"]:
        is_valid, _, budget = budgets.synthetic_time_budget(pj, [name], parameters)
        assert is_valid
        cursor = database.load_events_in_db(pj, parameters[config.SELECTED_SUBJECTS], [name], behaviors)
        pauses, _ = budgets.time_budget_analysis(pj["behaviors_conf"], cursor, [name], parameters)
        _, bins = budgets.synthetic_time_budget_bin(pj, [name], parameters)
        strings.append(_behavioral_string(pj, name, parameters))
        found[name] = {
            "budget": _by_behavior(budget, budget[-1], 2),
            "pauses": {row["behavior"]: row for row in pauses},
            "bins": {row[2]: _by_behavior(bins, row, 3) for row in bins[3:]},
            "states": strings[-1].split("|") if strings[-1] else [],
            "matrices": _transition_matrices(strings[-1:], behaviors),
        }
    return {**found, "": {"matrices": _transition_matrices(strings, behaviors)}}


def kappa(content: dict[str, Any]) -> Any:
    """Return Cohen's kappa, rounded to three decimals. `pairs`: two observations, and the step in seconds."""
    irr, config, database, utilities = _modules("irr", "config", "db_functions", "utilities")
    pj = utilities.convert_time_to_decimal(content["project"])
    behaviors = [row["code"] for row in pj["behaviors_conf"].values()]
    subjects = [config.NO_FOCAL_SUBJECT]
    is_valid, message, connection = database.load_aggregated_events_in_db(pj, subjects, [], behaviors)
    assert is_valid, message
    cursor = connection.cursor()
    return [irr.cohen_kappa(cursor, a, b, Decimal(step), subjects, False)[0] for a, b, step in content["pairs"]]


def _by_behavior(table: Any, row: tuple[Any, ...], first: int) -> dict[str, dict[str, Any]]:
    """Return behaviour -> statistic -> cell of a row of a table that BORIS shows; `first`: column of the first cell."""
    found: dict[str, dict[str, Any]] = {}
    for behavior, statistic, cell in list(zip(table[1], table[2], row, strict=True))[first:]:
        found.setdefault(behavior, {})[statistic] = cell
    return found


def _behavioral_string(pj: dict[str, Any], name: str, parameters: dict[str, Any]) -> str:
    export, config = _modules("export_observation", "config")
    text: str = export.events_to_behavioral_sequences(pj, name, config.NO_FOCAL_SUBJECT, parameters, "|")
    return text


def _transition_matrices(strings: list[str], behaviors: list[str]) -> dict[str, str | bool]:
    (transitions,) = _modules("transitions")
    sequences, observed = transitions.behavioral_strings_analysis(strings, "|")
    names = sorted({*observed, *behaviors})
    modes = ("number", "frequencies_after_behaviors")
    return {mode: transitions.observed_transitions_matrix(sequences, list(names), mode=mode) for mode in modes}


HEADER = ["Observation id", "Observation date", "Description", "Observation type", "Source", "Time offset (s)"]
HEADER += ["Coding duration", "Media duration (s)", "FPS (frame/s)", "Subject"]
HEADER += ["Observation duration by subject by observation", "Behavior", "Behavioral category", "Behavior type"]
HEADER += ["Start (s)", "Stop (s)", "Duration (s)", "Media file name", "Image index start", "Image index stop"]
HEADER += ["Image file path start", "Image file path stop", "Comment start", "Comment stop"]


def use_window(content: dict[str, Any]) -> Any:
    return importlib.import_module("tests.boris.boris_window").perform(content)


JOBS = {
    "paste": paste,
    "aggregate": aggregate,
    "code": code,
    "use_window": use_window,
    "analyse": analyse,
    "kappa": kappa,
}


def main() -> None:
    content = json.load(sys.stdin)
    print(
        json.dumps(JOBS[content.pop("job")](content), default=lambda x: float(x) if isinstance(x, Decimal) else str(x))
    )


if __name__ == "__main__":
    main()


def write(path: Path, content: dict[str, Any]) -> Path:
    """Write a project and return its path."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
