"""Training in two processes, and --dry-run."""

import contextlib
import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.preloaded import executable
from tests.tfam.helpers import MirrorGroup, read_json, train_command, write_motion, write_rgb, write_selection
from TFAM import train_and_eval
from vimoclip.runtime import cost_estimate, distributed
from vimoclip.training import checkpoint

DETERMINISTIC = ["model.dropout=0", "model.classifier_dropout=0", "training.checkpoint=last"]
FAILING_SCRIPT = f"""
import os, sys, time; sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from TFAM import train_and_eval
from TFAM.trainer import FusionTrainer
from vimoclip import cli
from vimoclip.errors import TrainingError
real = FusionTrainer.train_steps
def train_steps(self, *args):
    if os.environ["RANK"] == "1" and len(self.progress.rows) == 1:
        while not list(Path("checkpoints").rglob("last.pth")):  # which the first process writes
            time.sleep(0.05)
        raise TrainingError("fails in the second epoch")
    return real(self, *args)
FusionTrainer.train_steps = train_steps
cli.run(train_and_eval.main)
"""


def run_two_processes(target: list[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    torchrun = [str(executable()), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*torchrun, *target, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def read_rows(path: Path) -> list[list[float]]:
    with open(path, newline="") as file:
        return [[float(cell) for cell in line if cell[:1] not in "Vv"] for line in [*csv.reader(file)][1:]]


def test_two_processes_train_like_one_with_twice_the_batch(dataset: Path) -> None:
    """Nine videos in steps of four: in the last step the second process has no video."""
    prediction_files = ["predictions.csv", "selection_predictions.csv"]
    write_rgb(dataset / "ak_train_clip_embeddings.h5", [*range(9), *range(15, 18)])
    write_motion(dataset / "flow_embeddings.h5", range(18))
    write_selection([15, 16, 17])
    result = run_two_processes(
        ["-m", "TFAM.train_and_eval"],
        [*train_command(), *DETERMINISTIC, "training.batch_size=2", "--checkpoints-dir", "two"],
    )
    assert result.returncode == 0, result.stderr
    train_and_eval.main([*train_command(), *DETERMINISTIC, "training.batch_size=4", "--checkpoints-dir", "one"])
    one, two = (Path(name, "TFAM/cross_attention/seed49") for name in ("one", "two"))
    for name in ("metrics.csv", *prediction_files):
        for mine, theirs in zip(read_rows(one / name), read_rows(two / name), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5), name
    for name in prediction_files:
        ids = [[line.split(",")[0] for line in (f / name).read_text().splitlines()] for f in (one, two)]
        assert ids[0] == ids[1]  # each video once, in file order
    assert result.stdout.count("epoch 3/3") == 1
    assert (two / "metrics.json").exists()


def test_two_processes_fit_the_linear_probe_of_one(selection_dataset: Path) -> None:
    """The first has two of the three classes."""
    result = run_two_processes(["-m", "TFAM.probe"], train_command("probe_both", "--checkpoints-dir", "two"))
    assert result.returncode == 0, result.stderr
    train_and_eval.main(train_command("probe_both", "--checkpoints-dir", "one"))
    one, two = (Path(name, "TFAM/probe_both/seed49") for name in ("one", "two"))
    for name in ("predictions.csv", "selection_predictions.csv"):
        assert (one / name).read_text() == (two / name).read_text()
    assert read_json(one / "metrics.json")["regularisation"] == read_json(two / "metrics.json")["regularisation"]


def test_failed_process_ends_the_job_and_one_process_resumes(dataset: Path) -> None:
    Path("failing.py").write_text(FAILING_SCRIPT)
    result = run_two_processes(["failing.py"], [*train_command(), "training.batch_size=2"])
    assert result.returncode == 1
    assert "process 1 of 2: error: fails in the second epoch" in result.stderr
    folder = Path("checkpoints/TFAM/cross_attention/seed49")
    before = checkpoint.load_checkpoint(folder / "last.pth")["history"]
    assert [row["epoch"] for row in before] == [1]
    train_and_eval.main([*train_command(), "training.batch_size=2"])
    after = checkpoint.load_checkpoint(folder / "last.pth")["history"]
    assert [row["epoch"] for row in after] == [1, 2, 3]
    assert after[0] == before[0]


def test_dry_run_adds_the_rates_of_all_processes(
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = train_and_eval.main([*train_command(), "training.epochs=1"])
    monkeypatch.setattr(cost_estimate, "measure_rate", lambda work: 10.0)
    monkeypatch.setattr(distributed, "init_process_group", lambda device: contextlib.nullcontext(MirrorGroup(0, 2)))
    train_and_eval.main([*train_command(), "training.epochs=2", "--dry-run", "--checkpoints-dir", "another"])
    train_and_eval.main(["--evaluate", str(folder / "best_model.pth"), "--dry-run", "--num-workers", "0"])
    assert capsys.readouterr().out.count("at 20 videos/s") == 2


def test_two_processes_train_several_few_shot_runs(dataset: Path) -> None:
    """Each run has its own process group."""
    command = [*train_command("rgb", "--shots", "1", "2"), *DETERMINISTIC]
    result = run_two_processes(
        ["-m", "TFAM.train_and_eval"], [*command, "training.epochs=1", "--report", "report.json"]
    )
    assert result.returncode == 0, result.stderr
    for shots, clips in ((1, 3), (2, 6)):
        run = Path(f"checkpoints/TFAM/rgb/seed49_shots{shots}")
        assert len((run / "training_clips.txt").read_text().splitlines()) == clips and (run / "metrics.json").exists()
    assert json.loads(Path("report.json").read_text())["done"] == 2
