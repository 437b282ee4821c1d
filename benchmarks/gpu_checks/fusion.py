"""TFAM: agreement of the five fusions with the CPU; steps/s by videos per batch."""

import copy
from functools import partial
from typing import Any

import torch

from benchmarks.gpu_checks.check import Check, CheckContext, Measured, at_least, at_most
from benchmarks.gpu_checks.measure import seconds_per_call
from benchmarks.gpu_checks.products import SHARE, product_share
from benchmarks.gpu_checks.trace import PIPELINE_LIMITS, pipeline_activity
from benchmarks.inputs import CLASSES, DIM, video_lengths
from TFAM import config as tfam_config
from TFAM import loops, trainer
from TFAM.data import ClipFeatures, FusionBatch, collate
from TFAM.packing import Fusion
from TFAM.probes import build_model
from vimoclip.training.data_parallel import ModelReplica
from vimoclip.training.late_fetch import delay_by_one
from vimoclip.training.losses import MULTI_LABEL_LOSSES

DEFAULT_VIDEOS = 8  # of TFAM/configs/default.yaml
STEPS = 8  # until the losses of a call are read
BATCH_SIZES = (DEFAULT_VIDEOS, 32)
CPU = torch.device("cpu")


def make_config(fusion: str, context: CheckContext) -> tfam_config.Config:
    """Return the default config for a fusion, with the widths that a run takes from its data."""
    tiny = ["model.num_layers=1", "model.dim_feedforward=64"] if context.dry_run else []
    config = tfam_config.load([], [f"model.fusion={fusion}", *tiny])
    config["model"] |= {"d_model": DIM, "num_classes": CLASSES}
    return config


def batch_lengths(videos: int, context: CheckContext) -> list[int]:
    """Return a long-tailed distribution of lengths."""
    return context.pick(video_lengths(videos), dry_run=[3 + number for number in range(videos)])


def generated_batch(lengths: list[int]) -> FusionBatch:
    """Return random embeddings of videos of these lengths."""
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
    model = build_model(make_config(fusion, context)["model"]).eval()
    batch = generated_batch(batch_lengths(8, context))
    reference = model(*batch.model_inputs(CPU))
    logits = copy.deepcopy(model).to(context.device)(*batch.model_inputs(context.device)).cpu()
    return {"relative_logit_difference": ((logits - reference).abs().max() / reference.std()).item()}


class FusionSteps:
    """Training steps of TFAM on one generated batch."""

    def __init__(self, lengths: list[int], context: CheckContext):
        config = make_config(Fusion.CROSS_ATTENTION, context)
        state = trainer.make_train_state(config, context.device, context.precision)
        batch = generated_batch(lengths)
        rgb, motion = batch.model_inputs(context.device)  # a run keeps embeddings in the GPU's memory where they fit
        assert rgb
        labels = batch.labels.to(context.device)
        self.replica, self.batch = ModelReplica(state), batch._replace(rgb=rgb, motion=motion, labels=labels)
        loss_function = MULTI_LABEL_LOSSES[config["training"]["loss"]]
        self.settings: Any = (loss_function, context.device, context.precision)

    def __call__(self, steps: int = 1) -> None:
        """Take steps, and read the losses of each after the next one is launched, as in a run."""
        for losses in delay_by_one(loops.train_steps(self.replica, [self.batch] * steps, *self.settings)):
            losses.means()

    def bytes(self) -> float:
        """Return the bytes of the batch's embeddings."""
        tokens = [self.batch.rgb, self.batch.motion]
        return float(sum(packed.x.nbytes for packed in tokens if packed is not None))


def measure_steps(videos: int, context: CheckContext) -> Measured:
    """Measure steps/s from a batch on the host, without reading files."""
    steps = FusionSteps(batch_lengths(videos, context), context)
    count = context.pick(STEPS, dry_run=1)
    work = partial(steps, count)
    seconds = seconds_per_call(work, context.device, context.pick(2.0, dry_run=0.0)) / count
    measured: Measured = {"steps_per_second": 1 / seconds, "videos_per_second": videos / seconds}
    measured |= pipeline_activity(work, context.device, count * seconds, count, count * steps.bytes())
    return measured | product_share(context, steps, seconds)


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
        (*PIPELINE_LIMITS, at_least(SHARE, 0.6, needs_gpu=True)) if videos == DEFAULT_VIDEOS else (),
    )
    for videos in BATCH_SIZES
]
