"""Codings are read from BORIS' projects and its aggregated events, by observation and subject."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.boris import boris_program
from tests.boris.test_reader import BEHAVIORS
from vimoclip import boris
from vimoclip.agreement.coding import Coding, FilmCoding
from vimoclip.agreement.read_coding import read_coding
from vimoclip.errors import UserError
from vimoclip.timeline import Bout

Row = tuple[str, str, float]  # subject, behaviour, time


def make_project(media: dict[str, float], **observations: list[Row]) -> dict[str, Any]:
    """A project as BORIS saves it, with events sorted by time."""
    rows = {
        name: sorted([time, subject, code, "", "", 0] for subject, code, time in coded)
        for name, coded in observations.items()
    }
    return boris_program.project(BEHAVIORS, rows, media)


def bout(code: str, start: float, stop: float, subject: str = "") -> list[Row]:
    return [(subject, code, start), (subject, code, stop)]


def add(project: dict[str, Any], other: dict[str, Any]) -> None:
    """Add the observations and subjects of another project."""
    project["observations"] |= other["observations"]
    project["subjects_conf"] |= {str(int(key) + 100): row for key, row in other["subjects_conf"].items()}


def write_both(folder: Path, project: dict[str, Any]) -> tuple[Path, Path]:
    """Write a project, and the aggregated events that BORIS exports of it."""
    table = folder / "events.tsv"
    table.write_text(boris_program.run("aggregate", project=project)["tsv"])
    return boris_program.write(folder / "p.boris", project), table


def only_film(coding: Coding) -> FilmCoding:
    (film,) = coding.films
    return film


def mentions(coding: Coding, *words: str) -> bool:
    """Whether one note names all the words."""
    return any(all(word in note for word in words) for note in coding.notes)


def test_project_and_its_table_say_the_same(tmp_path: Path) -> None:
    rows = [*bout("walk", 1.0, 3.0), *bout("rest", 3.5, 7.0), ("", "bite", 5.0), ("", "bite", 2.0)]
    project, table = (read_coding(path) for path in write_both(tmp_path, make_project({"day1/a.mp4": 8.0}, one=rows)))
    assert (project.actions, project.is_complete) == (("walk", "rest", "bite"), True)
    assert (table.actions, table.is_complete) == (("bite", "rest", "walk"), False)
    film = only_film(project)
    assert film.bouts == {"walk": ((1.0, 3.0),), "rest": ((3.5, 7.0),)}
    assert film.points == {"bite": (2.0, 5.0)}
    assert (film.written_path, film.seconds, film.observations) == ("day1/a.mp4", 8.0, ("one",))
    assert only_film(table) == film
    assert not project.notes and not table.notes


def test_table_lists_no_action_without_an_event(tmp_path: Path) -> None:
    project, table = write_both(tmp_path, make_project({"a.mp4": 8.0}, one=bout("walk", 1.0, 3.0)))
    assert read_coding(project).actions == ("walk", "rest", "bite")
    assert read_coding(table).actions == ("walk",)


def test_bouts_of_several_subjects_are_joined_or_chosen(tmp_path: Path) -> None:
    rows = [
        *bout("walk", 1.0, 3.0, "Ann"),
        *bout("walk", 2.0, 5.0, "Bob"),
        *bout("walk", 5.0, 6.0),
        ("Bob", "bite", 7.0),
    ]
    for path in write_both(tmp_path, make_project({"a.mp4": 8.0}, one=rows)):
        joined = read_coding(path)
        assert only_film(joined).bouts == {"walk": ((1.0, 6.0),)}
        assert mentions(joined, "Ann", "Bob", "No focal subject")
        for subject, span in (("ann", (1.0, 3.0)), ("Bob", (2.0, 5.0)), ("No focal subject", (5.0, 6.0))):
            chosen = read_coding(path, subjects=[subject])
            assert only_film(chosen).bouts == {"walk": (span,)}
            assert only_film(chosen).points == ({"bite": (7.0,)} if subject == "Bob" else {})
            assert not chosen.notes
        with pytest.raises(UserError, match=r"'Cy'.*'Ann', 'Bob', 'No focal subject'"):
            read_coding(path, subjects=["Ann", "Cy"])


def test_file_without_subjects_is_not_restricted(tmp_path: Path) -> None:
    path = boris_program.write(tmp_path / "p.boris", make_project({"a.mp4": 8.0}, one=bout("walk", 1.0, 3.0)))
    coding = read_coding(path, subjects=["Ann"])
    assert only_film(coding).bouts == {"walk": ((1.0, 3.0),)}
    assert mentions(coding, "Ann")


def test_observations_are_chosen_by_id(tmp_path: Path) -> None:
    """Two observers in one project."""
    project = make_project({"a.mp4": 8.0}, anna_1=bout("walk", 1.0, 3.0), ben_1=bout("walk", 2.0, 5.0))
    for path in write_both(tmp_path, project):
        both = read_coding(path)
        assert only_film(both).bouts == {"walk": ((1.0, 5.0),)}
        assert mentions(both, "a.mp4", "anna_1", "ben_1", "--observations")
        for pattern, span in (("anna", (1.0, 3.0)), ("^ben", (2.0, 5.0))):
            coding = read_coding(path, re.compile(pattern))
            assert only_film(coding).bouts == {"walk": (span,)}
            assert not coding.notes
        with pytest.raises(UserError, match=r"cy.*'anna_1', 'ben_1'"):
            read_coding(path, re.compile("cy"))


def test_observations_that_are_not_chosen_are_not_read(tmp_path: Path) -> None:
    project = make_project({"a.mp4": 8.0}, anna=bout("walk", 1.0, 3.0), ben=[("", "walk", 2.0)])
    project["observations"]["damaged"] = {"type": "MEDIA", "file": {"1": ["a.mp4"]}, "events": None}
    path = boris_program.write(tmp_path / "p.boris", project)
    assert not read_coding(path, re.compile("anna")).notes
    with pytest.raises(UserError, match="damaged"):
        read_coding(path)


def test_observations_of_parts_of_a_film_cover_these_parts(tmp_path: Path) -> None:
    project = make_project({"a.mp4": 10.0}, first=bout("walk", 1.0, 3.0), second=bout("walk", 6.0, 7.0))
    for name, interval in (("first", [0, 4]), ("second", [5, 8])):
        project["observations"][name]["observation time interval"] = interval
    coding = read_coding(boris_program.write(tmp_path / "p.boris", project))
    assert only_film(coding).covered == ((0.0, 4.0), (5.0, 8.0))
    assert not coding.notes  # they do not overlap
    project["observations"]["second"]["observation time interval"] = [3, 8]
    coding = read_coding(boris_program.write(tmp_path / "p.boris", project))
    assert only_film(coding).covered == ((0.0, 8.0),)
    assert mentions(coding, "first", "second")


def test_one_film_may_be_written_in_two_ways(tmp_path: Path) -> None:
    """A path that ends with another is of the same film; the same name in another folder is another film."""
    project = make_project({"C:\\films\\Day1\\a.mp4": 10.0}, one=bout("walk", 1.0, 3.0))
    add(project, make_project({"E:\\Films\\day1\\a.mp4": 10.0}, four=bout("walk", 0.5, 2.0)))
    add(project, make_project({"day1/a.mp4": 10.0}, two=bout("walk", 2.0, 5.0)))
    add(project, make_project({"day2/a.mp4": 10.0}, three=bout("walk", 6.0, 7.0)))
    coding = read_coding(boris_program.write(tmp_path / "p.boris", project))
    assert [(film.written_path, film.bouts["walk"], film.observations) for film in coding.films] == [
        ("C:\\films\\Day1\\a.mp4", ((0.5, 5.0),), ("one", "four", "two")),
        ("day2/a.mp4", ((6.0, 7.0),), ("three",)),
    ]
    assert mentions(coding, "one", "two") and not mentions(coding, "three")


def test_path_that_may_be_of_several_films_is_a_film_of_its_own(tmp_path: Path) -> None:
    """All its observations are kept, however they write it."""
    media = {"one": "day1/a.mp4", "two": "day2/a.mp4", "three": "a.mp4", "four": "./A.mp4"}
    project: dict[str, Any] = {}
    for number, (name, path) in enumerate(media.items()):
        other = make_project({path: 10.0}, **{name: bout("walk", number, number + 0.5)})
        if project:
            add(project, other)
        project = project or other
    coding = read_coding(boris_program.write(tmp_path / "p.boris", project))
    assert [film.observations for film in coding.films] == [("one",), ("two",), ("three", "four")]


def test_events_with_an_unknown_stop_are_unknown_and_named(tmp_path: Path) -> None:
    rows = [*bout("rest", 1.0, 2.0), ("", "walk", 4.0)]
    path = boris_program.write(tmp_path / "p.boris", make_project({"a.mp4": 8.0}, one=rows))
    coding = read_coding(path)
    assert only_film(coding).bouts == {"rest": ((1.0, 2.0),)}
    assert only_film(coding).unknown == {"walk": ((4.0, float("inf")),)}
    assert mentions(coding, "one", "walk")


def test_video_is_found_from_the_project(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    project = make_project({"c.mp4": 8.0}, one=[])
    add(project, make_project({"films\\a.mp4": 8.0}, two=[]))
    add(project, make_project({"D:\\elsewhere\\b.mp4": 8.0}, three=[]))
    coding = read_coding(boris_program.write(tmp_path / "p.boris", project))
    videos = {film.written_path[-5:]: film.video for film in coding.films}
    assert videos == {"a.mp4": tmp_path / "films" / "a.mp4", "b.mp4": tmp_path / "b.mp4", "c.mp4": None}
    assert list(videos) == ["c.mp4", "a.mp4", "b.mp4"]  # in the project's order


def test_unreviewed_predictions_are_read_and_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.boris"
    items = [
        boris.PredictedObservation(name, f"{name}.mp4", 8.0, 25.0, (Bout("walk", 1.0, 3.0, 0.8),)) for name in "ab"
    ]
    boris.write_predictions(path, items, ["walk", "rest"])
    for file in write_both(tmp_path, json.loads(path.read_text())):
        coding = read_coding(file)
        assert [film.bouts for film in coding.films] == [{"walk": ((1.0, 3.0),)}] * 2
        assert mentions(coding, "2 of 2", "a, b", "not marked as reviewed")

    project = boris_program.run(
        "use_window", steps=[["open", str(path)], ["edit", "a", "", "yes"], ["save", str(path)]]
    )
    assert project
    coding = read_coding(path)
    assert mentions(coding, "1 of 2", ": b") and mentions(coding, "1 of 2", ": a")
    (note,) = read_coding(path, re.compile("^a$")).notes
    assert "1 of 1" in note  # its agreement with the model is higher than that of an independent coding
    project = json.loads(path.read_text())
    del project["observations"]["b"]
    table = read_coding(write_both(tmp_path, project)[1])
    assert len(table.notes) == 1 and mentions(table, "1 of 1", ": a")


def test_names_that_differ_in_case_are_one_if_asked(tmp_path: Path) -> None:
    rows = [[1.0, "", "walk", "", "", 0], [3.0, "", "walk", "", "", 0], [2.0, "", "Walk", "", "", 0],
            [5.0, "", "Walk", "", "", 0]]  # fmt: skip
    behaviors = {"walk": "State event", "Walk": "State event"}
    path = boris_program.write(tmp_path / "p.boris", boris_program.project(behaviors, {"one": rows}, {"a.mp4": 8.0}))
    with pytest.raises(UserError, match="--merge-case"):
        read_coding(path)
    assert only_film(read_coding(path, merge_case=True)).bouts == {"walk": ((1.0, 5.0),)}


def test_project_without_films_is_refused(tmp_path: Path) -> None:
    project = make_project({"a.mp4": 8.0}, one=bout("walk", 1.0, 3.0))
    project["observations"]["one"]["type"] = "LIVE"
    with pytest.raises(UserError, match="one"):
        read_coding(boris_program.write(tmp_path / "p.boris", project))
