"""--dry-run of a training: progress of a run, and its remaining cost, estimated from a few real steps."""

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

from vimoclip import cli
from vimoclip.runtime import cost_estimate
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training.data_parallel import ModelReplica
from vimoclip.training.trainer import Progress, Trainer

VALIDATION_COST = 1 / 3  # of a training item's cost: no backward pass


def format_progress(
    folder: Path | None, progress: Progress, epochs: int, unit: str, num_train: int, num_monitor: int
) -> str:
    """Return the completed and remaining work as text; `unit`: of the items, like video."""
    done = f"{folder}: {len(progress.rows)} of {epochs} epochs are done" if folder else f"a new run of {epochs} epochs"
    partial_epoch = f", and {progress.seen} {unit}s of the next" if progress.seen else ""
    return f"{done}{partial_epoch}; an epoch has {num_train} {unit}s to train on and {num_monitor} to validate on"


def plan(progress: Progress, epochs: int, left_out: Mapping[str, str]) -> cli.RunReport:
    """Return the completed and remaining epochs, without an estimate; `left_out`: video -> reason."""
    done = len(progress.rows)
    return cli.RunReport(already_done=done, pending=max(0, epochs - done), skipped=dict(left_out), unit="epoch")


def estimate_cost(trainer: Trainer, progress: Progress, extra_bytes: int = 0, final_items: int = 0) -> cli.CostEstimate:
    """Return time, disk and memory of the remaining work. Trains the model for a few steps; writes nothing.

    `extra_bytes`: on disk, besides the run's checkpoints; `final_items`: evaluated after the last epoch."""
    epochs = max(0, trainer.epochs - len(progress.rows))
    epoch_cost = len(trainer.train_set) + VALIDATION_COST * len(trainer.monitor_set)
    remaining = max(0.0, epochs * epoch_cost - progress.seen + VALIDATION_COST * final_items)
    rate = total_rate(_probe_steps(trainer), trainer.run.group)
    disk = trainer.output_bytes(epochs) + extra_bytes
    return cost_estimate.estimate_cost(remaining, trainer.unit, rate, disk)


def total_rate(work: Iterator[float], group: ProcessGroup) -> float | None:
    """Return the units/s of all processes together; all measure their own work at the same time."""
    return sum(rate or 0.0 for rate in group.gather(cost_estimate.measure_rate(work))) or None


def _probe_steps(trainer: Trainer) -> Iterator[float]:
    """Train on random batches, and yield their sizes."""
    size, items = trainer.probe_batch_size, trainer.probe_items
    order = random.Random(0).sample(items, len(items))
    batches = trainer.make_loader(trainer.train_set, [order[i : i + size] for i in range(0, len(order), size)])
    for losses in trainer.train_steps(ModelReplica(trainer.state), batches):
        yield losses.count
