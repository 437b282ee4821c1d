"""Training and evaluation loops of the student."""

import pytest
import torch

from tests.moclip.helpers import MeanColorEncoder, make_objective, make_replica
from vimoclip import moclip
from vimoclip.moclip import loops
from vimoclip.moclip.dataset import SegmentBatch


def make_batch(lengths: list[int], keys: list[str]) -> SegmentBatch:
    generator = torch.Generator().manual_seed(0)
    flow = torch.randint(0, 256, (len(lengths), 5, 3, 8, 8), generator=generator, dtype=torch.uint8)
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    z_image = torch.randn(len(lengths), 5, 4, generator=generator)
    return SegmentBatch(flow, z_image, mask, torch.eye(2)[torch.arange(len(keys)) % 2], keys, [])


@pytest.mark.parametrize("frozen", [True, False])
def test_only_a_frozen_encoder_stays_unchanged(frozen: bool) -> None:
    torch.manual_seed(0)
    model = moclip.MoCLIP(MeanColorEncoder(), 4, 2, 0.1)
    model.visual_encoder.requires_grad_(not frozen)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    list(loops.train_steps(make_replica(model), [make_batch([5, 3], ["a", "b"])] * 2, make_objective()))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("visual_encoder") for name in changed) != frozen
    assert any(name.startswith("classification_head") for name in changed)


@pytest.mark.parametrize(("weight", "matters"), [(0.0, False), (0.1, True)])
def test_the_teacher_matters_only_with_a_distillation_weight(weight: float, matters: bool) -> None:
    state_dicts = []
    for sign in (1, -1):
        torch.manual_seed(0)
        model = moclip.MoCLIP(MeanColorEncoder(), 4, 2, 0.1)
        batch = make_batch([5, 3], ["a", "b"])
        batch = batch._replace(z_image=sign * batch.z_image)
        list(loops.train_steps(make_replica(model), [batch] * 2, make_objective(weight=weight)))
        state_dicts.append(model.state_dict())
    assert any(not torch.equal(state_dicts[0][name], state_dicts[1][name]) for name in state_dicts[0]) == matters


def test_video_scores_are_length_weighted_means_over_segments() -> None:
    torch.manual_seed(0)
    model = moclip.MoCLIP(MeanColorEncoder().eval(), 4, 2, 0.1).eval()
    batch, objective = make_batch([5, 2, 4], ["long", "long", "short"]), make_objective("mse")
    means, videos, probabilities, labels = loops.evaluate(model, [batch], objective)
    segment_scores = model(objective.preprocess.normalize(batch.flow), batch.mask).logits.sigmoid()
    assert torch.equal(labels, batch.labels[1:])
    assert videos == ["long", "short"]
    assert torch.allclose(probabilities[0], (5 * segment_scores[0] + 2 * segment_scores[1]) / 7)
    assert torch.allclose(probabilities[1], segment_scores[2])
    assert means["loss"] == pytest.approx(means["distillation_loss"] + means["classification_loss"], rel=1e-5)
