"""Import of BORIS projects: windows, their labels and splits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import prepare_dataset
from tests.boris import boris_program
from tests.boris.test_reader import BEHAVIORS
from tests.conftest import indexed_frames, read_index, write_video
from vimoclip import annotations, boris
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.prepare.coded_film import WindowLabeler
from vimoclip.timeline.bouts import WindowGrid
from vimoclip.video import VideoReader


def test_recording_coded_by_two_observers_has_the_labels_of_both(tmp_path: Path) -> None:
    write_video(tmp_path / "f0.mp4", indexed_frames(50))
    write_video(tmp_path / "f1.mp4", indexed_frames(50, seed=1))
    project: dict[str, Any] = {}
    for name, code, media in (("ann", "walk", "C:\\ann\\f0.mp4"), ("bob", "rest", "ann/f0.mp4"),
                              ("cy", "walk", "f1.mp4")):  # fmt: skip
        rows = [[0.0, "", code, "", "", 0], [2.0, "", code, "", "", 0]]
        other = boris_program.project(BEHAVIORS, {name: rows}, {media: 2.0})
        project = project or other
        project["observations"] |= other["observations"]
    boris_program.write(tmp_path / "p.boris", project)
    labels = label_names(run_prepare(tmp_path, "--window", "2"))
    assert labels["f0_0-2000ms.mp4"] == {"walk", "rest"}


@pytest.mark.parametrize(
    ("events", "overlap", "margin", "expected"),
    [
        ([("walk", 0.0, 3.0)], 0.5, 1.0, {"walk"}),  # 3 of 6 s
        ([("walk", 0.0, 2.9)], 0.5, 1.0, {"walk"}),  # all of a short bout
        ([("walk", -3.0, 2.9)], 0.5, 1.0, set()),  # 2.9 of 5.9
        ([("walk", -0.5, 0.5)], 0.5, 1.0, {"walk"}),
        ([("walk", -0.6, 0.4)], 0.5, 1.0, set()),
        ([("walk", 0.0, 1.5), ("walk", 1.5, 3.0)], 0.5, 1.0, {"walk"}),  # adjacent bouts are merged
        ([("walk", 5.0, 20.0)], 0.1, 1.0, {"walk"}),
        ([("bite", 0.0, 0.0)], 0.5, 1.0, {"bite"}),  # half of its interval
        ([("bite", -0.1, -0.1)], 0.5, 1.0, set()),
        ([("bite", -0.1, -0.1)], 0.4, 1.0, {"bite"}),
        ([("bite", 5.9, 5.9)], 0.5, 0.0, {"bite"}),
        ([("bite", 6.0, 6.0)], 0.5, 0.0, set()),
        ([("bite", 3.0, 3.0), ("rest", 1.0, 5.0)], 0.5, 1.0, {"bite", "rest"}),
    ],
)
def test_window_labels_depend_on_the_overlap(
    events: list[tuple[str, float, float]], overlap: float, margin: float, expected: set[str]
) -> None:
    behavior_events = [boris.BehaviorEvent(name, "", start, stop, start == stop) for name, start, stop in events]
    labeler = WindowLabeler(WindowGrid(6.0, 3.0), overlap, margin)
    assert labeler.labels([(0.0, 6.0)], labeler.event_intervals(behavior_events)) == [expected]


def run_prepare(root: Path, *flags: str) -> Annotations:
    command = ["boris", str(root / "p.boris"), "--dataset-dir", str(root / "dataset"), *flags]
    return annotations.load(prepare_dataset.main(command).outputs[0], "ak")


def label_names(data: Annotations) -> dict[str, set[str]]:
    """Return the names of the labels by video."""
    return {
        video: {data.classes[label] for label in labels}
        for videos in data.splits.values()
        for video, labels in videos.items()
    }


def test_windows_become_clips_and_recordings_stay_in_one_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four videos of 40 frames at 25 frames/s, whose paths are of another computer."""
    project: dict[str, Any] = {}
    for i in range(4):
        write_video(tmp_path / "films" / f"f{i}.mp4", indexed_frames(40, seed=i))
        rows = [[0.0, "", "walk", "", "", 0], [0.8, "", "walk", "", "", 0], [1.2, "", "bite", "", "", 0]]
        other = boris_program.project(BEHAVIORS, {f"o{i}": rows}, {f"/home/ann/f{i}.mp4": 1.6})
        project = project or other
        project["observations"] |= other["observations"]
    project["observations"]["gone"] = json.loads(
        json.dumps(project["observations"]["o0"]).replace("/home/ann/f0.mp4", "/home/ann/gone.mp4")
    )
    boris_program.write(tmp_path / "p.boris", project)
    flags = ["--videos-dir", str(tmp_path / "films"), "--window", "0.8", "--stride-seconds", "0.4"]
    data = run_prepare(tmp_path, *flags, "--point-margin", "0.1", "--report", str(tmp_path / "report.json"))
    counts = json.loads((tmp_path / "report.json").read_text())
    assert (counts["done"], set(counts["skipped"])) == (12, {"/home/ann/gone.mp4"})
    assert data.classes == ("walk", "bite")  # rest is never coded
    labels = label_names(data)
    assert len(labels) == 12
    assert labels["f0_0-800ms.mp4"] == {"walk"}
    assert labels["f0_400-1200ms.mp4"] == {"walk", "bite"}  # half of the bite's interval
    assert labels["f0_800-1600ms.mp4"] == {"bite"}
    recordings = [{name[:2] for name in videos} for videos in data.splits.values()]
    assert all(recordings) and not recordings[0] & recordings[1]
    clip = next(iter(VideoReader(tmp_path / "dataset" / "videos" / "f0_400-1200ms.mp4", 100)))
    assert [read_index(frame) for frame in clip.frames] == list(range(10, 30))
    output = capsys.readouterr().out
    assert "skipped: /home/ann/gone.mp4" in output
    assert "warning" not in output


def test_single_recording_is_split_by_time_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "a.mp4", indexed_frames(200, height=32, width=32))
    rows = [[t, "", "walk", "", "", 0] for t in (0.0, 1.0, 3.0, 4.0, 6.0, 7.0)]
    boris_program.write(tmp_path / "p.boris", boris_program.project(BEHAVIORS, {"o": rows}, {"a.mp4": 8.0}))
    data = run_prepare(tmp_path, "--window", "0.4", "--stride-seconds", "0.2", "--drop-unlabelled")
    assert "warning: " in capsys.readouterr().out
    spans = {
        split: [tuple(int(part) for part in name[2:-6].split("-")) for name in videos]
        for split, videos in data.splits.items()
    }
    assert all(spans.values())
    for start, stop in spans["train"]:
        assert all(stop <= other[0] or start >= other[1] for other in spans["val"])
    assert all(labels == {"walk"} for labels in label_names(data).values())


def test_subjects_and_behaviors_can_be_filtered(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", indexed_frames(50))
    rows = [[0.0, "Ann", "walk", "", "", 0], [0.0, "Bob", "rest", "", "", 0], [0.5, "Ann", "bite", "", "", 0],
            [2.0, "Ann", "walk", "", "", 0], [2.0, "Bob", "rest", "", "", 0]]  # fmt: skip
    boris_program.write(tmp_path / "p.boris", boris_program.project(BEHAVIORS, {"o": rows}, {"a.mp4": 2.0}))
    data = run_prepare(tmp_path, "--window", "0.5", "--subjects", "Ann", "--exclude", "bite", "--stride-seconds", "0.5")
    assert data.classes == ("walk",)
    assert run_prepare(tmp_path, "--window", "0.5", "--subjects", "ann", "--exclude", "Bite",
                       "--stride-seconds", "0.5") == data  # fmt: skip
    with pytest.raises(UserError, match=r"Cy.*'Ann', 'Bob'"):
        run_prepare(tmp_path, "--subjects", "Cy")


def test_no_clips_outside_the_coded_interval(tmp_path: Path) -> None:
    project: dict[str, Any] = {}
    for i in range(2):
        write_video(tmp_path / f"f{i}.mp4", indexed_frames(100, height=32, width=32, seed=i))
        rows = [[1.0, "", "walk", "", "", 0], [2.0, "", "walk", "", "", 0]]
        other = boris_program.project(BEHAVIORS, {f"o{i}": rows}, {f"f{i}.mp4": 4.0})
        other["observations"][f"o{i}"]["observation time interval"] = [1, 3] if i else [0, 0]
        project = project or other
        project["observations"] |= other["observations"]
    boris_program.write(tmp_path / "p.boris", project)
    labels = label_names(run_prepare(tmp_path, "--window", "1", "--stride-seconds", "1"))
    assert {name for name in labels if name[:2] == "f1"} == {"f1_1000-2000ms.mp4", "f1_2000-3000ms.mp4"}
    assert len(labels) == 6


def project_of_films(path: Path, media: Sequence[str]) -> None:
    """Write a project with an observation per media file, in which `walk` fills the first second."""
    project: dict[str, Any] = {}
    for i, name in enumerate(media):
        rows = [[0.0, "", "walk", "", "", 0], [1.0, "", "walk", "", "", 0]]
        other = boris_program.project(BEHAVIORS, {f"o{i}": rows}, {name: 2.0})
        project = project or other
        project["observations"] |= other["observations"]
    boris_program.write(path, project)


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_films_of_one_name_become_clips_of_different_names(tmp_path: Path, separator: str) -> None:
    media = ["day1/GOPR0001.MP4", "day2/GOPR0001.MP4", "day2/other.mp4"]
    for i, name in enumerate(media):
        write_video(tmp_path / name, indexed_frames(50, seed=i))
    project_of_films(tmp_path / "p.boris", [name.replace("/", separator) for name in media])
    data = run_prepare(tmp_path, "--window", "1", "--stride-seconds", "1")
    films = ("day1__GOPR0001", "day2__GOPR0001", "other")
    assert label_names(data) == {
        f"{film}_{span}ms.mp4": {"walk"} if span == "0-1000" else set()
        for film in films
        for span in ("0-1000", "1000-2000")
    }
    sources = annotations.read_sources(tmp_path / "dataset" / "annotations")
    assert set(sources.values()) == {"day1__GOPR0001.MP4", "day2__GOPR0001.MP4", "other.mp4"}
    contents = {(tmp_path / "dataset" / "videos" / f"{film}_0-1000ms.mp4").read_bytes() for film in films}
    assert len(contents) == 3


def test_different_films_are_not_taken_from_one_file(tmp_path: Path) -> None:
    write_video(tmp_path / "GOPR0001.MP4", indexed_frames(50))
    project_of_films(tmp_path / "p.boris", ["day1/GOPR0001.MP4", "day2\\GOPR0001.MP4"])
    with pytest.raises(UserError, match=r"day1/GOPR0001\.MP4 and day2"):
        run_prepare(tmp_path)
    assert not (tmp_path / "dataset").exists()


def test_films_that_share_any_observation_are_of_one_source(tmp_path: Path) -> None:
    """Film f1 was coded by both observers, who coded f0 and f2 as well; f3 and f4 are apart."""
    rows = [[0.0, "", "walk", "", "", 0], [1.0, "", "walk", "", "", 0]]
    project: dict[str, Any] = {}
    observations = {"ann": ["f0.mp4", "f1.mp4"], "bob": ["f2.mp4", "f1.mp4"], "cy": ["f3.mp4"], "di": ["f4.mp4"]}
    for name, films in observations.items():
        other = boris_program.project(BEHAVIORS, {name: rows}, dict.fromkeys(films, 2.0))
        project = project or other
        project["observations"] |= other["observations"]
    for number in range(5):
        write_video(tmp_path / f"f{number}.mp4", indexed_frames(50, height=32, width=32, seed=number))
    boris_program.write(tmp_path / "p.boris", project)
    run_prepare(tmp_path, "--window", "1", "--stride-seconds", "1", "--group-by", "observation")
    sources = annotations.read_sources(tmp_path / "dataset" / "annotations")
    assert {name[:2]: source for name, source in sources.items()} == {
        "f0": "ann",
        "f1": "ann",
        "f2": "ann",
        "f3": "cy",
        "f4": "di",
    }
