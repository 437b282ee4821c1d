"""Micro-batches."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from tests.moclip.helpers import MeanColorEncoder, make_replica, make_student
from vimoclip import clip, moclip
from vimoclip.moclip import dataset, loops, trainer


def compute_gradients(
    name: str, batch: dataset.SegmentBatch, micro_batch_size: int | None
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


def make_uneven_batch(lengths: list[int]) -> dataset.SegmentBatch:
    """Return random segments of these numbers of frames."""
    generator = torch.Generator().manual_seed(1)
    shape = len(lengths), max(lengths)
    flow = torch.randint(0, 256, (*shape, 3, 32, 32), generator=generator, dtype=torch.uint8)
    mask = torch.arange(shape[1])[None] < torch.tensor(lengths)[:, None]
    labels = torch.eye(3)[torch.arange(len(lengths)) % 3]
    return dataset.SegmentBatch(
        flow, torch.randn(*shape, 32, generator=generator), mask, labels, [*map(str, lengths)], []
    )


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_add_up_to_the_gradient_and_loss_of_the_batch(tiny_clip: str, size: int) -> None:
    batch = make_uneven_batch([7, 2, 5, 1, 6])
    expected_gradients, expected_losses = compute_gradients(tiny_clip, batch, None)
    gradients, loss_sums = compute_gradients(tiny_clip, batch, size)
    assert gradients.keys() == expected_gradients.keys()
    assert loss_sums == pytest.approx(expected_losses, rel=1e-6)
    for name, gradient in expected_gradients.items():
        assert torch.allclose(gradient, gradients[name], rtol=1e-4, atol=1e-6 * float(gradient.abs().max())), name


def test_a_batch_is_not_split_if_the_encoder_normalises_over_it() -> None:
    model = moclip.MoCLIP(MeanColorEncoder(), 4, 2, 0.1).train()
    assert trainer.resolve_micro_batch_size(2, model, 8, segment_length=5) == 8
    model.visual_encoder.eval()  # as a frozen encoder
    assert trainer.resolve_micro_batch_size(2, model, 8, segment_length=5) == 2
    assert trainer.resolve_micro_batch_size(None, model, 99, segment_length=5) == trainer.CPU_MICRO_BATCH_FRAMES // 5
