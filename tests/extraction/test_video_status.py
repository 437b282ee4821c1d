"""The status of videos: read again after restarts, retried on request, recorded before the output is published."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import extract_flows
from tests.conftest import indexed_frames, modification_times, write_video
from tests.video_files import corrupt_packet
from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.extraction import manifest
from vimoclip.extraction.manifest import ManifestEntry
from vimoclip.extraction.sharding import WorkerContext
from vimoclip.extraction.video_status import VideoTracker
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.video import ReadSummary

SUMMARY = ReadSummary(np.arange(3), np.arange(3) / 25, 3, 25.0, 3)
DAMAGED_SUMMARY = ReadSummary(np.arange(3), np.arange(3) / 25, 3, 25.0, 5, "2 of 5 frames can't be decoded: truncated")


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good video, one that is damaged in the middle, one of one frame, and an empty file."""
    monkeypatch.chdir(tmp_path)
    videos = Path("dataset/videos")
    write_video(videos / "good.mp4", indexed_frames(5))
    corrupt_packet(write_video(videos / "truncated.mp4", indexed_frames(40)), 35)
    write_video(videos / "still.mp4", indexed_frames(1))
    (videos / "empty.mp4").touch()
    return Path("dataset")


MANIFEST = Path("dataset/flows.manifest.jsonl")
FLOWS = Path("dataset/flows")


def extract(*flags: str) -> cli.RunReport:
    return extract_flows.main(["--model", "dis", *flags])


def read_lines(path: Path = MANIFEST) -> dict[str, dict]:
    """Return the lines by video id, without the project's reader."""
    return {line["id"]: line for line in map(json.loads, path.read_text().splitlines())}


def read_statuses(path: Path = MANIFEST) -> dict[str, str]:
    return {video: line["status"] for video, line in read_lines(path).items()}


STATUSES = {"empty.mp4": "failed", "good.mp4": "ok", "still.mp4": "skipped", "truncated.mp4": "partial"}


# --- content


def test_each_video_has_a_line_with_its_status(dataset: Path) -> None:
    extract()
    assert read_statuses() == STATUSES
    for name, line in read_lines().items():
        state = (dataset / "videos" / name).stat()
        assert list(line) == list(asdict(ManifestEntry("", "")))
        assert (line["size"], line["mtime"]) == (state.st_size, state.st_mtime)
        assert 0 <= line["seconds"] < 60
    truncated = read_lines()["truncated.mp4"]
    assert (truncated["frames_expected"], truncated["frames_decoded"]) == (40, 35)
    assert truncated["reason"].startswith("5 of 40 frames can't be decoded: ")
    assert read_lines()["empty.mp4"]["reason"] == "is empty (0 bytes)"
    assert list(read_lines()) == sorted(read_lines())


# --- restarts


def test_a_second_run_processes_nothing_and_reports_the_same(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = extract()
    before, videos = MANIFEST.read_text(), modification_times(FLOWS)
    capsys.readouterr()
    second = extract()
    assert "0 videos to process, 4 done" in capsys.readouterr().out
    assert (first.done, second.done, second.already_done, second.not_retried) == (1, 0, 1, 1)
    assert (first.partial, first.skipped, first.failed) == (second.partial, second.skipped, second.failed)
    assert MANIFEST.read_text() == before
    assert modification_times(FLOWS) == videos
    second.print()
    assert "--retry-failed" in capsys.readouterr().out


def test_retry_failed_tries_failed_videos_again(dataset: Path) -> None:
    extract()
    before, videos = read_lines(), modification_times(FLOWS)
    report = extract("--retry-failed")
    assert (report.failed, report.not_retried) == ({"empty.mp4": "is empty (0 bytes)"}, 0)
    after = read_lines()
    assert after.pop("empty.mp4")["status"] == before.pop("empty.mp4")["status"] == "failed"
    assert after == before  # skipped and partial videos are not retried
    assert modification_times(FLOWS) == videos


def test_a_replaced_video_that_failed_is_tried_again(dataset: Path) -> None:
    extract()
    write_video(dataset / "videos/empty.mp4", indexed_frames(4))
    write_video(dataset / "videos/still.mp4", indexed_frames(3))
    report = extract()
    assert (report.done, report.failed, report.skipped) == (2, {}, {})
    assert read_statuses() == STATUSES | {"empty.mp4": "ok", "still.mp4": "ok"}


def test_a_replaced_video_that_is_done_is_reported_and_kept(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract()
    before, videos = read_lines(), modification_times(FLOWS)
    write_video(dataset / "videos/good.mp4", indexed_frames(9))
    report = extract()
    assert report.changed == ["good.mp4"]
    report.print()
    assert "  changed: good.mp4: " in capsys.readouterr().out
    assert (read_lines(), modification_times(FLOWS)) == (before, videos)
    assert extract("--overwrite").changed == []
    assert read_lines()["good.mp4"]["size"] == (dataset / "videos/good.mp4").stat().st_size


def test_a_video_with_deleted_output_is_processed_again(dataset: Path) -> None:
    extract()
    for name in ("good", "truncated"):
        (FLOWS / f"{name}.mp4").unlink()
    report = extract()
    assert (report.done, report.already_done, set(report.partial)) == (1, 0, {"truncated.mp4"})
    assert read_statuses() == STATUSES


def test_outputs_without_a_manifest_are_kept_as_preexisting(dataset: Path) -> None:
    extract()
    videos = modification_times(FLOWS)
    MANIFEST.unlink()
    report = extract()
    assert (report.already_done, modification_times(FLOWS)) == (2, videos)
    assert read_statuses() == STATUSES | dict.fromkeys(("good.mp4", "truncated.mp4"), "preexisting")


def test_videos_of_earlier_runs_keep_their_lines(dataset: Path) -> None:
    extract()
    before = read_lines()
    (dataset / "videos/truncated.mp4").unlink()
    extract("--limit", "1")
    assert read_lines() == before


# --- --strict


def test_strict_fails_partial_videos_and_writes_no_output(dataset: Path) -> None:
    report = extract("--strict")
    assert set(report.failed) == {"truncated.mp4", "empty.mp4"}
    assert report.failed["truncated.mp4"].endswith("(--strict)")
    assert not report.partial
    assert read_statuses() == STATUSES | {"truncated.mp4": "failed"}
    assert (read_lines()["truncated.mp4"]["frames_expected"], read_lines()["truncated.mp4"]["frames_decoded"]) == (
        40,
        35,
    )
    assert {path.name for path in FLOWS.iterdir()} == {"good.mp4"}
    assert set(extract("--retry-failed").partial) == {"truncated.mp4"}  # and back


def test_strict_reports_earlier_partial_output_as_failed_and_keeps_it(dataset: Path) -> None:
    extract()
    videos = modification_times(FLOWS)
    report = extract("--strict")
    assert report.failed["truncated.mp4"].startswith("was made without --strict: 5 of 40 frames can't be decoded")
    assert (modification_times(FLOWS), read_statuses()) == (videos, STATUSES)


# --- the file itself


@pytest.mark.parametrize(
    "content", ["my notes\nof two lines", '{"id": "a", "status": "done"}\n', "[1]\n", '{"a": 1}\n', "\x00\xff\n{}\n"]
)
def test_a_foreign_file_under_its_name_is_refused_and_kept(dataset: Path, content: str) -> None:
    MANIFEST.write_bytes(content.encode("latin1"))
    with pytest.raises(UserError) as error:
        extract()
    assert error.value.path == str(MANIFEST)
    assert MANIFEST.read_bytes() == content.encode("latin1")
    assert not FLOWS.exists() or not any(FLOWS.iterdir())


def test_a_link_under_its_name_is_not_written_through(dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("")
    MANIFEST.symlink_to(other)
    extract()
    assert other.read_text() == ""
    assert not MANIFEST.is_symlink()
    assert read_statuses() == STATUSES


def test_a_folder_under_its_name_is_refused_in_one_line(dataset: Path) -> None:
    MANIFEST.mkdir(parents=True)
    with pytest.raises((UserError, OSError)):
        extract()
    assert MANIFEST.is_dir()


# --- order of writes


def make_tracker(tmp_path: Path, **options: Any) -> VideoTracker:
    if not (tmp_path / "a.mp4").exists():
        (tmp_path / "a.mp4").write_bytes(b"1234")
    return VideoTracker(
        tmp_path / "out", {"a.mp4": tmp_path / "a.mp4"}, lambda video: False, cli.RunReport(), **options
    )


def test_recording_a_status_fsyncs_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def record_fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    tracker = make_tracker(tmp_path)
    for status, record in (
        ("ok", lambda: tracker.record_success("a.mp4", SUMMARY)),
        ("partial", lambda: tracker.record_success("a.mp4", DAMAGED_SUMMARY)),
        ("skipped", lambda: tracker.record_skipped("a.mp4", "why")),
        ("failed", lambda: tracker.record_failed("a.mp4", "why")),
    ):
        synced.clear()
        record()
        assert synced == [tracker.manifest.path.stat().st_ino]
        assert read_statuses(tracker.manifest.path) == {"a.mp4": status}


def test_no_output_is_published_before_its_line(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: dict[str, str] = {}
    replace = os.replace

    def record_replace(temporary: Path, path: Path) -> None:
        if path.suffix == ".mp4":
            published[path.name] = read_statuses()[path.name]
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", record_replace)
    extract()
    assert published == {"good.mp4": "ok", "truncated.mp4": "partial"}


def test_flow_skipped_for_one_kept_frame_is_written_with_other_flags(dataset: Path) -> None:
    flags = ["--model", "dis", "--num-workers", "0"]
    assert extract_flows.main([*flags, "--max-frames", "1"]).done == 0
    assert extract_flows.main(flags).done > 0


def test_the_line_holds_the_sources_state_at_the_start(tmp_path: Path) -> None:
    tracker = make_tracker(tmp_path)
    tracker.record_start("a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"another, longer")
    tracker.record_success("a.mp4", SUMMARY)
    assert read_lines(tracker.manifest.path)["a.mp4"]["size"] == 4
    report = cli.RunReport()
    VideoTracker(tmp_path / "out", {"a.mp4": tmp_path / "a.mp4"}, lambda video: True, report)
    assert report.changed == ["a.mp4"]


def test_a_deleted_source_is_not_reported_as_changed(tmp_path: Path) -> None:
    source, output = tmp_path / "a.mp4", tmp_path / "out.h5"
    source.write_bytes(b"x")
    line = manifest.ManifestEntry("a.mp4", "ok", **manifest.stat_source(source))  # type: ignore[arg-type]
    manifest.Manifest(output).add(line)
    for content, changed in ((b"xy", ["a.mp4"]), (None, [])):
        source.unlink()
        if content:
            source.write_bytes(content)
        report = cli.RunReport()
        VideoTracker(output, {"a.mp4": source}, lambda key: True, report)
        assert report.changed == changed


@pytest.mark.parametrize(
    ("videos", "ranks", "threads", "limits"),
    [(3, 1, 30, (30, 2)), (3, 2, 30, (1, 0)), (200, 2, 30, (24, 0)), (300, 2, 30, (30, 2)), (200, 2, 0, (0, 2))],
)
def test_ranks_that_share_few_videos_start_few_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: int, ranks: int, threads: int, limits: tuple[int, int]
) -> None:
    """But a GPU needs many threads: with one for each of two GPUs, they would wait for most of 200 videos."""
    tracker = make_tracker(tmp_path)
    tracker.pending = list(map(str, range(videos)))
    monkeypatch.setattr(tracker, "_worker", WorkerContext(ProcessGroup(size=ranks)))
    assert tracker.prefetch_limits(threads) == limits
