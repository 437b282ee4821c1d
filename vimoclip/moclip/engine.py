"""The loops that train and evaluate the student: plain functions of explicit things."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vimoclip import TrainingError, losses, metrics, runs
from vimoclip.cli import check_same
from vimoclip.clip import Preprocess
from vimoclip.data import Batch, Unreadable
from vimoclip.moclip import MoCLIP, Output

Losses = Callable[[Output, Batch], dict[str, torch.Tensor]]


def make_losses(mode: str, class_positive_weight: float, distillation_weight: float = 1.0) -> Losses:
    """loss = L_cls + L_distill (paper, eq. 6; its weight there is 1), and each alone."""

    def compute(output: Output, batch: Batch) -> dict[str, torch.Tensor]:
        distillation = losses.distillation(output.predicted.float(), batch.z_image, batch.mask, mode)
        classification = losses.classification(output.logits.float(), batch.labels, class_positive_weight)
        return {
            "loss": distillation_weight * distillation + classification,
            "distillation_loss": distillation,
            "classification_loss": classification,
        }

    return compute


@dataclass
class TrainState:
    """All that a run needs to go on: saved as `last.pth`. `progress` is plain Python; see `new_progress`."""

    model: MoCLIP
    config: dict[str, Any]
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    progress: dict[str, Any]

    def save(self, path: Path) -> None:
        content = {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random_state": runs.random_state(),
            "progress": self.progress,
            "config": self.config,
        }
        runs.save_checkpoint(path, content)

    def load(self, path: Path) -> None:
        """Raises UserError where the run was begun with another encoder, flow or teacher."""
        last = runs.load_checkpoint(path)
        check_same(self.config, last["config"], "this command", str(path), "go on with the same data, or start anew")
        runs.load_state(self.model, last["state_dict"], path)
        self.optimizer.load_state_dict(last["optimizer"])
        self.scheduler.load_state_dict(last["scheduler"])
        self.scaler.load_state_dict(last["scaler"])
        self.progress = last["progress"]
        runs.set_random_state(last["random_state"])


def new_progress() -> dict[str, Any]:
    """`epoch`, `step`, `global_step` done; `sums` of the epoch begun; `best` loss, epochs since (`stale`), `rows`.

    `unreadable`: what joined left_out.csv; `segments`: a hash of those trained on, in whose order the steps count."""
    progress = {"epoch": 0, "step": 0, "global_step": 0, "sums": {}, "best": math.inf, "stale": 0, "rows": []}
    return progress | {"unreadable": [], "segments": ""}


class Sums:
    """Means of losses over segments; its state is plain Python, so that a run can go on in the middle of an epoch."""

    def __init__(self, state: dict[str, float] | None = None):
        self.state = dict(state or {})

    def add(self, values: dict[str, torch.Tensor], count: int) -> None:
        for name, value in values.items():
            self.state[name] = self.state.get(name, 0.0) + float(value) * count
        self.state["count"] = self.state.get("count", 0) + count

    def means(self) -> dict[str, float]:
        count = self.state.get("count", 0) or 1
        return {name: total / count for name, total in self.state.items() if name != "count"}


Tell = Callable[[Unreadable], None]


def to_device(batch: Batch, device: torch.device, tell: Tell) -> Batch | None:
    """The batch's tensors on the device; None where nothing of it could be read. `tell` hears what could not."""
    for unreadable in batch.unreadable:
        tell(unreadable)
    if not batch.keys:
        return None
    tensors = {name: getattr(batch, name) for name in ("flow", "z_image", "mask", "labels")}
    return batch._replace(**{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


def check_finite(values: dict[str, torch.Tensor], batch: Batch, where: str) -> None:
    """Raise TrainingError, naming the batch's videos, for a loss that is not finite."""
    if not torch.isfinite(values["loss"]):
        raise TrainingError(
            f"the {where} loss is {values['loss'].item()} at videos {', '.join(dict.fromkeys(batch.keys))}; look at "
            "these, or lower --learning-rate; what was saved before is whole"
        )


def train_one_epoch(
    state: TrainState,
    loader: Iterable[Batch],
    compute_losses: Losses,
    preprocess: Preprocess,
    autocast: Callable[[], Any],
    *,
    sums: Sums,
    grad_clip_norm: float | None = None,
    after_step: Callable[[dict[str, float]], None] = lambda values: None,
    tell: Tell = print,
) -> dict[str, float]:
    """Train on what the loader gives; means of the losses over segments. Raises TrainingError if one isn't finite."""
    model, optimizer, scaler = state.model, state.optimizer, state.scaler
    device = next(model.parameters()).device
    trained = [p for p in model.parameters() if p.requires_grad]
    model.train()
    if not any(p.requires_grad for p in model.visual_encoder.parameters()):
        model.visual_encoder.eval()  # frozen also means that no running mean moves
    for given in loader:
        batch = to_device(given, device, tell)
        if batch is None:
            after_step({})
            continue
        with autocast():
            output = model(preprocess.normalize(batch.flow), batch.mask)
        values = compute_losses(output, batch)
        check_finite(values, batch, "training")
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(values["loss"]).backward()
        if grad_clip_norm is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(trained, grad_clip_norm)
        scaler.step(optimizer)
        scaler.update()
        detached = {name: value.detach() for name, value in values.items()}
        sums.add(detached, len(batch.keys))
        state.scheduler.step()
        after_step({name: float(value) for name, value in detached.items()})
    if not sums.state:
        raise TrainingError("no flow video of the training split can be read; make them anew with extract_flows.py")
    return sums.means()


@torch.no_grad()
def evaluate(
    model: MoCLIP,
    loader: Iterable[Batch],
    compute_losses: Losses,
    preprocess: Preprocess,
    autocast: Callable[[], Any],
    tell: Tell = print,
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """(losses and `head_map_macro`, `head_map_micro` over all videos; video -> (C,) probabilities of the head).

    A video's probabilities are the mean over its segments, each weighing as many flows as it has. Raises TrainingError
    for a loss that is not finite, or where nothing could be read."""
    device = next(model.parameters()).device
    model.eval()
    sums, weights = Sums(), dict[str, float]()
    scores, labels = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for given in loader:
        batch = to_device(given, device, tell)
        if batch is None:
            continue
        with autocast():
            output = model(preprocess.normalize(batch.flow), batch.mask)
        values = compute_losses(output, batch)
        check_finite(values, batch, "validation")
        sums.add(values, len(batch.keys))
        lengths = batch.mask.sum(1).tolist()
        for i, (key, row) in enumerate(zip(batch.keys, output.logits.float().sigmoid().cpu(), strict=True)):
            scores[key] = scores.get(key, torch.zeros(())) + row * lengths[i]
            weights[key] = weights.get(key, 0.0) + lengths[i]
            labels[key] = batch.labels[i].cpu()
    if not scores:
        raise TrainingError("no flow video of the validation split can be read; make them anew with extract_flows.py")
    means = sums.means()
    probabilities = {key: total / weights[key] for key, total in scores.items()}
    table, truth = torch.stack(list(probabilities.values())), torch.stack([labels[key] for key in probabilities])
    means["head_map_macro"] = metrics.map_macro(table, truth)
    means["head_map_micro"] = metrics.map_micro(table, truth)
    return means, probabilities
