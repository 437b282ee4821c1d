"""Losses against numbers worked by hand; padding counts in nothing."""

import math

import pytest
import torch

from vimoclip import losses
from vimoclip.data import Batch
from vimoclip.moclip import Output
from vimoclip.moclip.engine import make_losses

MASK = torch.tensor([[True, True], [True, False]])
PREDICTED = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 2.0], [0.0, 0.0]]])
TARGET = torch.tensor([[[2.0, 0.0], [0.0, 3.0]], [[0.0, -1.0], [0.0, 0.0]]])


def with_garbage(values: torch.Tensor, garbage: float) -> torch.Tensor:
    values = values.clone()
    values[~MASK] = garbage
    return values


def test_cosine_distillation_worked_by_hand() -> None:
    # segment 1: (1 - 1 + 1 - 1/sqrt 2) / 2; segment 2, of one frame: 1 - -1
    expected = ((1 - math.sqrt(0.5)) / 2 + 2) / 2
    assert losses.distillation(PREDICTED, TARGET, MASK, "cosine").item() == pytest.approx(expected)


def test_squared_error_distillation_worked_by_hand() -> None:
    # segment 1: (1/2 + (1 + 4)/2) / 2; segment 2: 9/2
    expected = (1.5 + 4.5) / 2
    assert losses.distillation(PREDICTED, TARGET, MASK, "mse").item() == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["cosine", "mse"])
@pytest.mark.parametrize("garbage", [-7.0, 1e15])
def test_padding_changes_neither_loss_nor_gradient(mode: str, garbage: float) -> None:
    results = []
    for value in (0.0, garbage):
        predicted = with_garbage(PREDICTED, value).requires_grad_()
        loss = losses.distillation(predicted, with_garbage(TARGET, -value), MASK, mode)
        loss.backward()
        assert predicted.grad is not None
        results.append((loss.item(), predicted.grad[MASK]))
        assert torch.equal(predicted.grad[~MASK], torch.zeros(1, 2))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("mode", ["cosine", "mse"])
def test_more_padding_changes_nothing(mode: str) -> None:
    predicted, target = (torch.nn.functional.pad(x, (0, 0, 0, 3), value=5.0) for x in (PREDICTED, TARGET))
    mask = torch.nn.functional.pad(MASK, (0, 3))
    assert losses.distillation(predicted, target, mask, mode).item() == pytest.approx(
        losses.distillation(PREDICTED, TARGET, MASK, mode).item()
    )


@pytest.mark.parametrize("mode", ["cosine", "mse"])
def test_zero_vectors_give_finite_loss_and_gradients(mode: str) -> None:
    predicted = torch.zeros(2, 2, 4, requires_grad=True)
    loss = losses.distillation(predicted, torch.zeros(2, 2, 4), MASK, mode)
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()
    assert loss.item() == (1 if mode == "cosine" else 0)


def test_norms_are_clamped_at_1e_5() -> None:
    small, unit = torch.tensor([[[1e-6, 0.0]]]), torch.tensor([[[1.0, 0.0]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    assert losses.distillation(small, unit, mask, "cosine").item() == pytest.approx(1 - 0.1)
    assert losses.distillation(unit * 1e-4, unit, mask, "cosine").item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_the_loss_is_the_classification_loss_and_the_weighted_distillation_loss(weight: float) -> None:
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    batch = Batch(torch.zeros(2, 2, 3, 8, 8), TARGET, MASK, labels, ["a", "b"], [])
    found = make_losses("mse", 1.0, weight)(Output(PREDICTED, PREDICTED, torch.zeros(2, 2)), batch)
    classification = (2 + 1 + 1 + 1) / 4 * math.log(2)  # the one positive counts twice
    assert found["distillation_loss"].item() == pytest.approx(3)
    assert found["classification_loss"].item() == pytest.approx(classification)
    assert found["loss"].item() == pytest.approx(weight * 3 + classification)


def test_the_distillation_weight_is_1_where_none_is_given() -> None:
    batch = Batch(torch.zeros(2, 2, 3, 8, 8), TARGET, MASK, torch.eye(2), ["a", "b"], [])
    found = make_losses("cosine", 9)(Output(PREDICTED, PREDICTED, torch.zeros(2, 2)), batch)
    assert found["loss"].item() == pytest.approx((found["distillation_loss"] + found["classification_loss"]).item())


def test_unknown_mode_raises() -> None:
    with pytest.raises(ValueError, match="'l1'"):
        losses.distillation(PREDICTED, TARGET, MASK, "l1")


def test_positive_weight_9_makes_a_positive_count_ten_times() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 4), (torch.rand(5, 4) < 0.4).float()
    probability = logits.double().sigmoid()
    expected = -(10 * labels * probability.log() + (1 - labels) * (1 - probability).log()).mean()
    assert losses.classification(logits, labels, 9).item() == pytest.approx(expected.item(), rel=1e-5)


def test_positive_weight_0_is_plain_cross_entropy_worked_by_hand() -> None:
    logits, labels = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[1.0, 0.0]])
    assert losses.classification(logits, labels, 0).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    losses.classification(logits, torch.tensor([[0.0, 1.0]]), 9).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_masked_mean_counts_real_steps_only() -> None:
    values = torch.tensor([[1.0, 3.0, 100.0], [7.0, 100.0, 100.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert losses.masked_mean(values, mask).tolist() == [2.0, 7.0]
    assert losses.masked_mean(values[..., None].expand(-1, -1, 5), mask).tolist() == [[2.0] * 5, [7.0] * 5]


def test_masked_mean_of_nothing_is_zero() -> None:
    assert losses.masked_mean(torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [0.0]
