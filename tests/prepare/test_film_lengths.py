"""What was coded arrives: windows and clips follow what decodes, and losses are counted, named, and never negatives."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prepare_dataset
from tests import video_files
from tests.boris import boris_program
from tests.boris.test_reader import BEHAVIORS
from tests.conftest import indexed_frames, modification_times, read_index, write_video
from tests.prepare.test_boris import label_names
from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError, VideoError
from vimoclip.prepare import film_lengths, grouped_split
from vimoclip.prepare.film_lengths import FilmMeasurer
from vimoclip.prepare.place_videos import MAX_OPEN_CLIPS, TrimSpan, split_overlapping, trim_video
from vimoclip.video import VideoReader, probe

WINDOWS = ("--window", "1", "--stride-seconds", "1")


def run(root: Path, *command: str) -> tuple[dict[str, Any], Annotations]:
    """Run a command of prepare_dataset.py; return its report and the annotations."""
    report = root / "report.json"
    prepare_dataset.main([*command, "--dataset-dir", str(root / "dataset"), "--report", str(report)])
    return json.loads(report.read_text()), annotations.load(root / "dataset" / "annotations", "ak")


def write_project(root: Path, events: dict[str, list[tuple[str, float, float]]], seconds: float) -> str:
    """Write a project with an observation per film; events are (behaviour, start, stop)."""
    project: dict[str, Any] = {}
    for film, film_events in events.items():
        rows = [[time, "", code, "", "", 0] for code, *times in film_events for time in times]
        other = boris_program.project(BEHAVIORS, {film: rows}, {film: seconds})
        project = project or other
        project["observations"] |= other["observations"]
    boris_program.write(root / "p.boris", project)
    return str(root / "p.boris")


def write_film(path: Path, header_seconds: float | None) -> Path:
    """Write a film of 2 s (50 frames) whose header gives another duration, or none."""
    frames = indexed_frames(50)
    if path.suffix == ".mp4" and header_seconds is not None:
        video_files.encode(path, frames, "h264")
        ticks = round(header_seconds * 12800)  # the time base of a stream of 25 frames/s
        return video_files.overwrite_after(path, b"mdhd", ticks.to_bytes(4, "big"), after=20)
    if header_seconds is None:
        return video_files.encode(path, frames, "vp9", live="1")  # as MediaRecorder writes
    video_files.encode(path, frames, "vp9")
    return video_files.overwrite_after(path, b"\x44\x89\x88", struct.pack(">d", header_seconds * 1000), after=3)


@pytest.mark.parametrize(
    ("film", "header_seconds"), [("a.mp4", 1.0), ("a.mp4", 0.0), ("a.webm", None), ("a.webm", 1.0), ("a.webm", 4.0)]
)
def test_windows_and_clips_follow_what_decodes(
    film: str, header_seconds: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_film(tmp_path / film, header_seconds)
    assert probe(tmp_path / film).seconds == (header_seconds or 0.0)
    project = write_project(tmp_path, {film: [("walk", 0.0, 2.0)]}, 3.0)
    report, data = run(tmp_path, "boris", project, *WINDOWS)
    assert label_names(data) == {"a_0-1000ms.mp4": {"walk"}, "a_1000-2000ms.mp4": {"walk"}}
    assert not report["failed"]
    warning = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("warning") and film in line)
    assert "3 s" in warning and "2 s" in warning and (not header_seconds or f"{header_seconds:g} s" in warning)

    (tmp_path / "t.csv").write_text(f"video,labels,start,end\n{film},rest,0.5,\n")
    _, data = run(tmp_path / "csv", "csv", str(tmp_path / "t.csv"))
    assert list(label_names(data)) == ["a_500-2000ms.mp4"]
    (clip,) = VideoReader(tmp_path / "csv" / "dataset" / "videos" / "a_500-2000ms.mp4", 100)
    assert len(clip.frames) == 37  # from frame 13, which begins at 0.52 s


def test_length_within_two_frames_of_the_header_counts_as_that_of_the_header(tmp_path: Path) -> None:
    """A longer audio track makes the container longer than its video."""
    for name in ("a.webm", "b.webm"):
        write_film(tmp_path / name, 2.06)
    project = write_project(tmp_path, {name: [("walk", 0.0, 2.0)] for name in ("a.webm", "b.webm")}, 2.06)
    _, data = run(tmp_path, "boris", project, *WINDOWS)
    assert {name[2:] for name in label_names(data)} == {"0-1000ms.mp4", "1000-2000ms.mp4", "1060-2060ms.mp4"}


def test_events_outside_of_the_film_are_counted_and_a_lost_behavior_is_a_failure(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, indexed_frames(50, seed=ord(name[0])))
    events = {
        "a.mp4": [("walk", 0.0, 0.9), ("walk", 1.2, 9.0), ("walk", 3.0, 4.0), ("rest", 2.5, 2.9)],
        "b.mp4": [("walk", 0.0, 1.0), ("rest", 5.0, 6.0)],
    }
    command = ["boris", write_project(tmp_path, events, 10.0), *WINDOWS]
    report, data = run(tmp_path, *command)
    assert set(report["skipped"]) == {"a.mp4, walk", "a.mp4, rest", "b.mp4, rest"}
    assert report["skipped"]["a.mp4, walk"].count("1 of 3 events") == 2  # one is outside, one partly
    assert set(report["failed"]) == {"rest"}
    assert data.classes == ("walk",)
    assert label_names(data)["a_1000-2000ms.mp4"] == {"walk"}
    with pytest.raises(SystemExit) as exit_code:
        prepare_dataset.cli.run(lambda: prepare_dataset.main([*command, "--dataset-dir", str(tmp_path / "dataset")]))
    assert exit_code.value.code == 1


def test_events_between_windows_are_named(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, indexed_frames(75, seed=ord(name[0])))
    events = {"a.mp4": [("walk", 0.1, 0.4), ("rest", 1.1, 1.9)], "b.mp4": [("walk", 0.0, 0.5), ("rest", 0.0, 0.5)]}
    flags = ("--window", "1", "--stride-seconds", "2")
    report, data = run(tmp_path, "boris", write_project(tmp_path, events, 3.0), *flags)
    assert set(report["skipped"]) == {"a.mp4, rest"}
    assert not report["failed"] and data.classes == ("walk", "rest")


def test_events_at_the_ends_of_the_film_label_its_windows(tmp_path: Path) -> None:
    """Coded times may be a few ms after the end; of an event that ends later, the part in the film counts."""
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, indexed_frames(50, seed=ord(name[0])))
    events = {"a.mp4": [("walk", 1.8, 9.0)], "b.mp4": [("walk", -3.0, 0.2)]}
    project = write_project(tmp_path, events, 2.0)
    content = json.loads(Path(project).read_text())
    for film in events:
        content["observations"][film]["events"].append([2.004 if film[0] == "a" else -0.004, "", "bite", "", "", 0])
    Path(project).write_text(json.dumps(content))
    report, data = run(tmp_path, "boris", project, *WINDOWS)
    labels = label_names(data)
    assert labels["a_1000-2000ms.mp4"] == labels["b_0-1000ms.mp4"] == {"walk", "bite"}
    assert labels["a_0-1000ms.mp4"] == labels["b_1000-2000ms.mp4"] == set()
    assert set(report["skipped"]) == {"a.mp4, walk", "b.mp4, walk"}


def test_windows_of_a_stretch_whose_coding_is_unknown_are_left_out(tmp_path: Path) -> None:
    """The start of `rest` at 1.5 s has no stop, so that it may go on to the end; Ann's fills the last second."""
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, indexed_frames(75, seed=ord(name[0])))
    project = write_project(tmp_path, {"a.mp4": [("walk", 0.0, 1.0)], "b.mp4": [("walk", 0.0, 1.0)]}, 3.0)
    content = json.loads(Path(project).read_text())
    rows = [[1.5, "", "rest", "", "", 0], [2.0, "Ann", "rest", "", "", 0], [3.0, "Ann", "rest", "", "", 0]]
    content["observations"]["a.mp4"]["events"] += rows
    Path(project).write_text(json.dumps(content))
    report, data = run(tmp_path, "boris", project, *WINDOWS)
    labels = {name: names for name, names in label_names(data).items() if name[0] == "a"}
    assert labels == {"a_0-1000ms.mp4": {"walk"}, "a_2000-3000ms.mp4": {"rest"}}
    assert "a.mp4, windows" in report["skipped"]


def test_film_that_is_shorter_than_a_window_is_one_unless_it_was_cut(tmp_path: Path) -> None:
    """Of b, less decodes than its header and BORIS say; a lasts as long as it says."""
    write_video(tmp_path / "a.mp4", indexed_frames(50))
    write_film(tmp_path / "b.webm", 4.0)
    events = {"a.mp4": [("walk", 0.0, 2.0)], "b.webm": [("walk", 0.0, 1.0), ("rest", 0.0, 1.0)]}
    project = write_project(tmp_path, events, 2.0)
    report, data = run(tmp_path, "boris", project, "--window", "3")
    assert list(label_names(data)) == ["a_0-2000ms.mp4"]
    assert set(report["skipped"]) == {"b.webm, windows", "b.webm, walk", "b.webm, rest"}
    assert set(report["failed"]) == {"rest"}


def test_windows_with_lost_frames_are_left_out(tmp_path: Path) -> None:
    """A damaged packet in the second group of ten frames loses the rest of this group."""
    for name in ("a.mkv", "b.mkv"):
        video_files.encode(tmp_path / name, indexed_frames(75, seed=ord(name[0])), "h264")
    video_files.corrupt_packet(tmp_path / "a.mkv", 12)
    project = write_project(tmp_path, {"a.mkv": [("walk", 0.0, 3.0)], "b.mkv": [("walk", 0.0, 1.0)]}, 3.0)
    report, data = run(tmp_path, "boris", project, *WINDOWS)
    assert {name for name in label_names(data) if name[0] == "a"} == {"a_1000-2000ms.mp4", "a_2000-3000ms.mp4"}
    assert "a.mkv, windows" in report["skipped"]
    (tmp_path / "t.csv").write_text("video,labels,start,end\na.mkv,rest,0.2,0.9\na.mkv,walk,1,2\n")
    report, data = run(tmp_path / "csv", "csv", str(tmp_path / "t.csv"))
    assert list(label_names(data)) == ["a_1000-2000ms.mp4"]
    assert set(report["skipped"]) == {"a.mkv in line 2"} and set(report["failed"]) == {"rest"}


def test_lines_that_end_after_the_film_are_left_out(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", indexed_frames(50))
    lines = ["a.mp4,walk,0,1", "a.mp4,walk,1.9,60", "a.mp4,rest,30,40", "a.mp4,walk,1,2.06", "a.mp4,eat,,2"]
    (tmp_path / "t.csv").write_text("video,labels,start,end\n" + "\n".join(lines))
    report, data = run(tmp_path, "csv", str(tmp_path / "t.csv"))
    assert set(label_names(data)) == {"a_0-1000ms.mp4", "a_1000-2060ms.mp4", "a_0-2000ms.mp4"}
    assert set(report["skipped"]) == {"a.mp4 in line 3", "a.mp4 in line 4"}
    assert set(report["failed"]) == {"rest"}


@pytest.mark.parametrize("importer", ["csv", "boris", "mammalnet"])
def test_refusal_of_other_annotations_leaves_nothing_behind(importer: str, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, indexed_frames(50, seed=ord(name[0])))
    if importer == "csv":
        (tmp_path / "t.csv").write_text("video,labels,start,end\na.mp4,walk,0,1\nb.mp4,walk,,\n")
        command = ["csv", str(tmp_path / "t.csv")]
    elif importer == "boris":
        command = ["boris", write_project(tmp_path, {"a.mp4": [("walk", 0.0, 1.0)]}, 2.0), "--window", "0.4"]
    else:
        for split, name in (("train", "a"), ("val", "b"), ("test", "a")):
            (tmp_path / f"{split}.csv").write_text(f"{name}.mp4 1 0\n")
        command = ["mammalnet", str(tmp_path)]
    folder = tmp_path / "dataset" / "annotations"
    annotations.write(folder, "ak", Annotations(("walk",), {"train": {"other.mp4": (0,)}, "val": {}}))
    before = modification_times(tmp_path / "dataset")
    with pytest.raises(UserError) as error:
        prepare_dataset.main([*command, "--dataset-dir", str(tmp_path / "dataset")])
    assert error.value.path == str(folder)
    assert modification_times(tmp_path / "dataset") == before


def test_many_overlapping_clips_are_trimmed_in_several_passes(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", indexed_frames(60))
    spans = [TrimSpan(tmp_path / "clips" / f"{n}.mp4", 0.04 * n, 0.04 * n + 1.2) for n in range(30)]
    passes, remaining = [], spans
    while remaining:
        taken, remaining = split_overlapping(remaining)
        passes.append(taken)
    assert sorted(span for taken in passes for span in taken) == sorted(spans)
    for taken in passes:
        assert max(sum(s.start <= time < s.stop for s in taken) for time in np.arange(0, 2.4, 0.02)) <= MAX_OPEN_CLIPS
    assert trim_video(tmp_path / "a.mp4", spans) == {span.target: pytest.approx(1.2) for span in spans}
    for number, span in enumerate(spans):
        (clip,) = VideoReader(span.target, 100)
        assert [read_index(frame) for frame in clip.frames] == list(range(number, number + 30))


def test_interrupted_import_does_not_decode_a_measured_film_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_lengths, "UNSAVED_SECONDS", 0.0)
    film = video_files.encode(tmp_path / "a.mkv", indexed_frames(30), "h264", times=[40 * n**2 for n in range(30)])
    video_files.corrupt_packet(film, 12)
    measured = FilmMeasurer(tmp_path).measure(film)
    state = film.stat()
    film.write_bytes(bytes(state.st_size))  # can't be decoded
    os.utime(film, ns=(state.st_atime_ns, state.st_mtime_ns))
    again = FilmMeasurer(tmp_path).measure(film)
    assert np.array_equal(measured.indices, again.indices) and np.allclose(measured.times, again.times, atol=1e-3)
    assert (measured.seconds, measured.problem) == (pytest.approx(again.seconds), again.problem)
    (tmp_path / film_lengths.FILMS_FILE).write_text("no JSON\n")
    with pytest.raises(VideoError):
        FilmMeasurer(tmp_path).measure(film)


def test_clips_that_fail_leave_no_gap_in_the_selection(tmp_path: Path) -> None:
    """The only selected clip of a class may be one that fails, as H.264 can't encode frames of this width."""
    wide = [np.full((16, 16500, 3), value, np.uint8) for value in range(25)]
    rows = ["video,labels,start,end,split", "wide.mkv,rest,0,0.08,train"]
    rows += [f"wide.mkv,walk,{i / 25},{i / 25 + 0.08},train" for i in range(1, 20)]
    video_files.encode(tmp_path / "wide.mkv", wide, "ffv1")
    for i in range(5):
        write_video(tmp_path / f"{i}.mp4", indexed_frames(25, seed=i))
        rows += [
            f"{i}.mp4,walk,0,0.4,{'val' if i == 4 else 'train'}",
            f"{i}.mp4,,0.4,0.8,{'val' if i == 4 else 'train'}",
        ]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    report, data = run(tmp_path, "csv", str(tmp_path / "t.csv"))
    assert set(report["failed"]) == {"rest"} and {name[:4] for name in report["skipped"]} == {"wide"}
    sources = annotations.read_sources(tmp_path / "dataset" / "annotations")
    assert data.selection and data.selection == grouped_split.draw_stratified(data, sources=sources)
    assert run(tmp_path, "csv", str(tmp_path / "t.csv")) == (report, data)  # nothing else than before
    (tmp_path / "t.csv").write_text("\n".join([*rows, "0.mp4,walk,0.2,0.6,train"]))
    with pytest.raises(UserError):
        run(tmp_path, "csv", str(tmp_path / "t.csv"))


def test_queued_film_that_is_longer_than_in_boris(tmp_path: Path) -> None:
    """Events after its end in BORIS are of the next film, so the rest of it is not known to be without behaviours."""
    write_video(tmp_path / "a.mp4", indexed_frames(100))
    write_video(tmp_path / "b.mp4", indexed_frames(52, seed=1))  # BORIS' length is two frames shorter
    rows = [[time, "", "walk", "", "", 0] for time in (0.0, 1.0, 2.0, 3.0)]
    project = boris_program.project(BEHAVIORS, {"o": rows}, {"a.mp4": 2.0, "b.mp4": 2.0, "c.mp4": 2.0})
    boris_program.write(tmp_path / "p.boris", project)
    _, data = run(tmp_path, "boris", str(tmp_path / "p.boris"), *WINDOWS)
    assert {name for name in label_names(data) if name[0] == "a"} == {"a_0-1000ms.mp4", "a_1000-2000ms.mp4"}
    assert {name for name in label_names(data) if name[0] == "b"} == {
        "b_0-1000ms.mp4", "b_1000-2000ms.mp4", "b_1080-2080ms.mp4"
    }  # fmt: skip


def test_point_just_behind_the_end_is_not_named_as_lost(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", indexed_frames(50))
    project = write_project(tmp_path, {"a.mp4": [("bite", 2.07), ("walk", 0.0, 1.0)]}, 2.0)  # type: ignore[list-item]
    report, data = run(tmp_path, "boris", project, *WINDOWS, "--point-margin", "0.05")
    assert label_names(data)["a_1000-2000ms.mp4"] == {"bite"} and not report["skipped"]
