"""BORIS: its projects and aggregated events in, bouts out, checked against the program's own code."""

import json
from pathlib import Path
from typing import Any

import pytest

import prepare_dataset
from tests import boris_program
from tests.conftest import indexed_frames, read_index, write_video
from vimoclip import annotations, boris, video
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.prepare.boris import Windows
from vimoclip.timeline import Bout

STATE, POINT = "State event", "Point event"
BEHAVIORS = {"walk": STATE, "rest": STATE, "bite": POINT}
BOUTS = (Bout("walk", 0.0, 2.52, 0.9), Bout("rest", 2.0, 7.0, 0.75), Bout("walk", 4.04, 8.0, 0.5))


def events_of(found: boris.Events) -> dict[str, list[boris.Event]]:
    return {name: sorted(one.events) for name, one in found.recordings.items()}


def test_bouts_go_into_boris_and_come_back(tmp_path: Path) -> None:
    """Written here, pasted by BORIS, exported by BORIS as aggregated events, read here."""
    path = boris.export(tmp_path / "a.boris.tsv", Path("a.mp4"), 25.0, 8.0, BOUTS)
    pasted = boris_program.run("paste", text=path.read_text())
    assert pasted["said"] == []
    events = pasted["events"]
    assert len(events) == 2 * len(BOUTS)
    assert [row[5] for row in events if row[2] == "rest"] == [50, 175]  # frames at 25 a second
    project = boris_program.project(BEHAVIORS, {"one": events}, {"a.mp4": 8.0})
    text = boris_program.run("aggregate", project=project, format="tsv")["text"]
    (tmp_path / "events.tsv").write_text(text)
    expected = {"a.mp4": sorted((b.action, "No focal subject", b.start, b.stop, False) for b in BOUTS)}
    assert events_of(boris.read(tmp_path / "events.tsv")) == expected


def test_a_project_and_its_aggregated_events_say_the_same(tmp_path: Path) -> None:
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
    found = boris.read(boris_program.write(tmp_path / "p.boris", project))
    assert found.behaviors == list(BEHAVIORS)
    a, b = events_of(found).values()
    assert a == [
        ("bite", "Ann", 4.25, 4.25, True),
        ("rest", "Ann", 1.0, 2.0, False),
        ("rest", "Ann", 7.0, 8.0, False),  # goes on in the second file
        ("walk", "Ann", 0.5, 3.0, False),
        ("walk", "Bob", 2.0, 6.0, False),
    ]
    assert b == [("bite", "Bob", 0.5, 0.5, True), ("rest", "Ann", 0.0, 1.0, False)]
    for kind in ("tsv", "csv"):
        text = boris_program.run("aggregate", project=project, format=kind)["text"]
        (tmp_path / f"events.{kind}").write_text(text, newline="")
        again = boris.read(tmp_path / f"events.{kind}")
        assert events_of(again) == events_of(found)
        assert again.recordings["cow/b.mp4"].seconds == 4.0


OLDER = (  # version 7 and before: other names of columns, one media file, hours in times
    "Observation id\tObservation date\tDescription\tMedia file\tTotal length\tFPS\tSubject\tBehavior\t"
    "Behavioral category\tModifiers\tBehavior type\tStart (s)\tStop (s)\tDuration (s)\tComment start\tComment stop\n"
    "o1\t2019-01-01\t\tC:\\films\\a.mp4\t8.0\t25.0\tAnn\twalk\t\t\tSTATE\t1.0\t4.0\t3.0\t\t\n"
    "o1\t2019-01-01\t\tC:\\films\\a.mp4\t8.0\t25.0\tAnn\tbite\t\t\tPOINT\t5.0\t5.0\tNA\t\t\n"
    "o1\t2019-01-01\t\tC:\\films\\a.mp4\t8.0\t25.0\tAnn\trest\t\t\tSTATE\t6.0\tNA\tNA\t\t\n"
    "live\t2019-01-01\t\tNA\tNA\tNA\tAnn\twalk\t\t\tSTATE\t1.0\t4.0\t3.0\t\t\n"
)


def test_older_columns_are_read_and_what_has_no_end_or_media_is_named(tmp_path: Path) -> None:
    (tmp_path / "old.tsv").write_text(OLDER)
    found = boris.read(tmp_path / "old.tsv")
    assert events_of(found) == {
        "C:\\films\\a.mp4": [("bite", "Ann", 5.0, 5.0, True), ("walk", "Ann", 1.0, 4.0, False)],
    }
    assert found.left_out["o1: rest in line 4"] == "has no end"
    assert "no media file" in found.left_out["live"]


def test_of_a_project_is_named_what_is_no_media_unknown_or_unpaired(tmp_path: Path) -> None:
    rows = [[1.0, "", "walk", "", "", 0], [2.0, "", "fly", "", "", 0], [3.0, "", "rest", "", "", 0],
            [4.0, "", "walk", "", "", 0]]  # fmt: skip
    project = boris_program.project(BEHAVIORS, {"one": rows, "live": []}, {"a.mp4": 8.0})
    project["observations"]["live"]["type"] = "LIVE"
    found = boris.read(boris_program.write(tmp_path / "p.boris", project))
    assert events_of(found) == {"a.mp4": [("walk", "", 1.0, 4.0, False)]}
    assert "live" in found.left_out
    assert "ethogram" in found.left_out["one: fly"]
    assert "one is missing" in found.left_out["one: rest of no subject from 3 s on"]


def test_a_forgotten_stop_turns_nothing_round(tmp_path: Path) -> None:
    """walk from 1 to 5, from 7 on, and from 20 to 22: which of them has no end nobody knows."""
    rows = [[time, "", "walk", "", "", 0] for time in (1.0, 5.0, 7.0, 20.0, 22.0)]
    rows += [[time, "", "rest", "", "", 0] for time in (2.0, 3.0)]
    project = boris_program.project(BEHAVIORS, {"one": rows}, {"a.mp4": 30.0})
    found = boris.read(boris_program.write(tmp_path / "p.boris", project))
    assert events_of(found) == {"a.mp4": [("rest", "", 2.0, 3.0, False)]}
    assert "5 starts and stops" in found.left_out["one: walk of no subject from 1 s on"]


def test_a_film_that_two_observers_had_at_other_places_has_the_labels_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "f0.mp4", indexed_frames(50))
    write_video(tmp_path / "f1.mp4", indexed_frames(50, seed=1))
    project: dict[str, Any] = {}
    for name, code, media in (("ann", "walk", "C:/ann/f0.mp4"), ("bob", "rest", "/home/bob/f0.mp4"),
                              ("cy", "walk", "f1.mp4")):  # fmt: skip
        rows = [[0.0, "", code, "", "", 0], [2.0, "", code, "", "", 0]]
        one = boris_program.project(BEHAVIORS, {name: rows}, {media: 2.0})
        project = project or one
        project["observations"] |= one["observations"]
    boris_program.write(tmp_path / "p.boris", project)
    found = names(prepare(tmp_path, "--window", "2"))
    assert found["f0_0-2000ms.mp4"] == {"walk", "rest"}
    assert "are both taken for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("events", "overlap", "margin", "expected"),
    [
        ([("walk", 0.0, 3.0)], 0.5, 1.0, {"walk"}),  # 3 of 6 s
        ([("walk", 0.0, 2.9)], 0.5, 1.0, {"walk"}),  # all of a short bout
        ([("walk", -3.0, 2.9)], 0.5, 1.0, set()),  # 2.9 of 5.9
        ([("walk", -0.5, 0.5)], 0.5, 1.0, {"walk"}),
        ([("walk", -0.6, 0.4)], 0.5, 1.0, set()),
        ([("walk", 0.0, 1.5), ("walk", 1.5, 3.0)], 0.5, 1.0, {"walk"}),  # one after the other are one
        ([("walk", 5.0, 20.0)], 0.1, 1.0, {"walk"}),
        ([("bite", 0.0, 0.0)], 0.5, 1.0, {"bite"}),  # half of its stretch
        ([("bite", -0.1, -0.1)], 0.5, 1.0, set()),
        ([("bite", -0.1, -0.1)], 0.4, 1.0, {"bite"}),
        ([("bite", 5.9, 5.9)], 0.5, 0.0, {"bite"}),
        ([("bite", 6.0, 6.0)], 0.5, 0.0, set()),
        ([("bite", 3.0, 3.0), ("rest", 1.0, 5.0)], 0.5, 1.0, {"bite", "rest"}),
    ],
)
def test_a_window_has_the_labels_of_what_overlaps_it_enough(
    events: list[tuple[str, float, float]], overlap: float, margin: float, expected: set[str]
) -> None:
    seen = [boris.Event(name, "", start, stop, start == stop) for name, start, stop in events]
    windows = Windows(6.0, 3.0, overlap, margin)
    assert windows.labels((0.0, 6.0), windows.stretches(seen)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(4.0, [(0, 4)]), (6.0, [(0, 6)]), (9.0, [(0, 6), (3, 9)]), (10.0, [(0, 6), (3, 9), (4, 10)])],
)
def test_windows_end_with_the_recording(seconds: float, expected: list[tuple[float, float]]) -> None:
    assert Windows(6.0, 3.0).spans(seconds) == expected


def prepare(root: Path, *flags: str) -> Annotations:
    command = ["boris", str(root / "p.boris"), "--dataset-dir", str(root / "dataset"), *flags]
    return annotations.load(prepare_dataset.main(command), "ak")


def names(data: Annotations) -> dict[str, set[str]]:
    of = {name: own for videos in data.splits.values() for name, own in videos.items()}
    return {name: {data.classes[label] for label in own} for name, own in of.items()}


def test_windows_of_a_project_become_clips_and_recordings_stay_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four films of 40 frames at 25 a second, which another computer had elsewhere."""
    project: dict[str, Any] = {}
    for i in range(4):
        write_video(tmp_path / "films" / f"f{i}.mp4", indexed_frames(40, seed=i))
        rows = [[0.0, "", "walk", "", "", 0], [0.8, "", "walk", "", "", 0], [1.2, "", "bite", "", "", 0]]
        one = boris_program.project(BEHAVIORS, {f"o{i}": rows}, {f"/home/ann/f{i}.mp4": 1.6})
        project = project or one
        project["observations"] |= one["observations"]
    project["observations"]["gone"] = json.loads(
        json.dumps(project["observations"]["o0"]).replace("/home/ann/f0.mp4", "/home/ann/gone.mp4")
    )
    boris_program.write(tmp_path / "p.boris", project)
    flags = ["--videos-dir", str(tmp_path / "films"), "--window", "0.8", "--stride-seconds", "0.4"]
    data = prepare(tmp_path, *flags, "--point-margin", "0.1")
    assert data.classes == ("walk", "bite")  # nobody rests
    found = names(data)
    assert len(found) == 12
    assert found["f0_0-800ms.mp4"] == {"walk"}
    assert found["f0_400-1200ms.mp4"] == {"walk", "bite"}  # half of the bite's stretch
    assert found["f0_800-1600ms.mp4"] == {"bite"}
    sides = [{name[:2] for name in of} for of in data.splits.values()]
    assert all(sides) and not sides[0] & sides[1]
    clip = next(iter(video.read(tmp_path / "dataset" / "videos" / "f0_400-1200ms.mp4", 100)))
    assert not isinstance(clip, video.End)
    assert [read_index(frame) for frame in clip] == list(range(10, 30))
    said = capsys.readouterr().out
    assert "left out: /home/ann/gone.mp4" in said
    assert "warning" not in said


def test_one_recording_is_split_by_stretches_of_time_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "a.mp4", indexed_frames(200, height=32, width=32))
    rows = [[t, "", "walk", "", "", 0] for t in (0.0, 1.0, 3.0, 4.0, 6.0, 7.0)]
    boris_program.write(tmp_path / "p.boris", boris_program.project(BEHAVIORS, {"o": rows}, {"a.mp4": 8.0}))
    data = prepare(tmp_path, "--window", "0.4", "--stride-seconds", "0.2", "--drop-unlabelled")
    assert "warning: there is one recording only" in capsys.readouterr().out
    spans = {
        split: [tuple(int(part) for part in name[2:-6].split("-")) for name in videos]
        for split, videos in data.splits.items()
    }
    assert all(spans.values())
    for start, stop in spans["train"]:
        assert all(stop <= other[0] or start >= other[1] for other in spans["val"])
    assert all(seen == {"walk"} for seen in names(data).values())


def test_only_some_subjects_and_behaviours_are_taken(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", indexed_frames(50))
    rows = [[0.0, "Ann", "walk", "", "", 0], [0.0, "Bob", "rest", "", "", 0], [0.5, "Ann", "bite", "", "", 0],
            [2.0, "Ann", "walk", "", "", 0], [2.0, "Bob", "rest", "", "", 0]]  # fmt: skip
    boris_program.write(tmp_path / "p.boris", boris_program.project(BEHAVIORS, {"o": rows}, {"a.mp4": 2.0}))
    data = prepare(tmp_path, "--window", "0.5", "--subjects", "Ann", "--exclude", "bite", "--stride-seconds", "0.5")
    assert data.classes == ("walk",)
    with pytest.raises(UserError, match=r"no subject Cy.*Ann, Bob"):
        prepare(tmp_path, "--subjects", "Cy")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.boris", "{}", "no project of BORIS"),
        ("p.boris", "walk", "no project of BORIS"),
        ("p.csv", "a,b\n1,2\n", "no column Behavior type"),
        ("p.tsv", OLDER.replace("\tBehavior\t", "\tAction\t"), "no column Behavior;"),
        ("p.tsv", OLDER.replace("1.0\t4.0\t3.0", "4.0\t1.0\t3.0", 1), ":2: walk stops at 1 s"),
        ("p.tsv", OLDER.replace("POINT", "DOT"), ":3: the behavior type 'DOT'"),
    ],
)
def test_what_is_no_file_of_boris_is_refused(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        boris.read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_where_nobody_coded_there_are_no_clips(tmp_path: Path) -> None:
    project: dict[str, Any] = {}
    for i in range(2):
        write_video(tmp_path / f"f{i}.mp4", indexed_frames(100, height=32, width=32, seed=i))
        rows = [[1.0, "", "walk", "", "", 0], [2.0, "", "walk", "", "", 0]]
        one = boris_program.project(BEHAVIORS, {f"o{i}": rows}, {f"f{i}.mp4": 4.0})
        one["observations"][f"o{i}"]["observation time interval"] = [1, 3] if i else [0, 0]
        project = project or one
        project["observations"] |= one["observations"]
    boris_program.write(tmp_path / "p.boris", project)
    found = names(prepare(tmp_path, "--window", "1", "--stride-seconds", "1"))
    assert {name for name in found if name[:2] == "f1"} == {"f1_1000-2000ms.mp4", "f1_2000-3000ms.mp4"}
    assert len(found) == 6
