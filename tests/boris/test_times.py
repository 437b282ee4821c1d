"""Times of events: numbers as people and programs write them, offsets, and what can't be read."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

import prepare_dataset
from tests.boris import boris_program
from tests.boris.test_reader import BEHAVIORS, events_by_media
from vimoclip import boris
from vimoclip.errors import UserError

HEADER = "Observation id;Source;Time offset (s);Media duration (s);Subject;Behavior;Behavior type;Start (s);Stop (s)\n"
WALK = [[1.0, "", "walk", "", "", 0], [3.0, "", "walk", "", "", 0]]


def read_table(root: Path, text: str, **options: Any) -> boris.EventCollection:
    (root / "e.csv").write_text(text, encoding="utf-8")
    return boris.read_events(root / "e.csv", **options)


def read_project(root: Path, project: dict[str, Any], **options: Any) -> boris.EventCollection:
    return boris.read_events(boris_program.write(root / "p.boris", project), **options)


def coded_project(media: dict[str, float], dates: dict[str, float], offset: float = 0.0) -> dict[str, Any]:
    """A project without events whose only observation has the media files' creation dates as offset."""
    project = boris_program.project(BEHAVIORS, {"o": []}, media, offset)
    project["observations"]["o"]["media_creation_date_as_offset"] = True
    project["observations"]["o"]["media_info"]["media_creation_time"] = dates
    return project


def test_table_saved_by_a_spreadsheet_with_decimal_commas(tmp_path: Path) -> None:
    rows = (
        "o1;player #1:a.mp4;0;8,04;;walk;STATE;4,5;6,25\n"
        "o2;player #1:b.mp4;0,5;8;;rest;STATE;0:00:02;6\n"
        "o3;player #1:c.mp4;NA;;;bite;Point event;1,5;\n"
    )
    collection = read_table(tmp_path, "\ufeff" + "sep=;\n" + HEADER + rows)
    assert events_by_media(collection) == {
        "a.mp4": [("walk", "", 4.5, 6.25, False)],
        "b.mp4": [("rest", "", 1.5, 5.5, False)],
        "c.mp4": [("bite", "", 1.5, 1.5, True)],
    }
    assert [recording.seconds for recording in collection.recordings.values()] == [8.04, 8.0, None]
    assert not collection.skipped


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        ("0;8;;walk;STATE;soon;3", 2),
        ("0;8;;walk;STATE;1;nan", 2),
        ("0;8;;walk;STATE;1;1_000", 2),
        ("half;8;;walk;STATE;1;3", 2),
        ("0;long;;walk;STATE;1;3", 2),
        ("0;8;;walk;STATE;00:00:01:05;00:00:03:00", 2),
        ("0;8;;walk;STATE;0:75;0:90", 2),
        ("0;8;;walk;STATE;1,5;2.5", 2),
        ("0;8;;walk;STATE;1714550400;1714550403", 2),  # the export lacks the creation date
    ],
)
def test_number_that_cannot_be_read_is_an_error(cells: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_table(tmp_path, f"{HEADER}o;player #1:a.mp4;{cells}\n")
    assert caught.value.path == f"{tmp_path / 'e.csv'}:{line}"


def test_two_observations_of_one_id_keep_their_media_files(tmp_path: Path) -> None:
    """As in one table joined from two projects."""
    rows = "o;player #1:a.mp4;0;8;;walk;STATE;1;3\no;player #1:b.mp4;0;8;;rest;STATE;2;4\n"
    for text in (HEADER + rows, (HEADER + rows).replace("Observation id;", "Note;")):
        assert {path: events[0].behavior for path, events in events_by_media(read_table(tmp_path, text)).items()} == {
            "a.mp4": "walk",
            "b.mp4": "rest",
        }


def test_unreadable_events_make_stretches_unknown(tmp_path: Path) -> None:
    rows = (
        "o;player #1:a.mp4;1;8;;walk;STATE;4;NA\n"
        "o;player #1:a.mp4;1;8;;rest;STATE;;3\n"
        "o;player #1:a.mp4;1;8;;bite;POINT;NA;NA\n"
    )
    recording = read_table(tmp_path, HEADER + rows).recordings["a.mp4"]
    unknown = [(event.behavior, event.start, event.stop) for event in recording.unknown_events]
    assert unknown == [("walk", 3.0, math.inf), ("rest", 0.0, 2.0), ("bite", 0.0, math.inf)]
    assert not recording.events


def unknown_spans(recording: boris.Recording) -> list[tuple[float, float]]:
    return [(event.start, event.stop) for event in recording.unknown_events]


def test_unknown_stretches_continue_in_the_next_media_file(tmp_path: Path) -> None:
    rows = [[t, "", "walk", "", "", 0] for t in (5.0, 6.0, 9.0)] + [[10.0, "", "fly", "", "", 0]]
    collection = read_project(tmp_path, boris_program.project(BEHAVIORS, {"o": rows}, {"a.mp4": 8.0, "b.mp4": 4.0}))
    a, b = collection.recordings.values()
    assert (unknown_spans(a), unknown_spans(b)) == ([(5.0, math.inf)], [(0.0, math.inf)])
    rows = [[10.0, "", "walk", "", "", 0]]
    collection = read_project(tmp_path, boris_program.project(BEHAVIORS, {"o": rows}, {"a.mp4": 8.0, "b.mp4": 4.0}))
    a, b = collection.recordings.values()
    assert (unknown_spans(a), unknown_spans(b)) == ([], [(2.0, math.inf)])


def test_observation_that_cannot_be_divided_is_unknown_in_all_of_its_files(tmp_path: Path) -> None:
    project = boris_program.project(BEHAVIORS, {"o": WALK}, {"a.mp4": 8.0, "b.mp4": 4.0})
    other = boris_program.project(BEHAVIORS, {"p": WALK}, {"a.mp4": 8.0})
    project["observations"] |= other["observations"]
    del project["observations"]["o"]["media_info"]["length"]["a.mp4"]
    collection = read_project(tmp_path, project)
    assert "o" in collection.skipped
    assert [unknown_spans(r) for r in collection.recordings.values()] == [[(0.0, math.inf)]] * 2
    assert [len(r.coded_intervals) for r in collection.recordings.values()] == [1, 0]


def test_events_outside_of_the_media_files_are_kept(tmp_path: Path) -> None:
    rows = [[t, "", "bite", "", "", 0] for t in (2.0, 10.0, 25.0)]
    rows += [[t, "", "walk", "", "", 0] for t in (3.0, 4.0, 9.0, 12.0, 18.0, 18.0, 24.0, 30.0)]
    project = boris_program.project(BEHAVIORS, {"o": rows}, {"a.mp4": 8.0, "b.mp4": 4.0}, offset=10.0)
    a, b = events_by_media(read_project(tmp_path, project)).values()
    assert a == [
        ("bite", "", -8.0, -8.0, True),
        ("bite", "", 0.0, 0.0, True),
        ("walk", "", -7.0, -6.0, False),
        ("walk", "", -1.0, 2.0, False),
    ]
    # the event of no length at the start of the second file, and those behind its end
    assert b == [("bite", "", 7.0, 7.0, True), ("walk", "", 0.0, 0.0, False), ("walk", "", 6.0, 12.0, False)]


@pytest.mark.parametrize("second", [1714550500.0, 1714550400.0, 1714550408.04])
def test_creation_dates_as_offset_as_boris_adds_them(second: float, tmp_path: Path) -> None:
    """Two files, one after the other, after a pause, or both with the date of the recording's first file."""
    dates = {"/data/cow/a.mp4": 1714550400.0, "/data/cow/b.mp4": second}
    project = coded_project({"cow/a.mp4": 8.04, "cow/b.mp4": 4.0}, dates, offset=2.5)
    a, b = dates
    coded = [(a, 1.0, "walk"), (a, 3.25, "walk"), (a, 7.0, "rest"), (b, 9.04, "rest"), (b, 10.04, "bite")]
    project["observations"]["o"]["events"] = boris_program.run("code", project=project, coded=coded)
    assert project["observations"]["o"]["events"][0][0] == 1714550403.5
    assert events_by_media(read_project(tmp_path, project)) == {
        "cow/a.mp4": [("rest", "", 7.0, 8.04, False), ("walk", "", 1.0, 3.25, False)],
        "cow/b.mp4": [("bite", "", 2.0, 2.0, True), ("rest", "", 0.0, 1.0, False)],
    }


def test_creation_date_of_one_media_file(tmp_path: Path) -> None:
    """BORIS ends an event at the end of a file without adding the date."""
    project = coded_project({"a.mp4": 8.0}, {"C:\\films\\a.mp4": 1714550400})
    rows = [["1714550401,5", "", "walk", "", "", 0], [1714550403.0, "", "walk", "", "", 0]]
    project["observations"]["o"]["events"] = [
        *rows,
        [8.0, "", "rest", "", "", "NA"],
        [1714550405, "", "rest", "", "", 0],
    ]
    expected = {"a.mp4": [("rest", "", 5.0, 8.0, False), ("walk", "", 1.5, 3.0, False)]}
    assert events_by_media(read_project(tmp_path, project)) == expected


def test_automatic_stops_at_the_end_of_a_media_file_have_no_offset(tmp_path: Path) -> None:
    """As `close behaviors between videos` writes them."""
    comment = "Event automatically added by the fix unpaired state events function"
    rows = [[t, "", "walk", "", "", 0] for t in (15.0, 19.0)]
    rows += [[t, "", "walk", "", comment, "NA"] for t in (7.999, 12.0)]
    project = boris_program.project(BEHAVIORS, {"o": rows}, {"a.mp4": 8.0, "b.mp4": 4.0}, offset=10.0)
    expected = {"a.mp4": [("walk", "", 5.0, 7.999, False)], "b.mp4": [("walk", "", 1.0, 4.0, False)]}
    assert events_by_media(read_project(tmp_path, project)) == expected


@pytest.mark.parametrize(
    "dates",
    [
        {},
        {"c.mp4": 1714550400.0},
        {"a.mp4": 1714550400.0},
        {"a.mp4": "yesterday", "b.mp4": 1714550400.0},
        {"a.mp4": 1714550402.0, "b.mp4": 1714550394.0},  # 3 s after a date may be in either file
    ],
)
def test_creation_date_that_is_missing_or_ambiguous_is_an_error(dates: dict[str, Any], tmp_path: Path) -> None:
    project = coded_project({"a.mp4": 8.0, "b.mp4": 4.0}, dates)
    project["observations"]["o"]["events"] = [[1714550405.0, "", "bite", "", "", 0]]
    with pytest.raises(UserError):
        read_project(tmp_path, project)


@pytest.mark.parametrize("time", ["soon", "", None, "NA", math.nan, math.inf, "00:00:01:05", True, [1]])
def test_project_with_a_time_that_cannot_be_read_is_refused(time: object, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        read_project(tmp_path, boris_program.project(BEHAVIORS, {"o": [[time, *WALK[0][1:]]]}, {"a.mp4": 8.0}))
    project = boris_program.project(BEHAVIORS, {"o": WALK}, {"a.mp4": 8.0})
    for key in ("time offset", "length"):
        changed = json.loads(json.dumps(project))
        place = changed["observations"]["o"] if key == "time offset" else changed["observations"]["o"]["media_info"]
        place[key] = time if key == "time offset" else {"a.mp4": time}
        if time in ("", None, "NA"):  # missing
            assert read_project(tmp_path, changed).recordings["a.mp4"].events
        else:
            with pytest.raises(UserError):
                read_project(tmp_path, changed)


def test_compressed_project(tmp_path: Path) -> None:
    project = boris_program.project(BEHAVIORS, {"o": WALK}, {"a.mp4": 8.0})
    content = gzip.compress(json.dumps(project).encode())
    for name in ("p.boris.gz", "P.BORIS.GZ", "p.boris"):  # the last one was renamed
        (tmp_path / name).write_bytes(content)
        assert events_by_media(boris.read_events(tmp_path / name)) == {"a.mp4": [("walk", "", 1.0, 3.0, False)]}
    for damaged in (content[:-20], content[:5], content[:30] + b"x" + content[31:], gzip.compress(b"\xff"), b""):
        (tmp_path / "d.boris.gz").write_bytes(damaged)
        with pytest.raises(UserError):
            boris.read_events(tmp_path / "d.boris.gz")


@pytest.mark.parametrize("twin", ["WALK", "walk ", "wal\u212a"])  # the Kelvin sign
def test_behaviours_that_differ_in_case_are_refused_or_merged(twin: str, tmp_path: Path) -> None:
    """Starts and stops of one of them are not those of the other."""
    rows = [[t, "", code, "", "", 0] for t, code in ((1.0, "walk"), (2.0, twin), (3.0, "walk"), (6.0, twin))]
    project = boris_program.project({"walk": "State event", twin: "State event"}, {"o": rows}, {"a.mp4": 8.0})
    table = HEADER + "".join(f'o;a.mp4;0;8;;"{code}";STATE;{t};{t + 1}\n' for t, code in ((1, "walk"), (4, twin)))
    with pytest.raises(UserError, match=twin):
        read_project(tmp_path, project)
    boris_program.write(tmp_path / "p.boris", project)
    with pytest.raises(UserError, match=twin):
        prepare_dataset.main(["boris", str(tmp_path / "p.boris"), "--dataset-dir", str(tmp_path / "dataset")])
    collection = read_project(tmp_path, project, merge_case=True)
    assert collection.behaviors == ["walk"]
    assert events_by_media(collection)["a.mp4"] == [("walk", "", 1.0, 3.0, False), ("walk", "", 2.0, 6.0, False)]
    if twin.strip() == twin:  # cells of a table have no outer spaces
        with pytest.raises(UserError, match=twin):
            read_table(tmp_path, table)
    assert read_table(tmp_path, table, merge_case=True).behaviors == ["walk"]


def test_names_of_two_systems_are_one(tmp_path: Path) -> None:
    """An ethogram and a subject typed on Windows (NFC), and events typed on a Mac (NFD)."""
    composed, decomposed = "G\u00e4hnen", "Ga\u0308hnen"
    rows = [[t, decomposed, decomposed, "", "", 0] for t in (1.0, 2.0)]
    project = boris_program.project({composed: "State event"}, {"o": rows}, {"a.mp4": 8.0})
    assert events_by_media(read_project(tmp_path, project)) == {"a.mp4": [(composed, composed, 1.0, 2.0, False)]}
    project = boris_program.project({decomposed: "State event"}, {"o": rows}, {"a.mp4": 8.0})
    assert read_project(tmp_path, project).behaviors == [composed]


def test_queued_file_is_coded_up_to_its_length_in_boris(tmp_path: Path) -> None:
    project = boris_program.project(BEHAVIORS, {"o": WALK}, {"a.mp4": 8.0, "b.mp4": 4.0})
    intervals = [r.coded_intervals for r in read_project(tmp_path, project).recordings.values()]
    assert intervals == [[(0.0, 8.0)], [(0.0, math.inf)]]
    project["observations"]["o"]["observation time interval"] = [2, 0]  # to the end
    intervals = [r.coded_intervals for r in read_project(tmp_path, project).recordings.values()]
    assert intervals == [[(2.0, 8.0)], [(0.0, math.inf)]]


@pytest.mark.parametrize("length", [0, -1, "NA", "-1,0"])
def test_length_that_is_none_is_unknown(length: object, tmp_path: Path) -> None:
    project = boris_program.project(BEHAVIORS, {"o": WALK}, {"a.mp4": 8.0, "b.mp4": 4.0})
    project["observations"]["o"]["media_info"]["length"]["a.mp4"] = length
    collection = read_project(tmp_path, project)
    assert collection.recordings["a.mp4"].seconds is None
    assert [unknown_spans(r) for r in collection.recordings.values()] == [[(0.0, math.inf)]] * 2


def test_tables_joined_with_their_headers(tmp_path: Path) -> None:
    row = "o{0};player #1:{0}.mp4;0;8;;walk;STATE;1;3\n"
    collection = read_table(tmp_path, HEADER + row.format("a") + HEADER + row.format("b"))
    assert [len(events) for events in events_by_media(collection).values()] == [1, 1]
    with pytest.raises(UserError) as caught:
        read_table(tmp_path, HEADER + row.format("a") + "Behavior;Behavior type;Start (s);Stop (s);Source\n")
    assert caught.value.path == f"{tmp_path / 'e.csv'}:3"


def test_semicolon_in_a_file_name(tmp_path: Path) -> None:
    header = HEADER.replace("Source;", "Source;Media file name;")
    rows = ('o;"player #1:x;1.mp4;b.mp4";"{}";0;"8;4";;walk;STATE;{};{}\n'.format(*row)
            for row in (("x;1.mp4", 1, 3), ("b.mp4", 9, 10)))  # fmt: skip
    events = events_by_media(read_table(tmp_path, header + "".join(rows)))
    assert {path: [event[2:4] for event in found] for path, found in events.items()} == {
        "x;1.mp4": [(1.0, 3.0)], "b.mp4": [(1.0, 2.0)]
    }  # fmt: skip


def test_table_that_names_only_the_media_file_of_each_event(tmp_path: Path) -> None:
    """Events are not sorted by time, as BORIS writes them by subject and behaviour."""
    header = HEADER.replace("Source", "Media file name")
    later, earlier = 'o;b.mp4;0;"8;4";;rest;STATE;9;10\n', 'o;a.mp4;0;"8;4";;walk;STATE;1;3\n'
    lost = 'o;Not found;0;"8;4";;walk;STATE;5;6\n'
    collection = read_table(tmp_path, header + later + earlier + lost)
    events = events_by_media(collection)
    assert {path: [event[2:4] for event in found] for path, found in events.items()} == {
        "a.mp4": [(1.0, 3.0)], "b.mp4": [(1.0, 2.0)]
    }  # fmt: skip
    assert unknown_spans(collection.recordings["a.mp4"]) == [(5.0, 6.0)] and len(collection.skipped) == 1
    # the first film has no event, so it is not named: nothing tells where the second one begins
    collection = read_table(tmp_path, header + later)
    assert events_by_media(collection) == {"b.mp4": []} and "o" in collection.skipped
    assert unknown_spans(collection.recordings["b.mp4"]) == [(0.0, math.inf)]
