"""--dry-run: progress of a run, and its remaining time, disk and memory estimated from a few real steps."""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from TFAM.data import PairedEmbeddings, collate
from TFAM.loops import train_one_epoch
from TFAM.trainer import TrainerState
from vimoclip.runtime import cost_estimate
from vimoclip.runtime.device import autocast
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training import checkpoint

VALIDATION_COST = 1 / 3  # time of evaluating a video, relative to training on it
BYTES_PER_PREDICTION = 12  # of a probability in predictions.csv


def print_training_estimate(
    metadata: Mapping[str, Any],
    splits: Mapping[str, PairedEmbeddings],
    folder: Path,
    device: torch.device,
    precision: str,
    overwrite: bool,
    group: ProcessGroup,
) -> None:
    """Print the completed epochs and the cost of the remaining ones. Trains a model for a few steps; writes nothing."""
    training = metadata["config"]["training"]
    num_epochs, num_seen = (0, 0) if overwrite else completed_epochs(folder / "last.pth")
    num_train = len(splits["train"])
    num_monitor = next(len(dataset) for split, dataset in splits.items() if split != "train")
    remaining = (training["epochs"] - num_epochs) * (num_train + VALIDATION_COST * num_monitor) - num_seen
    clips = " (selection clips; those that are reported come on top, once)" if "val" not in splits else ""
    print(
        f"{folder}: {num_epochs} of {training['epochs']} epochs are done, {num_train} videos to train on and "
        f"{num_monitor} to validate{clips}, on {device} in {precision}; nothing was written"
    )
    if remaining > 0:
        remaining += VALIDATION_COST * num_monitor  # the final evaluation of best_model.pth
        state = TrainerState(metadata["config"], device, precision)
        rate = total_rate(_probe_steps(state, splits["train"], training["batch_size"]), group)
        disk = output_bytes(state.model, num_monitor)
        print(str(cost_estimate.estimate_cost(remaining, "video", rate, disk)))


def completed_epochs(last_path: Path) -> tuple[int, int]:
    """Return (finished epochs, videos seen in the next) of last.pth. Raises UserError if it is no checkpoint."""
    if not last_path.is_file():
        return 0, 0
    state = checkpoint.load_checkpoint(last_path)
    return len(state.get("history", [])), state.get("progress", {}).get("videos", 0)


def output_bytes(model: torch.nn.Module, num_videos: int) -> int:
    """Return the size of best_model.pth, last.pth (with AdamW's two moments) and predictions.csv."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return 4 * weights + num_videos * _num_classes(model) * BYTES_PER_PREDICTION


def format_evaluation_cost(
    model: torch.nn.Module,
    dataset: PairedEmbeddings,
    batches: Sequence[list[int]],
    device: torch.device,
    precision: str,
    group: ProcessGroup,
) -> str:
    """Return time, disk and memory of an evaluation as text."""

    @torch.no_grad()
    def probe() -> Iterator[float]:
        for batch in batches:
            with autocast(device, precision):
                model.eval()(*collate([dataset[i] for i in batch], dataset.pooling).model_inputs(device))
            yield len(batch)

    rate = total_rate(probe(), group)
    disk = len(dataset) * _num_classes(model) * BYTES_PER_PREDICTION
    return str(cost_estimate.estimate_cost(len(dataset), "video", rate, disk))


def total_rate(work: Iterator[float], group: ProcessGroup) -> float | None:
    """Return the units/s of all processes together; all measure their own work at the same time."""
    return sum(rate or 0.0 for rate in group.gather(cost_estimate.measure_rate(work))) or None


def _num_classes(model: torch.nn.Module) -> int:
    return [p.shape[0] for p in model.parameters()][-1]  # the bias of the last layer


def _probe_steps(state: TrainerState, dataset: PairedEmbeddings, batch_size: int) -> Iterator[float]:
    """Train on random batches; yield the number of videos of each."""
    order = random.Random(0).sample(range(len(dataset)), len(dataset))
    for start in range(0, len(order), batch_size):
        batch = collate([dataset[i] for i in order[start : start + batch_size]], dataset.pooling)
        train_one_epoch(
            state.model, [batch], state.optimizer, state.scaler, state.loss_function, state.device, state.precision
        )
        yield len(batch.videos)
