"""The project of predictions: BORIS works with it without a question, and nobody's edits are lost."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.boris import boris_program
from vimoclip import boris
from vimoclip.boris import PredictedObservation, review_mark
from vimoclip.errors import UserError
from vimoclip.timeline import Bout

CLASSES = ("walk, fast", "fly|glide", "rest")
BOUTS = (Bout("walk, fast", 0.0, 2.5204, 0.9), Bout("fly|glide", 2.0, 8.04, 0.5), Bout("walk, fast", 4.0, 8.2, 0.4))
SPANS = [
    ("fly|glide", "", 2.0, 8.04, False),
    ("walk, fast", "", 0.0, 2.52, False),
    ("walk, fast", "", 4.0, 8.04, False),
]
NAMES = ("walk #1", 'a "b"; c', "über's 100%")


def predicted(name: str, bouts: tuple[Bout, ...] = BOUTS, **changed: Any) -> PredictedObservation:
    return replace(PredictedObservation(name, f"../videos ü #1/{name}.mp4", 8.04, 25.0, bouts), **changed)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return content


def codes(project: dict[str, Any]) -> list[str]:
    return [row["code"] for row in project["behaviors_conf"].values()]


class BorisSession(NamedTuple):
    """What BORIS did with a project: `first`, written; `saved`, by BORIS without an edit; `edited`; `importing`,
    another project into which the observations were imported."""

    first: Path
    saved: Path
    edited: Path
    importing: Path
    opened: dict[str, Any]
    started: list[dict[str, Any]]
    dialogs: list[list[str]]  # before the import
    aggregated: str


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> BorisSession:
    root = tmp_path_factory.mktemp("predictions")
    folder, videos = root / "out", root / "videos ü #1"
    videos.mkdir()
    for name in NAMES:
        (videos / f"{name}.mp4").touch()
    first, saved, edited, importing = (folder / f"{name}.boris" for name in BorisSession._fields[:4])
    boris.write_predictions(first, [predicted(name) for name in NAMES], CLASSES)
    other = root / "other.boris"
    boris_program.write(other, boris_program.project({}, {}, {}))
    results = boris_program.run(
        "use_window",
        steps=[
            ["open", str(first)],
            *(["start", name] for name in NAMES),
            ["save", str(saved)],
            ["edit", NAMES[0], "", "yes"],
            ["edit", NAMES[1], "renamed"],
            ["edit_project"],
            ["save", str(edited)],
            ["open", str(other)],
            ["import_observations", str(edited)],
            ["save", str(importing)],
        ],
    )
    opened, *started = [step["result"] for step in results[: 1 + len(NAMES)]]
    aggregated = boris_program.run("aggregate", project=read(edited))["tsv"]
    return BorisSession(
        first, saved, edited, importing, opened, started, [step["dialogs"] for step in results[:-3]], aggregated
    )


def test_boris_opens_and_starts_without_a_question(session: BorisSession) -> None:
    assert session.opened == {"changed": False, "integrity": ""}
    assert not any(session.dialogs)
    for started in session.started:
        assert (started["error"], started["changed"]) == ("", False)
        assert [row[3] for row in started["events"]].count(CLASSES[0]) == 4
        assert [row[4] for row in started["events"]].count("START") == 3


@pytest.mark.parametrize("file", ["first", "saved", "edited"])
def test_read_back_are_exactly_the_bouts(file: str, session: BorisSession) -> None:
    collection = boris.read_events(getattr(session, file), include_unreviewed=True)
    assert collection.behaviors == list(CLASSES)
    assert not collection.skipped
    assert set(collection.recordings) == {predicted(name).media for name in NAMES}
    assert all(sorted(recording.events) == SPANS for recording in collection.recordings.values())
    assert {recording.seconds for recording in collection.recordings.values()} == {8.04}


def test_marks_survive_edits_in_boris_and_the_import_into_another_project(session: BorisSession) -> None:
    assert review_mark.is_predictions_project(read(session.edited))
    for path in (session.edited, session.importing):
        observations = read(path)["observations"]
        assert {NAMES[0], "renamed", NAMES[2]} == set(observations)
        assert all(map(review_mark.is_prediction, observations.values()))
        assert [name for name in observations if review_mark.is_reviewed(observations[name])] == [NAMES[0]]


def test_table_of_aggregated_events_tells_what_was_not_reviewed(session: BorisSession) -> None:
    header, *rows = [line.split("\t") for line in session.aggregated.splitlines()]
    reviewed, description = header.index(review_mark.REVIEWED_VARIABLE), header.index("Description")
    values = {row[0]: row[reviewed] for row in rows}
    assert [name for name, value in values.items() if review_mark.is_reviewed_value(value)] == [NAMES[0]]
    assert all(review_mark.is_prediction_row(row[description], "") for row in rows)
    comment = header.index("Comment start")
    assert all(review_mark.is_prediction_row("", row[comment]) for row in rows)


def test_prediction_replaces_only_what_nobody_has_edited(session: BorisSession, tmp_path: Path) -> None:
    new = [predicted(name, (Bout("rest", 1.0, 2.0, 0.6),)) for name in (*NAMES, "new")]
    path = tmp_path / "predictions.boris"
    path.write_bytes(session.saved.read_bytes())
    update = boris.write_predictions(path, new, CLASSES)
    assert update == (["new"], list(NAMES), [], [])
    spans = {
        path: recording.events
        for path, recording in boris.read_events(path, include_unreviewed=True).recordings.items()
    }
    assert set(map(tuple, spans.values())) == {(("rest", "", 1.0, 2.0, False),)}

    path.write_bytes(session.edited.read_bytes())
    update = boris.write_predictions(path, new, CLASSES)
    assert update == (["new"], [NAMES[2]], list(NAMES[:2]), [NAMES[0]])
    before, after = read(session.edited)["observations"], read(path)["observations"]
    assert set(after) == {*before, "new"}  # the renamed one is not added again
    assert all(before[name] == after[name] for name in (NAMES[0], "renamed"))
    assert len(after[NAMES[2]]["events"]) == 2


def add_event(observation: dict[str, Any]) -> None:
    observation["events"] += [[1.0, "", "rest", "", "", 25], [2.0, "", "rest", "", "", 50]]


def move_event(observation: dict[str, Any]) -> None:
    observation["events"][0][0] += 0.001


@pytest.mark.parametrize(
    "edit",
    [
        add_event,
        move_event,
        lambda o: o["events"][0].__setitem__(1, "Ann"),
        lambda o: o["events"][0].__setitem__(3, "left"),
        lambda o: o["events"][0].__setitem__(4, "sure"),
        lambda o: o.update({"description": o["description"] + " My notes."}),
        lambda o: o.update({"time offset": 10.0}),
        lambda o: o.update({"media_creation_date_as_offset": True}),
        lambda o: o["independent_variables"].update(reviewed="maybe"),
        lambda o: o["independent_variables"].clear(),
        lambda o: o.update(events=[["soon"]]),
    ],
)
def test_edited_observation_stays(edit: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    path, items = tmp_path / "p.boris", [predicted("one"), predicted("two")]
    boris.write_predictions(path, items, CLASSES)
    project = read(path)
    edit(project["observations"]["one"])
    boris_program.write(path, project)
    update = boris.write_predictions(path, [predicted("one", ()), predicted("two", ())], CLASSES)
    assert update == ([], ["two"], ["one"], [])
    assert read(path)["observations"]["one"] == project["observations"]["one"]


def test_replacement_keeps_what_is_not_of_the_prediction(tmp_path: Path) -> None:
    """Variables, settings of the player, and the media file if somebody has moved it."""
    path = tmp_path / "p.boris"
    boris.write_predictions(path, [predicted("one"), predicted("two")], CLASSES)
    project = read(path)
    one, two = project["observations"].values()
    one["independent_variables"]["sex"] = "f"
    one["media_info"]["zoom level"] = {"1": 2}
    two["file"]["1"] = ["elsewhere.mp4"]
    two["media_info"]["length"] = {"elsewhere.mp4": 8.04}
    boris_program.write(path, project)
    moved = [predicted(name, (), media=f"moved/{name}.mp4") for name in ("one", "two")]
    assert boris.write_predictions(path, moved, CLASSES).replaced == ["one", "two"]
    after_one, after_two = read(path)["observations"].values()
    assert after_one["independent_variables"] == {"reviewed": "no", "sex": "f"}
    assert after_one["media_info"]["zoom level"] == {"1": 2}
    assert after_one["file"]["1"] == list(after_one["media_info"]["length"]) == ["moved/one.mp4"]
    assert (after_two["file"], after_two["media_info"]) == (two["file"], two["media_info"])


def test_deleted_observation_is_not_added_again_and_own_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "p.boris"
    boris.write_predictions(path, [predicted("one"), predicted("two")], CLASSES)
    project = read(path)
    own = project["observations"].pop("one")
    del own[review_mark.OBSERVATION_MARK]
    project["observations"]["three"] = own  # an id that a prediction has later
    boris_program.write(path, project)
    for _ in range(2):
        update = boris.write_predictions(path, [predicted(name, ()) for name in ("one", "two", "three")], CLASSES)
        assert update.kept == ["one"]
        observations = read(path)["observations"]
        assert observations["three"] == own
        assert len(observations) == 3


def test_observation_from_another_folder_stays(tmp_path: Path) -> None:
    """As BORIS imports it, with an id of its own."""
    path, other = tmp_path / "p.boris", tmp_path / "other.boris"
    boris.write_predictions(path, [predicted("two")], CLASSES)
    boris.write_predictions(other, [predicted("one")], CLASSES)
    project = read(path)
    project["observations"]["one (imported)"] = read(other)["observations"]["one"]
    boris_program.write(path, project)
    update = boris.write_predictions(path, [predicted("one", ()), predicted("two", ())], CLASSES)
    assert update == ([], ["two"], ["one"], [])
    assert len(read(path)["observations"]) == 2


def test_ethogram_stays_and_gets_missing_behaviors(tmp_path: Path) -> None:
    path = tmp_path / "p.boris"
    boris.write_predictions(path, [predicted("one")], CLASSES)
    project = read(path)
    rows = project["behaviors_conf"]
    rows["0"], rows["1"] = rows["1"] | {"color": "#123456", "key": "f"}, rows["0"]
    rows["2"]["code"] = "sleep"  # renamed; no event has it
    project["independent_variables"] = {"0": {"label": "sex", "type": "text", "default value": ""}}
    project["project_name"] = "Mine"
    boris_program.write(path, project)
    boris.write_predictions(path, [predicted("one")], [*CLASSES, "swim"])
    after = read(path)
    assert codes(after) == [*codes(project), "swim"]
    assert [after["behaviors_conf"][key] for key in rows] == list(rows.values())
    assert [row["label"] for row in after["independent_variables"].values()] == ["sex", "reviewed"]
    assert after["project_name"] == "Mine"
    boris.write_predictions(path, [predicted("one", (Bout("rest", 0.0, 1.0, 0.5),))], CLASSES)
    assert codes(read(path)) == [*codes(after), "rest"]


def test_colors_differ_for_many_classes(tmp_path: Path) -> None:
    path, names = tmp_path / "p.boris", [f"class {number}" for number in range(150)]
    boris.write_predictions(path, [], names[:140])
    boris.write_predictions(path, [], names)
    rows = read(path)["behaviors_conf"]
    assert [row["code"] for _, row in sorted(rows.items(), key=lambda item: int(item[0]))] == names
    assert len({row["color"] for row in rows.values()}) == 150


def test_names_and_classes_that_boris_refuses_get_others(tmp_path: Path) -> None:
    path, classes = tmp_path / "p.boris", ("a  b", "a b", "x|y", "x\uff5cy")
    bouts = tuple(Bout(name, number, number + 1, 0.5) for number, name in enumerate(classes))
    items = [predicted(name, bouts, media=f"{number}.mp4") for number, name in enumerate((" a", "a ", "b\nc", " "))]
    boris.write_predictions(path, items, classes)
    project = read(path)
    ids, written = list(project["observations"]), codes(project)
    assert all(id_ == id_.strip() and id_.isprintable() and id_ for id_ in ids)
    assert (len(set(ids)), len(set(written))) == (4, 4)
    assert not any("|" in code or "  " in code for code in written)
    assert boris.write_predictions(path, items, classes).replaced == [item.name for item in items]


def test_output_is_deterministic_and_untouched_if_nothing_is_new(tmp_path: Path) -> None:
    first, second = tmp_path / "1.boris", tmp_path / "2.boris"
    items = [predicted(name, note="One note.") for name in NAMES]
    for path in (first, second):
        boris.write_predictions(path, items, CLASSES)
    assert first.read_bytes() == second.read_bytes()
    boris_program.write(first, read(second))  # in another format, as BORIS saves it
    before = first.read_bytes()
    assert boris.write_predictions(first, items, CLASSES).replaced == list(NAMES)
    assert first.read_bytes() == before
    assert read(first)["observations"][NAMES[0]]["description"].endswith("One note.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"behaviors_conf": {',
        json.dumps({"behaviors_conf": {}, "observations": {}}),
        json.dumps({"behaviors_conf": {}, "observations": {}, review_mark.PROJECT_MARK: {"schema": 1}}),
    ],
)
def test_other_file_is_an_error_and_stays(text: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.boris"
    boris.check_predictions(path)
    path.write_text(text)
    for use in (boris.check_predictions, lambda path: boris.write_predictions(path, [predicted("one")], CLASSES)):
        with pytest.raises(UserError) as caught:
            use(path)
        assert caught.value.path == str(path)
    assert path.read_text() == text


def test_project_of_a_later_version_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "predictions.boris"
    boris.write_predictions(path, [predicted("one")], CLASSES)
    boris.check_predictions(path)
    project = read(path)
    project[review_mark.PROJECT_MARK]["schema"] += 1
    boris_program.write(path, project)
    with pytest.raises(UserError):
        boris.check_predictions(path)
