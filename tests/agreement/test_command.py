"""agreement.py: from two codings to numbers worked by hand, with each of its flags."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

import agreement
from tests.boris import boris_program
from tests.conftest import REPOSITORY
from tests.timeline.helpers import make_timeline
from vimoclip.errors import UserError
from vimoclip.timeline import Bout, write_timeline

BEHAVIORS = {"walk": "State event", "eat": "State event", "call": "Point event"}
FAST = ["--resamples", "20"]


def events(*bouts: tuple[str, float, float], subject: str = "") -> list[list[Any]]:
    """Events of BORIS of (behaviour, start, stop)."""
    return sorted([time, subject, name, "", "", 0] for name, *times in bouts for time in times)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the observations of two people of a film of 100 s."""
    monkeypatch.chdir(tmp_path)
    observations = {
        "anna": events(("walk", 10, 30), ("eat", 50, 60), ("walk", 80, 90)),
        "ben": events(("walk", 12, 30), ("eat", 50, 60), ("walk", 84, 94), ("eat", 95, 99)),
    }
    path = Path("both.boris")
    path.write_text(json.dumps(boris_program.project(BEHAVIORS, observations, {"film.mp4": 100.0})))
    return path


def two_people(project: Path, *flags: str) -> dict[str, Any]:
    return agreement.main([str(project), str(project), "--observations", "anna", "ben", *FAST, *flags])


def read_table(name: str) -> list[dict[str, str]]:
    with open(Path("agreement", name), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def is_present(times: np.ndarray, *spans: tuple[float, float]) -> np.ndarray:
    return np.any([(start <= times) & (times <= stop) for start, stop in spans], axis=0)


def test_two_people_in_one_project(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = two_people(project)
    walk, eat = (document["actions"][name] for name in ("walk", "eat"))
    times = np.arange(1001) / 10
    coded, predicted = is_present(times, (10, 30), (80, 90)), is_present(times, (12, 30), (84, 94))
    assert walk["kappa"]["value"] == pytest.approx(cohen_kappa_score(coded, predicted))
    assert walk["percent_agreement"]["value"] == pytest.approx((coded == predicted).mean() * 100)
    assert walk["by_time"]["f1"]["value"] == pytest.approx(f1_score(coded, predicted))
    # 80-90 and 84-94 have 6 s of 14 s in common, which is less than half
    assert [walk["by_bouts"][key] for key in ("coded", "predicted", "matched")] == [2, 2, 1]
    assert walk["onset_error_seconds"]["mean"]["value"] == 2 and walk["offset_error_seconds"]["mean"]["value"] == 0
    assert (eat["coded_seconds"], eat["predicted_seconds"]) == (10, 14)
    assert eat["by_bouts"]["precision"]["value"] == 0.5 and eat["by_bouts"]["recall"]["value"] == 1
    assert document["actions"]["call"]["kappa"]["value"] is None
    assert [document[side]["observations"] for side in ("coded", "predicted")] == ["anna", "ben"]
    assert all(f"both.boris, {name}" in Path("agreement/agreement.html").read_text() for name in ("anna", "ben"))
    out = capsys.readouterr().out
    assert f"{walk['kappa']['value']:.2f}" in out and all(f"note: {note}" in out for note in document["notes"])


def test_the_files_have_the_same_numbers(project: Path) -> None:
    document = two_people(project)
    written = json.loads(Path("agreement/agreement.json").read_text())
    assert written == json.loads(json.dumps(document)) and written["schema"] == 1
    assert written["command"].startswith("python agreement.py both.boris both.boris --observations anna ben")
    *rows, overall = read_table("agreement.csv")
    assert [row["action"] for row in rows] == list(BEHAVIORS) and overall["action"] == ""
    assert float(rows[0]["kappa"]) == pytest.approx(document["actions"]["walk"]["kappa"]["value"], abs=1e-6)
    assert float(overall["kappa"]) == pytest.approx(document["overall"]["kappa"]["value"], abs=1e-6)
    assert rows[2]["kappa"] == "" and overall["coded_points"] == ""
    assert float(overall["onset_error_mean_seconds"]) == 1  # of two bouts, which start 2 s and 0 s later
    seconds = {(row["coded"], row["predicted"]): float(row["seconds"]) for row in read_table("confusions.csv")}
    assert seconds["walk", "walk"] == pytest.approx(18.1 + 6.1) and seconds["eat", "eat"] == pytest.approx(10.1)
    assert seconds["walk", ""] == pytest.approx(2 + 4) and seconds["", "eat"] == pytest.approx(4.1)
    page = Path("agreement/agreement.html").read_text()
    assert "film.mp4" in page and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_a_person_and_a_model(project: Path) -> None:
    """The folder of predict.py has a second video and a second action that nobody coded."""
    predictions = Path("predictions")
    predictions.mkdir()
    bouts = (Bout("walking", 12, 30, 0.9), Bout("flying", 40, 50, 0.9), Bout("walking", 84, 94, 0.9))
    for video in ("film.mp4", "other.mp4"):
        classes = ("walking", "flying")
        write_timeline(predictions, make_timeline(Path(video), 100.0, classes, bouts=bouts, observed=((0.0, 100.0),)))
    command = [str(project), "predictions", "--map", "walk=walking", *FAST, "--observations", "anna"]
    with pytest.raises(UserError):  # a folder has no observations
        agreement.main([*command, "ben"])
    document = agreement.main([*command, "."])
    assert [film["name"] for film in document["films"]] == ["film.mp4"] and list(document["actions"]) == ["walking"]
    assert document["actions"]["walking"]["by_bouts"]["matched"] == 1
    notes = " ".join(document["notes"])
    assert all(name in notes for name in ("other.mp4", "flying", "eat"))


def test_flags_change_what_is_compared(project: Path) -> None:
    default = two_people(project)
    assert default["samples"] == 1001 and default["compared_seconds"] == 100
    span = two_people(project, "--span", "events")  # 10 to 99 s
    assert span["samples"] == 891 and span["compared_seconds"] == 89
    assert two_people(project, "--step", "1")["samples"] == 101
    assert two_people(project, "--overlap", "0.4")["actions"]["walk"]["by_bouts"]["matched"] == 2
    assert list(two_people(project, "--actions", "eat")["actions"]) == ["eat"]
    joined = two_people(project, "--map", "walk=eat", "call=eat")["actions"]
    assert list(joined) == ["eat"] and joined["eat"]["coded_seconds"] == 40
    assert two_people(project, "--resamples", "30")["bootstrap"]["resamples"] == 30
    assert two_people(project, "--seed", "5")["bootstrap"]["seed"] == 5
    two_people(project, "-o", "elsewhere", "--report", "report.json")
    assert Path("elsewhere/agreement.html").exists()
    assert json.loads(Path("report.json").read_text())["done"] == 1


def test_one_subject_is_compared(project: Path) -> None:
    content = json.loads(project.read_text())
    content["observations"]["anna"]["events"] = events(("walk", 10, 20), subject="Ada") + events(
        ("walk", 40, 60), subject="Bo"
    )
    content["observations"]["ben"]["events"] = events(("walk", 10, 20), subject="Ada")
    project.write_text(json.dumps(content))
    assert two_people(project)["actions"]["walk"]["kappa"]["value"] < 0.6
    assert two_people(project, "--subjects", "Ada")["actions"]["walk"]["kappa"]["value"] == 1
    with pytest.raises(UserError):
        two_people(project, "--subjects", "Carl")


def test_behaviours_that_differ_in_case_are_one_on_request(project: Path) -> None:
    content = json.loads(project.read_text())
    content["behaviors_conf"]["1"]["code"] = "Walk"
    for name in ("anna", "ben"):
        content["observations"][name]["events"] = events(("walk", 10, 20), ("Walk", 30, 40))
    project.write_text(json.dumps(content))
    with pytest.raises(UserError):
        two_people(project)
    assert two_people(project, "--merge-case")["actions"]["walk"]["by_bouts"]["matched"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["both.boris", "both.boris"],  # the same observations twice
        ["both.boris", "both.boris", "--observations", "anna", "anna"],
        ["both.boris", "nowhere.boris"],
        ["both.boris", "both.boris", "--observations", "anna", "carl"],
        ["both.boris", "both.boris", "--observations", "anna", "ben", "--map", "walk"],
        ["both.boris", "both.boris", "--observations", "anna", "ben", "--map", "walk=eat", "walk=call"],
        ["both.boris", "both.boris", "--observations", "anna", "ben", "--map", "sleep=eat"],
        ["both.boris", "both.boris", "--observations", "anna", "ben", "--actions", "sleep"],
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(project: Path, arguments: list[str]) -> None:
    with pytest.raises(UserError) as error:
        agreement.main(arguments)
    assert error.value.hint and not Path("agreement").exists()


def test_exit_codes(project: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "agreement.py"), "both.boris", "both.boris", *FAST]
    good = subprocess.run([*command, "--observations", "anna", "ben"], capture_output=True, text=True)
    assert good.returncode == 0 and Path("agreement/agreement.json").exists()
    bad = subprocess.run(command, capture_output=True, text=True)
    assert bad.returncode == 2 and bad.stderr.startswith("error: both.boris: ")
