"""Projects and aggregated events of BORIS are read, and bouts exported, as BORIS' own code does."""

from pathlib import Path
from typing import Any

import pytest

from tests.boris import boris_program
from vimoclip import boris
from vimoclip.errors import UserError
from vimoclip.timeline import Bout

STATE, POINT = "State event", "Point event"
BEHAVIORS = {"walk": STATE, "rest": STATE, "bite": POINT}
BOUTS = (Bout("walk", 0.0, 2.52, 0.9), Bout("rest", 2.0, 7.0, 0.75), Bout("walk", 4.04, 8.0, 0.5))


def events_by_media(collection: boris.EventCollection) -> dict[str, list[boris.BehaviorEvent]]:
    return {path: sorted(recording.events) for path, recording in collection.recordings.items()}


def test_bouts_round_trip_through_boris(tmp_path: Path) -> None:
    """Bouts are exported, pasted into BORIS, exported by BORIS as aggregated events, and read."""
    path = boris.export_bouts(tmp_path / "a.boris.tsv", Path("a.mp4"), 25.0, 8.0, BOUTS)
    pasted = boris_program.run("paste", text=path.read_text())
    assert pasted["warnings"] == []
    events = pasted["events"]
    assert len(events) == 2 * len(BOUTS)
    assert [row[5] for row in events if row[2] == "rest"] == [50, 175]  # frames at 25 a second
    project = boris_program.project(BEHAVIORS, {"one": events}, {"a.mp4": 8.0})
    (tmp_path / "events.tsv").write_text(boris_program.run("aggregate", project=project)["tsv"])
    expected = {"a.mp4": sorted((b.action, "No focal subject", b.start, b.stop, False) for b in BOUTS)}
    assert events_by_media(boris.read_events(tmp_path / "events.tsv")) == expected


def test_project_and_aggregated_events_agree(tmp_path: Path) -> None:
    """Two subjects, two observations, points, a time offset, and two media files that follow each other."""
    events: dict[str, list[list[Any]]] = {
        "first": [
            [10.5, "Ann", "walk", "", "", 0], [12.0, "Bob", "walk", "", "", 0], [13.0, "Ann", "walk", "", "", 0],
            [14.25, "Ann", "bite", "", "", 0], [16.0, "Bob", "walk", "", "", 0], [18.5, "Bob", "bite", "", "", 0],
            [17.0, "Ann", "rest", "", "", 0], [19.0, "Ann", "rest", "", "", 0],
        ],
        "second": [[11.0, "Ann", "rest", "", "", 0], [12.0, "Ann", "rest", "", "", 0]],
    }  # fmt: skip
    project = boris_program.project(BEHAVIORS, events, {"cow/a.mp4": 8.0, "cow/b.mp4": 4.0}, offset=10.0)
    collection = boris.read_events(boris_program.write(tmp_path / "p.boris", project))
    assert collection.behaviors == list(BEHAVIORS)
    a, b = events_by_media(collection).values()
    assert a == [
        ("bite", "Ann", 4.25, 4.25, True),
        ("rest", "Ann", 1.0, 2.0, False),
        ("rest", "Ann", 7.0, 8.0, False),  # continues in the second file
        ("walk", "Ann", 0.5, 3.0, False),
        ("walk", "Bob", 2.0, 6.0, False),
    ]
    assert b == [("bite", "Bob", 0.5, 0.5, True), ("rest", "Ann", 0.0, 1.0, False)]
    for suffix, text in boris_program.run("aggregate", project=project).items():
        (tmp_path / f"events.{suffix}").write_text(text, newline="")
        aggregated = boris.read_events(tmp_path / f"events.{suffix}")
        assert events_by_media(aggregated) == events_by_media(collection)
        assert aggregated.recordings["cow/b.mp4"].seconds == 4.0


VERSION_7_TABLE = (  # version 7 and earlier have other column names and one media file
    "Observation id\tObservation date\tDescription\tMedia file\tTotal length\tFPS\tSubject\tBehavior\t"
    "Behavioral category\tModifiers\tBehavior type\tStart (s)\tStop (s)\tDuration (s)\tComment start\tComment stop\n"
    "o1\t2019-01-01\t\tC:\\videos\\a.mp4\t8.0\t25.0\tAnn\twalk\t\t\tSTATE\t1.0\t4.0\t3.0\t\t\n"
    "o1\t2019-01-01\t\tC:\\videos\\a.mp4\t8.0\t25.0\tAnn\tbite\t\t\tPOINT\t5.0\t5.0\tNA\t\t\n"
    "o1\t2019-01-01\t\tC:\\videos\\a.mp4\t8.0\t25.0\tAnn\trest\t\t\tSTATE\t6.0\tNA\tNA\t\t\n"
    "live\t2019-01-01\t\tNA\tNA\tNA\tAnn\twalk\t\t\tSTATE\t1.0\t4.0\t3.0\t\t\n"
)


def test_full_width_bar_stays_in_codes_of_people(tmp_path: Path) -> None:
    code = "walk\uff5crun"
    project = boris_program.project(
        {code: STATE}, {"one": [[0.0, "", code, "", "", 0], [1.0, "", code, "", "", 0]]}, {"a.mp4": 8.0}
    )
    assert boris.read_events(boris_program.write(tmp_path / "p.boris", project)).behaviors == [code]
    (tmp_path / "events.tsv").write_text(boris_program.run("aggregate", project=project)["tsv"])
    assert boris.read_events(tmp_path / "events.tsv").behaviors == [code]


def test_columns_of_version_7_are_read(tmp_path: Path) -> None:
    (tmp_path / "old.tsv").write_text(VERSION_7_TABLE)
    collection = boris.read_events(tmp_path / "old.tsv")
    assert events_by_media(collection) == {
        "C:\\videos\\a.mp4": [("bite", "Ann", 5.0, 5.0, True), ("walk", "Ann", 1.0, 4.0, False)],
    }
    assert collection.skipped.keys() == {"o1: rest in line 4", "live"}


def test_unusable_parts_of_a_project_are_listed(tmp_path: Path) -> None:
    rows = [[1.0, "", "walk", "", "", 0], [2.0, "", "fly", "", "", 0], [3.0, "", "rest", "", "", 0],
            [4.0, "", "walk", "", "", 0]]  # fmt: skip
    project = boris_program.project(BEHAVIORS, {"one": rows, "live": []}, {"a.mp4": 8.0})
    project["observations"]["live"]["type"] = "LIVE"
    collection = boris.read_events(boris_program.write(tmp_path / "p.boris", project))
    assert events_by_media(collection) == {"a.mp4": [("walk", "", 1.0, 4.0, False)]}
    assert collection.skipped.keys() == {"live", "one: fly", "one: rest of no subject from 3 s on"}


def test_missing_stop_event_does_not_swap_starts_and_stops(tmp_path: Path) -> None:
    """walk from 1 to 5, from 7 on, and from 20 to 22: it is unknown which of them has no end."""
    rows = [[time, "", "walk", "", "", 0] for time in (1.0, 5.0, 7.0, 20.0, 22.0)]
    rows += [[time, "", "rest", "", "", 0] for time in (2.0, 3.0)]
    project = boris_program.project(BEHAVIORS, {"one": rows}, {"a.mp4": 30.0})
    collection = boris.read_events(boris_program.write(tmp_path / "p.boris", project))
    assert events_by_media(collection) == {"a.mp4": [("rest", "", 2.0, 3.0, False)]}
    assert collection.skipped.keys() == {"one: walk of no subject from 1 s on"}


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("p.boris", "{}", ""),
        ("p.boris", "walk", ""),
        ("p.csv", "a,b\n1,2\n", ""),
        ("p.tsv", VERSION_7_TABLE.replace("\tBehavior\t", "\tAction\t"), ""),
        ("p.tsv", VERSION_7_TABLE.replace("1.0\t4.0\t3.0", "4.0\t1.0\t3.0", 1), ":2"),
        ("p.tsv", VERSION_7_TABLE.replace("POINT", "DOT"), ":3"),
    ],
)
def test_invalid_files_are_refused(name: str, text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        boris.read_events(tmp_path / name)
    assert caught.value.path == f"{tmp_path / name}{line}"
