"""TFAM in several processes, and what --dry-run says of a run."""

import contextlib
import csv
import os
import pickle
import re
import subprocess
import sys
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPOSITORY, times
from tests.test_tfam import command, write_motion, write_rgb
from TFAM import train_and_eval
from TFAM.data import Item, collate
from TFAM.loops import EpochOrder, evaluate, in_order
from TFAM.model import FusionTransformer
from vimoclip.runtime import cost_estimate, distributed, seeding
from vimoclip.runtime.distributed import Group
from vimoclip.training import checkpoint

EXACT = ["model.dropout=0", "model.classifier_dropout=0", "training.checkpoint=last"]
DYING = f"""
import os, sys; sys.path.insert(0, {str(REPOSITORY)!r})
from TFAM import fit, train_and_eval
from vimoclip import cli
from vimoclip.errors import TrainingError
real = fit.train_one_epoch
def train_one_epoch(model, loader, *rest):
    if os.environ["RANK"] == "1" and rest[-1] == 49 + 2:
        raise TrainingError("this one dies in its second epoch")
    return real(model, loader, *rest)
fit.train_one_epoch = train_one_epoch
cli.run(train_and_eval.main)
"""


def two(target: list[str], arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Two processes by torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*torchrun, *target, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def rows(path: Path) -> list[list[float]]:
    with open(path, newline="") as file:
        return [[float(cell) for cell in line if cell[:1] not in "Vv"] for line in [*csv.reader(file)][1:]]


@pytest.mark.parametrize("protocol", ["published", "held_out"])
def test_two_processes_learn_what_one_does_with_twice_the_batch(
    dataset: Path,
    protocol: str,
) -> None:
    """Nine videos in steps of four: of the last step's one video the second process has none."""
    predicted = ["predictions.csv"]
    if protocol == "held_out":
        write_rgb(dataset / "more.h5", [*range(9), *range(15, 18)]).replace(dataset / "ak_train_clip_embeddings.h5")
        write_motion(dataset / "more.h5", range(18)).replace(dataset / "flow_embeddings.h5")
        Path("dataset/annotations").mkdir()
        Path("dataset/annotations/selection.txt").write_text("V15.mp4\nV16.mp4\nV17.mp4\n")
        predicted.append("selection_predictions.csv")
    ended = two(
        ["-m", "TFAM.train_and_eval"], [*command(), *EXACT, "training.batch_size=2", "--checkpoints-dir", "two"]
    )
    assert ended.returncode == 0, ended.stderr
    train_and_eval.main([*command(), *EXACT, "training.batch_size=4", "--checkpoints-dir", "one"])
    one, both = (Path(name) / "TFAM" / "cross_attention" / "seed49" for name in ("one", "two"))
    for name in ("metrics.csv", *predicted):
        for mine, theirs in zip(rows(one / name), rows(both / name), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5), name
    for name in predicted:
        ids = [[line.split(",")[0] for line in (f / name).read_text().splitlines()] for f in (one, both)]
        assert ids[0] == ids[1]  # each video once, in the order of one process
    assert ended.stdout.count("epoch 3/3") == 1
    assert (both / "metrics.json").exists()


def test_a_process_that_dies_ends_the_job_and_one_process_goes_on(dataset: Path) -> None:
    Path("dying.py").write_text(DYING)
    ended = two(["dying.py"], [*command(), "training.batch_size=2"])
    assert ended.returncode == 1
    assert "process 1 of 2: error: this one dies in its second epoch" in ended.stderr
    folder = Path("checkpoints/TFAM/cross_attention/seed49")
    before = checkpoint.load_checkpoint(folder / "last.pth")["history"]
    assert [row["epoch"] for row in before] == [1]
    train_and_eval.main([*command(), "training.batch_size=2"])
    after = checkpoint.load_checkpoint(folder / "last.pth")["history"]
    assert [row["epoch"] for row in after] == [1, 2, 3]
    assert after[0] == before[0]


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 40))
def test_shares_are_each_video_once_in_steps_of_all(length: int, each: int, size: int, skip: int) -> None:
    skip = min(skip, length)

    def batches(rank: int, size: int, each: int) -> list[list[int]]:
        order = EpochOrder(length, 3, each, Group(rank, size))
        order.epoch, order.skip = 2, skip
        assert len(order) == len(list(order))
        return list(order)

    of_all = [batches(rank, size, each) for rank in range(size)]
    together = [list(chain(*step)) for step in zip(*of_all, strict=True)]
    assert together == batches(0, 1, each * size)
    assert sorted(chain(*together)) == sorted(seeding.epoch_order(length, 3, 2)[skip:])
    dealt = [in_order(length, each, Group(rank, size)) for rank in range(size)]
    in_turn = [batch for turn in zip_longest(*dealt, fillvalue=[]) for batch in turn if batch]
    assert in_turn == in_order(length, each)
    assert list(chain(*in_turn)) == list(range(length))


def test_a_dry_run_says_what_is_left_and_what_it_costs(
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cost_estimate, "PROBE_SECONDS", 0.1)
    costs = r"at [\d.e+]+ videos/s; [\d.]+ \w+ of disk, [\d.]+ \w+ of memory"
    small = [*command(), "training.batch_size=2"]
    train_and_eval.main([*small, "--dry-run"])
    said = capsys.readouterr().out
    assert "0 of 3 epochs are done, 9 videos to train on and 6 to validate" in said
    assert re.search(r"for 35 videos " + costs, said)  # 3 x (9 + 6 / 3), and the best epoch once more
    assert not Path("checkpoints").exists()
    folder = train_and_eval.main(small)
    before = times(folder)
    (folder / "metrics.json").unlink()  # as if it had been stopped before its last line
    train_and_eval.main([*small, "--dry-run"])
    assert "3 of 3 epochs are done" in capsys.readouterr().out
    best = str(folder / "best_model.pth")
    train_and_eval.main(["--evaluate", best, "--dry-run", "--num-workers", "0", "--set", "training.batch_size=2"])
    assert re.search(r"6 videos on cpu in fp32.*\n.*for 6 videos " + costs, capsys.readouterr().out)
    assert {name: time for name, time in before.items() if name != "metrics.json"} == times(folder)
    assert not Path("TFAM").exists()


class Twins(Group):
    """Two processes, of which the other one does what this one does; `sent`: bytes that each gave to it."""

    sent: list[int] = []  # noqa: RUF012 - a frozen dataclass takes no attribute of its own

    def gather(self, value: Any) -> list[Any]:
        self.sent.append(len(pickle.dumps(value)))
        return [value, value]


def test_a_dry_run_of_several_processes_takes_the_rates_of_all_together(
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = train_and_eval.main([*command(), "training.epochs=1"])
    monkeypatch.setattr(cost_estimate, "rate", lambda work: 10.0)
    monkeypatch.setattr(distributed, "join", lambda: contextlib.nullcontext(Twins(0, 2)))
    train_and_eval.main([*command(), "training.epochs=2", "--dry-run", "--checkpoints-dir", "another"])
    train_and_eval.main(["--evaluate", str(folder / "best_model.pth"), "--dry-run", "--num-workers", "0"])
    assert capsys.readouterr().out.count("at 20 videos/s") == 2


def test_evaluation_sends_each_video_once_to_the_other_processes() -> None:
    """A row of a tensor would take all of its batch with it."""
    videos, classes = 64, 140
    model = FusionTransformer(8, classes, "rgb", False, "masked", 2, 1, 16, 0.0, 0.0)
    batch = collate([Item(f"{i}.mp4", torch.randn(2, 8), None, torch.eye(classes)[i]) for i in range(videos)])
    Twins.sent.clear()
    found = evaluate(model, [batch], F.binary_cross_entropy_with_logits, torch.device("cpu"), "fp32", Twins(0, 2))
    assert sum(Twins.sent) < 1.5 * videos * classes * 2 * 4  # logits and labels, four bytes each
    assert found["videos"] == batch.videos * 2


@pytest.mark.parametrize("seed", [0, 2**32 - 1])  # from the smallest that a config may have to the largest
def test_each_process_and_step_has_random_numbers_of_its_own(seed: int) -> None:
    drawn = set()
    for rank, number in ((1, 0), (1, 10**6), (2, 0), (2, 10**6)):
        with torch.random.fork_rng():
            Group(rank, 3).seed_step(seed, number)
            drawn.add(torch.rand(1).item())
    assert len(drawn) == 4
