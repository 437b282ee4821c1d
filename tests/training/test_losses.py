"""Losses against values computed by hand."""

import math

import pytest
import torch

from tests.moclip.helpers import make_objective
from vimoclip.moclip import StudentOutput
from vimoclip.moclip.dataset import SegmentBatch
from vimoclip.training import losses

MASK = torch.tensor([[True, True], [True, False]])
PREDICTED = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 2.0], [0.0, 0.0]]])
TARGET = torch.tensor([[[2.0, 0.0], [0.0, 3.0]], [[0.0, -1.0], [0.0, 0.0]]])


def with_garbage(values: torch.Tensor, garbage: float) -> torch.Tensor:
    """Return a copy with another value at padding."""
    values = values.clone()
    values[~MASK] = garbage
    return values


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # segment 1: (1 - 1 + 1 - 1/sqrt 2) / 2; segment 2, of one frame: 1 - -1
        ("cosine", ((1 - math.sqrt(0.5)) / 2 + 2) / 2),
        # segment 1: (1/2 + (1 + 4)/2) / 2; segment 2: 9/2
        ("mse", (1.5 + 4.5) / 2),
    ],
)
def test_distillation_loss_by_hand(mode: str, expected: float) -> None:
    assert losses.distillation_loss(PREDICTED, TARGET, MASK, mode).item() == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["cosine", "mse"])
@pytest.mark.parametrize("garbage", [-7.0, 1e15])
def test_padding_changes_neither_loss_nor_gradient(mode: str, garbage: float) -> None:
    results = []
    for value in (0.0, garbage):
        predicted = with_garbage(PREDICTED, value).requires_grad_()
        loss = losses.distillation_loss(predicted, with_garbage(TARGET, -value), MASK, mode)
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
    assert losses.distillation_loss(predicted, target, mask, mode).item() == pytest.approx(
        losses.distillation_loss(PREDICTED, TARGET, MASK, mode).item()
    )


@pytest.mark.parametrize("mode", ["cosine", "mse"])
def test_zero_vectors_give_finite_loss_and_gradients(mode: str) -> None:
    predicted = torch.zeros(2, 2, 4, requires_grad=True)
    loss = losses.distillation_loss(predicted, torch.zeros(2, 2, 4), MASK, mode)
    loss.backward()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()
    assert loss.item() == (1 if mode == "cosine" else 0)


def test_norms_are_clamped_at_1e_5() -> None:
    small, unit = torch.tensor([[[1e-6, 0.0]]]), torch.tensor([[[1.0, 0.0]]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    assert losses.distillation_loss(small, unit, mask, "cosine").item() == pytest.approx(1 - 0.1)
    assert losses.distillation_loss(unit * 1e-4, unit, mask, "cosine").item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_the_loss_is_classification_plus_weighted_distillation(weight: float) -> None:
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    batch = SegmentBatch(torch.zeros(2, 2, 3, 8, 8), TARGET, MASK, labels, ["a", "b"], [])
    output = StudentOutput(PREDICTED, PREDICTED, torch.zeros(2, 2))
    _, loss_values = make_objective("mse", 1, weight)(lambda *_: output, batch)
    classification = (2 + 1 + 1 + 1) / 4 * math.log(2)  # the one positive has weight 2
    assert loss_values["distillation_loss"].item() == pytest.approx(3)
    assert loss_values["classification_loss"].item() == pytest.approx(classification)
    assert loss_values["loss"].item() == pytest.approx(weight * 3 + classification)


@pytest.mark.parametrize("weight", [0, 9])
def test_class_positive_weight_is_added_to_the_weight_of_positives(weight: float) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 4), (torch.rand(5, 4) < 0.4).float()
    probability = logits.double().sigmoid()
    expected = -((weight + 1) * labels * probability.log() + (1 - labels) * (1 - probability).log()).mean()
    assert losses.classification_loss(logits, labels, weight).item() == pytest.approx(expected.item(), rel=1e-5)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    losses.classification_loss(logits, torch.tensor([[0.0, 1.0]]), 9).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_masked_mean_ignores_padding() -> None:
    values = torch.tensor([[1.0, 3.0, 100.0], [7.0, 100.0, 100.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert losses.masked_mean(values, mask).tolist() == [2.0, 7.0]
    assert losses.masked_mean(values[..., None].expand(-1, -1, 5), mask).tolist() == [[2.0] * 5, [7.0] * 5]


def test_masked_mean_without_real_frames_is_zero() -> None:
    assert losses.masked_mean(torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [0.0]


LOGITS = torch.tensor([[0.0, math.log(3.0)], [-math.log(3.0), -math.log(99.0)]])  # p: 1/2, 3/4; 1/4, 1/100
LABELS = torch.tensor([[1.0, 0.0], [1.0, 0.0]])


def test_bce_is_the_plain_mean_by_hand() -> None:
    expected = -(math.log(1 / 2) + math.log(1 / 4) + math.log(1 / 4) + math.log(99 / 100)) / 4
    assert losses.MULTI_LABEL_LOSSES["bce"](LOGITS, LABELS).item() == pytest.approx(expected)


def test_focal_by_hand() -> None:
    # p_t: 1/2, 1/4, 1/4, 99/100; factors (1 - p_t)^2: 1/4, 9/16, 9/16, 1/10000
    # 0.173287 + 0.779790 + 0.779790 + 0.000001 = 1.732868, a quarter of which is 0.433217
    expected = (math.log(2) / 4 + 2 * 9 / 16 * math.log(4) - math.log(0.99) / 10_000) / 4
    assert expected == pytest.approx(0.433217, abs=1e-6)
    assert losses.MULTI_LABEL_LOSSES["focal"](LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-6)


def test_asymmetric_by_hand() -> None:
    # positives, p = 1/2 and 1/4: (1/2) ln 2 = 0.346574 and (3/4) ln 4 = 1.039721
    # negatives, p = 3/4 and 1/100: q = 0.7 and 0; 0.7^4 * -ln 0.3 = 0.2401 * 1.203973 = 0.289074, and 0
    expected = (0.346574 + 1.039721 + 0.289074 + 0) / 4
    assert losses.MULTI_LABEL_LOSSES["asymmetric"](LOGITS, LABELS).item() == pytest.approx(expected, abs=1e-6)


def test_negatives_below_the_margin_have_zero_loss_and_gradient() -> None:
    logits = torch.tensor([[-3.0]], requires_grad=True)  # p = 0.047
    loss = losses.MULTI_LABEL_LOSSES["asymmetric"](logits, torch.zeros(1, 1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.item() == 0


def test_gradient_of_asymmetric_by_hand() -> None:
    logits = torch.tensor([[0.0]], requires_grad=True)
    losses.MULTI_LABEL_LOSSES["asymmetric"](logits, torch.ones(1, 1)).backward()
    # of -(1 - p) log p by the logit at p = 1/2: p (1 - p) log p - (1 - p)^2 = -ln(2) / 4 - 1/4
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(-math.log(2) / 4 - 1 / 4)


@pytest.mark.parametrize("name", losses.MULTI_LABEL_LOSSES)
@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("size", [20.0, 100.0, 1e4])
def test_large_logits_give_finite_losses_and_gradients(name: str, label: float, size: float) -> None:
    logits = torch.tensor([[size, -size]], requires_grad=True)
    loss = losses.MULTI_LABEL_LOSSES[name](logits, torch.full((1, 2), label))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", losses.MULTI_LABEL_LOSSES)
def test_losses_are_float32_under_autocast(name: str) -> None:
    loss = losses.MULTI_LABEL_LOSSES[name]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss_value = loss(LOGITS.bfloat16(), LABELS)
    assert loss_value.dtype == torch.float32
    assert loss_value.item() == pytest.approx(loss(LOGITS.bfloat16().float(), LABELS).item(), rel=1e-5)
