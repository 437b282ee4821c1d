"""A line per stage: its rate, its share of the machine's rates, its peak memory, and what bounds it."""

from functools import partial
from typing import NamedTuple

from benchmarks.gpu_checks.check import PASS, Check, CheckContext, CheckSkipped, Measured

PRODUCTS_BOUND, BUSY_BOUND = 0.4, 0.9  # shares from which the products, or the card as a whole, bound a stage


class Stage(NamedTuple):
    """Names of the checks that measured a stage's rate and its launches, and the key of the rate."""

    rates: str
    key: str
    activity: str


STAGES = {
    "encoder ViT-B/32": Stage("encoder ViT-B/32 rates", "frames_per_second", "encoder ViT-B/32 launches"),
    "encoder ViT-B-16-SigLIP": Stage(
        "encoder ViT-B-16-SigLIP rates", "frames_per_second", "encoder ViT-B-16-SigLIP launches"
    ),
    "encoder RN50": Stage("encoder RN50 rates", "frames_per_second", "encoder RN50 launches"),
    "flow": Stage("flow share", "pairs_per_second", "flow share"),
    "training": Stage("training ViT-B/32 steps", "frames_per_second", "training ViT-B/32 steps"),
    "TFAM": Stage("TFAM 8 videos", "videos_per_second", "TFAM 8 videos"),
    "predict": Stage("predict 1080p", "frames_per_second", ""),
}


def summarize(name: str, context: CheckContext) -> Measured:
    stage = STAGES[name]
    result = context.results.get(stage.rates)
    if result is None or result.status != PASS:
        raise CheckSkipped(f"needs the results of {stage.rates}")
    measured: Measured = {stage.key: result.measured[stage.key]}
    for check, key in (
        (stage.rates, "share_of_products"),
        (stage.rates, "peak_memory_gb"),
        (stage.activity, "gpu_busy_share"),
    ):
        if (value := context.value(check, key)) is not None:
            measured[key] = value
    return measured | {"note": describe_bound(measured)}


def describe_bound(measured: Measured) -> str:
    """Return what bounds a stage, as far as its shares tell."""
    products, busy = (float(measured.get(key, -1)) for key in ("share_of_products", "gpu_busy_share"))
    if products >= PRODUCTS_BOUND:
        return "bound by matrix products"
    if busy >= BUSY_BOUND:
        return "bound by the card, but not by matrix products"
    return "bound by the host: launches, synchronizations or copies" if busy >= 0 else "bound unknown"


CHECKS = [Check(f"summary {name}", "rate, shares, memory, bound", partial(summarize, name)) for name in STAGES]
