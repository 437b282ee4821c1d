"""Training runs in one process and in two."""

import csv
import os
import re
import signal
import time
from pathlib import Path

import h5py
import pytest
import torch

import extract_flows
import train
from tests import preloaded
from tests.conftest import REPOSITORY
from tests.moclip.helpers import TRAIN_FLAGS, break_flow
from vimoclip.training import checkpoint


def start_two_processes(*more: str) -> preloaded.Process:
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*torchrun, str(REPOSITORY / "train.py"), *TRAIN_FLAGS, *more]
    return preloaded.start(command, Path.cwd(), OMP_NUM_THREADS="1", PYTHONPATH=str(REPOSITORY))


def read_metrics(name: str) -> list[dict[str, float]]:
    with open(f"checkpoints/{name}/metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def first_gradients(name: str) -> list[torch.Tensor]:
    """Adam's first moment after one step is a tenth of the gradient."""
    moments = checkpoint.load_checkpoint(Path("checkpoints", name, "last.pth"))["optimizer"]["state"]
    return [state["exp_avg"] for state in moments.values()]


def test_two_processes_equal_one_with_twice_the_batch(workspace: Path) -> None:
    """In the one step, rank 0 has 12 segments and rank 1 the rest, one of which can't be read."""
    break_flow("train1.mp4")
    break_flow("val2.mp4")
    two = start_two_processes("--batch-size", "12", "--epochs", "1", "--run-name", "two", "--cache-frames", "prepared")
    code, output, error = two.wait(120)
    assert code == 0, error
    train.main([*TRAIN_FLAGS, "--batch-size", "24", "--epochs", "1", "--run-name", "one"])
    assert output.count("finished after epoch 1") == 1  # only rank 0 prints
    for row, expected_row in zip(read_metrics("two"), read_metrics("one"), strict=True):
        assert row == pytest.approx(expected_row, rel=1e-5)
    for a, b in zip(first_gradients("two"), first_gradients("one"), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))
    left_out, expected_left_out = (
        set(Path("checkpoints", n, "left_out.csv").read_text().splitlines()) for n in ("two", "one")
    )
    assert left_out == expected_left_out
    assert len(left_out) == 3
    assert len(list(Path("prepared").rglob("*.npy"))) == 8
    assert not list(Path("checkpoints").glob("*.lock"))


def test_a_killed_process_ends_both_and_one_process_resumes(workspace: Path) -> None:
    """Rank 1 has no segment of the first step. It is killed after that step's checkpoint."""
    two = start_two_processes("--batch-size", "40", "--epochs", "500", "--run-name", "two", "--freeze-encoder")
    last = Path("checkpoints/two/last.pth")
    while not last.exists():
        assert not two.has_ended(), two.wait()
        time.sleep(0.02)
    child_pids = Path(f"/proc/{two.pid}/task/{two.pid}/children").read_text().split()
    rank1_pid = next(c for c in child_pids if b"\0RANK=1\0" in Path(f"/proc/{c}/environ").read_bytes())
    os.kill(int(rank1_pid), signal.SIGKILL)
    code, _, error = two.wait(60)
    assert code != 0
    assert re.search(r"rank\s*: 1 .*\n.*-9", error), error
    completed_epochs = checkpoint.load_checkpoint(last)["progress"]["epoch"]
    train.main(["--resume", "checkpoints/two", "--epochs", str(completed_epochs + 1)])
    assert [row["epoch"] for row in read_metrics("two")] == list(range(1, completed_epochs + 2))
    train.main([*TRAIN_FLAGS, "--batch-size", "40", "--epochs", "1", "--run-name", "one", "--freeze-encoder"])
    assert read_metrics("two")[0] == pytest.approx(read_metrics("one")[0], rel=1e-5)


def test_classes_without_a_name_have_a_number(workspace: Path) -> None:
    for path in Path("dataset/embeddings").glob("*.h5"):
        with h5py.File(path, "a") as file:
            del file.attrs["class_names"]
    folder = train.main([*TRAIN_FLAGS, "--epochs", "1", "--run-name", "unnamed"])
    content = checkpoint.load_checkpoint(folder / "student_best.pth")
    assert content["class_names"] == [f"class_{i}" for i in range(content["config"]["num_classes"])]


def test_a_frozen_encoder_on_lossy_flow_gives_a_warning(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def warnings(*flags: str) -> list[str]:
        capsys.readouterr()
        train.main([*TRAIN_FLAGS, "--epochs", "1", "--overwrite", "--run-name", "run", *flags])
        return [line for line in capsys.readouterr().out.splitlines() if "--lossless" in line]

    assert len(warnings("--freeze-encoder")) == 1
    assert not warnings()
    extract_flows.main(["--model", "dis", "--num-workers", "0", "--overwrite", "--lossless"])
    assert not warnings("--freeze-encoder")
