"""What --dry-run says: how far a run is, and from some real steps how long it takes and what it needs."""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from TFAM.data import Pairs, collate
from TFAM.loops import train_one_epoch
from TFAM.trainer import Trainee
from vimoclip.runtime import cost_estimate
from vimoclip.runtime.device import autocast
from vimoclip.runtime.distributed import Group
from vimoclip.training import checkpoint

VALIDATION = 1 / 3  # of the work of a training video: no gradients
PREDICTION = 12  # bytes of a probability in predictions.csv


def say_what_to_do(
    about: Mapping[str, Any],
    splits: Mapping[str, Pairs],
    folder: Path,
    device: torch.device,
    precision: str,
    overwrite: bool,
    group: Group,
) -> None:
    """How many epochs are left, and what they cost. The steps that are tried are of a model that is thrown away."""
    training = about["config"]["training"]
    done, videos = (0, 0) if overwrite else epochs_done(folder / "last.pth")
    train, watched = len(splits["train"]), next(len(pairs) for split, pairs in splits.items() if split != "train")
    left = (training["epochs"] - done) * (train + VALIDATION * watched) - videos
    clips = " (selection clips; those that are reported come on top, once)" if "val" not in splits else ""
    print(
        f"{folder}: {done} of {training['epochs']} epochs are done, {train} videos to train on and "
        f"{watched} to validate{clips}, on {device} in {precision}; nothing was written"
    )
    if left > 0:
        left += VALIDATION * watched  # the epoch that was chosen, once more
        trainee = Trainee(about["config"], device, precision)
        rate = rate_of_all(_steps(trainee, splits["train"], training["batch_size"], device), group)
        print(cost_estimate.describe(left, "video", rate, disk(trainee.model, watched), cost_estimate.memory()))


def epochs_done(last: Path) -> tuple[int, int]:
    """Whole epochs, and videos of the next. Raises UserError for what is no checkpoint."""
    if not last.is_file():
        return 0, 0
    state = checkpoint.load_checkpoint(last)
    return len(state.get("history", [])), state.get("progress", {}).get("videos", 0)


def disk(model: torch.nn.Module, validated: int) -> int:
    """Bytes of best_model.pth, of last.pth with the optimiser's two moments, and of predictions.csv."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    classes = [p.shape[0] for p in model.parameters()][-1]
    return 4 * weights + validated * classes * PREDICTION


def cost_of_evaluation(
    model: torch.nn.Module,
    val: Pairs,
    batches: Sequence[list[int]],
    device: torch.device,
    precision: str,
    group: Group,
) -> str:
    """How long evaluating takes, and what it needs."""

    @torch.no_grad()
    def work() -> Iterator[float]:
        for batch in batches:
            with autocast(device, precision):
                model.eval()(*collate([val[i] for i in batch]).inputs(device))
            yield len(batch)

    classes = [p.shape[0] for p in model.parameters()][-1]
    rate = rate_of_all(work(), group)
    return cost_estimate.describe(len(val), "video", rate, len(val) * classes * PREDICTION, cost_estimate.memory())


def rate_of_all(work: Iterator[float], group: Group) -> float | None:
    """Units/s of all processes together, each of which tries its own work at the same time."""
    return sum(rate or 0.0 for rate in group.gather(cost_estimate.rate(work))) or None


def _steps(trainee: Trainee, pairs: Pairs, batch_size: int, device: torch.device) -> Iterator[float]:
    """Steps of training on batches from here and there."""
    order = random.Random(0).sample(range(len(pairs)), len(pairs))
    for start in range(0, len(order), batch_size):
        batch = collate([pairs[i] for i in order[start : start + batch_size]])
        parts = trainee.model, [batch], trainee.optimizer, trainee.scaler, trainee.loss, device, trainee.precision
        train_one_epoch(*parts)
        yield len(batch.videos)
