"""TFAM: agreement of the five fusions with the CPU; steps/s by videos per batch."""

import copy
from functools import partial
from typing import Any

import torch

from benchmarks.gpu_checks.check import Check, CheckContext, Measured, at_most
from benchmarks.gpu_checks.machine import product_share
from benchmarks.gpu_checks.measure import count_flop, gpu_activity, seconds_per_call
from benchmarks.inputs import CLASSES, DIM, video_lengths
from TFAM import config as tfam_config
from TFAM import loops, trainer
from TFAM.data import ClipFeatures, FusionBatch, collate
from TFAM.model import Fusion, FusionTransformer
from vimoclip.training.data_parallel import ModelReplica
from vimoclip.training.losses import MULTI_LABEL_LOSSES

BATCH_SIZES = (8, 32)
CPU = torch.device("cpu")


def make_config(fusion: str, context: CheckContext) -> tfam_config.Config:
    """Return the default config for a fusion, with the widths that a run takes from its data."""
    tiny = ["model.num_layers=1", "model.dim_feedforward=64"] if context.dry_run else []
    config = tfam_config.load([], [f"model.fusion={fusion}", *tiny])
    config["model"] |= {"d_model": DIM, "num_classes": CLASSES}
    return config


def generated_batch(videos: int, context: CheckContext) -> FusionBatch:
    """Return random embeddings of videos with a long-tailed distribution of lengths."""
    lengths = context.pick(video_lengths(videos), dry_run=[3 + number for number in range(videos)])
    clips = [
        ClipFeatures(
            str(number),
            torch.randn(length, DIM),
            torch.randn(length - 1, DIM),
            (torch.rand(CLASSES) < 0.02).float(),
        )
        for number, length in enumerate(lengths)
    ]
    return collate(clips)


@torch.inference_mode()
def measure_agreement(fusion: str, context: CheckContext) -> Measured:
    """Compare the logits with those of the CPU in float32, relative to their spread."""
    model = FusionTransformer(**make_config(fusion, context)["model"]).eval()
    batch = generated_batch(8, context)
    reference = model(*batch.model_inputs(CPU))
    logits = copy.deepcopy(model).to(context.device)(*batch.model_inputs(context.device)).cpu()
    return {"relative_logit_difference": ((logits - reference).abs().max() / reference.std()).item()}


class FusionSteps:
    """Training steps of TFAM on one generated batch."""

    def __init__(self, videos: int, context: CheckContext):
        config = make_config(Fusion.CROSS_ATTENTION, context)
        state = trainer.make_train_state(config, context.device, context.precision)
        self.replica, self.batch = ModelReplica(state), generated_batch(videos, context)
        loss_function = MULTI_LABEL_LOSSES[config["training"]["loss"]]
        self.settings: Any = (loss_function, context.device, context.precision)

    def __call__(self) -> None:
        for _ in loops.train_steps(self.replica, [self.batch], *self.settings):
            pass

    def flop(self, device: torch.device) -> float:
        """Return the FLOP of a step: three times those of the forward pass."""
        inputs = self.batch.model_inputs(device)
        return 3 * count_flop(lambda: self.replica.state.model(*inputs))


def measure_steps(videos: int, context: CheckContext) -> Measured:
    """Measure steps/s from a batch on the host, without reading files."""
    steps = FusionSteps(videos, context)
    seconds = seconds_per_call(steps, context.device, context.pick(2.0, dry_run=0.0))
    measured: Measured = {"steps_per_second": 1 / seconds, "videos_per_second": videos / seconds}
    if context.device.type == "cuda":
        measured |= gpu_activity(steps, context.device, seconds)
    return measured | product_share(context, steps.flop(context.device) / seconds)


CHECKS = [
    Check(
        f"TFAM {fusion}",
        "logits of random weights against the CPU, float32",
        partial(measure_agreement, fusion),
        # TF32 would give about 1e-3
        (at_most("relative_logit_difference", 1e-4, dry_run=1e-6),),
    )
    for fusion in Fusion
]
RATE_CHECKS = [
    Check(
        f"TFAM {videos} videos",
        f"training steps of {videos} videos, cross_attention, automatic precision",
        partial(measure_steps, videos),
    )
    for videos in BATCH_SIZES
]
