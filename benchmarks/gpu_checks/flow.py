"""Learned flow with random weights: agreement with the CPU, pairs/s and memory by size and pairs per batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks.gpu_checks.check import Check, CheckContext, CheckFailed, CheckSkipped, Measured, at_least, at_most
from benchmarks.gpu_checks.dataset import textured_frames
from benchmarks.gpu_checks.measure import count_weight_casts, seconds_per_call, time_calls
from benchmarks.gpu_checks.products import SHARE, product_share
from benchmarks.gpu_checks.trace import PIPELINE_LIMITS, pipeline_activity
from vimoclip import flow
from vimoclip.errors import DeviceMemoryError, VideoError
from vimoclip.runtime import defaults
from vimoclip.runtime.device import autocast

CPU = torch.device("cpu")
MODEL, DRY_RUN_MODEL = "raft", "raft_small"
ITERATIONS = 12
SHIFT = (-5, -3)  # pixels per frame, along rows and columns
SIZES = {"224": (224, 398), "360p": (360, 640), "720p": (720, 1280), "1080p": (1080, 1920), "4K": (2160, 3840)}
DRY_RUN_SIZE = (128, 128)  # smaller frames are padded to it
RENDERED_BATCHES = 4  # until the images of a call are complete
OTHER_MODELS = ("raft_small", "sea_raft_s")
# A second call is measured only after a shorter first one, so that a slow card reaches the last lines in time
LONGEST_FIRST_CALL_SECONDS = 8.0
USED_MEMORY = 0.7  # of a card, that a pair must be able to use
# Mean end-point error relative to the mean length of the flow. Measured on a CPU with 12 iterations: fp16, whose
# products are as exact as TF32, 0.0009; bf16 0.009; reversed frames and exchanged colours 0.2.
MAX_ERRORS = {"fp32": 2e-4, "bf16": 0.03, "fp16": 0.005}
DRY_RUN_MAX_ERRORS = {"fp32": 1e-6, "bf16": 0.05, "fp16": 0.005}


def load_model(name: str, iterations: int | None, device: torch.device, precision: str) -> flow.PTLFlowModel:
    """Return a model with random weights, the same in each call."""
    torch.manual_seed(0)
    return flow.PTLFlowModel(name, None, iterations, device, partial(autocast, device, precision))


def measure_agreement(precision: str, context: CheckContext) -> Measured:
    """Compare flow with that of the CPU in float32."""
    context.require_fast(precision)
    name, iterations = context.pick(MODEL, dry_run=DRY_RUN_MODEL), context.pick(ITERATIONS, dry_run=2)
    size = context.pick((224, 224), dry_run=DRY_RUN_SIZE)
    frames = textured_frames(context.pick(5, dry_run=2), *size, SHIFT, seed=0)
    reference = load_model(name, iterations, CPU, "fp32").on_device(frames)
    vectors = load_model(name, iterations, context.device, precision).on_device(frames).cpu()
    error, length = (x.norm(dim=1).mean().item() for x in (vectors - reference, reference))
    return {"end_point_error_px": error, "mean_length_px": length, "relative_error": error / length}


@contextmanager
def record_batches(batch_sizes: list[int]) -> Iterator[None]:
    """Append the pairs of each forward pass of a ptlflow model within the context."""

    def record(module: Any, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], dict) and "images" in inputs[0]:
            batch_sizes.append(len(inputs[0]["images"]))

    hook = register_module_forward_pre_hook(record)
    try:
        yield
    finally:
        hook.remove()


def measure_rate(size: tuple[int, int], pairs: int, context: CheckContext) -> Measured:
    """Measure pairs/s with the defaults of extract_flows.py; the tool's own error for too large frames is a result."""
    device, frames = context.device, textured_frames(pairs + 1, *size, SHIFT, seed=0)
    if context.dry_run:
        render = flow.load_renderer(DRY_RUN_MODEL, None, 1, "log", 0.05, device)
    else:
        render = flow.load_renderer(MODEL, None, None, "log", 0.05, device, context.precision)
    batch_sizes = list[int]()
    try:
        with record_batches(batch_sizes):  # only here, since the hook is called for every module
            seconds = time_calls(lambda: render(frames), device, 0.0)
        if seconds < LONGEST_FIRST_CALL_SECONDS:
            seconds = time_calls(lambda: render(frames), device, context.pick(1.0, dry_run=0.0))
    except VideoError as error:
        correlation = (size[0] * size[1] / 64) ** 2 * 4 * 4 / 3  # bytes, of RAFT's pyramid
        if correlation < USED_MEMORY * torch.cuda.mem_get_info(device)[1]:
            raise CheckFailed(f"refused, although {correlation / 1e9:.0f} GB fit: {error}") from None
        return {"note": f"refused, as it should be: {error}"}
    except DeviceMemoryError as error:
        raise CheckSkipped(str(error)) from None
    return {"pairs_per_second": pairs / seconds, "pairs_per_batch": float(max(batch_sizes))}


def measure_share(context: CheckContext) -> Measured:
    """Measure launches, synchronizations and the share of matrix products with the default batch."""
    name, size = context.pick((MODEL, SIZES["224"]), dry_run=(DRY_RUN_MODEL, DRY_RUN_SIZE))
    pairs, batches = default_batch_size(context), context.pick(RENDERED_BATCHES, dry_run=1)
    iterations = context.pick(ITERATIONS, dry_run=1)
    render = flow.load_renderer(name, None, iterations, "log", 0.05, context.device, context.precision)
    frames = textured_frames(pairs + 1, *size, SHIFT, seed=0)

    def work() -> None:
        for _ in render.render_batches([frames] * batches):
            pass

    seconds = seconds_per_call(work, context.device, context.pick(1.0, dry_run=0.0))
    activity = pipeline_activity(work, context.device, seconds, batches, batches * frames.size)
    share = product_share(context, lambda: render(frames), seconds / batches)
    casts = float(count_weight_casts(lambda: render(frames)))
    return {"pairs_per_second": batches * pairs / seconds, "weight_casts_per_batch": casts, **activity, **share}


def default_batch_size(context: CheckContext) -> int:
    """Return the pairs per batch that extract_flows.py chooses."""
    return context.pick(defaults.pair_batch_size("auto", context.device), dry_run=1)


def measure_other_model(name: str, context: CheckContext) -> Measured:
    """Compute two pairs and check that all vectors are finite."""
    size = context.pick(SIZES["1080p"], dry_run=DRY_RUN_SIZE)
    model = load_model(name, None, context.device, context.precision)
    vectors = model.on_device(textured_frames(3, *size, SHIFT, seed=0))
    return {"vectors_not_finite": float((~vectors.isfinite()).sum())}


CHECKS = [
    Check(
        f"flow {precision}",
        f"{MODEL} with {ITERATIONS} iterations, flow against float32 on the CPU",
        partial(measure_agreement, precision),
        (at_most("relative_error", MAX_ERRORS[precision], dry_run=DRY_RUN_MAX_ERRORS[precision]),),
    )
    for precision in MAX_ERRORS
]
CHECKS += [
    Check(f"flow {name}", "two pairs of 1080p", partial(measure_other_model, name), (at_most("vectors_not_finite", 0),))
    for name in OTHER_MODELS
]
SHARE_CHECK = Check(
    "flow share",
    f"{MODEL} at 224 px with {ITERATIONS} iterations, default batch: launches, casts, share of products",
    measure_share,
    (*PIPELINE_LIMITS, at_most("weight_casts_per_batch", 0), at_least(SHARE, 0.5, needs_gpu=True)),
)
# the scripts' 8 pairs first, as these lines are the most useful ones if time is short
RATE_CHECKS = [
    Check(
        f"flow {name} {pairs} pairs",
        f"{MODEL} with the script's defaults, {width}x{height}, {pairs} pairs",
        partial(measure_rate, (height, width), pairs),
        needs_gpu=(name, pairs) != ("224", 1),  # the only line of a dry run
    )
    for pairs in (8, 1, 32)
    for name, (height, width) in SIZES.items()
    if (name, pairs) != ("4K", 32)  # takes a minute, and no card computes more than one at a time
]
