"""Image encoders with random weights: agreement with the CPU, casts of weights, frames/s, launches."""

import copy
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.gpu_checks.check import Check, CheckContext, Limit, Measured, at_least, at_most
from benchmarks.gpu_checks.measure import count_weight_casts, embedding_agreement, seconds_per_call
from benchmarks.gpu_checks.products import SHARE, product_share
from benchmarks.gpu_checks.trace import PIPELINE_LIMITS, pipeline_activity
from vimoclip import clip
from vimoclip.extraction.embeddings import CHUNK_FRAMES
from vimoclip.runtime import defaults
from vimoclip.training.data_parallel import batch_norm_layers

CPU = torch.device("cpu")
# open_clip's name -> image tower of a dry run. ViT-B/32 is OpenAI's name, so with QuickGELU
TOWERS: dict[str, dict[str, Any]] = {
    "ViT-B/32": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "ViT-B-16-SigLIP": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear"},
    "RN50": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None, "head_width": 32},
}
DRY_RUN_WIDTH = 64
OTHER_BATCH_SIZES = (16, 64, 512)  # besides the default one
RESIZED_SCALES = (0.6, 1.3, 1.45)  # below 1.5 times the model's size, the CPU path is PIL itself
STREAMED_BATCHES = 8  # until the results of a stream are complete
# Least cosine with float32 on the CPU after subtracting the mean. Measured on a CPU for 8 frames: fp16, whose matrix
# products are as exact as TF32, 0.99998; bf16 0.999; exchanged colours -0.5. So TF32 is noticed in fp32.
MIN_COSINES = {"fp32": 0.999999, "bf16": 0.99, "fp16": 0.999}

# per batch; 1: of the pooling layer's query or positions, of 60 weights or more
MAX_WEIGHT_CASTS = {"ViT-B/32": 0, "ViT-B-16-SigLIP": 1, "RN50": 1}
# most of a ResNet's time is spent on layers without products
PRODUCTS = (at_least(SHARE, 0.7, needs_gpu=True),)
RATE_LIMITS: dict[str, tuple[Limit, ...]] = {"ViT-B/32": PRODUCTS, "ViT-B-16-SigLIP": PRODUCTS, "RN50": ()}


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


def measure_resizing(context: CheckContext) -> Measured:
    """Compare frames that are resized on the GPU with those of PIL, which resizes frames of these sizes on the CPU."""
    encoder = freeze(make_encoder("ViT-B/32", context), context.device, context.precision)
    difference = 0
    for scale in RESIZED_SCALES:
        height = round(encoder.preprocess.size[0] * scale)
        frames = np.random.default_rng(0).integers(0, 256, (4, height, 2 * height, 3), np.uint8)
        resized = encoder.prepare(encoder.load_frames(frames)).cpu().int()
        difference = max(difference, int((resized - encoder.preprocess(frames).int()).abs().max()))
    return {"largest_difference": float(difference)}


def measure_casts(name: str, context: CheckContext) -> Measured:
    """Count the casts of weights in a batch, in the precision that the scripts select."""
    encoder = freeze(make_encoder(name, context), context.device, context.precision)
    frames = smooth_frames(encoder, context.pick(16, dry_run=2))
    encoder.encode(frames)
    return {"weight_casts_per_batch": float(count_weight_casts(lambda: encoder.encode(frames)))}


def default_batch_size(context: CheckContext) -> int:
    """Return the frames per batch that the scripts choose."""
    return context.pick(defaults.frame_batch_size("auto", context.device, context.precision), dry_run=4)


class EncodedStream:
    """Frames on the host, encoded as by extract_embeddings.py: in chunks of a video that fill batches."""

    def __init__(self, encoder: clip.ImageEncoder, batch_size: int, batches: int, device: torch.device):
        self.batches, self.device = batches, device
        self.frames = smooth_frames(encoder, 2).repeat(batch_size // 2, 1, 1, 1)
        images = self.frames.permute(0, 2, 3, 1).contiguous().numpy()
        # in the script, the threads that read videos do this
        self.chunks = [
            encoder.load_frames(images[start : start + CHUNK_FRAMES]) for start in range(0, batch_size, CHUNK_FRAMES)
        ]
        encode, prepare = encoder.encode_on_device, encoder.prepare
        self.stream = clip.BatchEncoder(encode, batch_size, False, prepare, device)
        self()  # checks the batch size, for which it waits

    def __call__(self) -> None:
        for _ in range(self.batches):
            for chunk in self.chunks:
                self.stream.add_frames(chunk, lambda embeddings: None)
        self.stream.flush()

    def seconds_per_batch(self, seconds: float) -> float:
        """Measure for about `seconds`."""
        return seconds_per_call(self, self.device, seconds) / self.batches


def measure_rates(name: str, context: CheckContext) -> Measured:
    """Measure frames/s from uint8 frames on the host to embeddings on the host; the default batch in more detail."""
    encoder = freeze(make_encoder(name, context), context.device, context.precision)
    measured: Measured = {}
    default = default_batch_size(context)
    for batch_size in (*context.pick(OTHER_BATCH_SIZES, dry_run=(2,)), default):
        stream = EncodedStream(encoder, batch_size, context.pick(STREAMED_BATCHES, dry_run=1), context.device)
        seconds = stream.seconds_per_batch(context.pick(1.0, dry_run=0.0))
        measured[f"frames_per_second_at_{batch_size}"] = batch_size / seconds
    activity = pipeline_activity(
        stream,
        context.device,
        seconds * stream.batches,
        stream.batches,
        stream.batches * stream.frames.numel(),
    )
    share = product_share(context, lambda: encoder.encode_on_device(stream.frames), seconds)
    return measured | {"frames_per_second": default / seconds} | activity | share


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
CHECKS.append(
    Check("resizing", "grey levels of frames against PIL", measure_resizing, (at_most("largest_difference", 0),))
)
CHECKS += [
    Check(
        f"encoder {name} casts",
        "casts of weights in a batch, automatic precision",
        partial(measure_casts, name),
        (at_most("weight_casts_per_batch", casts),),
    )
    for name, casts in MAX_WEIGHT_CASTS.items()
]
RATE_CHECKS = [
    Check(
        f"encoder {name} rates",
        "frames/s by frames per batch, automatic precision; launches, and share of products, of the default batch",
        partial(measure_rates, name),
        (*PIPELINE_LIMITS, *limits),
    )
    for name, limits in RATE_LIMITS.items()
]
