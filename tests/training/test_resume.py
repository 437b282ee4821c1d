"""Killed and resumed trainings end bit for bit like uninterrupted ones: losses, metrics, weights and TensorBoard.

The many kills at random moments: pytest -m long tests/training/test_resume.py"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch

import extract_embeddings
import extract_flows
import train
from tests.conftest import REPOSITORY, make_dataset, make_tiny_clip
from tests.tfam.helpers import write_motion, write_rgb
from tests.training.event_files import read_raw_events, read_shown_events
from TFAM import train_and_eval
from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.moclip import MoCLIP, train_state
from vimoclip.training import checkpoint

WITHOUT_DURATION = {"seconds": None}  # differs between equal runs

STUDENT = ["--epochs", "3", "--batch-size", "4", "--sequence-length", "4", "--warmup-steps", "20", "--device", "cpu"]
STUDENT += ["--learning-rate", "0.01", "--weight-decay", "0.1", "--grad-clip-norm", "1", "--num-workers", "0"]
CONFIG = ["--config", str(REPOSITORY / "TFAM/configs/cross_attention.yaml")]
FUSION = ["--device", "cpu", "--num-workers", "0", "--precision", "fp16"]  # uses the gradient scaler
SMALL = ["training.epochs=3", "training.batch_size=2", "training.lr=1e-2", "model.dropout=0.3"]
SMALL += ["model.num_heads=2", "model.num_layers=1", "model.dim_feedforward=16"]


class ResumableRun(NamedTuple):
    """The commands that start and resume a run, its folders, and the number of steps per epoch."""

    command: list[str]
    resume: list[str]
    folder: Path
    logs: Path
    steps: int


def student_run(name: str, *more: str) -> ResumableRun:
    clip = ["--clip-model-name", f"local-dir:{Path('tinyclip').absolute()}"]
    folder = Path("checkpoints", name).absolute()
    command = ["train.py", *STUDENT, *clip, "--run-name", name, *more]
    return ResumableRun(command, ["train.py", "--resume", str(folder), *more], folder, Path("logs", name), 8)


def fusion_run(name: str, *more: str) -> ResumableRun:
    seed = Path("TFAM/cross_attention/seed49")
    rest = [*FUSION, "--logs-dir", f"{name}-logs", *more]
    command = ["-m", "TFAM.train_and_eval", *CONFIG, "--checkpoints-dir", name, *rest, "--set", *SMALL]
    resume = ["-m", "TFAM.train_and_eval", "--resume", str(name / seed), *rest]
    return ResumableRun(command, resume, name / seed, f"{name}-logs" / seed, 5)


RUNS = {"train.py": student_run, "TFAM": fusion_run}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of train.py, with a CLIP that has patch dropout, so that training uses random numbers.

    The validation labels are permuted: validation gets worse with training, so the best epoch precedes the kill."""
    root = tmp_path_factory.mktemp("inputs")
    make_dataset(root / "dataset")
    name = make_tiny_clip(root / "tinyclip", patch_dropout=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract_embeddings.main(["--clip-model-name", name])
        extract_flows.main(["--model", "dis", "--num-workers", "0"])
    with h5py.File(root / "dataset/embeddings/ak_val_clip_embeddings.h5", "a") as file:
        for video in file.values():
            video["labels"][:] = np.roll(video["labels"][:], 1)
    return root


@pytest.fixture
def work_dir(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the inputs of the training named by `kind`."""
    monkeypatch.chdir(tmp_path)
    if request.getfixturevalue("kind") == "TFAM":
        write_rgb(Path("dataset/embeddings/ak_train_clip_embeddings.h5"), range(9))
        write_rgb(Path("dataset/embeddings/ak_val_clip_embeddings.h5"), range(9, 15), turned=1)
        write_motion(Path("dataset/embeddings/flow_embeddings.h5"), range(15))
    else:
        for path in request.getfixturevalue("inputs").iterdir():
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


both_trainings = pytest.mark.parametrize("kind", RUNS)


def run_in_process(run: ResumableRun) -> Any:
    """The run's command in this process."""
    is_student = run.command[0] == "train.py"
    return train.main(run.command[1:]) if is_student else train_and_eval.main(run.command[2:])


# --- killing


def start_process(command: list[str]) -> subprocess.Popen[bytes]:
    command = [str(REPOSITORY / command[0]) if command[0] == "train.py" else command[0], *command[1:]]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, *command], env=environment, start_new_session=True)


def run_to_end(command: list[str]) -> None:
    assert start_process(command).wait(timeout=120) == 0


def kill_process_when(command: list[str], ready: Callable[[int], bool]) -> bool:
    """Kill the command once `ready(process id)` is true; returns False where it ended before."""
    process = start_process(command)
    while process.poll() is None and not ready(process.pid):
        time.sleep(0.001)
    if ended := process.poll() is not None:
        assert process.returncode == 0
    else:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return not ended


def saved_position(run: ResumableRun) -> tuple[int, int]:
    """Finished epochs and finished steps of the next one in last.pth."""
    state = torch.load(run.folder / "last.pth", weights_only=True)
    progress = state["progress"]
    return (progress["epoch"], progress["step"]) if "epoch" in progress else (len(state["history"]), progress["steps"])


def in_third_epoch(run: ResumableRun) -> Callable[[int], bool]:
    """True once last.pth is within the third epoch; the process is stopped while the file is read."""
    seen = [0]

    def ready(process: int) -> bool:
        changed = modification_time(run.folder / "last.pth")
        if changed == seen[0]:
            return False
        seen[0] = changed
        os.kill(process, signal.SIGSTOP)
        if saved_position(run)[0] == 2 and 2 <= saved_position(run)[1] < run.steps:
            return True
        os.kill(process, signal.SIGCONT)
        return False

    return ready


def modification_time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def assert_same(one: Any, other: Any, where: str) -> None:
    """Equal to the bit, all the way down."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where} {key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where} {i}")
    else:
        assert one == other, where


def assert_same_run(one: ResumableRun, other: ResumableRun) -> None:
    """Every file of the run except its arguments."""
    names = sorted(path.name for path in one.folder.iterdir() if path.name != "args.yaml")
    assert names == sorted(path.name for path in other.folder.iterdir() if path.name != "args.yaml")
    for name in names:
        files = [run.folder / name for run in (one, other)]
        if name.endswith(".pth"):
            first, second = (torch.load(file, weights_only=True) | WITHOUT_DURATION for file in files)
            assert_same(first, second, name)
        elif name == "metrics.json":
            one_text, other_text = (json.loads(file.read_text()) | WITHOUT_DURATION for file in files)
            assert_same(one_text, other_text, name)
        else:
            assert files[0].read_text() == files[1].read_text(), name
    assert_same(read_shown_events(one.logs), read_shown_events(other.logs), "TensorBoard")


@both_trainings
def test_a_killed_run_ends_like_an_uninterrupted_one(kind: str, work_dir: Path) -> None:
    whole, run = RUNS[kind]("whole"), RUNS[kind]("killed", "--save-every-minutes", "0")
    run_to_end(whole.command)
    # before the first checkpoint: the settings are saved, so --resume starts from scratch
    rarely_saved = RUNS[kind]("killed", "--save-every-minutes", "60")
    assert kill_process_when(rarely_saved.command, lambda _: any(read_raw_events(run.logs)))
    assert not (run.folder / "last.pth").exists()
    assert kill_process_when(run.resume, in_third_epoch(run))
    run_to_end(run.command)
    assert_same_run(whole, run)
    if kind == "train.py":  # so the test covers the best epoch, too
        assert torch.load(run.folder / "student_best.pth", weights_only=True)["epoch"] == 1


@pytest.mark.long
@both_trainings
def test_a_run_killed_twenty_times_ends_like_an_uninterrupted_one(kind: str, work_dir: Path) -> None:
    epochs = ["--epochs", "14"] if kind == "train.py" else ["--set", "training.epochs=30"]
    whole, run = (RUNS[kind](name, *more) for name, more in (("whole", []), ("killed", ["--save-every-minutes", "0"])))
    run_to_end([*whole.command, *epochs])
    rng = random.Random(0)

    def at_random() -> Callable[[int], bool]:
        """A random moment after the resumed run opened its event file and wrote last.pth several times."""
        saves, moment, seen = rng.randint(0, 4), rng.uniform(0, 0.04), {modification_time(run.folder / "last.pth")}
        files, since = set(run.logs.glob("*")), [0.0]

        def ready(_: int) -> bool:
            seen.add(modification_time(run.folder / "last.pth"))
            if not since[0] and len(seen) > saves and set(run.logs.glob("*")) != files:
                since[0] = time.monotonic()
            return bool(since[0]) and time.monotonic() - since[0] > moment

        return ready

    kills = sum(kill_process_when([*run.command, *epochs], at_random()) for _ in range(20))
    assert kills == 20
    run_to_end([*run.command, *epochs])
    assert_same_run(whole, run)


# --- what a checkpoint holds


@both_trainings
def test_events_are_on_disk_before_their_checkpoint(kind: str, work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    run, saves, write = RUNS[kind]("slow", "--save-every-minutes", "0"), list[tuple[int, int]](), RecordWriter.write

    def write_slowly(self: Any, data: bytes) -> None:
        time.sleep(0.01)
        write(self, data)

    def check(path: Path, content: dict[str, Any], save: Any = checkpoint.save_checkpoint) -> Path:
        found = {(tag, number) for tag, number, _ in read_raw_events(run.logs)}
        save(path, content)
        if path.name == "last.pth":
            epoch, step = saved_position(run)
            saves.append((epoch, step))
            by_step, from_1 = ("step/loss", 1) if kind == "train.py" else ("train/loss_by_step", 0)
            done = epoch * run.steps + step
            assert {number for tag, number in found if tag == by_step} == set(range(from_1, done + from_1))
            assert {number for tag, number in found if tag == "val/loss"} == set(range(1, epoch + 1))
        return path

    monkeypatch.setattr(RecordWriter, "write", write_slowly)
    monkeypatch.setattr(checkpoint, "save_checkpoint", check)
    run_in_process(run)
    ends = [(epoch, 0) for epoch in (1, 2, 3)]
    assert saves == sorted([(e, s) for e in (0, 1, 2) for s in range(1, run.steps + 1)] + ends)


def test_the_checkpoint_of_the_student_holds_the_scaler(tmp_path: Path) -> None:
    def state() -> train_state.StudentTrainerState:
        model = MoCLIP(torch.nn.Linear(4, 4), 4, 2, 0.1)
        optimizer = torch.optim.AdamW(model.parameters())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        scaler = torch.amp.GradScaler("cpu")  # enabled; a run enables it on a GPU only
        return train_state.StudentTrainerState(model, {}, optimizer, scheduler, scaler, train_state.initial_progress())

    before, after = state(), state()
    before.scaler.load_state_dict(before.scaler.state_dict() | {"scale": 8.0, "_growth_tracker": 5})
    before.save(tmp_path / "last.pth")
    after.load(tmp_path / "last.pth")
    assert after.scaler.state_dict() == before.scaler.state_dict()
    assert after.scaler.get_scale() == 8


@pytest.mark.parametrize("kind", ["TFAM"])
def test_a_checkpoint_without_progress_is_of_a_whole_epoch(
    kind: str, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = fusion_run("whole"), fusion_run("old")
    run_in_process(whole)

    def save_as_before(path: Path, content: dict[str, Any], save: Any = checkpoint.save_checkpoint) -> Path:
        older = {key: value for key, value in content.items() if key not in ("progress", "videos")}
        save(path, older)
        if path.name == "last.pth" and len(content["history"]) == 2:
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_checkpoint", save_as_before)
        run_in_process(run)
    run_in_process(run)
    assert_same_run(whole, run)


@pytest.mark.parametrize("kind", ["TFAM"])
def test_resuming_within_an_epoch_needs_the_same_videos(
    kind: str, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fusion_run("run", "--save-every-minutes", "0")

    def stop(path: Path, content: dict[str, Any], save: Any = checkpoint.save_checkpoint) -> Path:
        save(path, content)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_checkpoint", stop)
        run_in_process(run)
    with h5py.File("dataset/embeddings/ak_train_clip_embeddings.h5", "a") as file:
        del file["V03.mp4"]
    with pytest.raises(UserError, match=r"last.pth: stopped in the middle of an epoch of other videos"):
        run_in_process(run)


@pytest.mark.parametrize("kind", ["TFAM"])
def test_an_error_in_a_worker_is_one_line_for_the_user(
    kind: str, work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File("dataset/embeddings/ak_train_clip_embeddings.h5", "a") as file:
        del file["V03.mp4/labels"]
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: run_in_process(fusion_run("run", "--num-workers", "1")))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: dataset/embeddings/ak_train_clip_embeddings.h5: V03.mp4 has no labels;")
    assert len(error.splitlines()) == 1
