"""train.py: agreement with the CPU, other precisions, resumed runs; steps/s and memory of three backbones."""

import json
import os
import shutil
import signal
import sysconfig
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import train
from benchmarks.gpu_checks.check import Check, CheckContext, CheckFailed, CheckSkipped, Measured, at_least, at_most
from benchmarks.gpu_checks.dataset import flags, read_losses, run_script, start_python
from benchmarks.gpu_checks.encoders import make_encoder
from benchmarks.gpu_checks.measure import relative_difference, seconds_per_call
from benchmarks.gpu_checks.products import SHARE, product_share
from benchmarks.gpu_checks.trace import PIPELINE_LIMITS, pipeline_activity
from vimoclip import clip
from vimoclip.errors import TrainingError
from vimoclip.io import lock
from vimoclip.moclip import MoCLIP, trainer
from vimoclip.moclip.builder import Student
from vimoclip.moclip.dataset import PairedVideos, SegmentBatch, TrainingSplits, TrainingVideo
from vimoclip.training.data_parallel import ModelReplica
from vimoclip.training.late_fetch import delay_by_one
from vimoclip.training.trainer import RunOptions

DIFFERENCE = "relative_loss_difference"
# Largest relative difference of any loss of three epochs. Measured on a CPU: other roundings (micro-batches) 1e-7, fp16
# 4e-4, bf16 0.02, an optimizer state that is restored with the strides of another layout 0.05.
SAME_PRECISION = at_most(DIFFERENCE, 1e-3, dry_run=1e-6)
BF16 = at_most(DIFFERENCE, 0.1, dry_run=0.2)
# the gradient scale is found by skipping steps, each of which is 1/18 of a run
FP16 = at_most(DIFFERENCE, 0.2)
STEP_LIMITS = (at_most("peak_share_of_memory", 0.97, needs_gpu=True), at_least(SHARE, 0.6, needs_gpu=True))
NUM_CLASSES = 140
STEPS = 3  # until the losses of a call are read
BACKBONES = ("ViT-B/32", "ViT-B/16", "ViT-L/14")


def measure_fp32(context: CheckContext) -> Measured:
    losses = [context.dataset.losses(device=device) for device in (context.device, "cpu")]
    return {DIFFERENCE: relative_difference(*losses)}


def measure_resume(context: CheckContext) -> Measured:
    """Train one epoch each on the CPU, the GPU and the CPU; compare with a run on the CPU."""
    dataset = context.dataset
    run = dataset.train("resumed", device="cpu", epochs=1)
    for epochs, device in ((2, context.device), (3, "cpu")):
        run_script("train", "--resume", run, *flags({"epochs": epochs, "device": device}))
    return {DIFFERENCE: relative_difference(read_losses(run), dataset.losses(device="cpu"))}


def measure_precision(precision: str, settings: dict[str, object], context: CheckContext) -> Measured:
    """Compare a precision with float32, both with `settings`."""
    context.require_fast(precision)
    losses = context.dataset.losses(device=context.device, precision=precision, **settings)
    return {DIFFERENCE: relative_difference(losses, context.dataset.losses(device=context.device, **settings))}


def measure_compile(context: CheckContext) -> Measured:
    has_compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if not (has_compiler and Path(sysconfig.get_paths()["include"], "Python.h").is_file()):
        raise CheckSkipped("torch.compile needs gcc or clang, and the headers of Python (python3-dev)")
    run = context.dataset.train("compiled", compile=True)
    return {DIFFERENCE: relative_difference(read_losses(run), context.dataset.losses(device=context.device))}


def measure_kill(context: CheckContext) -> Measured:
    """Kill a run after the checkpoint of its first step, and resume it."""
    dataset, run = context.dataset, context.dataset.checkpoints_dir / "killed"
    expected = dataset.losses(device=context.device)  # also makes the inputs
    process = start_python(["train.py", *dataset.train_flags("killed", save_every_minutes=0)])
    deadline = time.monotonic() + context.seconds_left()
    while not (run / "last.pth").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    has_checkpoint = (run / "last.pth").is_file()
    with suppress(FileNotFoundError):  # it has ended
        os.kill(json.loads(lock.lock_path(run).read_text())["process"], signal.SIGKILL)
    process.kill()
    output, _ = process.communicate()
    if process.returncode >= 0 or not has_checkpoint:
        lines = output.strip().splitlines() or [""]
        raise CheckFailed(f"ended with exit code {process.returncode}, not killed after a checkpoint: {lines[-1]}")
    epochs = count_epochs(run)
    run_script("train", "--resume", run)
    return {DIFFERENCE: relative_difference(read_losses(run), expected), "epochs_before_the_kill": float(epochs)}


def count_epochs(run: Path) -> int:
    path = run / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.is_file() else 0


# --- steps on generated batches


@dataclass
class BlankReader:
    """Stands for a file of embeddings of width `dim`."""

    dim: int

    def embeddings(self, key: str, start: int, stop: int) -> np.ndarray:
        return np.zeros((stop - start, self.dim), np.float32)

    def labels(self, key: str) -> np.ndarray:
        return np.zeros(NUM_CLASSES, np.float32)


def make_trainer(
    name: str, context: CheckContext, videos: Sequence[TrainingVideo] = (), workers: int = 0
) -> trainer.StudentTrainer:
    """Return a training run of a student with random weights and the defaults of train.py."""
    args = train.build_parser().parse_args([])
    if context.dry_run:
        args.batch_size, args.sequence_length = 2, 4
    tower = make_encoder("ViT-B/32", context) if context.dry_run else clip.build_encoder(clip.encoder_config(name))
    width = tower.config["embed_dim"]
    model = MoCLIP(tower.visual, width, NUM_CLASSES, args.residual_alpha)
    class_names = [str(number) for number in range(NUM_CLASSES)]
    student = Student(model, tower.preprocess, {"num_classes": NUM_CLASSES}, class_names)
    reader: Any = BlankReader(width)
    paired = {"train": PairedVideos(list(videos), {}, {}), "val": PairedVideos([], {}, {})}
    splits = TrainingSplits(dict.fromkeys(paired, reader), paired, {})
    run = RunOptions(context.folder, context.folder, context.device, context.precision, workers)
    return trainer.StudentTrainer(args, run, student, splits)


class StudentSteps:
    """Training steps on one generated batch of `segments`, each of `frames`."""

    def __init__(self, student_trainer: trainer.StudentTrainer, segments: int, frames: int):
        self.trainer = student_trainer
        self.replica = ModelReplica(self.trainer.state, loss_names=student_trainer.loss_names)
        batch = generated_batch(segments, frames, student_trainer)
        is_gpu = student_trainer.run.device.type == "cuda"
        self.batch = batch._replace(flow=batch.flow.pin_memory()) if is_gpu else batch  # as a loader's thread does

    def __call__(self, steps: int = 1) -> None:
        """Take steps, and read the losses of each after the next one is launched, as in a run."""
        for losses in delay_by_one(self.trainer.train_steps(self.replica, [self.batch] * steps)):
            losses.means()


def generated_batch(segments: int, frames: int, student_trainer: trainer.StudentTrainer) -> SegmentBatch:
    flow = torch.randint(0, 256, (segments, frames, 3, *student_trainer.input_size), dtype=torch.uint8)
    z_image = torch.randn(segments, frames, student_trainer.train_set.reader.dim)
    labels = (torch.rand(segments, NUM_CLASSES) < 0.02).float()
    mask = torch.ones(segments, frames, dtype=torch.bool)
    return SegmentBatch(flow, z_image, mask, labels, [str(i) for i in range(segments)], [])


def measure_steps(name: str, context: CheckContext) -> Measured:
    """Measure steps/s, frames/s and the share of the card's memory at its peak."""
    try:
        student_trainer = make_trainer(name, context)
    except TrainingError as error:  # the card is too small
        raise CheckSkipped(str(error)) from None
    steps = StudentSteps(student_trainer, student_trainer.batch_size, student_trainer.train_set.segment_length)
    count = context.pick(STEPS, dry_run=1) if name == BACKBONES[0] else 1  # others take seconds
    work = partial(steps, count)
    seconds = seconds_per_call(work, context.device, context.pick(3.0, dry_run=0.0)) / count
    frames = steps.batch.mask.numel()
    measured: Measured = {
        "step_seconds": seconds,
        "frames_per_second": frames / seconds,
        "segments_per_micro_batch": float(steps.trainer.micro_batch_size),
    }
    if context.device.type == "cuda":
        total = torch.cuda.get_device_properties(context.device).total_memory
        measured["peak_share_of_memory"] = torch.cuda.max_memory_reserved(context.device) / total
    if name == BACKBONES[0]:
        measured |= pipeline_activity(work, context.device, count * seconds, count, count * steps.batch.flow.nbytes)
    return measured | product_share(context, steps, seconds)


CHECKS = [
    Check("training fp32", "losses of three epochs against the CPU", measure_fp32, (SAME_PRECISION,)),
    Check("training resumed", "CPU, then GPU, then CPU, against one run on the CPU", measure_resume, (SAME_PRECISION,)),
    Check("training bf16", "losses against fp32", partial(measure_precision, "bf16", {}), (BF16,)),
    Check(
        "training fp16",
        "with --grad-clip-norm and --micro-batch-size, against fp32",
        partial(measure_precision, "fp16", {"grad_clip_norm": 1.0, "micro_batch_size": 1}),
        (FP16,),
        needs_gpu=True,  # takes 10 s on a CPU
    ),
    Check("training killed", "SIGKILL after the first checkpoint, resumed", measure_kill, (SAME_PRECISION,)),
    Check("training compiled", "--compile against without", measure_compile, (SAME_PRECISION,), needs_gpu=True),
]
RATE_CHECKS = [
    Check(
        f"training {name} steps",
        "steps of the default batch (32 x 29 frames) and micro-batch, automatic precision",
        partial(measure_steps, name),
        STEP_LIMITS + (PIPELINE_LIMITS if name == BACKBONES[0] else ()),
        needs_gpu=name != BACKBONES[0],  # a dry run has one tower
    )
    for name in BACKBONES
]
