"""Killed and resumed trainings end bit for bit like uninterrupted ones: losses, metrics, weights and TensorBoard.

The many kills at random moments: pytest -m long tests/training/test_resume.py"""

import contextlib
import json
import os
import random
import signal
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
from tests import preloaded
from tests.conftest import REPOSITORY, make_dataset, make_tiny_clip
from tests.tfam.helpers import write_motion, write_rgb
from tests.training.event_files import read_raw_events, read_shown_events
from TFAM import train_and_eval
from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.moclip import MoCLIP
from vimoclip.training import checkpoint
from vimoclip.training.checkpoint import TrainState

WITHOUT_DURATION = {"seconds": None}  # the only value that differs between equal runs

STUDENT = ["--epochs", "3", "--batch-size", "4", "--sequence-length", "4", "--warmup-steps", "20", "--device", "cpu"]
STUDENT += ["--learning-rate", "0.01", "--weight-decay", "0.1", "--grad-clip-norm", "1", "--num-workers", "0"]
CONFIG = ["--config", "cross_attention"]
FUSION = ["--device", "cpu", "--num-workers", "0", "--precision", "fp16"]  # uses the gradient scaler
SMALL = ["training.epochs=3", "training.batch_size=2", "training.lr=1e-2", "model.dropout=0.3"]
SMALL += ["model.num_heads=2", "model.num_layers=1", "model.dim_feedforward=16"]


class ResumableRun(NamedTuple):
    """Commands that start and resume a run, its folders, and the number of steps per epoch."""

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
    """The working directory, with the inputs of the stage, see RUNS."""
    monkeypatch.chdir(tmp_path)
    if request.getfixturevalue("stage") == "TFAM":
        write_rgb(Path("dataset/embeddings/ak_train_clip_embeddings.h5"), range(9))
        write_rgb(Path("dataset/embeddings/ak_val_clip_embeddings.h5"), range(9, 15), label_shift=1)
        write_motion(Path("dataset/embeddings/flow_embeddings.h5"), range(15))
    else:
        for path in request.getfixturevalue("inputs").iterdir():
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


both_stages = pytest.mark.parametrize("stage", RUNS)


def run_in_process(run: ResumableRun) -> Any:
    """Call the run's command in this process."""
    is_student = run.command[0] == "train.py"
    return train.main(run.command[1:]) if is_student else train_and_eval.main(run.command[2:])


# --- killing


def start_process(command: list[str]) -> preloaded.Process:
    command = [str(REPOSITORY / command[0]) if command[0] == "train.py" else command[0], *command[1:]]
    return preloaded.start(command, Path.cwd(), PYTHONPATH=str(REPOSITORY))


def run_to_end(command: list[str]) -> None:
    result = start_process(command).wait(120)
    assert result.returncode == 0, result


def kill_process_when(command: list[str], ready: Callable[[int], bool]) -> bool:
    """Kill the command once `ready(process id)` is true; return False if it ended before."""
    process = start_process(command)
    with contextlib.suppress(ProcessLookupError):  # it may end before it is killed
        while not process.has_ended() and not ready(process.pid):
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
    result = process.wait(120)
    assert result.returncode in (0, -signal.SIGKILL), result
    return result.returncode != 0


def saved_position(run: ResumableRun) -> tuple[int, int]:
    """Return finished epochs and finished steps of the next one, according to last.pth."""
    state = torch.load(run.folder / "last.pth", weights_only=True)
    progress = state["progress"]
    return (progress["epoch"], progress["step"]) if "epoch" in progress else (len(state["history"]), progress["steps"])


def in_third_epoch(run: ResumableRun) -> Callable[[int], bool]:
    """Return a function that is true once last.pth is within the third epoch. Reading it suspends the process."""
    last_modified = [0]

    def ready(pid: int) -> bool:
        modified = modification_time(run.folder / "last.pth")
        if modified == last_modified[0]:
            return False
        last_modified[0] = modified
        os.kill(pid, signal.SIGSTOP)
        if saved_position(run)[0] == 2 and 2 <= saved_position(run)[1] < run.steps:
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    return ready


def modification_time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def assert_same(one: Any, other: Any, location: str) -> None:
    """Assert that nested values are bit-identical; `location` is the assertions' message."""
    assert type(one) is type(other), location
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), location
    elif isinstance(one, dict):
        assert list(one) == list(other), location
        for key in one:
            assert_same(one[key], other[key], f"{location} {key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), location
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{location} {i}")
    else:
        assert one == other, location


def assert_same_run(one: ResumableRun, other: ResumableRun) -> None:
    """Assert that all files of two runs, except args.yaml, and their events are the same."""
    names = sorted(path.name for path in one.folder.iterdir() if path.name != "args.yaml")
    assert names == sorted(path.name for path in other.folder.iterdir() if path.name != "args.yaml")
    for name in names:
        files = [run.folder / name for run in (one, other)]
        if name.endswith(".pth"):
            first, second = (torch.load(file, weights_only=True) | WITHOUT_DURATION for file in files)
            assert_same(first, second, name)
        elif name == "metrics.json":
            first, second = (json.loads(file.read_text()) | WITHOUT_DURATION for file in files)
            assert_same(first, second, name)
        else:
            assert files[0].read_text() == files[1].read_text(), name
    first_events, second_events = (read_shown_events(run.logs) for run in (one, other))
    for shown in (first_events, second_events):
        assert shown.pop("settings/text_summary")  # once per process
    assert_same(first_events, second_events, "TensorBoard")


@both_stages
def test_a_killed_run_ends_like_an_uninterrupted_one(stage: str, work_dir: Path) -> None:
    uninterrupted, run = RUNS[stage]("uninterrupted"), RUNS[stage]("killed", "--save-every-minutes", "0")
    run_in_process(uninterrupted)
    # before the first checkpoint: the settings are saved, so --resume starts from scratch
    rarely_saved = RUNS[stage]("killed", "--save-every-minutes", "60")
    assert kill_process_when(rarely_saved.command, lambda _: any(read_raw_events(run.logs)))
    assert not (run.folder / "last.pth").exists()
    assert kill_process_when(run.resume, in_third_epoch(run))
    run_in_process(run)
    assert_same_run(uninterrupted, run)
    if stage == "train.py":  # the best epoch precedes the kill
        assert torch.load(run.folder / "student_best.pth", weights_only=True)["epoch"] == 1


@pytest.mark.long
@both_stages
def test_a_run_killed_twenty_times_ends_like_an_uninterrupted_one(stage: str, work_dir: Path) -> None:
    epochs = ["--epochs", "14"] if stage == "train.py" else ["--set", "training.epochs=30"]
    uninterrupted, run = (
        RUNS[stage](name, *more) for name, more in (("uninterrupted", []), ("killed", ["--save-every-minutes", "0"]))
    )
    run_to_end([*uninterrupted.command, *epochs])
    rng = random.Random(0)

    def at_random() -> Callable[[int], bool]:
        """Return a function that is true a random time after the run opened its event file and wrote last.pth."""
        num_saves, delay, save_times = (
            rng.randint(0, 4),
            rng.uniform(0, 0.04),
            {modification_time(run.folder / "last.pth")},
        )
        files, start_time = set(run.logs.glob("*")), [0.0]

        def ready(_: int) -> bool:
            save_times.add(modification_time(run.folder / "last.pth"))
            if not start_time[0] and len(save_times) > num_saves and set(run.logs.glob("*")) != files:
                start_time[0] = time.monotonic()
            return bool(start_time[0]) and time.monotonic() - start_time[0] > delay

        return ready

    kills = sum(kill_process_when([*run.command, *epochs], at_random()) for _ in range(20))
    assert kills == 20
    run_to_end([*run.command, *epochs])
    assert_same_run(uninterrupted, run)


# --- content of checkpoints


@both_stages
def test_events_are_on_disk_before_their_checkpoint_and_shown_once(
    stage: str, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is stopped before the checkpoint of the second epoch, when its events are on disk."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    run, saves, write = RUNS[stage]("slow", "--save-every-minutes", "0"), list[tuple[int, int]](), RecordWriter.write
    step_tag, first_step = ("step/loss", 1) if stage == "train.py" else ("train/loss_by_step", 0)
    stops = [2 * run.steps - 1]

    def write_slowly(self: Any, data: bytes) -> None:
        time.sleep(0.01)
        write(self, data)

    def epoch_steps(epochs: int) -> list[int]:
        return [epoch * run.steps + first_step - 1 for epoch in range(1, epochs + 1)]

    def check(path: Path, content: dict[str, Any], save: Any = checkpoint.save_checkpoint) -> Path:
        events = set(read_raw_events(run.logs))
        if path.name == "last.pth" and stops == [len(saves)]:
            stops.clear()
            raise KeyboardInterrupt
        save(path, content)
        if path.name == "last.pth":
            epoch, step = saved_position(run)
            saves.append((epoch, step))
            num_steps = epoch * run.steps + step
            logged_steps = {number for tag, number in events if tag == step_tag}
            assert logged_steps == set(range(first_step, num_steps + first_step))
            assert {number for tag, number in events if tag == "val/loss"} == set(epoch_steps(epoch))
        return path

    monkeypatch.setattr(RecordWriter, "write", write_slowly)
    monkeypatch.setattr(checkpoint, "save_checkpoint", check)
    with pytest.raises(KeyboardInterrupt):
        run_in_process(run)
    run_in_process(run)
    epoch_ends = [(epoch, 0) for epoch in (1, 2, 3)]
    assert saves == sorted([(e, s) for e in (0, 1, 2) for s in range(1, run.steps)] + epoch_ends)
    shown = {tag: [step for step, _ in values] for tag, values in read_shown_events(run.logs).items()}
    assert shown[step_tag] == [*range(first_step, 3 * run.steps + first_step)]
    assert shown["val/loss"] == shown["val/precision_recall_all"] == epoch_steps(3)


def make_state(**flags: Any) -> TrainState:
    model = MoCLIP(torch.nn.Linear(4, 4), 4, 2, 0.1)
    optimizer = torch.optim.AdamW(model.parameters(), **flags)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    return TrainState(model, optimizer, scheduler, torch.amp.GradScaler("cpu"))  # enabled; a run: on a GPU only


def test_a_checkpoint_holds_the_scaler(tmp_path: Path) -> None:
    before, after = make_state(), make_state()
    before.scaler.load_state_dict(before.scaler.state_dict() | {"scale": 8.0, "_growth_tracker": 5})
    path = checkpoint.save_checkpoint(tmp_path / "last.pth", before.state_dict())
    after.restore(checkpoint.load_checkpoint(path), path)
    assert after.scaler.state_dict() == before.scaler.state_dict()
    assert after.scaler.get_scale() == 8


def test_flags_of_the_optimizer_that_depend_on_the_device_are_not_restored(tmp_path: Path) -> None:
    before, after = make_state(fused=True, lr=0.5), make_state(foreach=False)
    path = checkpoint.save_checkpoint(tmp_path / "last.pth", before.state_dict())
    after.restore(checkpoint.load_checkpoint(path), path)
    group = after.optimizer.param_groups[0]
    assert (group["fused"], group["foreach"], group["lr"]) == (None, False, 0.5)


@pytest.mark.parametrize("stage", ["TFAM"])
def test_resuming_within_an_epoch_needs_the_same_videos(
    stage: str, work_dir: Path, monkeypatch: pytest.MonkeyPatch
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
    with pytest.raises(UserError) as error:
        run_in_process(run)
    assert error.value.path == str(run.folder / "last.pth")


@pytest.mark.parametrize("stage", ["TFAM"])
def test_an_error_in_a_worker_is_one_line_for_the_user(
    stage: str, work_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File("dataset/embeddings/ak_train_clip_embeddings.h5", "a") as file:
        del file["V03.mp4/labels"]
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: run_in_process(fusion_run("run", "--num-workers", "1")))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: dataset/embeddings/ak_train_clip_embeddings.h5: V03.mp4 has no labels;")
    assert len(error.splitlines()) == 1
