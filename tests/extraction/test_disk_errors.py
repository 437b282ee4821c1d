"""A full disk, missing permissions, deleted files: one line of error, and finished output stays whole."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import stage_driver
from tests.conftest import file_size_limit
from tests.stage_driver import (
    STAGES,
    ProcessResult,
    driver,
    finished_videos,
    folder_content,
    stage_command,
    uninterrupted_run,
)
from vimoclip import cli, store
from vimoclip.extraction.video_status import VideoTracker
from vimoclip.io import atomic, csv, yaml_json
from vimoclip.training import checkpoint

DISK_FULL_HINT = "; make room, and the same command resumes the run; finished output is complete\n"


def assert_one_line(result: ProcessResult, *words: str) -> None:
    assert result.returncode == 1, result
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr


def assert_resumes(stage: str, small_inputs: Path, work_dir: Path) -> None:
    """Check that the same command with enough space gives the result of an uninterrupted run."""
    result = driver().run(stage_command(small_inputs, stage), work_dir)
    assert (result.returncode, result.stderr) == (0, "")
    stage_driver.assert_same_files(folder_content(work_dir), uninterrupted_run(small_inputs, stage).content)


def file_names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def assert_files_whole(stage: str, small_inputs: Path, work_dir: Path) -> None:
    """Check that files with a final name are complete, and that there are no temporary files."""
    expected = uninterrupted_run(small_inputs, stage).content
    assert not [name for name in file_names(work_dir) if name.endswith((".lock", ".partial", ".encoding"))]
    for name in file_names(work_dir) & expected.keys():
        if not name.endswith(".jsonl"):
            assert (work_dir / name).read_bytes() == expected[name]


# --- full disk: a limit of the file size


def spaced_limits(count: int, largest: int) -> list[int]:
    """Return `count` sizes from 0 to below the largest, denser at small sizes."""
    return sorted({round((largest - 1) * (i / (count - 1)) ** 2) for i in range(count)})


@pytest.mark.parametrize("limits", [8, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reports_a_full_disk_and_resumes_with_room(
    stage: str, limits: int, small_inputs: Path, tmp_path: Path
) -> None:
    """Each run starts from the output of the one before: more and more videos, finally all but the last step."""
    largest = max(
        len(data) for data in uninterrupted_run(small_inputs, stage).content.values() if isinstance(data, bytes)
    )
    for limit in spaced_limits(limits, largest):
        before = finished_videos(tmp_path)
        result = driver().run(stage_command(small_inputs, stage), tmp_path, size_limit=limit)
        assert_one_line(result, "error: out", DISK_FULL_HINT)
        assert before <= finished_videos(tmp_path)
        assert_files_whole(stage, small_inputs, tmp_path)
    assert finished_videos(tmp_path)
    assert_resumes(stage, small_inputs, tmp_path)


@pytest.mark.parametrize("limits", [12, pytest.param(1000, marks=pytest.mark.long)])
def test_a_full_disk_in_the_last_step_leaves_every_part(limits: int, small_inputs: Path, tmp_path: Path) -> None:
    size = len(uninterrupted_run(small_inputs, "inference").content["out/flow.h5"])
    remaining: dict[str, Any] = {}
    for number in range(limits):
        limit = (size - 1) * (limits - 1 - number) // (limits - 1)
        assert_one_line(
            driver().run(stage_command(small_inputs, "inference"), tmp_path, size_limit=limit),
            "error: out/flow.h5",
            DISK_FULL_HINT,
        )
        assert len(finished_videos(tmp_path)) == 4
        remaining = remaining or folder_content(tmp_path)
        stage_driver.assert_same_files(folder_content(tmp_path), remaining)
    assert driver().run(stage_command(small_inputs, "inference"), tmp_path, size_limit=size).returncode == 0
    stage_driver.assert_same_files(folder_content(tmp_path), uninterrupted_run(small_inputs, "inference").content)


CHECKPOINT = {"state_dict": {"weight": torch.ones(100, 100)}, "config": {"alpha": 0.1}}
WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.pth": lambda path: checkpoint.save_checkpoint(path, CHECKPOINT),
    "a.txt": lambda path: atomic.write_text(path, "Löwe\n" * 10_000),
    "a.json": lambda path: yaml_json.write_json(path, {"key": "value" * 10_000}),
    "a.csv": lambda path: csv.write_csv(path, ["a"], [[i] for i in range(10_000)]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_previous_file_whole(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / name)
    size = path.stat().st_size
    path.write_bytes(b"the one before")
    for limit in (*spaced_limits(20, size), size - 1):
        with file_size_limit(limit), pytest.raises(OSError, match=rf"File too large: .*{name}'"):
            WRITERS[name](path)
        assert path.read_bytes() == b"the one before"
        assert file_names(tmp_path) == {name}
    with file_size_limit(size):
        WRITERS[name](path)
    assert path.stat().st_size == size


# --- full disk: a small file system


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of half a megabyte."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mount_point)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("needs the permission to mount a file system")
    except FileNotFoundError:
        pytest.skip("needs mount")
    yield mount_point
    subprocess.run(["umount", str(mount_point)], check=True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_file_system_is_one_line(stage: str, small_inputs: Path, disk: Path) -> None:
    work_dir, full = disk / "run", 0
    work_dir.mkdir()
    for free in (0, 1, 3, 6, 10, 15, 21, 28):  # pages of 4096 bytes
        state = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(max(0, state.f_bavail - free) * state.f_bsize))
        before = finished_videos(work_dir)
        result = driver().run(stage_command(small_inputs, stage), work_dir)
        (disk / "filler").unlink()
        if result.returncode:
            full += 1
            assert_one_line(result, "error: out", "No space left on device", DISK_FULL_HINT)
        assert before <= finished_videos(work_dir)
        assert_files_whole(stage, small_inputs, work_dir)
    assert full >= 2
    assert_resumes(stage, small_inputs, work_dir)


# --- without write permission


@pytest.mark.parametrize("folder", ["out", "."])
@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_without_write_permission_is_one_line(
    stage: str, folder: str, small_inputs: Path, tmp_path: Path
) -> None:
    (tmp_path / "run" / "out").mkdir(parents=True)
    work_dir = tmp_path / "run"
    if folder == "." and stage != "extract_flows":
        (work_dir / "out").rmdir()
    (work_dir / folder).chmod(0o555)
    try:
        result = driver().run(stage_command(small_inputs, stage), work_dir, without_capabilities=True)
        assert_one_line(result, "error: out", "Permission denied; name a folder with write permission")
        assert not [path for path in file_names(work_dir) if not path.endswith(".jsonl")]
    finally:
        (work_dir / folder).chmod(0o755)
    assert_resumes(stage, small_inputs, work_dir)


def test_a_parts_folder_without_write_permission_is_one_line(small_inputs: Path, tmp_path: Path) -> None:
    driver().run(stage_command(small_inputs, "inference"), tmp_path, kill_at_change=30)
    before = finished_videos(tmp_path)
    assert 0 < len(before) < 4
    (tmp_path / "out" / "flow.h5.parts").chmod(0o555)
    try:
        result = driver().run(stage_command(small_inputs, "inference"), tmp_path, without_capabilities=True)
        assert_one_line(result, "error: out/flow.h5.parts", "Permission denied")
    finally:
        (tmp_path / "out" / "flow.h5.parts").chmod(0o755)
    assert finished_videos(tmp_path) == before
    assert_resumes("inference", small_inputs, tmp_path)


# --- deleted files


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread, as the uninterrupted runs do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def work_dir(small_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A working directory with a copy of the data set."""
    shutil.copytree(small_inputs / "dataset", tmp_path / "dataset")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_in_process(stage: str, small_inputs: Path) -> cli.RunReport:
    data = ["--dataset-dir", "dataset", "--num-workers", "0"]
    return import_module(stage).main([*stage_command(small_inputs, stage, *data)[1:]])


def source_path(stage: str, number: int) -> Path:
    return Path("dataset", "flows" if stage == "inference" else "videos", f"clip{number:02}.mp4")


def call_at_start_of(monkeypatch: pytest.MonkeyPatch, number: int, function: Callable[[], None]) -> None:
    """Call a function when work on the n-th video starts."""

    def record_start(self: VideoTracker, video: str, real: Callable[..., None] = VideoTracker.record_start) -> None:
        if video.startswith(f"clip{number:02}"):
            function()
        real(self, video)

    monkeypatch.setattr(VideoTracker, "record_start", record_start)


@pytest.mark.parametrize(("started_video", "deleted_video"), [(0, 3), (1, 1)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_deleted_video_fails_and_the_others_are_processed(
    stage: str,
    started_video: int,
    deleted_video: int,
    small_inputs: Path,
    work_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deleted_path = source_path(stage, deleted_video)
    with monkeypatch.context() as patch:
        call_at_start_of(patch, started_video, deleted_path.unlink)
        report = run_in_process(stage, small_inputs)
    key = deleted_path.stem if stage == "inference" else deleted_path.name
    assert (report.done, report.failed) == (3, {key: "there is no such file"})
    assert len(finished_videos(work_dir)) == 3
    shutil.copytree(small_inputs / "dataset", "dataset", dirs_exist_ok=True)
    report = run_in_process(stage, small_inputs)
    assert (report.done, report.already_done, report.failed) == (1, 3, {})
    shutil.rmtree("dataset")
    stage_driver.assert_same_files(folder_content(work_dir), uninterrupted_run(small_inputs, stage).content)


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("name", ["", "clip00.part", "settings.json"])
@pytest.mark.parametrize("when", ["in the middle", "before the last step"])
def test_deleted_parts_are_detected_and_written_again(
    name: str, when: str, small_inputs: Path, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted_path = Path("out", "flow.h5.parts", name)
    with monkeypatch.context() as patch:
        if when == "in the middle":
            call_at_start_of(patch, 2, lambda: delete(deleted_path))
        else:

            def merge(
                self: store.EmbeddingWriter, *args: Any, real: Callable[..., Any] = store.EmbeddingWriter.merge
            ) -> Any:
                delete(deleted_path)
                return real(self, *args)

            patch.setattr(store.EmbeddingWriter, "merge", merge)
        if (name, when) == ("settings.json", "before the last step"):
            run_in_process("inference", small_inputs)  # the merge does not need the settings
        else:
            with pytest.raises(FileNotFoundError) as caught:
                run_in_process("inference", small_inputs)
            assert str(caught.value.filename).startswith("out/flow.h5.parts/")
            assert not Path("out", "flow.h5").exists()
    if (name, when) == ("settings.json", "in the middle"):  # the parts' settings are unknown
        result = driver().run(stage_command(small_inputs, "inference"), work_dir)
        assert result.returncode == 2
        assert result.stderr.startswith("error: out/flow.h5.parts/settings.json: ")
        shutil.rmtree("out/flow.h5.parts")
    shutil.rmtree("dataset")
    assert_resumes("inference", small_inputs, work_dir)
