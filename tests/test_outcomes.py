"""The manifest beside every output: kept over restarts, retried on request, written before what it speaks of."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import extract_flows
from tests.conftest import indexed_frames, times, write_video
from tests.making import corrupt
from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.extraction import manifest
from vimoclip.extraction.manifest import Entry, Manifest
from vimoclip.extraction.video_status import Outcomes
from vimoclip.io import atomic
from vimoclip.video import End

END = End(np.arange(3), np.arange(3) / 25, 3, 25.0, 3)
DAMAGED = End(np.arange(3), np.arange(3) / 25, 3, 25.0, 5, "2 of 5 frames can't be decoded: torn")


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good video, one that is damaged in the middle, one of one frame, and an empty file."""
    monkeypatch.chdir(tmp_path)
    videos = Path("dataset/videos")
    write_video(videos / "good.mp4", indexed_frames(5))
    corrupt(write_video(videos / "torn.mp4", indexed_frames(40)), 35)
    write_video(videos / "still.mp4", indexed_frames(1))
    (videos / "empty.mp4").touch()
    return Path("dataset")


LINES = Path("dataset/flows.manifest.jsonl")
FLOWS = Path("dataset/flows")


def extract(*more: str) -> cli.Report:
    return extract_flows.main(["--model", "dis", *more])


def lines(path: Path = LINES) -> dict[str, dict]:
    """The file as anybody would read it, without the project's reader."""
    return {line["id"]: line for line in map(json.loads, path.read_text().splitlines())}


def statuses(path: Path = LINES) -> dict[str, str]:
    return {video: line["status"] for video, line in lines(path).items()}


ALL = {"empty.mp4": "failed", "good.mp4": "ok", "still.mp4": "skipped", "torn.mp4": "partial"}


# --- what stands in it


def test_a_line_says_what_became_of_a_video(dataset: Path) -> None:
    extract()
    assert statuses() == ALL
    for name, line in lines().items():
        state = (dataset / "videos" / name).stat()
        assert list(line) == list(asdict(Entry("", "")))
        assert (line["size"], line["mtime"]) == (state.st_size, state.st_mtime)
        assert 0 <= line["seconds"] < 60
    torn = lines()["torn.mp4"]
    assert (torn["frames_expected"], torn["frames_decoded"]) == (40, 35)
    assert torn["reason"].startswith("5 of 40 frames can't be decoded: ")
    assert lines()["empty.mp4"]["reason"] == "is empty (0 bytes)"
    assert list(lines()) == sorted(lines())


# --- restarts


def test_a_second_run_does_nothing_again_and_says_the_same_of_each(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = extract()
    before, videos = LINES.read_text(), times(FLOWS)
    capsys.readouterr()
    second = extract()
    assert "0 videos to do, 4 done or given up before" in capsys.readouterr().out
    assert (first.done, second.done, second.already, second.not_retried) == (1, 0, 1, 1)
    assert (first.partial, first.skipped, first.failed) == (second.partial, second.skipped, second.failed)
    assert LINES.read_text() == before
    assert times(FLOWS) == videos
    second.print()
    assert "1 failed before and were not tried again; --retry-failed does" in capsys.readouterr().out


def test_failed_videos_are_tried_again_on_request(dataset: Path) -> None:
    extract()
    before, videos = lines(), times(FLOWS)
    report = extract("--retry-failed")
    assert (report.failed, report.not_retried) == ({"empty.mp4": "is empty (0 bytes)"}, 0)
    after = lines()
    assert after.pop("empty.mp4")["status"] == before.pop("empty.mp4")["status"] == "failed"
    assert after == before  # what was skipped or partial isn't retried
    assert times(FLOWS) == videos


def test_a_failed_video_that_was_replaced_is_tried_without_being_asked(dataset: Path) -> None:
    extract()
    write_video(dataset / "videos/empty.mp4", indexed_frames(4))
    write_video(dataset / "videos/still.mp4", indexed_frames(3))
    report = extract()
    assert (report.done, report.failed, report.skipped) == (2, {}, {})
    assert statuses() == ALL | {"empty.mp4": "ok", "still.mp4": "ok"}


def test_a_done_video_that_was_replaced_is_named_and_left(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract()
    before, videos = lines(), times(FLOWS)
    write_video(dataset / "videos/good.mp4", indexed_frames(9))
    report = extract()
    assert report.changed == ["good.mp4"]
    report.print()
    assert "  changed: good.mp4: is another file than the one that was done" in capsys.readouterr().out
    assert (lines(), times(FLOWS)) == (before, videos)
    assert extract("--overwrite").changed == []
    assert lines()["good.mp4"]["size"] == (dataset / "videos/good.mp4").stat().st_size


def test_a_video_whose_output_was_deleted_is_done_again(dataset: Path) -> None:
    extract()
    for name in ("good", "torn"):
        (FLOWS / f"{name}.mp4").unlink()
    report = extract()
    assert (report.done, report.already, set(report.partial)) == (1, 0, {"torn.mp4"})
    assert statuses() == ALL


def test_outputs_that_were_there_before_the_manifest_are_taken_as_they_are(dataset: Path) -> None:
    extract()
    videos = times(FLOWS)
    LINES.unlink()
    report = extract()
    assert (report.already, times(FLOWS)) == (2, videos)
    assert statuses() == ALL | {"torn.mp4": "ok"}
    assert lines()["good.mp4"]["status"] == "preexisting"


def test_videos_of_earlier_runs_keep_their_lines(dataset: Path) -> None:
    extract()
    before = lines()
    (dataset / "videos/torn.mp4").unlink()
    extract("--limit", "1")
    assert lines() == before


# --- --strict


def test_strict_counts_partial_as_failed_and_writes_no_output(dataset: Path) -> None:
    report = extract("--strict")
    assert set(report.failed) == {"torn.mp4", "empty.mp4"}
    assert report.failed["torn.mp4"].endswith("(--strict)")
    assert not report.partial
    assert statuses() == ALL | {"torn.mp4": "failed"}
    assert (lines()["torn.mp4"]["frames_expected"], lines()["torn.mp4"]["frames_decoded"]) == (40, 35)
    assert {path.name for path in FLOWS.iterdir()} == {"good.mp4"}
    assert set(extract("--retry-failed").partial) == {"torn.mp4"}  # and back


def test_strict_calls_what_was_made_without_it_failed_and_leaves_it(dataset: Path) -> None:
    extract()
    videos = times(FLOWS)
    report = extract("--strict")
    assert report.failed["torn.mp4"].startswith("was made without --strict: 5 of 40 frames can't be decoded")
    assert (times(FLOWS), statuses()) == (videos, ALL)


# --- the file itself


@pytest.mark.parametrize("torn", ['{"id": "good.mp4", "sta', '{"id": "', '{"', '{"id": "x.mp4", "status": "ok"'])
def test_a_last_line_that_was_torn_by_a_kill_is_survived(dataset: Path, torn: str) -> None:
    extract()
    before = lines()
    with open(LINES, "a") as file:
        file.write(torn)
    extract()
    assert lines() == before


@pytest.mark.parametrize(
    "content",
    [
        "my notes\n",
        "my notes\nof two lines",
        '{"id": "a", "status": "done"}\n',
        "[1]\n",
        '{"a": 1}\n',
        "\x00\xff\n{}\n",
    ],
)
def test_another_file_under_its_name_is_refused_and_stays(dataset: Path, content: str) -> None:
    LINES.write_bytes(content.encode("latin1"))
    with pytest.raises(UserError, match=r"flows.manifest.jsonl:1: is no line of a manifest; move the file away"):
        extract()
    assert LINES.read_bytes() == content.encode("latin1")
    assert not FLOWS.exists() or not any(FLOWS.iterdir())


def test_a_link_under_its_name_is_not_written_through(dataset: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.jsonl"
    precious.write_text("")
    LINES.symlink_to(precious)
    extract()
    assert precious.read_text() == ""
    assert not LINES.is_symlink()
    assert statuses() == ALL


def test_a_link_that_appears_while_it_runs_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    written = Manifest(tmp_path / "out")
    written.path.symlink_to(precious)
    with pytest.raises(OSError):
        written.add(Entry("a", "ok"))
    assert precious.read_text() == "mine"


def test_a_folder_under_its_name_is_refused_in_one_line(dataset: Path) -> None:
    LINES.mkdir(parents=True)
    with pytest.raises((UserError, OSError)):
        extract()
    assert LINES.is_dir()


@pytest.mark.parametrize("output", [Path("out.h5"), Path("flows"), Path("flows/"), Path("a.b/c d.h5")])
def test_it_lies_beside_the_output(output: Path) -> None:
    assert manifest.manifest_path(output) == output.with_name(output.name + ".manifest.jsonl")


def test_names_and_reasons_come_back_as_they_were(tmp_path: Path) -> None:
    entries = [Entry("Löwe 獅子 🦁.mp4", "failed", 'says "no"\n\u2028'), Entry("b", "ok", "", 3, 3, 10, 1.5, 0.25)]
    written = Manifest(tmp_path / "out")
    for entry in entries:
        written.add(entry)
    assert written.path.read_text().count("\n") == 2
    assert list(manifest.read(written.path).values()) == entries
    assert Manifest(tmp_path / "out").entries == {entry.id: entry for entry in entries}


# --- in what order things reach the disk


def outcomes(tmp_path: Path, **how: Any) -> Outcomes:
    if not (tmp_path / "a.mp4").exists():
        (tmp_path / "a.mp4").write_bytes(b"1234")
    return Outcomes(tmp_path / "out", {"a.mp4": tmp_path / "a.mp4"}, lambda video: False, cli.Report(), **how)


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (lambda told: told.came_out("a.mp4", END), "ok"),
        (lambda told: told.came_out("a.mp4", DAMAGED), "partial"),
        (lambda told: told.skipped("a.mp4", "why"), "skipped"),
        (lambda told: told.failed("a.mp4", "why"), "failed"),
    ],
)
def test_a_line_is_on_disk_when_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: Callable[[Outcomes], object], status: str
) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    told = outcomes(tmp_path)
    told.begin("a.mp4")
    monkeypatch.setattr(os, "fsync", noting)
    ending(told)
    assert synced == [told.manifest.path.stat().st_ino]
    assert statuses(told.manifest.path) == {"a.mp4": status}


def test_no_output_appears_before_its_line(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appeared: dict[str, str] = {}
    publish = atomic.publish

    def watching(temporary: Path, path: Path) -> None:
        if path.suffix == ".mp4":
            appeared[path.name] = statuses()[path.name]
        publish(temporary, path)

    monkeypatch.setattr(atomic, "publish", watching)  # type: ignore[attr-defined]
    extract()
    assert appeared == {"good.mp4": "ok", "torn.mp4": "partial"}


def test_what_flags_left_out_is_tried_again_with_others(tmp_path: Path) -> None:
    told = outcomes(tmp_path, settings={"max_frames": 1})
    told.skipped("a.mp4", "has one kept frame")
    assert outcomes(tmp_path, settings={"max_frames": 1}).todo == []
    assert outcomes(tmp_path, settings={"max_frames": 2}).todo == ["a.mp4"]


def test_flow_that_one_kept_frame_left_out_is_made_with_other_flags(dataset: Path) -> None:
    flags = ["--model", "dis", "--num-workers", "0"]
    assert extract_flows.main([*flags, "--max-frames", "1"]).done == 0
    assert extract_flows.main(flags).done > 0


def test_nul_bytes_that_a_power_cut_left_behind_are_dropped(tmp_path: Path) -> None:
    told = outcomes(tmp_path)
    told.failed("a.mp4", "why")
    with told.manifest.path.open("ab") as file:
        file.write(bytes(100))
    assert outcomes(tmp_path).todo == []
    assert b"\0" not in told.manifest.path.read_bytes()


def test_the_line_is_of_the_file_as_it_was_when_its_work_began(tmp_path: Path) -> None:
    told = outcomes(tmp_path)
    told.begin("a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"another, longer")
    told.came_out("a.mp4", END)
    assert lines(told.manifest.path)["a.mp4"]["size"] == 4
    report = cli.Report()
    Outcomes(tmp_path / "out", {"a.mp4": tmp_path / "a.mp4"}, lambda video: True, report)
    assert report.changed == ["a.mp4"]


def test_a_source_that_is_gone_is_not_called_another_file(tmp_path: Path) -> None:
    source, output = tmp_path / "a.mp4", tmp_path / "out.h5"
    source.write_bytes(b"x")
    line = manifest.Entry("a.mp4", "ok", **manifest.source_state(source))  # type: ignore[arg-type]
    manifest.Manifest(output).add(line)
    for content, changed in ((b"xy", ["a.mp4"]), (None, [])):
        source.unlink()
        if content:
            source.write_bytes(content)
        report = cli.Report()
        Outcomes(output, {"a.mp4": source}, lambda key: True, report)
        assert report.changed == changed
