"""The scripts from videos to predictions, on a generated data set."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.gpu_checks.check import Check, CheckContext, Measured, at_least
from benchmarks.gpu_checks.dataset import NUM_CLIPS, GeneratedDataset, read_losses, run_script
from vimoclip import cli

DRY_RUN_PREDICTIONS = 3  # clips


def predict_clips(dataset: GeneratedDataset) -> cli.RunReport:
    limit = ["--limit", str(DRY_RUN_PREDICTIONS)] if dataset.dry_run else []
    arguments = dataset.predict_flags(dataset.folder / "videos", dataset.folder / "predictions")
    return run_script("predict", *arguments, *limit)


EXTRACTIONS: dict[str, Callable[[GeneratedDataset], cli.RunReport]] = {
    "extract_embeddings": lambda dataset: dataset.embeddings,
    "extract_flows, learned": lambda dataset: dataset.flows,
    "extract_flows, DIS": lambda dataset: dataset.dis_flows,
    "inference": lambda dataset: dataset.motion,
    "predict": predict_clips,
}
RUNS: dict[str, Callable[[GeneratedDataset], Path]] = {
    "train": lambda dataset: dataset.student,
    "TFAM.train_and_eval": lambda dataset: dataset.tfam,
}
ORDER = [
    "extract_embeddings",
    "extract_flows, learned",
    "extract_flows, DIS",
    "train",
    "inference",
    "TFAM.train_and_eval",
    "predict",
]


def measure_extraction(name: str, context: CheckContext) -> Measured:
    return {"videos_done": float(EXTRACTIONS[name](context.dataset).done)}


def measure_run(name: str, context: CheckContext) -> Measured:
    return {"losses": float(len(read_losses(RUNS[name](context.dataset))))}


def make_check(name: str) -> Check:
    if name in RUNS:
        return Check(
            f"chain {name}", "number of losses of all epochs", partial(measure_run, name), (at_least("losses", 6),)
        )
    limits = (at_least("videos_done", NUM_CLIPS, dry_run=DRY_RUN_PREDICTIONS if name == "predict" else NUM_CLIPS),)
    return Check(f"chain {name}", "clips that are done", partial(measure_extraction, name), limits)


CHECKS = [make_check(name) for name in ORDER]
