"""The files that predict.py writes about all videos of its output folder."""

import csv
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import predict
from tests.conftest import REPOSITORY, make_tiny_clip, moving_frames, write_video
from tests.video_files import corrupt_packet
from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.written_files import WrittenFiles

LABELS = ("drinking", "walking")
TABLES = ("ethogram.csv", "review_order.csv", "transitions.csv")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A CLIP whose scores of both labels are about a third in each window."""
    clip = make_tiny_clip(tmp_path_factory.mktemp("models") / "text_clip", vocabulary=49408)
    model = ["--labels", *LABELS, "--clip-model-name", clip, "--num-workers", "0"]
    return [*model, "--window", "1", "--stride-seconds", "0.5", "--threshold", "0.1"]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder of three videos of 2, 3 and 4 seconds."""
    for number, name in enumerate(("a", "b", "c")):
        frames = moving_frames(50 + 25 * number, (1, number), height=32, width=48)
        write_video(tmp_path / "videos" / f"{name}.mp4", frames, lossless=False)
    return tmp_path / "videos"


def run(command: list[str], *flags: str | Path) -> cli.RunReport:
    return predict.main([*map(str, flags), *command])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def observations(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "predictions.boris").read_text())["observations"]


def review(folder: Path, name: str) -> None:
    """Mark an observation as reviewed, and correct its events."""
    project = json.loads((folder / "predictions.boris").read_text())
    project["observations"][name]["independent_variables"]["reviewed"] = "yes"
    project["observations"][name]["events"] = []
    (folder / "predictions.boris").write_text(json.dumps(project))


def test_the_files_cover_all_videos(command: list[str], videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(command, videos, "-o", out, "--time-bin", "1.5")
    ethogram = read(out / "ethogram.csv")
    assert [(row["video"], row["action"]) for row in ethogram] == [
        (f"{name}.mp4", label) for name in ("a", "b", "c") for label in LABELS
    ]
    for row in ethogram:  # the threshold is always reached: one bout that fills the video
        seconds = {"a.mp4": 2.0, "b.mp4": 3.0, "c.mp4": 4.0}[row["video"]]
        assert (row["bouts"], float(row["total_seconds"]), float(row["share"])) == ("1", pytest.approx(seconds), 1)
    assert [row["start"] for row in read(out / "time_bins.csv") if row["video"] == "c.mp4"] == [
        start for start in ("0", "1.5", "3") for _ in LABELS
    ]
    assert {row["video"] for row in read(out / "review_order.csv")} == {"a.mp4", "b.mp4", "c.mp4"}
    assert {name: item["file"]["1"] for name, item in observations(out).items()} == {
        name: [f"../videos/{name}.mp4"] for name in ("a", "b", "c")
    }
    page = (out / "index.html").read_text(encoding="utf-8")
    for name in ("a", "b", "c"):
        assert f"{name}.html" in page and 'href="index.html"' in (out / f"{name}.html").read_text(encoding="utf-8")


def test_videos_one_after_the_other_give_the_files_of_all(command: list[str], videos: Path, tmp_path: Path) -> None:
    together, apart = tmp_path / "together", tmp_path / "apart"
    run(command, videos, "-o", together)
    for name in ("c", "a"):
        run(command, videos / f"{name}.mp4", "-o", apart)
        assert 'href="index.html"' in (apart / f"{name}.html").read_text(encoding="utf-8")
        assert f"{name}.html" in (apart / "index.html").read_text(encoding="utf-8")
    run(command, videos, "-o", apart, "--limit", "2")  # as if the last command had been interrupted
    run(command, videos, "-o", apart)
    for name in TABLES:
        assert (apart / name).read_bytes() == (together / name).read_bytes()
    assert observations(apart).keys() == observations(together).keys()


def test_what_somebody_has_edited_is_kept(
    command: list[str], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(command, videos / "a.mp4", videos / "b.mp4", "-o", out)
    review(out, "a")
    for name in ("review_order.csv", "b.csv"):
        (out / name).write_text((out / name).read_text() + "my own line\n")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    capsys.readouterr()
    run(command, videos, "-o", out, "--overwrite")
    printed = capsys.readouterr().out
    for name in ("review_order.csv", "b.csv"):
        assert (out / name).read_bytes() == before[name]
        assert name in printed
    assert observations(out)["a"]["events"] == [] and observations(out)["c"]["events"]
    assert {row["video"] for row in read(out / "ethogram.csv")} == {"a.mp4", "b.mp4", "c.mp4"}
    (out / "review_order.csv").unlink()
    run(command, videos, "-o", out)
    assert {row["video"] for row in read(out / "review_order.csv")} == {"b.mp4", "c.mp4"}  # a is reviewed


@pytest.mark.parametrize("name", [*TABLES, "time_bins.csv", "index.html", "predictions.boris"])
def test_files_of_other_programs_are_refused_before_any_work(
    name: str, command: list[str], videos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    with pytest.raises(UserError) as caught:
        run(command, videos, "-o", out)
    assert caught.value.path == str(out / name)
    assert [path.name for path in out.iterdir()] == [name]


@pytest.mark.parametrize("ending", [".csv", "_windows.csv", "_frames.csv"])
def test_a_table_of_another_program_with_the_name_of_a_videos_is_refused(
    ending: str, command: list[str], videos: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"a{ending}"
    path.write_text("frame,x,y\n0,1,2\n")
    with pytest.raises(UserError) as caught:
        run(command, videos / "a.mp4", "-o", tmp_path)
    assert caught.value.path == str(path) and not (tmp_path / "a.json").exists()


def test_results_of_other_settings_are_named_and_left_out(
    command: list[str], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(command, videos / "a.mp4", videos / "b.mp4", "-o", out)
    (out / "other.json").write_text('{"of": "another program"}')
    capsys.readouterr()
    run(command, videos / "c.mp4", "-o", out, "--min-length", "0.5")
    assert {row["video"] for row in read(out / "ethogram.csv")} == {"c.mp4"}
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "a, b" in line)
    assert "other" not in line.partition(": ")[2]
    assert observations(out).keys() == {"a", "b", "c"}
    (out / "b.json").write_text('{"schema": 1, "made_with": {}}')
    run(command, videos / "a.mp4", "-o", out)
    assert {row["video"] for row in read(out / "ethogram.csv")} == {"a.mp4"}
    lines = {line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines() if "left out" in line}
    assert lines == {"b", "c"}  # damaged, and of other settings


def test_a_result_of_another_video_of_that_name_is_not_replaced(
    command: list[str], videos: Path, tmp_path: Path
) -> None:
    out, second = tmp_path / "out", tmp_path / "second day"
    run(command, videos / "a.mp4", "-o", out)
    write_video(second / "a.mp4", moving_frames(60, (1, 0)), lossless=False)
    before = (out / "a.json").read_bytes()
    with pytest.raises(UserError) as caught:
        run(command, second / "a.mp4", "-o", out)
    assert "a.mp4" in caught.value.problem and (out / "a.json").read_bytes() == before


def test_new_paths_of_videos_are_remembered(command: list[str], videos: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "out", tmp_path / "moved"
    run(command, videos, "-o", out)
    before = json.loads((out / "b.json").read_text())
    videos.rename(moved)
    assert run(command, moved, "-o", out).already_done == 3
    run(command, moved / "a.mp4", "-o", out)
    assert {name: item["file"]["1"] for name, item in observations(out).items()} == {
        name: [f"../moved/{name}.mp4"] for name in ("a", "b", "c")
    }
    assert json.loads((out / "b.json").read_text()) == before | {"path": "../moved/b.mp4"}


def test_a_video_that_has_got_a_longer_name_counts_once(command: list[str], videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for day in ("day1", "day2"):
        write_video(tmp_path / "days" / day / "a.mp4", moving_frames(25, (1, 0)), lossless=False)
    run(command, tmp_path / "days" / "day1", "-o", out)
    assert {row["video"] for row in read(out / "ethogram.csv")} == {"a.mp4"}
    run(command, tmp_path / "days", videos / "b.mp4", "-o", out)
    names = {"day1__a.mp4", "day2__a.mp4", "b.mp4"}
    assert {row["video"] for row in read(out / "ethogram.csv")} == names
    run(command, videos / "b.mp4", "-o", out)
    assert len({row["video"] for row in read(out / "ethogram.csv")}) == 3


def test_a_process_waits_for_another_that_writes_the_files_about_all_videos(
    command: list[str], videos: Path, tmp_path: Path
) -> None:
    """What the other one has written meanwhile does not count as edited."""
    out = tmp_path / "out"
    run(command, videos / "a.mp4", "-o", out)
    with WrittenFiles(out).lock():
        process = subprocess.Popen(
            [sys.executable, "predict.py", videos / "b.mp4", "-o", out, *command], cwd=REPOSITORY
        )
        for _ in range(600):
            if (out / "b.json").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        for name in TABLES:
            WrittenFiles(out).replace(out / name, partial(atomic.write_text, text="of another process"))
    assert process.wait(60) == 0
    for name in TABLES:
        assert {row["video"] for row in read(out / name)} >= {"a.mp4", "b.mp4"}


def test_results_of_earlier_versions_are_read(command: list[str], videos: Path, tmp_path: Path) -> None:
    """They record neither the video's path nor what was observed, and no digests of files."""
    new, old = tmp_path / "new", tmp_path / "old"
    for out in (new, old):
        run(command, videos, "-o", out)
    for path in old.iterdir():
        if path.suffix == ".json":
            document = json.loads(path.read_text())
            for key in ("path", "observed", "disagreements"):
                del document[key]
            path.write_text(json.dumps(document))
        elif path.name in (*TABLES, "index.html", "predictions.boris", ".written.jsonl"):
            path.unlink()
    assert run(command, videos, "-o", old).already_done == 3
    for name in (*TABLES, "whole_videos.csv"):
        assert (old / name).read_bytes() == (new / name).read_bytes()


def test_frames_has_a_row_for_each_frame_that_decodes(command: list[str], videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    corrupt_packet(videos / "b.mp4", 40)
    run(command, videos, "-o", out)
    assert not list(out.glob("*_frames.csv"))
    report = run(command, videos, "-o", out, "--frames")
    assert report.already_done == 3
    rows = {name: read(out / f"{name}_frames.csv") for name in ("a", "b", "c")}
    assert [row["frame"] for row in rows["a"]] == list(map(str, range(50)))
    assert len(rows["b"]) < 75 and "40" not in {row["frame"] for row in rows["b"]}
    assert float(rows["c"][99]["seconds"]) == pytest.approx(99 / 25)
    windows = {row["start"]: row["score"] for row in read(out / "c_windows.csv") if row["action"] == "walking"}
    assert rows["c"][0]["score:walking"] == windows["0"] and rows["c"][99]["score:walking"] == windows["3"]
    assert {row["bout:walking"] for row in rows["c"]} == {"1"}
    (out / "a_frames.csv").write_text("edited")
    run(command, videos, "-o", out, "--frames", "--overwrite")
    assert (out / "a_frames.csv").read_text() == "edited" and len(read(out / "c_frames.csv")) == 100
