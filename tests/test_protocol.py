"""Protocols: on which clips the student's epoch is chosen, what it may read, and what it refuses."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st

import inference
import train
from tests.conftest import REPOSITORY, make_embedded, times
from tests.test_training_scale import break_flow
from vimoclip import store
from vimoclip.annotations import split_protocol
from vimoclip.errors import UserError
from vimoclip.io import yaml_json
from vimoclip.training import checkpoint

SELECTION = ("train1.mp4", "train4.mp4")
SMALL = ["--sequence-length", "6", "--num-workers", "0", "--device", "cpu", "--epochs", "2", "--run-name", "run"]
VAL = Path("dataset/embeddings/ak_val_clip_embeddings.h5")


def draw(folder: Path, *names: str) -> Path:
    """`folder/selection.txt`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "selection.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


# settle and divide


def test_the_default_is_held_out_where_selection_clips_are_drawn_and_else_published_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert split_protocol.settle(None, tmp_path / "none") == split_protocol.PUBLISHED
    said = capsys.readouterr().out
    assert said.startswith("warning: ") and len(said.splitlines()) == 1
    assert "chosen on the clips that are reported" in said and "python prepare_dataset.py selection" in said
    notes = draw(tmp_path / "annotations", "a.mp4")
    assert (
        split_protocol.settle(None, notes)
        == split_protocol.settle(split_protocol.HELD_OUT, notes)
        == split_protocol.HELD_OUT
    )
    assert split_protocol.settle(split_protocol.PUBLISHED, notes) == split_protocol.PUBLISHED
    assert split_protocol.settle(split_protocol.PUBLISHED, tmp_path) == split_protocol.PUBLISHED
    assert capsys.readouterr().out == ""


def test_held_out_without_selection_clips_and_what_is_no_protocol_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"selection.txt: there is no such file.*prepare_dataset.py selection"):
        split_protocol.settle(split_protocol.HELD_OUT, tmp_path)
    with pytest.raises(UserError, match="protocol heldout: there is no such protocol; it is held_out or published"):
        split_protocol.settle("heldout", tmp_path)


@given(st.lists(st.booleans(), max_size=12), st.sets(st.integers(20, 25)))
def test_dividing_takes_each_video_once_in_order_and_both_sides_have_some(
    tmp_path_factory: pytest.TempPathFactory, chosen: list[bool], elsewhere: set[int]
) -> None:
    keys = [f"v{i}.mp4" for i in range(len(chosen))]
    drawn = [key for key, it_is in zip(keys, chosen, strict=True) if it_is]
    notes = draw(tmp_path_factory.mktemp("notes"), *(f"v{i}.mp4" for i in elsewhere), *reversed(drawn))
    if not elsewhere | set(drawn):
        (notes / "selection.txt").write_text("elsewhere.mp4\n")
    if len(set(chosen)) < 2:
        with pytest.raises(
            UserError, match=r"x.h5: holds (nothing but|none of the) selection clips of .*selection.txt"
        ):
            split_protocol.divide(keys, notes, Path("x.h5"))
        return
    learnt, selection = split_protocol.divide(keys, notes, Path("x.h5"))
    assert selection == drawn
    assert learnt == [key for key in keys if key not in drawn]


# train.py


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_embedded(tmp_path_factory.mktemp("inputs"), *SELECTION)


@pytest.fixture
def place(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the test is in, with a copy of the inputs."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(name: str = "run") -> list[dict[str, float]]:
    with open(f"checkpoints/{name}/metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def config_of(name: str) -> dict:
    return checkpoint.load_checkpoint(Path("checkpoints/run", name))["config"]


@pytest.mark.parametrize("val", ["is not there", "is broken"])
def test_held_out_reads_no_reported_clip_and_chooses_on_the_selection(
    place: Path, capsys: pytest.CaptureFixture[str], val: str
) -> None:
    VAL.unlink()
    if val == "is broken":
        VAL.write_text("nobody may read this")
    for clip in (place / "dataset/flows").glob("val*"):
        clip.write_text("nor this")
    train.main([*SMALL, "--epochs", "3", "--learning-rate", "0.02"])
    said = capsys.readouterr().out
    # 12, 14, 15 and 17 frames to train on, 13 and 16 to choose on; 5 flows a segment
    assert "protocol held_out: 13 segments to train on, 6 to validate (selection clips of the training split)" in said
    assert re.search(r"epoch 1/3: train loss [\d.]+, selection loss [\d.]+ .*'s selection map_macro [\d.]+", said)
    assert "val loss" not in said
    found = rows()
    assert {"selection_loss", "selection_head_map_macro", "selection_head_map_micro"} <= set(found[0])
    assert not [name for name in found[0] if name.startswith("val_")]
    losses = [row["selection_loss"] for row in found]
    best = checkpoint.load_checkpoint(Path("checkpoints/run/student_best.pth"))
    assert best["epoch"] == 1 + losses.index(min(losses))
    assert (
        best["config"]["protocol"] == yaml_json.read_yaml(Path("checkpoints/run/args.yaml"))["protocol"] == "held_out"
    )


def test_nothing_is_learnt_from_selection_clips(place: Path) -> None:
    train.main([*SMALL])
    with h5py.File("dataset/embeddings/ak_train_clip_embeddings.h5", "a") as file:
        for name in SELECTION:
            file[name]["embeddings"][:] *= -1
    train.main([*SMALL, "--run-name", "turned"])
    for before, after in zip(rows(), rows("turned"), strict=True):
        assert before["train_loss"] == after["train_loss"]
        assert before["selection_distillation_loss"] != after["selection_distillation_loss"]


def test_a_val_file_that_is_named_means_published_and_that_is_said(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main([*SMALL, "--val-hdf5-path", str(VAL)])
    said = capsys.readouterr().out
    assert "--val-hdf5-path is given, so the protocol is published: the epoch is chosen on its clips" in said
    assert "19 segments to train on, 12 to validate (the reported clips)" in said
    assert "val_loss" in rows()[0]
    assert config_of("student_best.pth")["protocol"] == "published"
    assert "selection" not in config_of("student_best.pth")
    train.main([*SMALL, "--run-name", "asked", "--protocol", "published"])
    assert rows("asked") == rows()


def test_without_selection_clips_the_protocol_is_published_with_a_warning(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "dataset/annotations/selection.txt").unlink()
    train.main(SMALL)
    said = capsys.readouterr().out
    assert said.count("warning: dataset/annotations has no selection.txt, so the protocol is published") == 1
    assert "val_loss" in rows()[0]


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--protocol", "held_out", "--val-hdf5-path", str(VAL)], "--val-hdf5-path .*held_out; leave the path out"),
        (["--protocol", "held_out", "--dataset-dir", "elsewhere"], r"selection.txt: there is no such file"),
        (["--protocol", "heldout"], "invalid choice"),
    ],
)
def test_what_contradicts_itself_ends_with_one_line_and_exit_code_2(place: Path, flags: list[str], names: str) -> None:
    command = [sys.executable, str(REPOSITORY / "train.py"), *SMALL, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search(names, done.stderr)
    assert not Path("checkpoints").exists()


def test_a_run_goes_on_only_under_its_protocol_and_with_its_selection(place: Path) -> None:
    train.main([*SMALL, "--epochs", "1"])
    train.main(["--resume", "checkpoints/run", "--epochs", "2"])
    for going_on in (["--resume", "checkpoints/run"], SMALL):
        with pytest.raises(UserError, match=r"protocol is published in this command but held_out in .*args.yaml"):
            train.main([*going_on, "--protocol", "published"])
        with pytest.raises(UserError, match="aren't read with --protocol held_out"):
            train.main([*going_on, "--val-hdf5-path", str(VAL)])
    before = times(place / "checkpoints")
    draw(place / "dataset" / "annotations", *SELECTION[:1])
    with pytest.raises(UserError, match=r"selection is \w+ in this command but \w+ in .*last.pth"):
        train.main(["--resume", "checkpoints/run", "--epochs", "3"])
    before.pop("run/args.yaml")
    assert {name: time for name, time in times(place / "checkpoints").items() if name in before} == before
    draw(place / "dataset" / "annotations", *reversed(SELECTION))  # the same clips
    train.main(["--resume", "checkpoints/run", "--epochs", "3"])
    assert [row["epoch"] for row in rows()] == [1, 2, 3]


def test_a_run_of_before_there_were_protocols_goes_on_as_published(place: Path) -> None:
    train.main([*SMALL, "--protocol", "published", "--epochs", "1"])
    folder = Path("checkpoints/run")
    saved = yaml_json.read_yaml(folder / "args.yaml")
    assert saved.pop("protocol") == "published"
    yaml_json.write_yaml(folder / "args.yaml", saved)
    last = checkpoint.load_checkpoint(folder / "last.pth")
    assert last["config"].pop("protocol") == "published"
    checkpoint.save_checkpoint(folder / "last.pth", last)
    with pytest.raises(UserError, match="protocol is held_out in this command but published in"):
        train.main([*SMALL, "--protocol", "held_out"])
    yaml_json.write_yaml(folder / "args.yaml", saved | {"protocol": "held_out"})
    with pytest.raises(UserError, match=r"protocol is held_out in this command but published in .*last.pth"):
        train.main(SMALL)
    yaml_json.write_yaml(folder / "args.yaml", saved)
    train.main(SMALL)  # there is a selection.txt, which counts for runs that begin
    assert ["val_loss" in row for row in rows()] == [True, True]


def test_selection_clips_without_flow_are_named_as_such(place: Path) -> None:
    flows = place / "dataset" / "flows"
    (flows / "train1.mp4").unlink()
    folder = train.main([*SMALL, "--epochs", "1"])
    assert (folder / "left_out.csv").read_text().splitlines()[1].startswith("selection,train1.mp4,has no flow video")
    (flows / "train4.mp4").unlink()
    with pytest.raises(UserError, match=r"ak_train_clip_embeddings.h5: no video of its selection clips has flow"):
        train.main([*SMALL, "--run-name", "none"])


def test_a_limit_is_of_each_part(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main([*SMALL, "--limit", "1", "--dry-run"])
    said = capsys.readouterr().out
    assert "train: 1 videos" in said and "selection: 1 videos" in said
    assert "an epoch has 3 segments to train on and 3 to validate" in said
    assert not Path("checkpoints").exists()


def test_two_processes_keep_the_same_clips_out(place: Path) -> None:
    VAL.unlink()
    break_flow("train1.mp4")
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [sys.executable, *torchrun, str(REPOSITORY / "train.py"), *SMALL, "--epochs", "1", "--batch-size", "7"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    train.main([*SMALL, "--epochs", "1", "--batch-size", "14", "--run-name", "one"])
    assert rows()[0] == pytest.approx(rows("one")[0], rel=1e-5)
    for name in ("run", "one"):
        with open(f"checkpoints/{name}/left_out.csv", newline="") as file:
            assert [(row["split"], row["video"]) for row in csv.DictReader(file)] == [("selection", "train1.mp4")]


def test_a_motion_file_says_how_its_student_was_chosen(place: Path) -> None:
    train.main([*SMALL, "--epochs", "1"])
    inference.main(["--checkpoint-dir", "checkpoints/run", "--num-workers", "0", "--device", "cpu"])
    motion = store.Reader(Path("dataset/embeddings/flow_embeddings.h5"), "motion")
    assert motion.attributes["student"]["protocol"] == "held_out"
    assert motion.attributes["student"]["selection"] == config_of("last.pth")["selection"]


def test_selection_clips_that_are_not_in_the_training_file_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, where = ["a.mp4", "b.mp4", "c.mp4"], Path("train.h5")
    split_protocol.check_names(keys, draw(tmp_path, "a.mp4"), where)
    assert capsys.readouterr().out == ""
    split_protocol.check_names(keys, draw(tmp_path, "a.mp4", "x.mp4"), where)
    assert "train.h5: 1 (x.mp4) of the 2 selection clips are not in it" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"selection.txt: 1 \(b.avi\) stand in train.h5 under other extensions"):
        split_protocol.check_names(keys, draw(tmp_path, "a.mp4", "b.avi"), where)


@pytest.mark.parametrize("video", ["a.mp4", "c.mp4"])
def test_a_reported_clip_is_neither_trained_on_nor_chosen_on(tmp_path: Path, video: str) -> None:
    notes = draw(tmp_path, "a.mp4")
    (notes / "val_multi.txt").write_text(f"z.mp4 1\n{video} 0\n")
    with pytest.raises(UserError, match=rf"val_multi.txt: 1 \({video}\) are to be trained on, or chosen on, too"):
        split_protocol.check_names(["a.mp4", "b.mp4", "c.mp4"], notes, Path("train.h5"))
