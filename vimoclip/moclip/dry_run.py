"""Report of --dry-run: progress of a run, and its remaining time, disk and memory, estimated from a few real steps."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vimoclip.moclip.data_parallel import DistributedStudent
from vimoclip.moclip.dataset import SegmentDataset
from vimoclip.moclip.train_state import LossMeter, initial_progress
from vimoclip.moclip.trainer import TrainingSetup
from vimoclip.runtime import cost_estimate
from vimoclip.training import checkpoint

VALIDATION_COST = 1 / 3  # of a training segment's cost: no backward pass


def read_progress(folder: Path | None) -> dict[str, Any]:
    """Return the progress of the run in a folder; that of a new run if there is none."""
    last_path = folder / "last.pth" if folder else None
    if last_path is None or not last_path.exists():
        return initial_progress()
    progress: dict[str, Any] = checkpoint.load_checkpoint(last_path)["progress"]
    return {"seen": 0} | progress


def format_progress(
    folder: Path | None, progress: dict[str, Any], epochs: int, num_train: int, num_monitor: int
) -> str:
    """Return the completed and remaining work, in segments, as text."""
    done = f"{folder}: {progress['epoch']} of {epochs} epochs are done" if folder else f"a new run of {epochs} epochs"
    partial_epoch = f", and {progress['seen']} segments of the next" if progress["seen"] else ""
    return f"{done}{partial_epoch}; an epoch has {num_train} segments to train on and {num_monitor} to validate"


def format_cost(
    setup: TrainingSetup, datasets: dict[str, SegmentDataset], progress: dict[str, Any], cache_bytes: int
) -> str:
    """Return time, disk and memory of the remaining work as text. Trains the model for a few steps; writes nothing."""
    # each process measures at the same time as the others
    rates = setup.group.gather(cost_estimate.measure_rate(_probe_steps(setup, datasets["train"])))
    rate = sum(rate or 0.0 for rate in rates) or None
    epochs = max(0, setup.args.epochs - progress["epoch"])
    train, monitor = datasets.values()
    epoch_cost = len(train) + VALIDATION_COST * len(monitor)
    remaining = max(0.0, epochs * epoch_cost - progress["seen"])
    disk = checkpoint_bytes(setup, epochs) + cache_bytes
    return str(cost_estimate.estimate_cost(remaining, "segment", rate, disk))


def checkpoint_bytes(setup: TrainingSetup, epochs: int) -> int:
    """Return the size of the checkpoints of `epochs` epochs, of the best one, and of last.pth with Adam's moments."""
    sizes = {p: p.numel() * p.element_size() for p in setup.model.parameters()}
    moments = 2 * sum(size for parameter, size in sizes.items() if parameter.requires_grad)
    return sum(sizes.values()) * (epochs + 2) + moments


def _probe_steps(setup: TrainingSetup, dataset: SegmentDataset) -> Iterator[float]:
    """Train on random micro-batches and yield their sizes. One step per micro-batch is a little slower than a run."""
    size = setup.micro_batch_size
    order = random.Random(0).sample(range(len(dataset)), len(dataset))
    student, state = DistributedStudent(setup.model), setup.initial_state({})
    for batch in setup.make_loader(dataset, [order[i : i + size] for i in range(0, len(order), size)]):
        if batch.keys:
            setup.train_one_epoch(state, [batch], student, meter=LossMeter())
            yield len(batch.keys)
