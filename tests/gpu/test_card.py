"""What needs a real CUDA card: its numbers against those of the CPU. `python -m benchmarks gpu` measures much more."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import train
from tests.conftest import moving_frames
from tests.moclip.helpers import make_batch, make_objective, make_student
from tests.tfam.helpers import build_model, random_clips
from TFAM.data import collate
from TFAM.packing import Fusion, Pooling
from vimoclip import clip, flow
from vimoclip.clip.encoder import encoder_config
from vimoclip.moclip import loops
from vimoclip.moclip.trainer import make_train_state
from vimoclip.runtime.device import autocast, select_device
from vimoclip.training import checkpoint
from vimoclip.training.checkpoint import TrainState
from vimoclip.training.data_parallel import ModelReplica

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def card() -> torch.device:
    return select_device("cuda")


@pytest.mark.parametrize(("precision", "least"), [("fp32", 1 - 1e-6), ("bf16", 0.999), ("fp16", 1 - 1e-4)])
@pytest.mark.parametrize("name", ["ViT-B/32", "RN50"])
def test_embeddings_equal_those_of_the_cpu(card: torch.device, name: str, precision: str, least: float) -> None:
    """`least`: cosine of an embedding with random weights."""
    torch.manual_seed(0)
    encoder = clip.build_encoder(encoder_config(name))
    images = torch.randint(0, 256, (5, 3, 224, 224), dtype=torch.uint8)
    expected = encoder.freeze(CPU).encode(images)
    assert F.cosine_similarity(encoder.freeze(card, precision).encode(images), expected).min() >= least


def make_raft(device: torch.device, precision: str) -> flow.PTLFlowModel:
    torch.manual_seed(0)
    return flow.PTLFlowModel("raft", None, 4, device, partial(autocast, device, precision))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 0.05), ("fp16", 0.01)])
def test_flow_equals_that_of_the_cpu(card: torch.device, precision: str, tolerance: float) -> None:
    """`tolerance`: mean error, in parts of the mean length of a vector."""
    frames = moving_frames(4, (2, 1), 160, 200)
    expected = make_raft(CPU, "fp32")(frames)
    error = np.linalg.norm(make_raft(card, precision)(frames) - expected, axis=-1).mean()
    assert error <= tolerance * np.linalg.norm(expected, axis=-1).mean()


def test_flow_of_1080p_is_computed_in_batches(card: torch.device) -> None:
    """A batch of eight pairs gives grid_sample 259,200 samples; cuDNN takes 65,535."""
    frames = moving_frames(9, (2, 1), 1080, 1920)
    model = make_raft(card, "bf16")
    vectors = model(frames)
    assert vectors.shape == (8, 1080, 1920, 2)
    assert np.isfinite(vectors).all()
    assert np.abs(model(frames[3:5])[0] - vectors[3]).mean() <= 0.02 * np.abs(vectors[3]).mean()


def test_student_resumes_on_another_device(card: torch.device, tiny_clip: str, tmp_path: Path) -> None:
    """CPU, GPU, CPU, two steps each."""
    uninterrupted = make_state(tiny_clip, CPU)
    take_steps(uninterrupted, range(6))
    path = tmp_path / "last.pth"
    for number, device in enumerate((CPU, card, CPU)):
        state = make_state(tiny_clip, device)
        if number:
            state.restore(checkpoint.load_checkpoint(path), path)
        take_steps(state, range(2 * number, 2 * number + 2))
        checkpoint.save_checkpoint(path, state.state_dict())
    for parameter, expected in zip(state.model.parameters(), uninterrupted.model.parameters(), strict=True):
        assert torch.allclose(parameter, expected, atol=1e-4)  # a step changes weights by up to 0.001


def make_state(name: str, device: torch.device) -> TrainState:
    torch.manual_seed(0)
    model, _ = make_student(clip.load_encoder(name, None))
    return make_train_state(train.build_parser().parse_args([]), model.to(device), "fp32")


def take_steps(state: TrainState, steps: range) -> None:
    for step in steps:
        batch = make_batch([5, 3, 4], ["a", "b", "c"], 32, 32, 3)
        batch = batch._replace(flow=batch.flow.roll(step, -1))
        list(loops.train_steps(ModelReplica(state), [batch], make_objective()))


@pytest.mark.parametrize("fusion", Fusion)
def test_logits_equal_those_of_the_cpu(card: torch.device, fusion: str) -> None:
    model = build_model(fusion, positions=True).eval()
    batch = collate(random_clips([9, 2, 30]), Pooling.MASKED)
    with torch.inference_mode():
        expected = model(*batch.model_inputs(CPU))
        logits = model.to(card)(*batch.model_inputs(card)).cpu()
    assert torch.allclose(logits, expected, atol=1e-5)
