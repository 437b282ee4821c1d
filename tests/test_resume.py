"""Runs that are killed and go on end as runs never stopped: losses, metrics, weights and TensorBoard, to the bit.

The many kills at random moments: pytest -m long tests/test_resume.py"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch

import extract_embeddings
import extract_flows
import train
from tests.conftest import REPOSITORY, make_clip, make_dataset
from tests.test_tfam import write_motion, write_rgb
from TFAM import train_and_eval
from vimoclip import cli
from vimoclip.errors import TrainingError, UserError, VideoError
from vimoclip.moclip import MoCLIP, train_state
from vimoclip.training import checkpoint, tensorboard

NO_TIME = {"seconds": None}  # what a run took is no part of what it is
Events = dict[str, list[tuple[int, Any]]]  # tag -> (step, value)

STUDENT = ["--epochs", "3", "--batch-size", "4", "--sequence-length", "4", "--warmup-steps", "20", "--device", "cpu"]
STUDENT += ["--learning-rate", "0.01", "--weight-decay", "0.1", "--grad-clip-norm", "1", "--num-workers", "0"]
CONFIG = ["--config", str(REPOSITORY / "TFAM/configs/cross_attention.yaml")]
FUSION = ["--device", "cpu", "--num-workers", "0", "--precision", "fp16"]  # which makes use of the scaler
SMALL = ["training.epochs=3", "training.batch_size=2", "training.lr=1e-2", "model.dropout=0.3"]
SMALL += ["model.num_heads=2", "model.num_layers=1", "model.dim_feedforward=16"]


class Run(NamedTuple):
    """The command that makes a run and the one that goes on with it, its places, and how many steps an epoch has."""

    command: list[str]
    resume: list[str]
    folder: Path
    logs: Path
    steps: int


def student_run(name: str, *more: str) -> Run:
    clip = ["--clip-model-name", f"local-dir:{Path('tinyclip').absolute()}"]
    folder = Path("checkpoints", name).absolute()
    command = ["train.py", *STUDENT, *clip, "--run-name", name, *more]
    return Run(command, ["train.py", "--resume", str(folder), *more], folder, Path("logs", name), 8)


def fusion_run(name: str, *more: str) -> Run:
    seed = Path("TFAM/cross_attention/seed49")
    rest = [*FUSION, "--logs-dir", f"{name}-logs", *more]
    command = ["-m", "TFAM.train_and_eval", *CONFIG, "--checkpoints-dir", name, *rest, "--set", *SMALL]
    resume = ["-m", "TFAM.train_and_eval", "--resume", str(name / seed), *rest]
    return Run(command, resume, name / seed, f"{name}-logs" / seed, 5)


RUNS = {"train.py": student_run, "TFAM": fusion_run}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what train.py reads, and a CLIP that drops patches at random where it is trained.

    The better it learns, the worse it does on validation, so that after a kill it matters what was best before it."""
    root = tmp_path_factory.mktemp("inputs")
    make_dataset(root / "dataset")
    name = make_clip(root / "tinyclip", patch_dropout=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        extract_embeddings.main(["--clip-model-name", name])
        extract_flows.main(["--model", "dis", "--num-workers", "0"])
    with h5py.File(root / "dataset/embeddings/ak_val_clip_embeddings.h5", "a") as file:
        for video in file.values():
            video["labels"][:] = np.roll(video["labels"][:], 1)
    return root


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the test is in, with the inputs of the kind of run that it is about."""
    monkeypatch.chdir(tmp_path)
    if request.getfixturevalue("kind") == "TFAM":
        write_rgb(Path("dataset/embeddings/ak_train_clip_embeddings.h5"), range(9))
        write_rgb(Path("dataset/embeddings/ak_val_clip_embeddings.h5"), range(9, 15), turned=1)
        write_motion(Path("dataset/embeddings/flow_embeddings.h5"), range(15))
    else:
        for path in request.getfixturevalue("inputs").iterdir():
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


both = pytest.mark.parametrize("kind", RUNS)


def main_of(run: Run) -> Any:
    """The run's command in this process."""
    is_student = run.command[0] == "train.py"
    return train.main(run.command[1:]) if is_student else train_and_eval.main(run.command[2:])


# --- killing


def start(command: list[str]) -> subprocess.Popen[bytes]:
    command = [str(REPOSITORY / command[0]) if command[0] == "train.py" else command[0], *command[1:]]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, *command], env=environment, start_new_session=True)


def finish(command: list[str]) -> None:
    assert start(command).wait(timeout=120) == 0


def kill_when(command: list[str], ready: Callable[[int], bool]) -> bool:
    """Kill the command once `ready` of its process id; False where it had ended before."""
    process = start(command)
    while process.poll() is None and not ready(process.pid):
        time.sleep(0.001)
    if ended := process.poll() is not None:
        assert process.returncode == 0
    else:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return not ended


def position(run: Run) -> tuple[int, int]:
    """Epochs done, and steps done of the next one, as last.pth has it."""
    state = torch.load(run.folder / "last.pth", weights_only=True)
    progress = state["progress"]
    return (progress["epoch"], progress["step"]) if "epoch" in progress else (len(state["history"]), progress["steps"])


def in_the_middle(run: Run) -> Callable[[int], bool]:
    """Ready where last.pth is of the middle of the third epoch; the process stands still while that is looked up."""
    seen = [0]

    def ready(process: int) -> bool:
        changed = modified(run.folder / "last.pth")
        if changed == seen[0]:
            return False
        seen[0] = changed
        os.kill(process, signal.SIGSTOP)
        if position(run)[0] == 2 and 2 <= position(run)[1] < run.steps:
            return True
        os.kill(process, signal.SIGCONT)
        return False

    return ready


def modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


# --- comparing


def raw_events(logs: Path) -> Iterator[tuple[str, int, Any]]:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for path in sorted(logs.glob("*tfevents*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                yield value.tag, event.step, value.image.encoded_image_string or value.simple_value


def shown(logs: Path) -> Events:
    """What TensorBoard shows of a run; each step must be in its files once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    twice = {key: n for key, n in Counter((tag, step) for tag, step, _ in raw_events(logs)).items() if n > 1}
    assert not twice
    found = EventAccumulator(str(logs), {"images": 0, "scalars": 0}).Reload()
    events: Events = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    return events | {
        tag: [(e.step, e.encoded_image_string) for e in found.Images(tag)] for tag in found.Tags()["images"]
    }


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


def assert_same_run(one: Run, other: Run) -> None:
    """Every file of the run but its flags and whatever a kill left half written."""
    names = sorted(path.name for path in one.folder.iterdir() if path.name != "args.yaml")
    assert names == sorted(path.name for path in other.folder.iterdir() if path.name != "args.yaml")
    for name in names:
        files = [run.folder / name for run in (one, other)]
        if name.endswith(".pth"):
            first, second = (torch.load(file, weights_only=True) | NO_TIME for file in files)
            assert_same(first, second, name)
        elif name == "metrics.json":
            one_text, other_text = (json.loads(file.read_text()) | NO_TIME for file in files)
            assert_same(one_text, other_text, name)
        else:
            assert files[0].read_text() == files[1].read_text(), name
    assert_same(shown(one.logs), shown(other.logs), "TensorBoard")


@both
def test_a_run_that_was_killed_ends_as_one_that_was_not(kind: str, place: Path) -> None:
    whole, run = RUNS[kind]("whole"), RUNS[kind]("killed", "--save-every-minutes", "0")
    finish(whole.command)
    # before there is a checkpoint: the settings are known, so --resume begins again
    seldom = RUNS[kind]("killed", "--save-every-minutes", "60")
    assert kill_when(seldom.command, lambda _: any(raw_events(run.logs)))
    assert not (run.folder / "last.pth").exists()
    assert kill_when(run.resume, in_the_middle(run))
    finish(run.command)
    assert_same_run(whole, run)
    if kind == "train.py":  # else the best so far would not matter
        assert torch.load(run.folder / "student_best.pth", weights_only=True)["epoch"] == 1


@pytest.mark.long
@both
def test_a_run_that_is_killed_twenty_times_at_random_ends_as_one_that_was_not(kind: str, place: Path) -> None:
    epochs = ["--epochs", "14"] if kind == "train.py" else ["--set", "training.epochs=30"]
    whole, run = (RUNS[kind](name, *more) for name, more in (("whole", []), ("killed", ["--save-every-minutes", "0"])))
    finish([*whole.command, *epochs])
    luck = random.Random(0)

    def at_random() -> Callable[[int], bool]:
        """A moment after the run goes on, which TensorBoard's files show, and last.pth was rewritten so many times."""
        saves, moment, seen = luck.randint(0, 4), luck.uniform(0, 0.04), {modified(run.folder / "last.pth")}
        files, since = set(run.logs.glob("*")), [0.0]

        def ready(_: int) -> bool:
            seen.add(modified(run.folder / "last.pth"))
            if not since[0] and len(seen) > saves and set(run.logs.glob("*")) != files:
                since[0] = time.monotonic()
            return bool(since[0]) and time.monotonic() - since[0] > moment

        return ready

    kills = sum(kill_when([*run.command, *epochs], at_random()) for _ in range(20))
    assert kills == 20
    finish([*run.command, *epochs])
    assert_same_run(whole, run)


# --- what a checkpoint holds


@both
def test_what_a_checkpoint_covers_is_on_disk_before_it(kind: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    run, saves, write = RUNS[kind]("slow", "--save-every-minutes", "0"), list[tuple[int, int]](), RecordWriter.write

    def write_slowly(self: Any, data: bytes) -> None:
        time.sleep(0.01)
        write(self, data)

    def check(path: Path, content: dict[str, Any], save: Any = checkpoint.save_checkpoint) -> Path:
        found = {(tag, number) for tag, number, _ in raw_events(run.logs)}
        save(path, content)
        if path.name == "last.pth":
            epoch, step = position(run)
            saves.append((epoch, step))
            by_step, from_1 = ("step/loss", 1) if kind == "train.py" else ("train/loss_by_step", 0)
            done = epoch * run.steps + step
            assert {number for tag, number in found if tag == by_step} == set(range(from_1, done + from_1))
            assert {number for tag, number in found if tag == "val/loss"} == set(range(1, epoch + 1))
        return path

    monkeypatch.setattr(RecordWriter, "write", write_slowly)
    monkeypatch.setattr(checkpoint, "save_checkpoint", check)
    main_of(run)
    ends = [(epoch, 0) for epoch in (1, 2, 3)]
    assert saves == sorted([(e, s) for e in (0, 1, 2) for s in range(1, run.steps + 1)] + ends)


def test_the_students_checkpoint_holds_the_scaler(tmp_path: Path) -> None:
    def state() -> train_state.TrainState:
        model = MoCLIP(torch.nn.Linear(4, 4), 4, 2, 0.1)
        optimizer = torch.optim.AdamW(model.parameters())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        scaler = torch.amp.GradScaler("cpu")  # on; a run has one on a GPU only
        return train_state.TrainState(model, {}, optimizer, scheduler, scaler, train_state.new_progress())

    before, after = state(), state()
    before.scaler.load_state_dict(before.scaler.state_dict() | {"scale": 8.0, "_growth_tracker": 5})
    before.save(tmp_path / "last.pth")
    after.load(tmp_path / "last.pth")
    assert after.scaler.state_dict() == before.scaler.state_dict()
    assert after.scaler.get_scale() == 8


@pytest.mark.parametrize("kind", ["TFAM"])
def test_a_checkpoint_of_the_previous_layout_is_of_a_whole_epoch(
    kind: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = fusion_run("whole"), fusion_run("old")
    main_of(whole)

    def save_as_before(path: Path, content: dict[str, Any], save: Any = checkpoint.save_checkpoint) -> Path:
        older = {key: value for key, value in content.items() if key not in ("progress", "videos")}
        save(path, older)
        if path.name == "last.pth" and len(content["history"]) == 2:
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_checkpoint", save_as_before)
        main_of(run)
    main_of(run)
    assert_same_run(whole, run)


@pytest.mark.parametrize("kind", ["TFAM"])
def test_the_middle_of_an_epoch_goes_on_only_with_the_same_videos(
    kind: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fusion_run("run", "--save-every-minutes", "0")

    def stop(path: Path, content: dict[str, Any], save: Any = checkpoint.save_checkpoint) -> Path:
        save(path, content)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_checkpoint", stop)
        main_of(run)
    with h5py.File("dataset/embeddings/ak_train_clip_embeddings.h5", "a") as file:
        del file["V03.mp4"]
    with pytest.raises(UserError, match=r"last.pth: stopped in the middle of an epoch of other videos"):
        main_of(run)


# --- TensorBoard's files


def write_events(folder: Path, steps: range, epochs: range, value: float = 0.0) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for step in steps:
        writer.add_scalar("step/loss", value + step, step)
    for epoch in epochs:
        writer.add_scalar("val/loss", value + epoch, epoch)
        writer.add_image("val/panel", torch.full((3, 4, 4), epoch / 9), epoch)
    writer.close()


def go_on(folder: Path, epoch: int, step: int) -> dict[str, list[int]]:
    """The steps that stay in a folder whose checkpoint knows so many, by tag; what TensorBoard shows is the same."""
    tensorboard.tensorboard(folder, epoch, step).close()
    steps = {tag: [step for step, _ in values] for tag, values in shown(folder).items()}
    raw: dict[str, list[int]] = {}
    for tag, number, _ in raw_events(folder):
        raw.setdefault(tag, []).append(number)
    assert raw == steps
    return steps


def test_only_events_that_the_checkpoint_knows_stay(tmp_path: Path) -> None:
    write_events(tmp_path, range(1, 11), range(1, 4))
    before = {(tag, step): value for tag, step, value in raw_events(tmp_path)}
    kept = {"step/loss": [*range(1, 8)], "val/loss": [1, 2], "val/panel": [1, 2]}
    assert go_on(tmp_path, 2, 7) == kept
    assert all(before[tag, step] == value for tag, step, value in raw_events(tmp_path))
    assert go_on(tmp_path, 2, 7) == kept
    write_events(tmp_path, range(8, 13), range(3, 5))
    assert go_on(tmp_path, 3, 11) == {"step/loss": [*range(1, 12)], "val/loss": [1, 2, 3], "val/panel": [1, 2, 3]}
    assert len(list(tmp_path.iterdir())) == 2  # the rewritten file, and the writer's
    assert go_on(tmp_path, 0, 0) == {}  # a run that starts afresh


def test_events_of_a_run_that_was_resumed_in_the_old_way_are_mended(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    write_events(tmp_path, range(1, 11), range(1, 4))
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.1000000000.first")  # files are read in the order of the time in it
    writer = SummaryWriter(str(tmp_path), purge_step=8)
    for step in range(8, 15):
        writer.add_scalar("step/loss", 100 + step, step)
    writer.add_scalar("val/loss", 103, 3)
    writer.close()
    assert go_on(tmp_path, 3, 13) == {"step/loss": [*range(1, 14)], "val/loss": [1, 2, 3], "val/panel": [1, 2, 3]}
    values = {(tag, step): value for tag, step, value in raw_events(tmp_path)}
    assert values["step/loss", 7] == 7 and values["step/loss", 8] == 108 and values["val/loss", 3] == 103  # the last


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_a_record_that_was_cut_short_stops_nothing(tmp_path: Path, cut: int) -> None:
    write_events(tmp_path, range(1, 6), range(0))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    assert go_on(tmp_path, 0, 5) == {"step/loss": [1, 2, 3, 4]}
    (tmp_path / "events.out.tfevents.1.empty").touch()
    assert go_on(tmp_path, 0, 5) == {"step/loss": [1, 2, 3, 4]}


def test_a_kill_while_the_files_are_rewritten_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(tmp_path, range(1, 4), range(1, 2))
    write_events(tmp_path, range(4, 9), range(2, 3))
    kept = {"step/loss": [*range(1, 8)], "val/loss": [1, 2], "val/panel": [1, 2]}

    def kill(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    unlink, before = Path.unlink, sorted(raw_events(tmp_path), key=repr)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("vimoclip.io.atomic.publish", kill)  # the new file is written and has no name yet
        tensorboard.tensorboard(tmp_path, 2, 7)
    assert sorted(raw_events(tmp_path), key=repr) == before
    for deleted in (0, 1):  # the new file has its name, so many of the old ones are gone
        left = [deleted]

        def unlink_some(path: Path, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            unlink(path)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "unlink", unlink_some)
            tensorboard.tensorboard(tmp_path, 2, 7)
        assert {(tag, step) for tag in kept for step in kept[tag]} <= {event[:2] for event in raw_events(tmp_path)}
    assert go_on(tmp_path, 2, 7) == kept
    assert not list(tmp_path.glob("*.partial"))


# --- errors out of a DataLoader's worker


class Raises(torch.utils.data.Dataset[int]):
    def __init__(self, error: type[Exception]):
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        try:
            raise ValueError("what was behind it")
        except ValueError as error:
            raise self.error(f"a.mp4: is broken: {error}; make it anew") from error


@pytest.mark.parametrize("error", [UserError, TrainingError, VideoError])
def test_an_error_says_the_same_out_of_a_worker(error: type[Exception]) -> None:
    loader = torch.utils.data.DataLoader(Raises(error), num_workers=1)
    with pytest.raises(error) as raised:
        next(iter(loader))
    assert type(raised.value) is error
    assert str(raised.value) == "a.mp4: is broken: what was behind it; make it anew"


@pytest.mark.parametrize("kind", ["TFAM"])
def test_an_error_in_a_worker_is_one_line_for_the_user(
    kind: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File("dataset/embeddings/ak_train_clip_embeddings.h5", "a") as file:
        del file["V03.mp4/labels"]
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: main_of(fusion_run("run", "--num-workers", "1")))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: dataset/embeddings/ak_train_clip_embeddings.h5: V03.mp4 has no labels;")
    assert len(error.splitlines()) == 1
