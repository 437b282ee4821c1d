"""Image encoders with random weights: agreement with the CPU, frames/s, launches, casts of weights."""

import copy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu_checks.check import Check, CheckContext, Measured, at_least, at_most
from benchmarks.gpu_checks.machine import product_share
from benchmarks.gpu_checks.measure import (
    count_flop,
    count_weight_casts,
    embedding_agreement,
    gpu_activity,
    seconds_per_call,
)
from vimoclip import clip
from vimoclip.training.data_parallel import batch_norm_layers

CPU = torch.device("cpu")
# open_clip's name -> image tower of a dry run. ViT-B/32 is OpenAI's name, so with QuickGELU
TOWERS: dict[str, dict[str, Any]] = {
    "ViT-B/32": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "ViT-B-16-SigLIP": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear"},
    "RN50": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None, "head_width": 32},
}
DRY_RUN_WIDTH = 64
BATCH_SIZES, DRY_RUN_BATCH_SIZES = (16, 64, 256, 512), (2, 4)
PROFILED_BATCH_SIZE = 64
# Least cosine with float32 on the CPU after subtracting the mean. Measured on a CPU for 8 frames: fp16, whose matrix
# products are as exact as TF32, 0.99998; bf16 0.999; exchanged colours -0.5. So TF32 is noticed in fp32.
MIN_COSINES = {"fp32": 0.999999, "bf16": 0.99, "fp16": 0.999}

# of the pooling layer's query or positions, in towers of timm and ResNets; all weights are 60 or more
MAX_WEIGHT_CASTS = 1


def make_encoder(name: str, context: CheckContext) -> clip.ImageEncoder:
    """Return an encoder with random weights. Batch normalization has the statistics of the `smooth_frames`."""
    config = clip.encoder_config(name)
    if context.dry_run:
        tower, size = TOWERS[name], TOWERS[name]["image_size"]
        config |= {"embed_dim": DRY_RUN_WIDTH, "image_size": [size, size]}
        config["architecture"] = {"embed_dim": DRY_RUN_WIDTH, "vision_cfg": tower, "quick_gelu": config["quick_gelu"]}
    encoder = clip.build_encoder(config)
    layers: list[Any] = batch_norm_layers(encoder.visual)
    if layers:  # with the initial statistics, embeddings of all frames are almost equal
        with torch.no_grad():
            for layer in layers:
                layer.momentum = 1.0
                layer.weight.clamp_(min=0.2)  # open_clip's zeros would switch off the residual branches
            encoder.visual.train()(encoder.preprocess.normalize(smooth_frames(encoder, 8)))
    encoder.visual.eval()
    return encoder


def smooth_frames(encoder: clip.ImageEncoder, count: int) -> torch.Tensor:
    """Return (n, 3, S, S) uint8 frames of smooth random colours, which have unequal embeddings, unlike noise."""
    colors = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    images = F.interpolate(colors, encoder.preprocess.size, mode="bicubic", align_corners=False)
    return (images.clamp(0, 1) * 255).to(torch.uint8)


def freeze(encoder: clip.ImageEncoder, device: torch.device, precision: str) -> clip.ImageEncoder:
    """Return a frozen copy, as the extraction scripts use it."""
    return clip.ImageEncoder(copy.deepcopy(encoder.visual), encoder.config).freeze(device, precision)


def measure_agreement(name: str, precision: str, context: CheckContext) -> Measured:
    """Compare embeddings of the GPU with those of the CPU in float32."""
    context.require_fast(precision)
    encoder = make_encoder(name, context)
    frames = smooth_frames(encoder, context.pick(8, dry_run=4))
    reference = freeze(encoder, CPU, "fp32").encode(frames)
    return embedding_agreement(reference, freeze(encoder, context.device, precision).encode(frames))


def measure_casts(name: str, context: CheckContext) -> Measured:
    """Count the casts of weights in a batch, in the precision that the scripts select."""
    encoder = freeze(make_encoder(name, context), context.device, context.precision)
    frames = smooth_frames(encoder, context.pick(16, dry_run=2))
    encoder.encode(frames)
    return {"weight_casts_per_batch": float(count_weight_casts(lambda: encoder.encode(frames)))}


def measure_activity(name: str, context: CheckContext) -> Measured:
    """Count launches and synchronizations of a batch."""
    encoder = freeze(make_encoder(name, context), context.device, context.precision)
    frames = smooth_frames(encoder, PROFILED_BATCH_SIZE)
    seconds = seconds_per_call(lambda: encoder.encode(frames), context.device)
    activity = gpu_activity(lambda: encoder.encode(frames), context.device, seconds)
    return {"frames_per_batch": float(PROFILED_BATCH_SIZE), **activity}


def measure_rates(name: str, context: CheckContext) -> Measured:
    """Measure frames/s from uint8 frames on the host to embeddings on the host."""
    encoder = freeze(make_encoder(name, context), context.device, context.precision)
    measured: Measured = {}
    few_frames, rates = smooth_frames(encoder, 2), list[float]()
    for batch_size in context.pick(BATCH_SIZES, dry_run=DRY_RUN_BATCH_SIZES):
        frames = few_frames.repeat(batch_size // len(few_frames), 1, 1, 1)
        seconds = seconds_per_call(partial(encoder.encode, frames), context.device, context.pick(1.0, dry_run=0.0))
        rates.append(batch_size / seconds)
        measured[f"frames_per_second_at_{batch_size}"] = rates[-1]
    flop = count_flop(lambda: encoder.encode(few_frames[:1]))
    return measured | {"frames_per_second": max(rates)} | product_share(context, max(rates) * flop)


CHECKS = [
    Check(
        f"encoder {name} {precision}",
        "least cosine of embeddings of frames with float32 on the CPU",
        partial(measure_agreement, name, precision),
        (at_least("min_centered_cosine", minimum),),
    )
    for name in TOWERS
    for precision, minimum in MIN_COSINES.items()
]
CHECKS += [
    Check(
        f"encoder {name} casts",
        "casts of weights in a batch, automatic precision",
        partial(measure_casts, name),
        (at_most("weight_casts_per_batch", MAX_WEIGHT_CASTS),),
    )
    for name in TOWERS
]
ACTIVITY_CHECKS = [
    Check(
        f"encoder {name} launches",
        f"kernels and synchronizations in a batch of {PROFILED_BATCH_SIZE}",
        partial(measure_activity, name),
        needs_gpu=True,
    )
    for name in TOWERS
]
RATE_CHECKS = [
    Check(
        f"encoder {name} rates",
        "frames/s by frames per batch, automatic precision; share of products of the highest rate",
        partial(measure_rates, name),
    )
    for name in TOWERS
]
