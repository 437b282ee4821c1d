"""Free memory of a simulated card: what a segment of training takes, what processes share, what a dry run reports."""

import pytest
import torch

from tests.gpu.fake_card import FakeCard
from tests.gpu.test_student import make_trainer, take_step
from vimoclip.errors import TrainingError
from vimoclip.runtime import cost_estimate, device

CUDA = torch.device("cuda:0")


def test_a_given_micro_batch_is_taken_and_the_default_is_measured_without_a_trace() -> None:
    with FakeCard() as card:
        assert make_trainer("ViT-B/32", "bf16", "--micro-batch-size", "3").micro_batch_size == 3
        trainer = make_trainer("ViT-B/32", "bf16")
        assert 1 < trainer.micro_batch_size <= trainer.batch_size
        assert all(parameter.grad is None for parameter in trainer.model.parameters())
        assert not trainer.state.optimizer.state
        assert not card.num_failed_allocations


def test_a_segment_that_does_not_fit_ends_the_run_with_a_remedy() -> None:
    with FakeCard(4 * 10**9), pytest.raises(TrainingError) as error:
        make_trainer("ViT-L/14", "bf16")
    assert "--freeze-encoder" in error.value.hint


def test_processes_on_one_card_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for processes in (1, 4):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        with FakeCard(24 * 10**9):
            assert device.usable_memory(CUDA) == pytest.approx(0.9 * 24e9 / processes)
            sizes.append(make_trainer("ViT-B/32", "bf16").micro_batch_size)
    assert sizes[0] > sizes[1]


def test_a_dry_run_reports_the_memory_of_the_card() -> None:
    with FakeCard() as card:
        trainer = make_trainer("ViT-B/32", "bf16", "--micro-batch-size", "2")
        take_step(trainer, 2)
        estimate = cost_estimate.estimate_cost(10, "segment", 1.0, 0)
        assert 10**9 < estimate.gpu_memory_bytes <= card.peak_bytes
    assert cost_estimate.estimate_cost(10, "segment", 1.0, 0).gpu_memory_bytes == 0
