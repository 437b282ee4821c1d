"""Training of the student on a simulated card: memory of the default batch, one device, casts, copies, kernels."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import train
from tests.gpu.fake_card import FakeCard
from vimoclip import clip, moclip
from vimoclip.clip.encoder import encoder_config
from vimoclip.moclip.builder import Student
from vimoclip.moclip.dataset import SegmentBatch
from vimoclip.moclip.trainer import StudentTrainer
from vimoclip.training.checkpoint import parameter_bytes
from vimoclip.training.data_parallel import ModelReplica
from vimoclip.training.trainer import RunOptions

CUDA = torch.device("cuda:0")
CLASSES = 140  # of Animal Kingdom


def make_trainer(name: str, precision: str, *flags: str, layers: int | None = None) -> StudentTrainer:
    """Return the training of a student with random weights, of so many layers if given; its data set is empty."""
    args: Any = train.build_parser().parse_args(list(flags))
    encoder_settings = encoder_config(name)
    if layers:
        encoder_settings["architecture"]["vision_cfg"]["layers"] = layers
    encoder = clip.build_encoder(encoder_settings)
    width = encoder.config["embed_dim"]
    model, config = moclip.MoCLIP(encoder.visual, width, CLASSES, 0.1), {"num_classes": CLASSES}
    student = Student(model, encoder.preprocess, config, ["class"] * CLASSES)
    data = SimpleNamespace(segments=[], reader=SimpleNamespace(dim=width))
    splits: Any = SimpleNamespace(excluded=list, datasets=lambda *_: {"train": data, "val": data})
    return StudentTrainer(args, RunOptions(Path("run"), Path("logs"), CUDA, precision), student, splits)


def make_batch(trainer: StudentTrainer, segments: int) -> SegmentBatch:
    """Return full segments, as a loader gives them: on the CPU."""
    frames = trainer.args.sequence_length - 1
    shape, width = (segments, frames), trainer.model.residual_mlp.fc1.in_features
    flow = torch.zeros(*shape, 3, *trainer.input_size, dtype=torch.uint8)
    mask, labels = torch.ones(shape, dtype=torch.bool), torch.zeros(segments, CLASSES)
    keys = [f"v{i}" for i in range(segments)]
    return SegmentBatch(flow, torch.zeros(*shape, width), mask, labels, keys, [], list(range(segments)))


def take_step(trainer: StudentTrainer, segments: int) -> Mapping[str, float]:
    """Take a step and wait for its losses."""
    (losses,) = trainer.train_steps(ModelReplica(trainer.state), [make_batch(trainer, segments)])
    return losses.sums


def test_default_micro_batches_fit_the_card() -> None:
    """A batch of 32 segments of ViT-L/14 would take 224 GB at once, one of 2 takes 18."""
    with FakeCard() as card:
        trainer = make_trainer("ViT-L/14", "bf16")
        assert 2 <= trainer.micro_batch_size <= trainer.batch_size == 32
        card.reset()
        take_step(trainer, 2 * trainer.micro_batch_size)  # the second micro-batch finds gradients
        moments = 2 * parameter_bytes(trainer.model)  # of Adam, which the first step creates, after its peak
        assert card.peak_bytes + moments <= card.memory_bytes
        assert not card.num_failed_allocations


@pytest.mark.parametrize(("name", "precision"), [("ViT-B/32", "bf16"), ("RN50", "fp16")])
def test_step_stays_on_the_card(name: str, precision: str) -> None:
    """Two micro-batches; RN50 is computed at once, as it normalises over the batch."""
    with FakeCard() as card:
        trainer = make_trainer(name, precision, "--micro-batch-size", "1", "--grad-clip-norm", "1")
        trainer.objective.preprocess.normalize(torch.zeros(3, 1, 1, device=CUDA))  # copies mean and deviation
        weights = [parameter for parameter in trainer.model.parameters() if parameter.dim() > 1]
        card.reset()
        assert take_step(trainer, 2)["count"] == 2
        assert not card.mixed_device_operations()
        assert not card.float64_operations()
        copies = card.copies_to_card()
        assert len(copies) <= 4 + 2  # flow, embeddings, mask, labels; positions of frames in two micro-batches
        assert sum(copies[:4]) > 0.99 * sum(copies)
        assert card.num_synchronizations == 0
        assert len(card.streams.waits) == (
            2 if name == "ViT-B/32" else 1
        )  # for the losses of a micro-batch, asked for above
        assert card.count("aten._fused_adamw_") > 0
        shapes = {tuple(weight.shape) for weight in weights}
        casts = [op for op in card.operations if op.name == "aten._to_copy" and op.inputs[0].shape in shapes]
        assert sum(op.outputs[0].dtype.itemsize == 2 for op in casts) <= 2 * len(weights)


@pytest.mark.parametrize(
    "flags",
    [
        ["--freeze-encoder", "--grad-clip-norm", "1"],
        ["--distillation-loss-mode", "mse", "--micro-batch-size", "1"],
        ["--distillation-weight", "0", "--warmup-steps", "3", "--weight-decay", "0.1"],
    ],
)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_losses_of_a_step_are_read_after_the_next_is_launched(flags: list[str], precision: str) -> None:
    with FakeCard() as card:
        trainer = make_trainer("ViT-B/32", precision, *flags, layers=2)
        trainer.train_set = range(100)
        batches = [make_batch(trainer, 2) for _ in range(3)]
        card.reset()
        steps = trainer.train_steps(ModelReplica(trainer.state), batches)
        trainer.after_step(next(steps))
        assert not card.streams.waits
        kernels_before = card.num_kernels
        trainer.after_step(next(steps))
        assert min(card.streams.waits) > card.num_kernels - kernels_before  # kernels of a step
        assert trainer.progress.losses.count == 2  # segments, of the first step
        trainer.after_step(next(steps))
        trainer.read_losses()
        assert trainer.progress.losses.count == 6
        assert card.num_synchronizations == 0


def test_evaluation_stays_on_the_card() -> None:
    with FakeCard() as card:
        trainer = make_trainer("ViT-B/32", "bf16", "--micro-batch-size", "4", layers=2)
        batch = make_batch(trainer, 4)
        card.reset()
        result = trainer.evaluate([batch])
        assert len(result.videos) == 4
        assert card.num_synchronizations == 0
        assert not card.mixed_device_operations()
        assert not card.float64_operations()
