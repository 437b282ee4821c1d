"""Runs of the three extraction scripts in processes that start quickly, and conditions to kill them."""

import contextlib
import ctypes
import functools
import importlib
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import preloaded
from tests.conftest import REPOSITORY, make_tiny_clip, moving_frames, write_annotations, write_video
from tests.preloaded import ProcessResult

# of a stage's main thread; other threads prefetch
PHASES = ("starting", "reading", "computing", "writing", "last step")
TIMEOUT_SECONDS = 300


class StageDriver:
    """Starts one process at a time."""

    def start(self, command: list[str], folder: Path, **options: Any) -> int:
        """Start a stage's command in a folder and return its process id; `options`: see `run_stage`."""
        words = ["-c", "from tests import stage_driver; stage_driver.run_stage()", json.dumps(options), *command]
        self.process = preloaded.start(words, folder, True, PYTHONPATH=str(REPOSITORY))
        return self.process.pid

    def has_ended(self) -> bool:
        return self.process.has_ended()

    def wait(self) -> ProcessResult:
        return self.process.wait(TIMEOUT_SECONDS)

    def run(self, command: list[str], folder: Path, **options: Any) -> ProcessResult:
        self.start(command, folder, **options)
        return self.wait()


@cache
def driver() -> StageDriver:
    return StageDriver()


# --- in the process of the stage


def run_stage() -> None:
    """Run the stage whose command line follows the options in sys.argv."""
    options, sys.argv = json.loads(sys.argv[1]), sys.argv[2:]
    changes = _apply(**options)
    from vimoclip import cli

    try:
        cli.run(importlib.import_module(Path(sys.argv[0]).stem).main)
    finally:
        print(f"{changes[0]} changes")


def _apply(
    size_limit: int | None = None,
    phase_file: str | None = None,
    without_capabilities: bool = False,
    kill_at_change: int | None = None,
) -> list[int]:
    """`size_limit`: bytes per file; `phase_file`: receives the phase; `without_capabilities`: permissions apply to root
    too; `kill_at_change`: number of the file change to die at. Returns the counter of changes."""
    if size_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_limit, size_limit))
    if without_capabilities:
        drop_capabilities()
    if phase_file:
        _record_phases(Path(phase_file))
    return [0] if kill_at_change is None else _kill_at_change(kill_at_change)


def drop_capabilities() -> None:
    """Drop all Linux capabilities, so that file permissions apply to root too."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


def _kill_at_change(number: int) -> list[int]:
    """Kill this process at the n-th file change: before a file is opened for writing, renamed or removed, or after half
    of a write. Returns the counter of changes."""
    from vimoclip.io import atomic

    count, events = [0], {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}

    def is_last() -> bool:
        count[0] += 1
        return count[0] == number

    def audit(event: str, details: tuple[Any, ...]) -> None:
        opened = event == "open" and str(details[0]).startswith("out") and details[2] & (os.O_WRONLY | os.O_RDWR)
        if (opened or event in events) and is_last():
            os.kill(os.getpid(), signal.SIGKILL)

    def write(file: atomic.AtomicFile, data: Any, real: Callable[..., int] = atomic.AtomicFile.write) -> int:
        if not is_last():
            return real(file, data)
        real(file, bytes(data)[: memoryview(data).nbytes // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def append(descriptor: int, data: bytes, real: Callable[..., int] = os.write) -> int:
        if not is_last():
            return real(descriptor, data)
        real(descriptor, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    setattr(atomic.AtomicFile, "write", write)  # noqa: B010 - mypy rejects an assignment to a method
    setattr(os, "write", append)  # noqa: B010
    sys.addaudithook(audit)
    return count


def _record_phases(path: Path) -> None:
    """Write the index of the current phase to the first byte of a file, which survives a kill."""
    from vimoclip import clip, flow, store, video
    from vimoclip.extraction import manifest

    with path.open("r+b") as file:
        phase_byte = mmap.mmap(file.fileno(), 1)

    def mark(owner: Any, name: str, phase: str) -> None:
        setattr(owner, name, within(phase, getattr(owner, name)))

    def within(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            before = phase_byte[0]
            phase_byte[0] = before and PHASES.index(phase)  # a manifest is compacted at the start too
            try:
                return function(*args, **kwargs)
            finally:
                phase_byte[0] = before

        return marked

    def read_ahead(*args: Any, real: Any = video.prefetch_videos, **kwargs: Any) -> Any:
        phase_byte[0] = PHASES.index("reading")
        return real(*args, **kwargs)

    def load(*args: Any, real: Any = flow.load_renderer, **kwargs: Any) -> Any:
        launch = real(*args, **kwargs).launch
        return flow.FlowRenderer(lambda frames: within("computing", launch(frames)))

    setattr(video, "prefetch_videos", read_ahead)  # noqa: B010
    setattr(flow, "load_renderer", load)  # noqa: B010
    mark(clip.ImageEncoder, "encode_on_device", "computing")
    for name in ("append", "finalize", "publish"):
        mark(store.PartWriter, name, "writing")
    for name in ("write", "finalize", "__exit__"):
        mark(video.VideoWriter, name, "writing")
    mark(manifest.Manifest, "add", "writing")
    mark(store.EmbeddingWriter, "merge", "last step")
    mark(manifest.Manifest, "compact", "last step")


# --- inputs and outputs of the stages


class UninterruptedRun(NamedTuple):
    """The files of a run without interruption, its duration and those of its last steps (s)."""

    content: dict[str, Any]
    seconds: float
    last_steps: list[float]


@cache
def uninterrupted_run(folder: Path, stage: str) -> UninterruptedRun:
    """Run a stage once on the inputs in `folder`."""
    work_dir, phases = folder / f"uninterrupted-{stage}", [("starting", 0.0)]
    work_dir.mkdir()

    def record(phase: str, seconds: float) -> bool:
        if phase != phases[-1][0]:
            phases.append((phase, seconds))
        return False

    _, result = kill_when(stage_command(folder, stage), work_dir, record)
    assert result.returncode == 0, result
    last_steps = [end - start for (phase, start), (_, end) in pairwise(phases) if phase == "last step"]
    return UninterruptedRun(folder_content(work_dir), phases[-1][1], last_steps)


def stage_command(folder: Path, stage: str, *extra: str) -> list[str]:
    """Return the command line of a stage, from the inputs in `folder` to `out` in the working directory."""
    data = ["--dataset-dir", str(folder / "dataset"), "--device", "cpu"]
    if stage == "extract_embeddings":
        data += ["--clip-model-name", f"local-dir:{folder / 'tinyclip'}", "--output-dir", "out"]
    elif stage == "extract_flows":
        data += ["--model", "dis", "--output-dir", "out"]
    else:
        data += ["--checkpoint-dir", str(folder / "student.pth"), "--output-h5-path", "out/flow.h5"]
    return [f"{stage}.py", *data, *extra]


STAGES = ("extract_embeddings", "extract_flows", "inference")
H5_OUTPUTS = {
    "extract_embeddings": "out/ak_train_clip_embeddings.h5",
    "inference": "out/flow.h5",
}  # relative to the working directory


def make_small_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with inputs for runs of a quarter of a second, written once for all modules."""
    folder = tmp_path_factory.getbasetemp() / "small_inputs"
    return folder if folder.exists() else make_inputs(folder, videos=4, shortest=8, step=8)


def make_inputs(folder: Path, videos: int = 12, shortest: int = 40, step: int = 5) -> Path:
    """Write 12 clips of 40 to 95 frames of 96x64, their flow, a tiny CLIP and an untrained student."""
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}}
    for i in range(videos):
        name, split = f"clip{i:02}.mp4", "val" if i % 3 == 2 else "train"
        frames = moving_frames(shortest + step * (i * 5 % videos), (i % 3, i % 2), 64, 96, seed=i)
        write_video(folder / "dataset" / "videos" / name, frames, lossless=False)
        splits[split][name] = (i % 3,)
    write_annotations(folder / "dataset" / "annotations", splits)
    make_tiny_clip(folder / "tinyclip")
    result = driver().run(stage_command(folder, "extract_flows", "--output-dir", str(folder / "dataset/flows")), folder)
    assert result.returncode == 0, result
    make_student(folder, "student.pth")
    return folder


def make_student(folder: Path, name: str, seed: int = 1) -> Path:
    import torch

    from vimoclip import clip, moclip, video
    from vimoclip.flow import flow_folder
    from vimoclip.runtime import versions
    from vimoclip.training import checkpoint

    encoder = clip.load_encoder(f"local-dir:{folder / 'tinyclip'}", None)
    torch.manual_seed(seed)
    model = moclip.MoCLIP(encoder.visual, 32, 3, 0.1)
    for parameter in model.parameters():  # else it would equal its teacher
        parameter.data += 0.01 * torch.randn_like(parameter)
    flow_settings = flow_folder.settings_from_comment(video.probe(folder / "dataset" / "flows" / "clip00.mp4").comment)
    config = {
        "clip": encoder.config,
        "alpha": 0.1,
        "num_classes": 3,
        "sequence_length": 4,
        "teacher": {},
        "flow": flow_settings,
    }
    metadata = {"class_names": ["a", "b", "c"], "epoch": 1, "metrics": {}, "versions": versions.package_versions()}
    return checkpoint.save_checkpoint(folder / name, {"state_dict": model.state_dict(), "config": config, **metadata})


def folder_content(folder: Path) -> dict[str, Any]:
    """Return the content of every file below a folder by path: bytes, or the lines of a manifest without durations."""
    content: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        name = str(path.relative_to(folder))
        content[name] = path.read_bytes()
        if name.endswith(".manifest.jsonl"):
            lines = [json.loads(line) for line in content[name].splitlines()]
            content[name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    return content


def assert_same_files(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check that two results of `folder_content` have the same names and contents."""
    assert sorted(actual) == sorted(expected)
    assert [name for name in actual if actual[name] != expected[name]] == []


def finished_videos(folder: Path) -> set[str]:
    """Return the videos that are finished in `out`: as flow videos, parts, or in an HDF5 file."""
    from vimoclip import store

    out = folder / "out"
    done = {path.name for path in out.glob("[!.]*.mp4")} | {path.stem for path in out.glob("*.parts/[!.]*.part")}
    for path in out.glob("*.h5"):
        done |= set(store.EmbeddingReader(path).keys)
    return done


# --- killing


class KillResult(NamedTuple):
    """Whether a process was killed before it ended, and in which phase."""

    hit: bool
    phase: str


def kill_when(command: list[str], folder: Path, when: Callable[[str, float], bool]) -> tuple[KillResult, ProcessResult]:
    """Start a command and kill it once `when(phase, seconds since the start)` is true."""
    phase_file = folder.with_name(folder.name + ".phase")
    phase_file.write_bytes(b"\0")
    pid, start = driver().start(command, folder, phase_file=str(phase_file)), time.monotonic()
    while not driver().has_ended() and not when(_read_phase(phase_file), time.monotonic() - start):
        time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    result = driver().wait()
    return KillResult(result.returncode == -signal.SIGKILL, _read_phase(phase_file)), result


def _read_phase(phase_file: Path) -> str:
    return PHASES[phase_file.read_bytes()[0]]


def random_moment(rng: random.Random, length: float) -> Callable[[str, float], bool]:
    """Return a condition for `kill_when`: a random moment within `length` seconds."""
    moment = rng.uniform(0, length)
    return lambda phase, seconds: seconds > moment


def moment_in_phase(target_phase: str, rng: random.Random, visits: int, length: float) -> Callable[[str, float], bool]:
    """Return a condition for `kill_when`: up to `length` s after the n-th start of a phase, n random <= `visits`.

    If the phase starts less often, the run is not killed."""
    remaining_visits, inside, end_time = rng.randint(1, visits), False, float("inf")
    delay = rng.uniform(0, length)

    def when(phase: str, seconds: float) -> bool:
        nonlocal remaining_visits, inside, end_time
        remaining_visits -= phase == target_phase and not inside
        inside = phase == target_phase
        if remaining_visits <= 0 and end_time == float("inf"):
            end_time = seconds + delay
        return seconds >= end_time

    return when
