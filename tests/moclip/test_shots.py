"""Few-shot students: the clips that they are trained on, and what runs of TFAM say of a student with more labels."""

import csv
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest

import inference
import train
from tests.conftest import make_embedded_dataset
from tests.tfam.helpers import read_json, train_command
from TFAM import table, train_and_eval
from vimoclip import store
from vimoclip.errors import UserError
from vimoclip.io import yaml_json
from vimoclip.training import checkpoint

SELECTION_VIDEOS = ("train1.mp4", "train4.mp4")  # the others show class 0 (train0, train3) or 2 (train2, train5)
STUDENT = ["--sequence-length", "6", "--num-workers", "0", "--device", "cpu", "--epochs", "1"]
TRAIN_FILE = Path("dataset/embeddings/ak_train_clip_embeddings.h5")
MOTION_FILE = Path("dataset/embeddings/flow_embeddings.h5")


@pytest.fixture(scope="module")
def embedded_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_embedded_dataset(tmp_path_factory.mktemp("inputs"), *SELECTION_VIDEOS)


@pytest.fixture
def workspace(embedded_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(embedded_inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train_loss(name: str, *flags: str) -> float:
    """Train a student and return the loss of its epoch."""
    folder = train.main([*STUDENT, "--run-name", name, *flags])
    with open(folder / "metrics.csv", newline="") as file:
        return float(next(csv.DictReader(file))["train_loss"])


def embed_flow(name: str) -> None:
    inference.main(["--checkpoint-dir", f"checkpoints/{name}", "--num-workers", "0", "--device", "cpu", "--overwrite"])


def fuse(*flags: str) -> Path:
    return train_and_eval.main([*train_command("cross_attention", *flags), "training.epochs=1"])


def negate(*videos: str) -> None:
    with h5py.File(TRAIN_FILE, "a") as file:
        for video in videos:
            file[video]["embeddings"][:] *= -1


def test_student_and_fusion_are_trained_on_the_same_clips(workspace: Path) -> None:
    before = train_loss("few", "--shots", "1")
    embed_flow("few")
    run = fuse("--shots", "1")
    drawn = (run / "training_clips.txt").read_text().splitlines()
    assert {int(clip[5]) % 3 for clip in drawn} == {0, 2} and len(drawn) == 2
    others = {f"train{n}.mp4" for n in (0, 2, 3, 5)} - set(drawn)
    negate(*others)
    assert train_loss("others", "--shots", "1") == before
    for clip in drawn:
        negate(clip)
        assert train_loss(clip, "--shots", "1") != before
        negate(clip)
    assert train_loss("all") != before
    assert yaml_json.read_yaml(Path("checkpoints/few/args.yaml"))["shots"] == 1
    assert checkpoint.load_checkpoint(Path("checkpoints/few/student_best.pth"))["config"]["shots"] == 1
    assert store.EmbeddingReader(MOTION_FILE, "motion").attributes["student"]["shots"] == 1


@pytest.mark.parametrize(
    ("student", "fusion", "expected"),
    [
        ((), ("--shots", "1"), (None, True)),
        (("--shots", "2"), ("--shots", "1"), (2, True)),
        (("--shots", "1"), ("--shots", "1"), (1, False)),
        (("--shots", "1"), ("--shots", "2"), (1, False)),
        (("--freeze-encoder",), ("--shots", "1"), (None, False)),
        ((), (), (None, False)),
        # a published student of one shot is trained on another clip of class 1
        (("--shots", "1", "--protocol", "published"), ("--shots", "1"), (1, True)),
    ],
)
def test_table_and_a_warning_name_students_of_more_labels(
    workspace: Path, student: Any, fusion: Any, expected: tuple[int | None, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    train_loss("student", *student)
    embed_flow("student")
    capsys.readouterr()
    metrics = read_json(fuse(*fusion) / "metrics.json")
    assert (metrics["student_shots"], metrics["student_has_more_labels"]) == expected
    warnings = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("warning") and "labels" in line
    ]
    assert len(warnings) == expected[1]
    with open(table.main(["--resamples", "2"]), newline="") as file:
        (row,) = csv.DictReader(file)
    assert ("of more labels" in row["protocol"]) == expected[1]


def test_few_shot_student_resumes_with_its_clips_only(workspace: Path) -> None:
    train_loss("run", "--shots", "1")
    train.main(["--resume", "checkpoints/run", "--epochs", "2"])
    with pytest.raises(UserError) as error:
        train.main(["--resume", "checkpoints/run", "--shots", "2"])
    assert "shots" in error.value.problem
    # a run of an earlier version has no such setting: it is of all clips
    train_loss("old")
    for path in Path("checkpoints/old").glob("*.pth"):
        content = checkpoint.load_checkpoint(path)
        del content["config"]["shots"]
        checkpoint.save_checkpoint(path, content)
    settings = yaml_json.read_yaml(Path("checkpoints/old/args.yaml"))
    del settings["shots"]
    yaml_json.write_yaml(Path("checkpoints/old/args.yaml"), settings)
    with pytest.raises(UserError) as error:
        train.main(["--resume", "checkpoints/old", "--epochs", "2", "--shots", "1"])
    assert "shots" in error.value.problem
    train.main(["--resume", "checkpoints/old", "--epochs", "2"])


def test_students_that_differ_in_more_than_the_seed_have_different_hashes(workspace: Path) -> None:
    runs = []
    for name, *flags in (
        ("first",),
        ("second", "--seed", "50"),
        ("frozen", "--freeze-encoder"),
        ("few", "--limit", "3"),
    ):
        train_loss(name, *flags)
        embed_flow(name)
        runs.append(read_json(fuse("--overwrite") / "metrics.json"))
    first, second, *others = (run["student_sha256"] for run in runs)
    assert [run["student_seed"] for run in runs] == [49, 50, 49, 49]
    assert first == second and first not in others
