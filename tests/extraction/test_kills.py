"""An extraction that is killed or interrupted at any moment is resumed by the same command, with the same bytes.

The many kills: pytest -m long -s tests/extraction/test_kills.py (-s prints which phases were hit)"""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests import preloaded, stage_driver
from tests.conftest import REPOSITORY, write_annotations
from tests.stage_driver import (
    H5_OUTPUTS,
    STAGES,
    UninterruptedRun,
    driver,
    finished_videos,
    folder_content,
    kill_when,
    moment_in_phase,
    random_moment,
    stage_command,
    uninterrupted_run,
)
from vimoclip import store


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage_driver.make_inputs(tmp_path_factory.mktemp("inputs"))


def start_process(command: list[str], folder: Path) -> "subprocess.Popen[str]":
    """Start a script as from a shell; Ctrl-C ends it even where the tests ignore SIGINT."""
    script = [sys.executable, str(REPOSITORY / command[0]), *command[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    reset_sigint = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(script, cwd=folder, env=environment, preexec_fn=reset_sigint, **pipes)


# --- SIGKILL


@pytest.mark.parametrize(
    "stage", ["extract_flows", *(pytest.param(name, marks=pytest.mark.long) for name in H5_OUTPUTS)]
)
def test_a_new_process_writes_the_same_bytes_as_a_forked_one(stage: str, small_inputs: Path, tmp_path: Path) -> None:
    process = start_process(stage_command(small_inputs, stage), tmp_path)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    stage_driver.assert_same_files(folder_content(tmp_path), uninterrupted_run(small_inputs, stage).content)


MOMENTS = ("any time", "any time", "while writing", "in the last step")


def kill_moment(moment: str, run: UninterruptedRun, rng: random.Random, pending: float) -> Callable[[str, float], bool]:
    """Return a random moment of a run; `pending`: fraction of the videos that are pending."""
    if moment == "any time":
        return random_moment(rng, run.seconds * (0.3 + 0.65 * pending))  # loading the model takes time too
    if moment == "while writing":
        return moment_in_phase("writing", rng, visits=max(1, round(20 * pending)), length=0.002)
    return moment_in_phase("last step", rng, visits=1, length=0.8 * run.last_steps[0])


def resume_and_compare(stage: str, inputs: Path, work_dir: Path) -> None:
    """Check that the same command resumes after the last finished video and gives the uninterrupted run's files."""
    finished = finished_videos(work_dir)
    result = driver().run(stage_command(inputs, stage), work_dir)
    assert (result.returncode, result.stderr) == (0, "")
    assert sum(map(int, re.findall(r", (\d+) done or failed before$", result.stdout, re.MULTILINE))) == len(finished)
    stage_driver.assert_same_files(folder_content(work_dir), uninterrupted_run(inputs, stage).content)
    shutil.rmtree(work_dir)


def kill_at_random(stage: str, inputs: Path, folder: Path, kills: int) -> Counter[str]:
    """Kill runs, each of which resumes the one before; return the number of kills per phase."""
    rng, hit, missed, work_dir = random.Random(0), Counter[str](), 0, folder / "run"
    while hit.total() < kills:
        work_dir.mkdir(exist_ok=True)
        before = finished_videos(work_dir)
        when = kill_moment(
            MOMENTS[(hit.total() + missed) % len(MOMENTS)], uninterrupted_run(inputs, stage), rng, 1 - len(before) / 12
        )
        killed, result = kill_when(stage_command(inputs, stage), work_dir, when)
        assert before <= finished_videos(work_dir)
        hit[killed.phase] += killed.hit
        missed += not killed.hit
        assert killed.hit or result.returncode == 0, result.stderr
        if len(before) == 12 or not killed.hit:  # start from scratch, else most kills hit the start of a run
            resume_and_compare(stage, inputs, work_dir)
    if work_dir.exists():
        resume_and_compare(stage, inputs, work_dir)
    assert missed <= kills
    print(f"\n{stage}: {hit.total()} kills hit {dict(+hit)}, {missed} came after the end", flush=True)
    return hit


@pytest.mark.parametrize("kills", [3, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("stage", STAGES)
def test_runs_killed_at_random_moments_end_like_uninterrupted_ones(
    stage: str, kills: int, inputs: Path, tmp_path: Path
) -> None:
    hit = kill_at_random(stage, inputs, tmp_path, kills)
    if kills >= 200:
        assert set(hit) == set(stage_driver.PHASES)


@pytest.mark.parametrize("every", [1 / 5, pytest.param(0, marks=pytest.mark.long)])
@pytest.mark.parametrize("stage", STAGES)
def test_runs_killed_at_each_file_change_end_like_uninterrupted_ones(
    stage: str, every: float, small_inputs: Path, tmp_path: Path
) -> None:
    """Each file that is opened, renamed or removed, and the middle of each write except FFmpeg's."""
    (tmp_path / "counted").mkdir()
    stdout = driver().run(stage_command(small_inputs, stage), tmp_path / "counted", kill_at_change=0).stdout
    changes = int(re.findall(r"^(\d+) changes$", stdout, re.MULTILINE)[-1])
    assert changes > 40
    step = max(1, int(changes * every))
    for change in range(step // 2 + 1, changes + 1, step):
        (tmp_path / "run").mkdir()
        result = driver().run(stage_command(small_inputs, stage), tmp_path / "run", kill_at_change=change)
        assert result.returncode == -signal.SIGKILL, result
        resume_and_compare(stage, small_inputs, tmp_path / "run")
    print(
        f"\n{stage}: died at {len(range(step // 2 + 1, changes + 1, step))} of {changes} changes to files", flush=True
    )


# --- SIGINT and SIGTERM


@pytest.mark.parametrize(
    ("stage", "number", "code"),
    [("extract_embeddings", signal.SIGTERM, 143), ("inference", signal.SIGINT, 130)],
)
def test_a_signal_ends_a_run_and_prints_the_command_that_resumes(
    stage: str, number: signal.Signals, code: int, inputs: Path, tmp_path: Path
) -> None:
    script, *flags = stage_command(inputs, stage, "--overwrite")
    process = preloaded.start(
        [str(REPOSITORY / script), *flags], tmp_path, OMP_NUM_THREADS="1", PYTHONPATH=str(REPOSITORY)
    )
    while not process.has_ended() and not finished_videos(tmp_path):
        time.sleep(0.001)
    os.kill(process.pid, number)
    start = time.monotonic()
    result = process.wait(30)
    assert time.monotonic() - start < 20
    assert result.returncode == code, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("stopped; ")
    _, script, *arguments = shlex.split(last.partition("resume with: ")[2])
    assert [Path(script).name, *arguments] == stage_command(inputs, stage)
    assert 0 < len(finished_videos(tmp_path)) < 12
    assert not [name for name in folder_content(tmp_path) if name.endswith(".lock")]
    resume_and_compare(stage, inputs, tmp_path)


C_CODE_SCRIPT = """
import ctypes, sys
from vimoclip import cli
def main():
    mutex, lock = ctypes.create_string_buffer(256), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    open(sys.argv[-1], "x").close()
    lock(mutex)  # waits for itself, also after a signal
cli.run(main)
"""


def test_a_signal_ends_a_process_that_runs_c_code(tmp_path: Path) -> None:
    processes = {
        number: preloaded.start(["-c", C_CODE_SCRIPT, str(number)], tmp_path, PYTHONPATH=str(REPOSITORY))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    for number, process in processes.items():
        while not (tmp_path / str(number)).exists():
            time.sleep(0.01)
        os.kill(process.pid, number)
    for number, process in processes.items():
        result = process.wait(60)
        assert result.returncode == 128 + number, result.stderr
        assert "resume with: python" in result.stderr.splitlines()[-1]


# --- what a frame's embedding depends on


@pytest.mark.parametrize(
    ("stage", "flags"),
    [
        ("extract_embeddings", ["--num-workers", "0"]),
        ("extract_embeddings", ["--num-workers", "1"]),
        ("extract_flows", ["--num-workers", "0", "--pair-batch-size", "3"]),
        ("extract_flows", ["--num-workers", "1", "--pair-batch-size", "64"]),
        ("inference", ["--num-workers", "0"]),
        ("inference", ["--num-workers", "1", "--batch-size", "7"]),
    ],
)
def test_prefetching_changes_no_byte(stage: str, flags: list[str], small_inputs: Path, tmp_path: Path) -> None:
    assert driver().run(stage_command(small_inputs, stage, *flags), tmp_path).returncode == 0
    stage_driver.assert_same_files(folder_content(tmp_path), uninterrupted_run(small_inputs, stage).content)


def read_arrays(folder: Path) -> dict[str, tuple[bytes, ...]]:
    """Return the bytes of each video's arrays, from every embeddings file in a folder."""
    arrays: dict[str, tuple[bytes, ...]] = {}
    for path in (folder / "out").glob("*.h5"):
        with h5py.File(path) as file:
            arrays |= {key: tuple(video[name][:].tobytes() for name in sorted(video)) for key, video in file.items()}
    return arrays


def test_embeddings_do_not_depend_on_the_other_videos(inputs: Path, tmp_path: Path) -> None:
    """With another order of the annotations, fewer videos, one file or two, other frames share a batch."""
    uninterrupted_run(inputs, "extract_embeddings")
    expected = read_arrays(inputs / "uninterrupted-extract_embeddings")
    assert len(expected) == 12
    labels = {f"clip{i:02}.mp4": (i % 3,) for i in range(12)}
    names = list(labels)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "videos").symlink_to(inputs / "dataset" / "videos")
    for number, chosen in enumerate((names[::-1], names[4:] + names[:4], names[1::2], names[7:8])):
        work_dir = tmp_path / str(number)
        work_dir.mkdir()
        write_annotations(tmp_path / "dataset" / "annotations", {"train": {name: labels[name] for name in chosen}})
        flags = ["--dataset-dir", str(tmp_path / "dataset"), *(["--limit", "5"] if number == 1 else [])]
        assert driver().run(stage_command(inputs, "extract_embeddings", *flags), work_dir).returncode == 0
        arrays = read_arrays(work_dir)
        assert sorted(arrays) == sorted(chosen[:5] if number == 1 else chosen)
        assert all(arrays[name] == expected[name] for name in arrays)
    # the file has the order of the annotations
    assert list(store.EmbeddingReader(tmp_path / "0" / "out" / "ak_train_clip_embeddings.h5").keys) == names
