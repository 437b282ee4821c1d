"""The fusion Transformer on a simulated card: one device, no float64, copies and synchronizations per batch."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.gpu.fake_card import FakeCard
from TFAM import config, loops
from TFAM.data import ClipFeatures, FusionBatch, collate
from TFAM.model import Fusion, Pooling
from TFAM.trainer import make_train_state
from vimoclip.training.data_parallel import ModelReplica

CUDA = torch.device("cuda:0")
WIDTH, CLASSES = 512, 140
LENGTHS = {Pooling.MASKED: (30, 17, 2, 64), Pooling.PADDED_MEAN: (30, 30, 30, 30)}  # all of a card's masks are true
KERNELS = 1150  # budget of a step
# of a step: is the loss finite, and what is it; with padding, each layer asks how many tokens are none
SYNCHRONIZATIONS = {Pooling.MASKED: 2, Pooling.PADDED_MEAN: 14}


def make_config(fusion: str, pooling: str) -> Mapping[str, Any]:
    """Return the default config for this fusion, with the sizes that the embeddings determine."""
    overrides = [f"model.fusion={fusion}", f"model.pooling={pooling}", "model.positions=true"]
    found = config.load([], [*overrides, "training.grad_clip_norm=1"])
    found["model"] |= {"d_model": WIDTH, "num_classes": CLASSES}
    return found


def make_batch(fusion: str, pooling: str) -> FusionBatch:
    """Return videos as a loader gives them: on the CPU."""
    clips = []
    for length in LENGTHS[Pooling(pooling)]:
        motion = None if fusion == Fusion.RGB else torch.zeros(length - 1, WIDTH)
        clips.append(ClipFeatures("video", torch.zeros(length, WIDTH), motion, torch.zeros(CLASSES)))
    return collate(clips, pooling)


@pytest.mark.parametrize(
    ("fusion", "pooling"),
    [*((fusion, Pooling.MASKED) for fusion in Fusion), (Fusion.CROSS_ATTENTION, Pooling.PADDED_MEAN)],
)
def test_step_and_evaluation_stay_on_the_card(fusion: str, pooling: str) -> None:
    with FakeCard() as card:
        state = make_train_state(make_config(fusion, pooling), CUDA, "bf16")
        batch, loss = make_batch(fusion, pooling), F.binary_cross_entropy_with_logits
        card.reset()
        (losses,) = loops.train_steps(ModelReplica(state), [batch], loss, CUDA, "bf16")
        assert losses.count == len(batch.videos)
        streams, tensors = 1 if batch.motion is None else 2, 1 if pooling == Pooling.MASKED else 2
        assert len(card.copies_to_card()) == streams * tensors + 1  # embeddings, masks, labels
        assert card.num_synchronizations <= SYNCHRONIZATIONS[Pooling(pooling)]
        assert card.num_kernels <= KERNELS

        result = loops.evaluate(state.model, [batch], loss, CUDA, "bf16")
        assert result.probabilities.shape == (len(batch.videos), CLASSES)
        assert not card.mixed_device_operations()
        assert not card.float64_operations()


def test_fp16_scales_gradients_on_the_card() -> None:
    with FakeCard() as card:
        state = make_train_state(make_config(Fusion.CROSS_ATTENTION, Pooling.MASKED), CUDA, "fp16")
        batch = make_batch(Fusion.CROSS_ATTENTION, Pooling.MASKED)
        list(loops.train_steps(ModelReplica(state), [batch], F.binary_cross_entropy_with_logits, CUDA, "fp16"))
        assert card.count("aten._amp_update_scale_") == 1
        assert card.count("aten._fused_adamw_") > 0
        assert not card.mixed_device_operations()
        assert not card.float64_operations()
