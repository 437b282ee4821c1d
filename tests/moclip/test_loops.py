"""Training and evaluation loops of the student, and micro-batches."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch

from tests.moclip.helpers import MeanColorEncoder, make_batch, make_objective, make_replica, make_student
from vimoclip import clip, moclip
from vimoclip.moclip import loops
from vimoclip.moclip.dataset import SegmentBatch
from vimoclip.moclip.micro_batch import MICRO_BATCH_FRAMES, choose_micro_batch_size
from vimoclip.runtime import device


@pytest.mark.parametrize("frozen", [True, False])
def test_only_a_frozen_encoder_stays_unchanged(frozen: bool) -> None:
    torch.manual_seed(0)
    model = moclip.MoCLIP(MeanColorEncoder(), 4, 2, 0.1)
    model.visual_encoder.requires_grad_(not frozen)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    list(loops.train_steps(make_replica(model), [make_batch([5, 3], ["a", "b"], 8, 4, 2)] * 2, make_objective()))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("visual_encoder") for name in changed) != frozen
    assert any(name.startswith("classification_head") for name in changed)


@pytest.mark.parametrize(("weight", "matters"), [(0.0, False), (0.1, True)])
def test_the_teacher_matters_only_with_a_distillation_weight(weight: float, matters: bool) -> None:
    state_dicts = []
    for sign in (1, -1):
        torch.manual_seed(0)
        model = moclip.MoCLIP(MeanColorEncoder(), 4, 2, 0.1)
        batch = make_batch([5, 3], ["a", "b"], 8, 4, 2)
        batch = batch._replace(z_image=sign * batch.z_image)
        list(loops.train_steps(make_replica(model), [batch] * 2, make_objective(weight=weight)))
        state_dicts.append(model.state_dict())
    assert any(not torch.equal(state_dicts[0][name], state_dicts[1][name]) for name in state_dicts[0]) == matters


def test_video_scores_are_length_weighted_means_over_segments() -> None:
    torch.manual_seed(0)
    model = moclip.MoCLIP(MeanColorEncoder().eval(), 4, 2, 0.1).eval()
    batch, objective = make_batch([5, 2, 4], ["long", "long", "short"], 8, 4, 2), make_objective("mse")
    means, videos, probabilities, labels = loops.evaluate(model, [batch], objective)
    segment_scores = model(objective.preprocess.normalize(batch.flow), batch.mask).logits.sigmoid()
    assert torch.equal(labels, batch.labels[1:])
    assert videos == ["long", "short"]
    assert torch.allclose(probabilities[0], (5 * segment_scores[0] + 2 * segment_scores[1]) / 7)
    assert torch.allclose(probabilities[1], segment_scores[2])
    assert means["loss"] == pytest.approx(means["distillation_loss"] + means["classification_loss"], rel=1e-5)


def compute_gradients(
    name: str, batch: SegmentBatch, micro_batch_size: int | None
) -> tuple[dict[str, torch.Tensor], Any]:
    """Return (gradients by parameter, summed losses) of a new student of the CLIP `name`."""
    encoder = clip.load_encoder(name, None)
    torch.manual_seed(3)
    model = make_student(encoder)[0].train()
    torch.nn.init.normal_(model.residual_mlp.fc2.weight)
    objective = loops.StudentObjective(encoder.preprocess, nullcontext, "cosine", 9)
    replica = make_replica(model, lr=0.0)
    (meter,) = loops.train_steps(replica, [batch], objective, micro_batch_size)
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, meter.sums


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_add_up_to_the_gradient_and_loss_of_the_batch(tiny_clip: str, size: int) -> None:
    batch = make_batch([7, 2, 5, 1, 6], list("abcde"), 32, 32, 3)
    expected_gradients, expected_losses = compute_gradients(tiny_clip, batch, None)
    gradients, loss_sums = compute_gradients(tiny_clip, batch, size)
    assert gradients.keys() == expected_gradients.keys()
    assert loss_sums == pytest.approx(expected_losses, rel=1e-6)
    for name, gradient in expected_gradients.items():
        assert torch.allclose(gradient, gradients[name], rtol=1e-4, atol=1e-6 * float(gradient.abs().max())), name


def test_a_batch_is_not_split_if_the_encoder_normalises_over_it() -> None:
    model = moclip.MoCLIP(MeanColorEncoder(), 4, 2, 0.1).train()
    objective: Any = None  # not called on a CPU
    assert choose_micro_batch_size(2, 8, model, objective, 5) == 8
    model.visual_encoder.eval()  # as a frozen encoder
    assert choose_micro_batch_size(2, 8, model, objective, 5) == 2
    assert choose_micro_batch_size(None, 99, model, objective, 5) == MICRO_BATCH_FRAMES // 5


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("scale", [2.0**40, 1024.0])
def test_fp16_skips_a_step_whose_gradient_overflows_and_takes_the_others(tiny_clip: str, scale: float) -> None:
    """Two micro-batches, with clipping, as on a GPU without bf16."""
    batch = make_batch([7, 2, 5], list("abc"), 32, 32, 3)
    weights: dict[str, list[torch.Tensor]] = {}
    for precision in ("fp32", "fp16"):
        encoder = clip.load_encoder(tiny_clip, None)
        torch.manual_seed(3)
        model = make_student(encoder)[0]
        before = [parameter.detach().clone() for parameter in model.parameters()]
        autocast = partial(device.autocast, torch.device("cpu"), precision)
        objective = loops.StudentObjective(encoder.preprocess, autocast, "cosine", 9)
        replica = make_replica(model, lr=1e-3)
        state = replica.state
        if scale > 1e9:
            state.optimizer = torch.optim.AdamW(model.parameters(), fused=True)  # as train.py's
        else:
            state.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)  # its steps are proportional to the gradients
        state.grad_clip_norm = 0.1
        state.scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=precision == "fp16")
        list(loops.train_steps(replica, [batch], objective, 2))
        weights[precision] = [after - b for after, b in zip(model.parameters(), before, strict=True)]
    exact, rounded = (torch.cat([step.flatten() for step in weights[name]]).detach() for name in ("fp32", "fp16"))
    if scale > 1e9:
        assert exact.norm() > 0
        assert rounded.norm() == 0
        assert state.scaler.get_scale() == scale / 2
    else:
        assert exact.norm() == pytest.approx(0.1, rel=1e-4)
        assert (rounded - exact).norm() < 0.01 * exact.norm()
