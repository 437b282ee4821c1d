"""Two processes of torchrun on one card, against one process."""

from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu_checks.check import Check, CheckContext, Measured, at_least, at_most
from benchmarks.gpu_checks.dataset import read_losses, run_python
from benchmarks.gpu_checks.measure import embedding_agreement, relative_difference
from benchmarks.gpu_checks.training import DIFFERENCE, SAME_PRECISION
from vimoclip import store

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def read_embeddings(path: Path) -> torch.Tensor:
    """Return the embeddings of all videos, in the order of their keys."""
    reader = store.EmbeddingReader(path)
    return torch.from_numpy(np.concatenate([reader.embeddings(key) for key in reader.keys]))


def measure_embeddings(context: CheckContext) -> Measured:
    dataset = context.dataset
    _ = dataset.embeddings
    output_dir = dataset.folder / "embeddings-two"
    settings = [*dataset.data_flags, *dataset.clip_flags, *dataset.device_flags, "--output-dir", str(output_dir)]
    run_python([*TORCHRUN, "extract_embeddings.py", *settings], context.seconds_left())
    path = dataset.embeddings_path
    return embedding_agreement(read_embeddings(path), read_embeddings(output_dir / path.name))


def measure_training(context: CheckContext) -> Measured:
    dataset = context.dataset
    expected = dataset.losses(device=context.device)
    words = dataset.train_flags("two", batch_size=2)  # per process
    run_python([*TORCHRUN, "train.py", *words], context.seconds_left())
    return {DIFFERENCE: relative_difference(read_losses(dataset.checkpoints_dir / "two"), expected)}


def measure_tfam(context: CheckContext) -> Measured:
    dataset = context.dataset
    expected, folder = read_losses(dataset.tfam), dataset.folder / "two"
    words = dataset.tfam_flags(folder, batch_size=2)  # per process
    run_python([*TORCHRUN, "-m", "TFAM.train_and_eval", *words], context.seconds_left())
    run = folder / dataset.tfam.relative_to(dataset.checkpoints_dir)
    return {DIFFERENCE: relative_difference(read_losses(run), expected)}


CHECKS = [
    Check(
        "two processes, embeddings",
        "extract_embeddings.py, least cosine with one process",
        measure_embeddings,
        # of bf16, whose last bits may depend on the position in a batch
        (at_least("min_centered_cosine", 0.999, dry_run=0.999999),),
    ),
    Check("two processes, training", "train.py, losses against one process", measure_training, (SAME_PRECISION,)),
    Check(
        "two processes, TFAM",
        "TFAM.train_and_eval, losses against one process",
        measure_tfam,
        (at_most(DIFFERENCE, 0.02, dry_run=1e-5),),  # of bf16
    ),
]
