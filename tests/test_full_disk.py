"""A full disk, a folder that can't be written, files that vanish: one line, and what was finished stays whole."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import stages
from tests.stages import STAGES, Ended, command, content, driver, finished, whole
from vimoclip import cli, store
from vimoclip.extraction import manifest
from vimoclip.extraction.video_status import Outcomes
from vimoclip.io import atomic, csv, yaml_json
from vimoclip.training import checkpoint

FULL = "; make room, and the same command goes on; what was finished is whole\n"


few = pytest.fixture(scope="module")(stages.few)


def assert_one_line(ended: Ended, *words: str) -> None:
    assert ended.code == 1, ended
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert all(word in ended.err for word in words), ended.err


def assert_goes_on(stage: str, few: Path, place: Path) -> None:
    """The same command, with room, makes what a run makes that had it from the beginning."""
    ended = driver().run(command(few, stage), place)
    assert (ended.code, ended.err) == (0, "")
    stages.assert_same(content(place), whole(few, stage).content)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def assert_whole(stage: str, few: Path, place: Path) -> None:
    """Whatever has its name is whole, and nothing is half done."""
    expected = whole(few, stage).content
    assert not [name for name in names(place) if name.endswith((".lock", ".partial", ".encoding"))]
    for name in names(place) & expected.keys():
        if not name.endswith(".jsonl"):
            assert (place / name).read_bytes() == expected[name]


# --- full: no file may have more than so many bytes


def spread(count: int, largest: int) -> list[int]:
    """So many numbers from 0 to below the largest, denser at the beginning, where the small files end."""
    return sorted({round((largest - 1) * (i / (count - 1)) ** 2) for i in range(count)})


@pytest.mark.parametrize("limits", [8, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_without_room_says_so_and_goes_on_with_room(stage: str, limits: int, few: Path, tmp_path: Path) -> None:
    """What one limit leaves is what the next begins with: more and more videos, at last all but the last step."""
    largest = max(len(data) for data in whole(few, stage).content.values() if isinstance(data, bytes))
    for limit in spread(limits, largest):
        before = finished(tmp_path)
        ended = driver().run(command(few, stage), tmp_path, limit=limit)
        assert_one_line(ended, "error: out", FULL)
        assert before <= finished(tmp_path)
        assert_whole(stage, few, tmp_path)
    assert finished(tmp_path)
    assert_goes_on(stage, few, tmp_path)


@pytest.mark.parametrize("limits", [30, pytest.param(1000, marks=pytest.mark.long)])
def test_the_last_step_without_room_leaves_every_part(limits: int, few: Path, tmp_path: Path) -> None:
    size = len(whole(few, "inference").content["out/flow.h5"])
    left: dict[str, Any] = {}
    for number in range(limits):
        limit = (size - 1) * (limits - 1 - number) // (limits - 1)
        assert_one_line(driver().run(command(few, "inference"), tmp_path, limit=limit), "error: out/flow.h5", FULL)
        assert len(finished(tmp_path)) == 4
        left = left or content(tmp_path)
        stages.assert_same(content(tmp_path), left)
    assert driver().run(command(few, "inference"), tmp_path, limit=size).code == 0
    stages.assert_same(content(tmp_path), whole(few, "inference").content)


@contextlib.contextmanager
def room(size: int) -> Iterator[None]:
    """No file of this process may have more bytes meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


NEW = {"state_dict": {"weight": torch.ones(100, 100)}, "config": {"alpha": 0.1}}
WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.pth": lambda path: checkpoint.save_checkpoint(path, NEW),
    "a.txt": lambda path: atomic.write_text(path, "Löwe\n" * 10_000),
    "a.json": lambda path: yaml_json.write_json(path, {"key": "value" * 10_000}),
    "a.csv": lambda path: csv.write_csv(path, ["a"], [[i] for i in range(10_000)]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_without_room_leaves_the_one_before_it_whole(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / name)
    size = path.stat().st_size
    path.write_bytes(b"the one before")
    for limit in (*spread(20, size), size - 1):
        with room(limit), pytest.raises(OSError, match=rf"File too large: .*{name}'"):
            WRITERS[name](path)
        assert path.read_bytes() == b"the one before"
        assert names(tmp_path) == {name}
    with room(size):
        WRITERS[name](path)
    assert path.stat().st_size == size


def test_lines_of_a_manifest_without_room_leave_those_before_them(tmp_path: Path) -> None:
    def entry(i: int) -> manifest.Entry:
        return manifest.Entry(f"clip{i}.mp4", "partial", "Löwe", 10, 9)

    path = manifest.manifest_path(tmp_path / "out")
    first = len(manifest._line(entry(0)))
    for limit in range(2 * first, 3 * first - 1, 9):  # without its last byte alone a line is whole
        path.unlink(missing_ok=True)
        lines = manifest.Manifest(tmp_path / "out")
        with room(limit):
            lines.add(entry(0))
            lines.add(entry(1))
            with pytest.raises(OSError, match=r"out\.manifest\.jsonl"):
                lines.add(entry(2))
        assert path.stat().st_size == limit
        again = manifest.Manifest(tmp_path / "out")
        assert list(again.entries.values()) == [entry(0), entry(1)]
        again.add(entry(2))
        assert list(manifest.read(path).values()) == [entry(i) for i in range(3)]


# --- full: a small file system


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("needs to be allowed to mount a file system")
    except FileNotFoundError:
        pytest.skip("needs mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_small_file_system_that_is_full_is_one_line(stage: str, few: Path, disk: Path) -> None:
    place, full = disk / "place", 0
    place.mkdir()
    for free in (0, 1, 3, 6, 10, 15, 21, 28):  # pages of 4096 bytes
        state = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(max(0, state.f_bavail - free) * state.f_bsize))
        before = finished(place)
        ended = driver().run(command(few, stage), place)
        (disk / "filler").unlink()
        if ended.code:
            full += 1
            assert_one_line(ended, "error: out", "No space left on device", FULL)
        assert before <= finished(place)
        assert_whole(stage, few, place)
    assert full >= 2
    assert_goes_on(stage, few, place)


# --- what may not be written


@pytest.mark.parametrize("folder", ["out", "."])
@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_that_may_not_be_written_is_one_line(stage: str, folder: str, few: Path, tmp_path: Path) -> None:
    (tmp_path / "place" / "out").mkdir(parents=True)
    place = tmp_path / "place"
    if folder == "." and stage != "extract_flows":
        (place / "out").rmdir()
    (place / folder).chmod(0o555)
    try:
        ended = driver().run(command(few, stage), place, powerless=True)
        assert_one_line(ended, "error: out", "Permission denied; name a place where you may write")
        assert not [path for path in names(place) if not path.endswith(".jsonl")]
    finally:
        (place / folder).chmod(0o755)
    assert_goes_on(stage, few, place)


def test_parts_that_may_not_be_written_any_more_are_one_line(few: Path, tmp_path: Path) -> None:
    driver().run(command(few, "inference"), tmp_path, last_change=30)
    before = finished(tmp_path)
    assert 0 < len(before) < 4
    (tmp_path / "out" / "flow.h5.parts").chmod(0o555)
    try:
        ended = driver().run(command(few, "inference"), tmp_path, powerless=True)
        assert_one_line(ended, "error: out/flow.h5.parts", "Permission denied")
    finally:
        (tmp_path / "out" / "flow.h5.parts").chmod(0o755)
    assert finished(tmp_path) == before
    assert_goes_on("inference", few, tmp_path)


# --- what vanishes


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the runs that others are compared with."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def place(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A folder with a data set that may be damaged."""
    shutil.copytree(few / "dataset", tmp_path / "dataset")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_here(stage: str, few: Path, *more: str) -> cli.Report:
    data = ["--dataset-dir", "dataset", "--num-workers", "0"]
    return import_module(stage).main([*command(few, stage, *data, *more)[1:]])


def source(stage: str, number: int) -> Path:
    return Path("dataset", "flows" if stage == "inference" else "videos", f"clip{number:02}.mp4")


def at_the_beginning_of(monkeypatch: pytest.MonkeyPatch, number: int, what: Callable[[], None]) -> None:
    """Something happens when work on the n-th video begins."""

    def begin(self: Outcomes, video: str, real: Callable[..., None] = Outcomes.begin) -> None:
        if video.startswith(f"clip{number:02}"):
            what()
        real(self, video)

    monkeypatch.setattr(Outcomes, "begin", begin)


@pytest.mark.parametrize(("begun", "vanishing"), [(0, 3), (1, 1)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_video_that_vanishes_is_a_line_and_the_others_are_done(
    stage: str, begun: int, vanishing: int, few: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = source(stage, vanishing)
    with monkeypatch.context() as patch:
        at_the_beginning_of(patch, begun, gone.unlink)
        report = run_here(stage, few)
    name = gone.stem if stage == "inference" else gone.name
    assert (report.done, report.failed) == (3, {name: "there is no such file"})
    assert len(finished(place)) == 3
    shutil.copytree(few / "dataset", "dataset", dirs_exist_ok=True)
    report = run_here(stage, few)
    assert (report.done, report.already, report.failed) == (1, 3, {})
    shutil.rmtree("dataset")
    stages.assert_same(content(place), whole(few, stage).content)


def vanish(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("what", ["", "clip00.part", "settings.json"])
@pytest.mark.parametrize("when", ["in the middle", "before the last step"])
def test_parts_that_vanish_are_noticed_and_done_again(
    what: str, when: str, few: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Path("out", "flow.h5.parts", what)
    with monkeypatch.context() as patch:
        if when == "in the middle":
            at_the_beginning_of(patch, 2, lambda: vanish(gone))
        else:

            def finish(self: store.Writer, keys: Any, real: Callable[..., Any] = store.Writer.finish) -> Any:
                vanish(gone)
                return real(self, keys)

            patch.setattr(store.Writer, "finish", finish)
        if (what, when) == ("settings.json", "before the last step"):
            run_here("inference", few)  # all that were made with them are there
        else:
            with pytest.raises(FileNotFoundError) as caught:
                run_here("inference", few)
            assert str(caught.value.filename).startswith("out/flow.h5.parts/")
            assert not Path("out", "flow.h5").exists()
    if (what, when) == ("settings.json", "in the middle"):  # what the parts were made with nobody knows
        ended = driver().run(command(few, "inference"), place)
        assert ended.code == 2
        assert ended.err.startswith("error: out/flow.h5.parts/settings.json: ")
        shutil.rmtree("out/flow.h5.parts")
    shutil.rmtree("dataset")
    assert_goes_on("inference", few, place)
