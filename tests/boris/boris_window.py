"""Uses BORIS' main window as a person would, without a screen and a media player; runs in boris_program's process."""

import os
import sys
import tempfile
import types
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

from tests.boris.boris_program import _modules

EXPECTED_QUESTIONS = ("Please note that editing the project",)  # before every edit of a project
PLAYER: dict[str, Any] = {"video_zoom": 0, "speed": 1, "duration": 60.0, "playback_time": 0.0, "time_pos": 0.0}
PLAYER |= {"playlist_pos": 0, "playlist_count": 1, "playlist": [{"filename": ""}]}


def perform(content: dict[str, Any]) -> Any:
    """Perform steps of Session, [name, argument...] each; return what each returns and the dialogs that BORIS opens."""
    session, results = Session(), []
    for name, *arguments in content["steps"]:
        session.dialogs = []
        result = getattr(session, name)(*arguments)
        results.append({"result": result, "dialogs": session.dialogs})
    return results


class Session:
    """BORIS with a project. Each step returns what is worth a test."""

    def __init__(self) -> None:
        self.home = tempfile.TemporaryDirectory()  # of BORIS' settings
        os.environ["HOME"] = self.home.name
        sys.argv = ["boris", "--no-first-launch-dialog"]
        sound = types.ModuleType("PyQt5.QtMultimedia")
        sound.__dict__["QSound"] = object
        sys.modules["PyQt5.QtMultimedia"] = sound  # needs the system's sound
        from PyQt5.QtWidgets import QApplication, QDialog, QMessageBox

        self.dialog, self.operations, self.functions = _modules("dialog", "observation_operations", "project_functions")
        setattr(sys.modules["boris.mpv2"], "MPV", lambda **_: MagicMock(**PLAYER))  # noqa: B010
        self.application = QApplication([])
        (core,) = _modules("core")
        self.dialogs: list[str] = []
        self.use_dialog: Callable[[Any], int] = lambda _: 0
        for name in ("warning", "critical", "information", "question"):
            setattr(QMessageBox, name, lambda *args: self.dialogs.append(str(args[2])))
        setattr(self.dialog, "MessageDialog", self._answer)  # noqa: B010
        setattr(QDialog, "exec_", lambda dialog: self.use_dialog(dialog))  # noqa: B010
        self.window = core.MainWindow("ffmpeg")
        sys.excepthook = sys.__excepthook__

    def _answer(self, _: str, text: str, buttons: list[str]) -> str:
        if not text.startswith(EXPECTED_QUESTIONS):
            self.dialogs.append(text)
        return buttons[-1]

    def open(self, path: str) -> Any:
        """Choose a recent project, and check it."""
        setattr(self.window, "sender", lambda: types.SimpleNamespace(text=lambda: path))  # noqa: B010
        self.window.open_project_activated()
        integrity = self.functions.check_project_integrity(self.window.pj, "seconds", self.window.projectFileName)
        self.operations.observations_list(self.window)
        return {"changed": self.window.projectChanged, "integrity": integrity}

    def start(self, observation: str) -> Any:
        """Start an observation, read its table of events, and close it."""
        error = self.operations.load_observation(self.window, observation, "start")
        table = self.window.tv_events.model()
        cells = [
            [table.data(table.index(row, column)) for column in range(table.columnCount())]
            for row in range(table.rowCount())
        ]
        self.operations.close_observation(self.window)
        return {"error": error, "events": cells, "changed": self.window.projectChanged}

    def edit(self, observation: str, new_id: str = "", reviewed: str = "") -> None:
        """Edit an observation: its id and the independent variable."""

        def change(window: Any) -> int:
            if new_id:
                window.leObservationId.setText(new_id)
            if reviewed:
                window.twIndepVariables.cellWidget(0, 2).setCurrentText(reviewed)
            window.pbSave_clicked()
            return int(window.result())

        self._with_dialog(change, self.operations.new_observation, self.window, "edit", observation)

    def edit_project(self, new_label: str = "") -> None:
        """Edit the project: the label of its first independent variable."""

        def change(window: Any) -> int:
            if new_label:
                window.twVariables.item(0, 0).setText(new_label)
            window.pbOK_clicked()
            return int(window.result())

        self._with_dialog(change, self.window.edit_project, "edit")

    def import_observations(self, path: str) -> None:
        """Import all observations of another project."""

        def choose_all(window: Any) -> int:
            window.lw.selectAll()
            return 1

        (module,) = _modules("import_observations")
        self._with_dialog(choose_all, module.load_observations_from_boris_project, self.window, path)

    def save(self, path: str) -> None:
        self.window.save_project_json(path)

    def _with_dialog(self, use: Callable[[Any], int], step: Callable[..., Any], *arguments: Any) -> None:
        self.use_dialog = use
        step(*arguments)
        self.use_dialog = lambda _: 0
