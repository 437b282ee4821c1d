"""Evaluation protocols of train.py: which splits it reads, and on which the epoch is selected."""

import csv
import re
import shutil
from pathlib import Path

import h5py
import pytest

import inference
import train
from tests.annotations.test_split_protocol import write_selection
from tests.conftest import make_embedded_dataset, modification_times
from tests.untrusted_files import exit_code
from vimoclip import store
from vimoclip.errors import UserError
from vimoclip.io import yaml_json
from vimoclip.training import checkpoint

SELECTION_VIDEOS = ("train1.mp4", "train4.mp4")
SMALL_RUN = ["--sequence-length", "6", "--num-workers", "0", "--device", "cpu", "--epochs", "2", "--run-name", "run"]
VAL_FILE = Path("dataset/embeddings/ak_val_clip_embeddings.h5")


@pytest.fixture(scope="module")
def embedded_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_embedded_dataset(tmp_path_factory.mktemp("inputs"), *SELECTION_VIDEOS)


@pytest.fixture
def selection_workspace(embedded_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of a data set that has selection clips."""
    shutil.copytree(embedded_inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_rows(name: str = "run") -> list[dict[str, float]]:
    with open(f"checkpoints/{name}/metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def checkpoint_config(name: str) -> dict:
    return checkpoint.load_checkpoint(Path("checkpoints/run", name))["config"]


@pytest.mark.parametrize("val", ["missing", "malformed"])
def test_held_out_reads_no_val_clip_and_selects_on_selection_clips(
    selection_workspace: Path, capsys: pytest.CaptureFixture[str], val: str
) -> None:
    VAL_FILE.unlink()
    if val == "malformed":
        VAL_FILE.write_text("not read")
    for clip in (selection_workspace / "dataset/flows").glob("val*"):
        clip.write_text("not read")
    train.main([*SMALL_RUN, "--epochs", "3", "--learning-rate", "0.02"])
    out = capsys.readouterr().out
    # training clips have 12, 14, 15 and 17 frames, selection clips 13 and 16; a segment has 5 flows
    assert "protocol held_out: 13 segments to train on, 6 to validate on" in out
    rows = read_rows()
    assert {"selection_loss", "selection_head_map_macro", "selection_head_map_micro"} <= set(rows[0])
    assert not [name for name in rows[0] if name.startswith("val_")]
    losses = [row["selection_loss"] for row in rows]
    best = checkpoint.load_checkpoint(Path("checkpoints/run/student_best.pth"))
    assert best["epoch"] == 1 + losses.index(min(losses))
    assert (
        best["config"]["protocol"] == yaml_json.read_yaml(Path("checkpoints/run/args.yaml"))["protocol"] == "held_out"
    )


def test_selection_clips_are_not_trained_on(selection_workspace: Path) -> None:
    train.main([*SMALL_RUN])
    with h5py.File("dataset/embeddings/ak_train_clip_embeddings.h5", "a") as file:
        for name in SELECTION_VIDEOS:
            file[name]["embeddings"][:] *= -1
    train.main([*SMALL_RUN, "--run-name", "negated"])
    for before, after in zip(read_rows(), read_rows("negated"), strict=True):
        assert before["train_loss"] == after["train_loss"]
        assert before["selection_distillation_loss"] != after["selection_distillation_loss"]


def test_val_hdf5_path_implies_published(selection_workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main([*SMALL_RUN, "--val-hdf5-path", str(VAL_FILE)])
    assert "19 segments to train on, 12 to validate on" in capsys.readouterr().out
    assert "val_loss" in read_rows()[0]
    assert checkpoint_config("student_best.pth")["protocol"] == "published"
    assert "selection" not in checkpoint_config("student_best.pth")
    train.main([*SMALL_RUN, "--run-name", "explicit", "--protocol", "published"])
    assert read_rows("explicit") == read_rows()


def test_val_file_of_other_classes_is_refused(selection_workspace: Path) -> None:
    with h5py.File(VAL_FILE, "a") as file:
        file.attrs["class_names"] = [*file.attrs["class_names"][:-1], "flying"]
    with pytest.raises(UserError) as error:
        train.main([*SMALL_RUN, "--val-hdf5-path", str(VAL_FILE)])
    assert "flying" in error.value.problem and str(VAL_FILE) in error.value.problem


def test_without_selection_clips_the_protocol_is_published_with_a_warning(
    selection_workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (selection_workspace / "dataset/annotations/selection.txt").unlink()
    train.main(SMALL_RUN)
    out = capsys.readouterr().out
    assert out.count("warning: dataset/annotations") == 1
    assert "val_loss" in read_rows()[0]


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        (["--protocol", "held_out", "--val-hdf5-path", str(VAL_FILE)], "--val-hdf5-path .*held_out"),
        (["--protocol", "held_out", "--dataset-dir", "elsewhere"], r"selection\.txt"),
        (["--protocol", "heldout"], "--protocol"),
    ],
)
def test_contradictory_flags_give_one_line_and_exit_code_2(
    selection_workspace: Path, flags: list[str], pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(train.main, *SMALL_RUN, *flags) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert re.search(pattern, error)
    assert not Path("checkpoints").exists()


def test_run_resumes_only_with_its_protocol_and_selection(selection_workspace: Path) -> None:
    train.main([*SMALL_RUN, "--epochs", "1"])
    train.main(["--resume", "checkpoints/run", "--epochs", "2"])
    for command in (["--resume", "checkpoints/run"], SMALL_RUN):
        with pytest.raises(UserError) as error:
            train.main([*command, "--protocol", "published"])
        assert all(text in error.value.problem for text in ("published", "held_out", "args.yaml"))
        with pytest.raises(UserError) as error:
            train.main([*command, "--val-hdf5-path", str(VAL_FILE)])
        assert "--protocol held_out" in str(error.value)
    before = modification_times(selection_workspace / "checkpoints")
    write_selection(selection_workspace / "dataset" / "annotations", *SELECTION_VIDEOS[:1])
    with pytest.raises(UserError) as error:
        train.main(["--resume", "checkpoints/run", "--epochs", "3"])
    assert "selection" in error.value.problem and "last.pth" in error.value.problem
    before.pop("run/args.yaml")
    assert {
        name: time for name, time in modification_times(selection_workspace / "checkpoints").items() if name in before
    } == before
    write_selection(selection_workspace / "dataset" / "annotations", *reversed(SELECTION_VIDEOS))  # the same clips
    train.main(["--resume", "checkpoints/run", "--epochs", "3"])
    assert [row["epoch"] for row in read_rows()] == [1, 2, 3]


def test_selection_clips_without_flow_are_named(selection_workspace: Path) -> None:
    flows = selection_workspace / "dataset" / "flows"
    (flows / "train1.mp4").unlink()
    folder = train.main([*SMALL_RUN, "--epochs", "1"])
    assert (folder / "left_out.csv").read_text().splitlines()[1].startswith("selection,train1.mp4,has no flow video")
    (flows / "train4.mp4").unlink()
    with pytest.raises(UserError) as error:
        train.main([*SMALL_RUN, "--run-name", "none"])
    assert "ak_train_clip_embeddings.h5" in str(error.value) and "selection" in error.value.problem


def test_limit_applies_to_each_split(selection_workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main([*SMALL_RUN, "--limit", "1", "--dry-run"])
    out = capsys.readouterr().out
    assert "train: 1 videos" in out and "selection: 1 videos" in out
    assert "an epoch has 3 segments to train on and 3 to validate" in out
    assert not Path("checkpoints").exists()


def test_motion_file_records_the_protocol_of_its_student(selection_workspace: Path) -> None:
    train.main([*SMALL_RUN, "--epochs", "1"])
    inference.main(["--checkpoint-dir", "checkpoints/run", "--num-workers", "0", "--device", "cpu"])
    motion = store.EmbeddingReader(Path("dataset/embeddings/flow_embeddings.h5"), "motion")
    assert motion.attributes["student"]["protocol"] == "held_out"
    assert motion.attributes["student"]["selection"] == checkpoint_config("last.pth")["selection"]


def test_selection_without_a_label_is_said_before_the_first_step(
    selection_workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The student selects its epoch by the loss, but TFAM, which comes later, can't select one."""
    with h5py.File("dataset/embeddings/ak_train_clip_embeddings.h5", "r+") as file:
        for video in SELECTION_VIDEOS:
            file[video]["labels"][...] = 0
    train.main([*SMALL_RUN, "--dry-run"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning") and "label" in line]
    assert "prepare_dataset.py selection --overwrite" in line
