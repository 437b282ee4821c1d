"""The three stages that extract, in processes forked from one that has torch: so hundreds can be started and killed.

`python -m tests.stages` is that process: it takes a job a line, and answers with the number of the job's process, then
with how that ended."""

import ctypes
import functools
import importlib
import json
import mmap
import os
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

from tests.conftest import REPOSITORY, make_clip, moving_frames, write_annotations, write_video

# what a stage is at, as far as its main thread goes; reading is done ahead, by other threads
PHASES = ("starting", "reading", "computing", "writing", "last step")
FOREVER = 300  # s


class Ended(NamedTuple):
    """How a process ended: its exit code, or minus the signal that ended it, and what it said."""

    code: int
    out: str
    err: str


class Driver:
    """Runs one job at a time, from the side of the tests."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.stages"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, **pipes)

    def start(self, command: list[str], folder: Path, **how: Any) -> int:
        """A stage's command in a folder; `how`: see `Job`. Its number is nobody else's until the next start."""
        job = {"command": command, "folder": str(folder), **how}
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        return int(self.process.stdout.readline())

    def has_ended(self) -> bool:
        assert self.process.stdout
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def wait(self) -> Ended:
        assert self.process.stdout
        return Ended(*json.loads(self.process.stdout.readline()))

    def run(self, command: list[str], folder: Path, **how: Any) -> Ended:
        self.start(command, folder, **how)
        return self.wait()


@cache
def driver() -> Driver:
    """The one of this test run; it ends with it, as its input does."""
    return Driver()


# --- the side of the process that forks


def serve() -> None:
    """Fork a process for each job that comes in, and tell of it."""
    import torch

    for module in ("cv2", "vimoclip.extraction.embeddings", "vimoclip.flow", "vimoclip.io.lock", "vimoclip.moclip"):
        importlib.import_module(module)
    torch.set_num_threads(1)  # OpenMP's threads would not survive a fork
    before = 0
    for line in sys.stdin:
        if before:
            os.waitpid(before, 0)
        out, err = os.pipe(), os.pipe()
        before = os.fork()
        if not before:
            os.dup2(out[1], 1)
            os.dup2(err[1], 2)
            _do(**json.loads(line))
        os.close(out[1])
        os.close(err[1])
        print(before, flush=True)
        said = [os.fdopen(end, errors="replace").read() for end in (out[0], err[0])]
        how = os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
        assert how
        code = how.si_status if how.si_code == os.CLD_EXITED else -how.si_status
        print(json.dumps([code, *said]), flush=True)


def _do(
    command: list[str],
    folder: str,
    limit: int | None = None,
    shown: str | None = None,
    powerless: bool = False,
    last_change: int | None = None,
) -> NoReturn:
    """A stage as its script runs it. `limit`: bytes that a file may have; `shown`: a file that tells the phase;
    `powerless`: permissions count for root too; `last_change`: how many changes to files it lives for."""
    code, changes = 1, [0]
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        signal.alarm(FOREVER)
        sys.argv = command
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if powerless:
            give_up_power()
        if shown:
            _show_phases(Path(shown))
        if last_change is not None:
            changes = _die_at(last_change)
        from vimoclip import cli

        cli.run(importlib.import_module(Path(command[0]).stem).main)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    print(f"{changes[0]} changes")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def give_up_power() -> None:
    """What makes root free of permissions are capabilities of the process (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


def _die_at(number: int) -> list[int]:
    """Be killed at the n-th change: before a file is opened to be written, renamed or removed, or with half of what was
    to be written in it. What counts the changes."""
    from vimoclip.io import atomic

    done, changes = [0], {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}

    def is_last() -> bool:
        done[0] += 1
        return done[0] == number

    def heard(event: str, details: tuple[Any, ...]) -> None:
        opened = event == "open" and str(details[0]).startswith("out") and details[2] & (os.O_WRONLY | os.O_RDWR)
        if (opened or event in changes) and is_last():
            os.kill(os.getpid(), signal.SIGKILL)

    def write(file: atomic.NewFile, data: Any, real: Callable[..., int] = atomic.NewFile.write) -> int:
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

    setattr(atomic.NewFile, "write", write)  # noqa: B010 - mypy lets nobody assign to a function
    setattr(os, "write", append)  # noqa: B010
    sys.addaudithook(heard)
    return done


def _show_phases(path: Path) -> None:
    """Keep the number of the phase in the first byte of a file, where it stays when the process is killed."""
    from vimoclip import clip, flow, store, video
    from vimoclip.extraction import manifest

    with path.open("r+b") as file:
        shown = mmap.mmap(file.fileno(), 1)

    def mark(owner: Any, name: str, phase: str) -> None:
        setattr(owner, name, within(phase, getattr(owner, name)))

    def within(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            before = shown[0]
            shown[0] = before and PHASES.index(phase)  # a manifest is settled at the start too
            try:
                return function(*args, **kwargs)
            finally:
                shown[0] = before

        return marked

    def read_ahead(*args: Any, real: Any = video.read_ahead, **kwargs: Any) -> Any:
        shown[0] = PHASES.index("reading")
        return real(*args, **kwargs)

    def load(*args: Any, real: Any = flow.load, **kwargs: Any) -> Any:
        return within("computing", real(*args, **kwargs))

    setattr(video, "read_ahead", read_ahead)  # noqa: B010
    setattr(flow, "load", load)  # noqa: B010
    mark(clip.ImageEncoder, "encode", "computing")
    for name in ("append", "complete", "publish"):
        mark(store.Part, name, "writing")
    for name in ("write", "complete", "__exit__"):
        mark(video.Writer, name, "writing")
    mark(manifest.Manifest, "add", "writing")
    mark(store.Writer, "finish", "last step")
    mark(manifest.Manifest, "settle", "last step")


# --- what the stages work on, and what they make


class Whole(NamedTuple):
    """A run that nobody stopped: what it made, how many seconds it took, and how many each of its last steps did."""

    content: dict[str, Any]
    seconds: float
    last_steps: list[float]


@cache
def whole(folder: Path, stage: str) -> Whole:
    """Of the inputs in `folder`."""
    place, seen = folder / f"whole-{stage}", [("starting", 0.0)]
    place.mkdir()

    def look(phase: str, seconds: float) -> bool:
        if phase != seen[-1][0]:
            seen.append((phase, seconds))
        return False

    _, ended = kill(command(folder, stage), place, look)
    assert ended.code == 0, ended
    last = [after - begun for (phase, begun), (_, after) in pairwise(seen) if phase == "last step"]
    return Whole(content(place), seen[-1][1], last)


def command(folder: Path, stage: str, *more: str) -> list[str]:
    """Of a stage, from the inputs in `folder` to `out` in the folder that it is called from."""
    data = ["--dataset-dir", str(folder / "dataset"), "--device", "cpu"]
    if stage == "extract_embeddings":
        data += ["--clip-model-name", f"local-dir:{folder / 'tinyclip'}", "--output-dir", "out"]
    elif stage == "extract_flows":
        data += ["--model", "dis", "--output-dir", "out"]
    else:
        data += ["--checkpoint-dir", str(folder / "student.pth"), "--output-h5-path", "out/flow.h5"]
    return [f"{stage}.py", *data, *more]


STAGES = ("extract_embeddings", "extract_flows", "inference")
H5 = {"extract_embeddings": "out/ak_train_clip_embeddings.h5", "inference": "out/flow.h5"}  # what they write


def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of which a run takes a quarter of a second, made once for all modules."""
    folder = tmp_path_factory.getbasetemp() / "few"
    return folder if folder.exists() else make_inputs(folder, videos=4, shortest=8)


def make_inputs(folder: Path, videos: int = 12, shortest: int = 60) -> Path:
    """12 clips of 60 to 148 frames of 96x64, their flow, a tiny CLIP and a student of it that wasn't trained."""
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}}
    for i in range(videos):
        name, split = f"clip{i:02}.mp4", "val" if i % 3 == 2 else "train"
        frames = moving_frames(shortest + 8 * (i * 5 % videos), (i % 3, i % 2), 64, 96, seed=i)
        write_video(folder / "dataset" / "videos" / name, frames, lossless=False)
        splits[split][name] = (i % 3,)
    write_annotations(folder / "dataset" / "annotations", splits)
    make_clip(folder / "tinyclip")
    ended = driver().run(command(folder, "extract_flows", "--output-dir", str(folder / "dataset/flows")), folder)
    assert ended.code == 0, ended
    make_student(folder, "student.pth")
    return folder


def make_student(folder: Path, name: str, seed: int = 1) -> Path:
    import torch

    from vimoclip import clip, moclip, video
    from vimoclip.flow import flow_lookup
    from vimoclip.runtime import versions
    from vimoclip.training import checkpoint

    encoder = clip.load(f"local-dir:{folder / 'tinyclip'}", None)
    torch.manual_seed(seed)
    model = moclip.MoCLIP(encoder.visual, 32, 3, 0.1)
    for parameter in model.parameters():  # else it were its teacher
        parameter.data += 0.01 * torch.randn_like(parameter)
    made = flow_lookup.settings_of(video.probe(folder / "dataset" / "flows" / "clip00.mp4").comment)
    config = {"clip": encoder.config, "alpha": 0.1, "num_classes": 3, "sequence_length": 4, "teacher": {}, "flow": made}
    about = {"class_names": ["a", "b", "c"], "epoch": 1, "metrics": {}, "versions": versions.versions()}
    return checkpoint.save_checkpoint(folder / name, {"state_dict": model.state_dict(), "config": config, **about})


def content(folder: Path) -> dict[str, Any]:
    """Every file below a folder by its path: its bytes, or, of a manifest, its lines without how long things took."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if not path.is_dir()):
        name = str(path.relative_to(folder))
        found[name] = path.read_bytes()
        if name.endswith(".manifest.jsonl"):
            lines = [json.loads(line) for line in found[name].splitlines()]
            found[name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    return found


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same files, of the same bytes."""
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def finished(folder: Path) -> set[str]:
    """The videos that are done in `out`: as flow, as parts, or in a finished file."""
    from vimoclip import store

    out = folder / "out"
    done = {path.name for path in out.glob("[!.]*.mp4")} | {path.stem for path in out.glob("*.parts/[!.]*.part")}
    for path in out.glob("*.h5"):
        done |= set(store.Reader(path).keys)
    return done


# --- killing


class Kill(NamedTuple):
    """Whether a process was killed before it ended, and in which phase it was."""

    hit: bool
    phase: str


def kill(command: list[str], folder: Path, when: Callable[[str, float], bool]) -> tuple[Kill, Ended]:
    """Start a command and kill it once `when` of its phase, and of the seconds since it began, is true."""
    shown = folder.with_name(folder.name + ".phase")
    shown.write_bytes(b"\0")
    pid, began = driver().start(command, folder, shown=str(shown)), time.monotonic()
    while not driver().has_ended() and not when(_phase(shown), time.monotonic() - began):
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    ended = driver().wait()
    return Kill(ended.code == -signal.SIGKILL, _phase(shown)), ended


def _phase(shown: Path) -> str:
    return PHASES[shown.read_bytes()[0]]


def at_random(luck: random.Random, length: float) -> Callable[[str, float], bool]:
    """A moment within a run of so many seconds."""
    moment = luck.uniform(0, length)
    return lambda phase, seconds: seconds > moment


def during(wanted: str, luck: random.Random, visits: int, length: float) -> Callable[[str, float], bool]:
    """A moment within `length` s after a phase was seen to begin for the n-th time, n up to `visits`.

    Where it begins less often, never: the run then ends by itself."""
    left, inside, until = luck.randint(1, visits), False, float("inf")
    later = luck.uniform(0, length)

    def when(phase: str, seconds: float) -> bool:
        nonlocal left, inside, until
        left -= phase == wanted and not inside
        inside = phase == wanted
        if left <= 0 and until == float("inf"):
            until = seconds + later
        return seconds >= until

    return when


if __name__ == "__main__":
    serve()
