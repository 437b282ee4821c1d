"""BORIS' own code on projects: `python -m tests.boris.boris_program` reads a job from stdin, prints the result.

Runs in a process of its own, as it has a Qt without a screen. The video player (libmpv), which no file goes through, is
not loaded."""

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

from tests.conftest import REPOSITORY


def run(job: str, **content: Any) -> Any:
    """What a job of JOBS gives, done by BORIS."""
    text = json.dumps({"job": job, **content})
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-m", "tests.boris.boris_program"]
    done = subprocess.run(command, input=text, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def project(
    behaviors: dict[str, str], observations: dict[str, list[list[Any]]], media: dict[str, float], offset: float = 0.0
) -> dict[str, Any]:
    """A project as BORIS 8 saves it. `behaviors`: code -> State event or Point event; `observations`: id -> events;
    `media`: file -> seconds, one after the other, the same of all observations."""
    config = _modules("config")[0]
    ethogram = {
        str(number): {"type": kind, "key": "", "code": code, "description": "", "color": "", "category": "",
                      "modifiers": "", "excluded": "", "coding map": ""}
        for number, (code, kind) in enumerate(behaviors.items())
    }  # fmt: skip
    subjects = sorted({row[1] for events in observations.values() for row in events} - {""})
    whole = json.loads(json.dumps(config.EMPTY_PROJECT))
    whole["behaviors_conf"] = ethogram
    whole["subjects_conf"] = {str(i): {"key": "", "name": name, "description": ""} for i, name in enumerate(subjects)}
    for name, events in observations.items():
        whole["observations"][name] = {
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
    return whole


def _modules(*names: str) -> list[Any]:
    """BORIS' modules by name, without the program's window, which its package would open with."""
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
    """The events of an empty observation after a text was pasted into it."""
    from PyQt5.QtWidgets import QApplication, QMessageBox

    (operations,) = _modules("event_operations")
    application = QApplication([])
    said: list[str] = []
    setattr(QMessageBox, "warning", lambda *words: said.append(str(words[2])))  # noqa: B010 - nobody would close it
    clipboard: Any = application.clipboard()
    clipboard.setText(content["text"])
    events: list[Any] = []
    window = types.SimpleNamespace(playerType="MEDIA", observationId="one", pj={"observations": {"one": {}}})
    window.pj["observations"]["one"]["events"] = events
    for name in ("project_changed", "load_tw_events", "update_realtime_plot"):
        setattr(window, name, lambda *_, **__: None)
    operations.paste_clipboard_to_events(window)
    return {"events": window.pj["observations"]["one"]["events"], "said": said}


def aggregate(content: dict[str, Any]) -> Any:
    """Aggregated events of all observations, as text: tsv or csv. Also what is wrong with state events."""
    export, config, functions, utilities = _modules("export_observation", "config", "project_functions", "utilities")
    pj = utilities.convert_time_to_decimal(content["project"])
    behaviors = [row["code"] for row in pj["behaviors_conf"].values()]
    subjects = [config.NO_FOCAL_SUBJECT, *(row["name"] for row in pj["subjects_conf"].values())]
    # BORIS cuts the full observation at the media's length even where times have an offset
    chosen = {"time": config.TIME_EVENTS, config.SELECTED_SUBJECTS: subjects, config.SELECTED_BEHAVIORS: behaviors}
    rows: list[list[Any]] = []
    for name, observation in pj["observations"].items():
        fine, why = functions.check_state_events_obs(name, pj["behaviors_conf"], observation)
        assert fine, why
        data, _ = export.export_aggregated_events(pj, chosen, name)
        rows += [list(row) for row in data]
    tablib = importlib.import_module("tablib")
    return {"text": tablib.Dataset(*rows, headers=HEADER).export(content["format"])}


HEADER = ["Observation id", "Observation date", "Description", "Observation type", "Source", "Time offset (s)"]
HEADER += ["Coding duration", "Media duration (s)", "FPS (frame/s)", "Subject"]
HEADER += ["Observation duration by subject by observation", "Behavior", "Behavioral category", "Behavior type"]
HEADER += ["Start (s)", "Stop (s)", "Duration (s)", "Media file name", "Image index start", "Image index stop"]
HEADER += ["Image file path start", "Image file path stop", "Comment start", "Comment stop"]
JOBS = {"paste": paste, "aggregate": aggregate}


def main() -> None:
    content = json.load(sys.stdin)
    print(
        json.dumps(JOBS[content.pop("job")](content), default=lambda x: float(x) if isinstance(x, Decimal) else str(x))
    )


if __name__ == "__main__":
    main()


def write(path: Path, content: dict[str, Any]) -> Path:
    """A project as its file."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
