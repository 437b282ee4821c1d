"""Batches of several processes, steps of training, evaluation."""

from itertools import chain, zip_longest

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.tfam.helpers import CPU, MirrorGroup, build_model, random_clips
from TFAM.data import ClipFeatures, collate
from TFAM.loops import evaluate, train_steps
from TFAM.model import FusionTransformer
from TFAM.packing import Fusion
from vimoclip.errors import TrainingError
from vimoclip.runtime import seeding
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training.checkpoint import TrainState
from vimoclip.training.data_parallel import EpochBatchSampler, ModelReplica, sequential_batches


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(0, 40))
def test_ranks_share_each_video_once(length: int, batch_size: int, size: int, skip: int) -> None:
    skip = min(skip, length)

    def batches(rank: int, size: int, batch_size: int) -> list[list[int]]:
        sampler = EpochBatchSampler(length, 3, batch_size, ProcessGroup(rank, size))
        sampler.epoch, sampler.skip = 2, skip
        assert len(sampler) == len(list(sampler))
        return list(sampler)

    by_rank = [batches(rank, size, batch_size) for rank in range(size)]
    joined = [list(chain(*step)) for step in zip(*by_rank, strict=True)]
    assert joined == batches(0, 1, batch_size * size)
    assert sorted(chain(*joined)) == sorted(seeding.epoch_permutation(length, 3, 2)[skip:])
    by_rank = [sequential_batches(length, batch_size, ProcessGroup(rank, size)) for rank in range(size)]
    interleaved = [batch for step in zip_longest(*by_rank, fillvalue=[]) for batch in step if batch]
    assert interleaved == sequential_batches(length, batch_size, ProcessGroup())
    assert list(chain(*interleaved)) == list(range(length))


def test_evaluation_sends_each_video_once() -> None:
    """A pickled row of a tensor carries the whole batch."""
    videos, classes = 64, 140
    model = FusionTransformer(8, classes, "rgb", False, "masked", 2, 1, 16, 0.0, 0.0)
    batch = collate([ClipFeatures(f"{i}.mp4", torch.randn(2, 8), None, torch.eye(classes)[i]) for i in range(videos)])
    MirrorGroup.sent.clear()
    result = evaluate(model, [batch], F.binary_cross_entropy_with_logits, CPU, "fp32", MirrorGroup(0, 2))
    assert sum(MirrorGroup.sent) < 1.5 * videos * classes * 2 * 4  # logits and labels, four bytes each
    assert result.videos == batch.videos * 2


@pytest.mark.parametrize("seed", [0, 2**32 - 1])  # the limits of a config
def test_seed_step_differs_between_ranks_and_steps(seed: int) -> None:
    drawn = set()
    for rank, step in ((1, 0), (1, 10**6), (2, 0), (2, 10**6)):
        with torch.random.fork_rng():
            ProcessGroup(rank, 3).seed_step(seed, step)
            drawn.add(torch.rand(1).item())
    assert len(drawn) == 4


def train_on(model, batch, steps=1, lr=0.01, weight_decay=0.0):
    """Take steps on one batch with a new AdamW; return the losses."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    state = TrainState(model, optimizer, scheduler, torch.amp.GradScaler("cpu", enabled=False))
    meters = train_steps(ModelReplica(state), [batch] * steps, F.binary_cross_entropy_with_logits, CPU, "fp32")
    return [meter.means()["loss"] for meter in meters]


@pytest.mark.parametrize("fusion", Fusion)
def test_one_batch_can_be_overfitted(fusion):
    model, batch = build_model(fusion, num_layers=1), collate(random_clips([6, 4, 5]))
    losses = train_on(model, batch, steps=200)
    assert losses[-1] < 0.05 < losses[0]
    metrics = evaluate(model, [batch], F.binary_cross_entropy_with_logits, CPU, "fp32").metrics
    assert metrics["map_macro"] == metrics["map_micro"] == 1
    assert metrics["num_videos"] == metrics["classes_with_a_positive"] == 3


class SingleWeightModel(torch.nn.Module):
    """Model whose only weight is the logit, so that a training step can be computed by hand."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0]))

    def forward(self, rgb, motion):
        return self.weight.expand(len(rgb.lengths), 1)


def test_adamw_step_on_bce_matches_manual_computation():
    model = SingleWeightModel()
    batch = collate([ClipFeatures("a.mp4", torch.ones(1, 1), None, torch.ones(1))])
    (loss,) = train_on(model, batch, lr=0.1, weight_decay=0.5)
    assert loss == pytest.approx(0.126928, abs=1e-6)  # ln(1 + e^-2)
    # decay: 2 (1 - 0.1 * 0.5) = 1.9; Adam's first step is lr against the sign of the gradient
    assert model.weight.item() == pytest.approx(2.0, abs=1e-6)


def test_non_finite_loss_names_the_videos():
    videos = random_clips([4, 3])
    videos[1].rgb[0] = float("nan")
    model = build_model("rgb")
    with pytest.raises(TrainingError) as error:
        train_on(model, collate(videos))
    assert "v0.mp4, v1.mp4" in error.value.problem and "training.lr" in error.value.hint
