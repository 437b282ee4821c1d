"""What --dry-run says of a run: how far it is, and from some real steps how long it takes and what it needs."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vimoclip.moclip.data_parallel import Replicas
from vimoclip.moclip.dataset import SegmentDataset
from vimoclip.moclip.train_state import Sums, new_progress
from vimoclip.moclip.trainer import Learning
from vimoclip.runtime import cost_estimate
from vimoclip.training import checkpoint

VALIDATION = 1 / 3  # of the work of a training segment: no gradients


def progress_of(folder: Path | None) -> dict[str, Any]:
    """How far the run in a folder is; of one that begins where there is none."""
    last = folder / "last.pth" if folder else None
    if last is None or not last.exists():
        return new_progress()
    progress: dict[str, Any] = checkpoint.load_checkpoint(last)["progress"]
    return {"seen": 0} | progress


def describe_progress(folder: Path | None, progress: dict[str, Any], epochs: int, train: int, watched: int) -> str:
    """What is done and what there is to do, in segments trained on and watched."""
    begun = f"{folder}: {progress['epoch']} of {epochs} epochs are done" if folder else f"a new run of {epochs} epochs"
    seen = f", and {progress['seen']} segments of the next" if progress["seen"] else ""
    return f"{begun}{seen}; an epoch has {train} segments to train on and {watched} to validate"


def describe_cost(
    learning: Learning, sets: dict[str, SegmentDataset], progress: dict[str, Any], cache_bytes: int
) -> str:
    """How long what is left takes, and what it needs. The model takes steps meanwhile, and nothing is written."""
    rates = learning.group.gather(
        cost_estimate.rate(_steps(learning, sets["train"]))
    )  # of all processes, at the same time
    rate = sum(rate or 0.0 for rate in rates) or None
    epochs = max(0, learning.args.epochs - progress["epoch"])
    train, watched = sets.values()
    epoch = len(train) + VALIDATION * len(watched)
    left = max(0.0, epochs * epoch - progress["seen"])
    return cost_estimate.describe(left, "segment", rate, disk(learning, epochs) + cache_bytes, cost_estimate.memory())


def disk(learning: Learning, epochs: int) -> int:
    """Bytes of the checkpoints of so many epochs, the best one and last.pth."""
    sizes = {p: p.numel() * p.element_size() for p in learning.model.parameters()}
    moments = 2 * sum(size for parameter, size in sizes.items() if parameter.requires_grad)
    return sum(sizes.values()) * (epochs + 2) + moments


def _steps(learning: Learning, dataset: SegmentDataset) -> Iterator[float]:
    """Train on micro-batches from here and there, each of which is a step: that takes a little longer than a run's."""
    few = learning.micro_batch_size
    order = random.Random(0).sample(range(len(dataset)), len(dataset))
    replicas, state = Replicas(learning.model), learning.state({})
    for batch in learning.loader_of(dataset, [order[i : i + few] for i in range(0, len(order), few)]):
        if batch.keys:
            learning.train(state, [batch], replicas, sums=Sums())
            yield len(batch.keys)
