"""Codings are read from predict.py's tables of bouts, also corrected ones, and from folders of its results."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.timeline.helpers import make_timeline
from vimoclip.agreement.bout_table import CODING_HINT, read_bout_table
from vimoclip.agreement.coding import Coding, FilmCoding
from vimoclip.agreement.pairing import pair_codings
from vimoclip.agreement.read_coding import read_coding
from vimoclip.errors import UserError
from vimoclip.ethogram import folder_files
from vimoclip.io.csv import write_csv
from vimoclip.io.written_files import WrittenFiles
from vimoclip.timeline import Timeline, write_frames, write_timeline
from vimoclip.timeline.bouts import CSV_COLUMNS

DRINKING = {"drinking": ((2.25, 3.25),)}  # the bouts of make_timeline


def only_film(coding: Coding) -> FilmCoding:
    (film,) = coding.films
    return film


def write_table(path: Path, *lines: str, header: str = ",".join(CSV_COLUMNS)) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def write_results(folder: Path, *timelines: Timeline) -> None:
    folder.mkdir(exist_ok=True)
    for item in timelines:
        write_timeline(folder, item)


def test_result_gives_length_classes_and_observed_spans(tmp_path: Path) -> None:
    video = tmp_path / "films" / "a.mp4"
    video.parent.mkdir()
    video.touch()
    write_results(tmp_path / "out", make_timeline(video, observed=((0.0, 1.5), (2.0, 4.0))))
    coding = read_coding(tmp_path / "out" / "a.csv")
    film = only_film(coding)
    assert (coding.actions, coding.is_complete) == (("resting", "drinking"), True)
    assert (film.seconds, film.covered, film.bouts) == (4.0, ((0.0, 1.5), (2.0, 4.0)), DRINKING)
    assert film.video and film.video.samefile(video)
    assert not coding.notes


def test_table_alone_lists_what_occurs(tmp_path: Path) -> None:
    write_results(tmp_path, make_timeline(tmp_path / "a.mp4"))
    (tmp_path / "a.json").unlink()
    coding = read_coding(tmp_path / "a.csv")
    film = only_film(coding)
    assert (coding.actions, coding.is_complete) == (("drinking",), False)
    assert (film.written_path, film.seconds, film.bouts, film.video) == ("a.mp4", None, DRINKING, None)


def test_bouts_are_those_of_the_corrected_table(tmp_path: Path) -> None:
    """Through a spreadsheet with decimal commas; an action that the model does not have; bouts that touch."""
    write_results(tmp_path, make_timeline(tmp_path / "a.mp4"))
    lines = ["a.mp4;resting;0,25;1,5;", "a.mp4;resting;1,5;2;", "a.mp4;sleeping;0:00:02;4;0,5"]
    write_table(tmp_path / "a.csv", *lines, header=";".join(CSV_COLUMNS))
    coding = read_coding(tmp_path / "a.csv")
    assert only_film(coding).bouts == {"resting": ((0.25, 2.0),), "sleeping": ((2.0, 4.0),)}
    assert (coding.actions, only_film(coding).seconds) == (("resting", "drinking", "sleeping"), 4.0)
    (note,) = coding.notes
    assert "a.mp4" in note  # its agreement is not that of the model


@pytest.mark.parametrize("name", ["a_adjusted_thresholds.csv", "a_adjusted_thresholds (1).csv"])
def test_table_saved_by_the_page_belongs_to_the_result(name: str, tmp_path: Path) -> None:
    write_results(tmp_path, make_timeline(tmp_path / "a.mp4"))
    coding = read_coding(write_table(tmp_path / name, "a.mp4,resting,1,2,0.5"))
    assert (only_film(coding).seconds, only_film(coding).bouts) == (4.0, {"resting": ((1.0, 2.0),)})


def test_table_of_several_videos(tmp_path: Path) -> None:
    """Tables that a user joined, in the folder of the results and elsewhere."""
    write_results(tmp_path / "out", *(make_timeline(tmp_path / f"{name}.mp4") for name in "ab"))
    lines = [(tmp_path / "out" / f"{name}.csv").read_text().splitlines()[1] for name in "ab"]
    for folder, seconds in ((tmp_path / "out", 4.0), (tmp_path, None)):
        coding = read_coding(write_table(folder / "joined.csv", *lines))
        assert [(film.seconds, film.bouts) for film in coding.films] == [(seconds, DRINKING)] * 2
        assert coding.is_complete == (seconds is not None)
    coding = read_coding(write_table(tmp_path / "out" / "joined.csv", lines[0], "b.avi,drinking,1,2,0.5"))
    assert [film.seconds for film in coding.films] == [4.0, None]  # the result beside it is of b.mp4
    assert not coding.is_complete


def test_video_without_a_bout_is_known_by_its_result_only(tmp_path: Path) -> None:
    write_results(tmp_path, make_timeline(tmp_path / "a.mp4", bouts=()))
    assert only_film(read_coding(tmp_path / "a.csv")).bouts == {}
    (tmp_path / "a.json").unlink()
    with pytest.raises(UserError):
        read_coding(tmp_path / "a.csv")


@pytest.mark.parametrize("seconds", [4.0, 1.0])
@pytest.mark.parametrize("name", ["a_windows.csv", "renamed.csv"])
def test_table_of_windows_is_refused(name: str, seconds: float, tmp_path: Path) -> None:
    """By its content or its name: the only windows of a short video look like bouts."""
    write_results(tmp_path, make_timeline(tmp_path / "a.mp4", seconds))
    (tmp_path / "a_windows.csv").rename(tmp_path / name)
    if seconds == 1.0 and name == "renamed.csv":
        assert len(only_film(read_coding(tmp_path / name)).bouts) == 2
        return
    with pytest.raises(UserError, match="windows") as caught:
        read_coding(tmp_path / name)
    assert "a.csv" in caught.value.hint or name == "renamed.csv"


def test_table_of_windows_that_only_touch_is_refused(tmp_path: Path) -> None:
    lines = [f"a.mp4,{action},{start},{start + 2},0.5" for start in (0, 2, 4) for action in ("walk", "rest")]
    with pytest.raises(UserError, match="windows"):
        read_coding(write_table(tmp_path / "t.csv", *lines))
    touching = read_coding(write_table(tmp_path / "t.csv", *lines[:-1]))  # bouts that somebody has divided
    assert only_film(touching).bouts == {"walk": ((0.0, 6.0),), "rest": ((0.0, 4.0),)}
    touching = read_coding(write_table(tmp_path / "t.csv", *lines[::2]))  # of one action only
    assert only_film(touching).bouts == {"walk": ((0.0, 6.0),)}


def test_bouts_of_a_video_named_like_windows_are_read(tmp_path: Path) -> None:
    write_results(tmp_path, make_timeline(tmp_path / "a_windows.mp4"))
    assert only_film(read_coding(tmp_path / "a_windows.csv")).bouts == DRINKING


def test_table_of_frames_is_refused(tmp_path: Path) -> None:
    times = np.arange(4.0)
    path = write_frames(tmp_path / "a_frames.csv", make_timeline(tmp_path / "a.mp4"), times.astype(int), times)
    with pytest.raises(UserError, match=r"frames.*a\.csv"):
        read_coding(path)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("a.mp4,walk,1,x,0.5", ":3"),
        ("a.mp4,walk,1,,0.5", ":3"),
        ("a.mp4,walk,NA,2,0.5", ":3"),
        ("a.mp4,,1,2,0.5", ":3"),
        (",walk,1,2,0.5", ":3"),
        ("a.mp4,walk,2,1,0.5", ":3"),
        ("a.mp4,walk,1,1,0.5", ":3"),
        ("a.mp4,walk,-1,1,0.5", ":3"),
        ("a.mp4,walk,1,2,0.5,more", ":3"),
        ('a.mp4,walk,"1,5",2,0.5', ":3"),
    ],
)
def test_damaged_lines_are_refused(line: str, number: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", "a.mp4,walk,7.5,8,0.5", line)
    with pytest.raises(UserError) as caught:
        read_coding(path)
    assert caught.value.path == f"{path}{number}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "video,label\na.mp4,walk\n"),
        ("t.json", '{"a": 1}'),
        ("t.csv", ""),
        ("t.boris.tsv", "1.0\t\twalk\t\t\t25"),
    ],
)
def test_other_files_are_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        read_coding(tmp_path / name)
    assert caught.value.path == str(tmp_path / name) and caught.value.hint == CODING_HINT
    with pytest.raises(UserError):
        read_coding(tmp_path / "missing.csv")


def test_table_of_another_video_than_its_result_is_refused(tmp_path: Path) -> None:
    write_results(tmp_path, make_timeline(tmp_path / "a.mp4"))
    write_table(tmp_path / "a.csv", "a.mp4,resting,1,2,0.5", "b.mp4,resting,1,2,0.5")
    with pytest.raises(UserError, match=r"b\.mp4"):
        read_coding(tmp_path / "a.csv")


def test_folder_of_results(tmp_path: Path) -> None:
    """Two films of one name; other JSON and tables in the folder are ignored, damaged results are named."""
    folder = tmp_path / "out"
    days = [
        make_timeline(
            tmp_path / day / "a.mp4", name=f"{day}__a", bouts=make_timeline(tmp_path).bouts if day == "day1" else ()
        )
        for day in ("day1", "day2")
    ]
    write_results(folder, *days, *(make_timeline(tmp_path / f"{name}.mp4") for name in ("damaged", "alone")))
    (folder / "damaged.json").write_text("{")
    (folder / "alone.csv").unlink()
    (folder / "report.json").write_text("{}")
    (folder / "agreement.json").write_text("{}")
    write_csv(folder / "agreement.csv", ["action", "kappa"], [])
    write_table(folder / "other.csv", "b.mp4,walk,1,2,0.5")
    coding = read_coding(folder)
    assert [film.bouts for film in coding.films] == [DRINKING, {}]
    assert [Path(film.written_path).parent.name for film in coding.films] == ["day1", "day2"]
    assert (coding.actions, coding.is_complete) == (("resting", "drinking"), True)
    assert sorted(re.findall(r"\w+\.json", " ".join(coding.notes))) == ["alone.json", "damaged.json"]


def test_folder_and_its_project_say_the_same(tmp_path: Path) -> None:
    """predict.py writes both; nobody has reviewed the project's observations."""
    films = [make_timeline(tmp_path / "films" / f"{name}.mp4", observed=((0.0, 4.0),)) for name in "ab"]
    write_results(tmp_path / "out", *films)
    folder_files.write(tmp_path / "out", films, {}, None, WrittenFiles(tmp_path / "out"))
    project = read_coding(tmp_path / "out" / folder_files.PREDICTIONS_FILE)
    paired = pair_codings(read_coding(tmp_path / "out"), project, {}, (), "film")
    assert [film.coded.bouts for film in paired.films] == [film.predicted.bouts for film in paired.films]
    assert [film.coded.bouts for film in paired.films] == [DRINKING] * 2
    assert paired.actions == ("resting", "drinking")
    assert any("2 of 2" in note for note in project.notes)


def test_folder_of_results_with_other_classes(tmp_path: Path) -> None:
    write_results(tmp_path, make_timeline(tmp_path / "a.mp4"))
    write_results(tmp_path, make_timeline(tmp_path / "b.mp4", classes=("resting", "grooming")))
    coding = read_coding(tmp_path)
    assert coding.actions == ("resting", "drinking", "grooming")
    assert any("different classes" in note for note in coding.notes)


def test_folder_without_results_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", "a.mp4,walk,1,2,0.5")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json"):
        read_coding(tmp_path)


def test_observations_are_only_of_boris_and_subjects_do_not_restrict(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", "a.mp4,walk,1,2,0.5")
    with pytest.raises(UserError):
        read_coding(path, re.compile("anna"))
    coding = read_coding(path, subjects=["Ann"])
    assert coding.films == read_bout_table(path).films
    assert any("Ann" in note for note in coding.notes)
