"""A line per stage: rates of its work on the card and of the whole stage, shares, memory, and what bounds the work."""

from functools import partial
from typing import NamedTuple

from benchmarks.gpu_checks.check import Check, CheckContext, CheckSkipped, Measured
from benchmarks.gpu_checks.products import SHARE
from benchmarks.gpu_checks.trace import BUSY

PRODUCTS_BOUND, BUSY_BOUND = 0.4, 0.9  # shares from which the products, or the card as a whole, bound a stage


class Stage(NamedTuple):
    """Names of the check of a stage's work on the card, and of the whole stage; the key of the rate in both."""

    work: str
    whole: str
    key: str


STAGES = {
    "extract_embeddings": Stage("encoder ViT-B/32 rates", "stage extract_embeddings", "frames_per_second"),
    "extract_flows": Stage("flow share", "stage extract_flows", "pairs_per_second"),
    "train": Stage("training ViT-B/32 steps", "stage train", "frames_per_second"),
    "TFAM": Stage("TFAM 8 videos", "stage TFAM", "videos_per_second"),
}


def summarize(name: str, context: CheckContext) -> Measured:
    stage = STAGES[name]
    if (rate := context.value(stage.work, stage.key)) is None:
        raise CheckSkipped(f"needs the results of {stage.work}")
    measured: Measured = {stage.key: rate}
    values = {
        f"whole_stage_{stage.key}": context.value(stage.whole, stage.key),
        SHARE: context.value(stage.work, SHARE),
        BUSY: context.value(stage.work, BUSY),
        f"whole_stage_{BUSY}": context.value(stage.whole, BUSY),
        "peak_memory_gb": context.value(stage.work, "peak_memory_gb"),
    }
    measured |= {key: value for key, value in values.items() if value is not None}
    return measured | {"note": describe_bound(measured)}


def describe_bound(measured: Measured) -> str:
    """Return what bounds a stage, as far as its shares tell."""
    products, busy = (float(measured.get(key, -1)) for key in (SHARE, BUSY))
    if products >= PRODUCTS_BOUND:
        return "bound by matrix products"
    if busy >= BUSY_BOUND:
        return "bound by the card, but not by matrix products"
    return "bound by the host: launches, synchronizations or copies" if busy >= 0 else "bound unknown"


CHECKS = [Check(f"summary {name}", "rates, shares, memory, bound", partial(summarize, name)) for name in STAGES]
