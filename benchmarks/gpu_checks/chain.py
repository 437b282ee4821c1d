"""The scripts from videos to predictions, on a generated data set; predict.py on a long video."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.embedding import repeat_video
from benchmarks.gpu_checks.check import Check, CheckContext, Measured, at_least
from benchmarks.gpu_checks.dataset import FPS, NUM_CLIPS, GeneratedDataset, read_losses, textured_frames, write_video
from vimoclip import cli

SECONDS, LONG_SIZE = 20, (1080, 1920)
DRY_RUN_PREDICTIONS = 3  # clips


def predict_clips(dataset: GeneratedDataset) -> cli.RunReport:
    limit = ["--limit", str(DRY_RUN_PREDICTIONS)] if dataset.dry_run else []
    return dataset.predict(dataset.folder / "videos", dataset.folder / "predictions", *limit)


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


def measure_long_video(context: CheckContext) -> Measured:
    """Predict a video of 20 s; the rate includes loading the models."""
    dataset, folder = context.dataset, context.folder / "long"
    _ = dataset.tfam
    folder.mkdir()
    height, width = context.pick(LONG_SIZE, dry_run=(48, 64))
    write_video(folder / "second.mp4", textured_frames(FPS, height, width, (8, 0), seed=0))
    repeats = context.pick(SECONDS, dry_run=1)
    repeat_video(folder / "second.mp4", folder / "video.mp4", repeats)
    started = time.perf_counter()
    report = dataset.predict(folder / "video.mp4", folder / "predictions")
    seconds = time.perf_counter() - started
    return {"videos_done": float(report.done), "frames_per_second": repeats * FPS / seconds}


def make_check(name: str) -> Check:
    if name in RUNS:
        return Check(
            f"chain {name}", "number of losses of all epochs", partial(measure_run, name), (at_least("losses", 6),)
        )
    limits = (at_least("videos_done", NUM_CLIPS, dry_run=DRY_RUN_PREDICTIONS if name == "predict" else NUM_CLIPS),)
    return Check(f"chain {name}", "clips that are done", partial(measure_extraction, name), limits)


CHECKS = [make_check(name) for name in ORDER]
PREDICT_CHECK = Check(
    "predict 1080p",
    f"{SECONDS} s of 1920x1080 at {FPS} frames/s, learned flow at 224 px",
    measure_long_video,
    (at_least("videos_done", 1),),
)
