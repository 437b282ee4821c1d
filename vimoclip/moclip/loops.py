"""The loops that train and evaluate the student: plain functions of explicit things."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn

from vimoclip import metrics
from vimoclip.clip import Preprocess
from vimoclip.errors import TrainingError
from vimoclip.moclip import MoCLIP, Output
from vimoclip.moclip.data_parallel import Replicas, parts
from vimoclip.moclip.dataset import Batch, Unreadable
from vimoclip.moclip.train_state import Sums, TrainState, new_progress
from vimoclip.runtime.distributed import Group
from vimoclip.runtime.onednn import by_onednn
from vimoclip.training import losses

__all__ = ["Losses", "Sums", "TrainState", "evaluate", "make_losses", "new_progress", "train_one_epoch"]

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


Tell = Callable[[Unreadable], None]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device."""
    tensors = {name: getattr(batch, name) for name in ("flow", "z_image", "mask", "labels")}
    return batch._replace(**{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


def check_finite(values: dict[str, torch.Tensor], batch: Batch, where: str) -> None:
    """Raise TrainingError, naming the batch's videos, for a loss that is not finite."""
    if not torch.isfinite(values["loss"]):
        raise TrainingError(
            f"the {where} loss is {values['loss'].item()} at videos {', '.join(dict.fromkeys(batch.keys))}; "
            "look at these, or lower --learning-rate",
            "what was saved before is whole",
        )


def train_one_epoch(
    state: TrainState,
    loader: Iterable[Batch],
    compute_losses: Losses,
    preprocess: Preprocess,
    autocast: Callable[[], Any],
    *,
    sums: Sums,
    replicas: Replicas | None = None,
    micro_batch_size: int | None = None,
    grad_clip_norm: float | None = None,
    after_step: Callable[[dict[str, float]], None] = lambda values: None,
    tell: Tell = print,
) -> dict[str, float]:
    """Train on what the loader gives; means of the losses over segments. Raises TrainingError if one isn't finite.

    A step is of the batches that all `replicas` have at that moment; each goes through the student in micro-batches of
    so many segments (default: all at once), whose gradients add up to that of all segments of the step."""
    replicas = replicas or Replicas(state.model)
    device = next(state.model.parameters()).device
    set_training(state.model)
    for number, batch in enumerate(loader, state.progress["global_step"]):
        found = replicas.group.gather((len(batch.keys), batch.unreadable))
        for unreadable in chain(*(unreadables for _, unreadables in found)):
            tell(unreadable)
        count = sum(keys for keys, _ in found)
        if not count:  # nothing of any of these could be read
            after_step({})
            continue
        replicas.begin_step(number)
        state.optimizer.zero_grad(set_to_none=True)
        with by_onednn(device):
            own = add_gradients(
                replicas,
                to_device(batch, device),
                count,
                micro_batch_size,
                state.scaler,
                compute_losses,
                preprocess,
                autocast,
            )
        take_step(state, grad_clip_norm)
        totals = replicas.group.gather(own)
        step = {name: sum(total.get(name, 0.0) for total in totals) for name in max(totals, key=len)}
        sums.add(step, count)
        after_step({name: total / count for name, total in step.items()})
    if not sums.state:
        raise TrainingError("no flow video of the training split can be read", "make them anew with extract_flows.py")
    return sums.means()


def set_training(model: MoCLIP) -> None:
    """Training mode, but for a frozen encoder: frozen also means that no running mean moves."""
    model.train()
    if not any(p.requires_grad for p in model.visual_encoder.parameters()):
        model.visual_encoder.eval()


def add_gradients(
    replicas: Replicas,
    batch: Batch,
    count: int,
    micro_batch_size: int | None,
    scaler: torch.amp.GradScaler,
    compute_losses: Losses,
    preprocess: Preprocess,
    autocast: Callable[[], Any],
) -> dict[str, float]:
    """Add this batch's part of the gradient of the mean loss over `count` segments; its losses, summed over its own.

    Both losses are means over segments of what is the segment's own, so a part weighs as many segments as it has.
    Raises TrainingError."""
    if not batch.keys:
        scaler.scale(replicas.blank()).backward()
        return {}
    sums, left = Sums(), len(batch.keys)
    for part in parts(batch, micro_batch_size or left):
        left -= len(part.keys)
        with replicas.exchanging(last=not left):
            with autocast():
                output = replicas(preprocess.normalize(part.flow), part.mask)
            values = compute_losses(output, part)
            check_finite(values, part, "training")
            # DistributedDataParallel takes the mean over the processes, where the sum is meant
            scaler.scale(values["loss"] * (len(part.keys) * replicas.group.size / count)).backward()
        sums.add({name: float(value.detach()) * len(part.keys) for name, value in values.items()}, len(part.keys))
    return {name: total for name, total in sums.state.items() if name != "count"}


def take_step(state: TrainState, grad_clip_norm: float | None) -> None:
    """Apply the gradients that are there."""
    if grad_clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_([p for p in state.model.parameters() if p.requires_grad], grad_clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.scheduler.step()


class Scored(NamedTuple):
    """Some segments: the first one's number, losses summed over them, and by segment video, flows, scores, labels."""

    place: int
    losses: dict[str, float]
    keys: list[str]
    lengths: list[int]
    scores: torch.Tensor
    labels: torch.Tensor


def evaluate(
    model: MoCLIP,
    loader: Iterable[Batch],
    compute_losses: Losses,
    preprocess: Preprocess,
    autocast: Callable[[], Any],
    tell: Tell = print,
    *,
    group: Group = Group(),  # noqa: B008 - it can't be changed
    micro_batch_size: int | None = None,
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """(losses and `head_map_macro`, `head_map_micro` over all videos; video -> (C,) probabilities of the head).

    A video's probabilities are the mean over its segments, each weighing as many flows as it has, whichever of the
    group's processes had them. Raises TrainingError for a loss that is not finite, or where nothing could be read."""
    scored, unreadable = list[Scored](), list[Unreadable]()
    model.eval()
    for batch in loader:
        for what in batch.unreadable:
            unreadable.append(what)
            tell(what)
        for part in parts(batch, micro_batch_size or max(1, len(batch.keys))):
            place = part.indices[0] if part.indices else len(scored)
            scored.append(score(model, part, place, compute_losses, preprocess, autocast))
    gathered = group.gather((scored, unreadable))
    for what in chain(*(theirs for rank, (_, theirs) in enumerate(gathered) if rank != group.rank)):
        tell(what)
    return summarise(sorted(chain(*(theirs for theirs, _ in gathered)), key=lambda some: some.place))


@torch.no_grad()
def score(
    model: MoCLIP,
    batch: Batch,
    place: int,
    compute_losses: Losses,
    preprocess: Preprocess,
    autocast: Callable[[], Any],
) -> Scored:
    """Raises TrainingError for a loss that is not finite."""
    there = to_device(batch, next(model.parameters()).device)
    with autocast(), by_onednn(there.flow.device):
        output = model(preprocess.normalize(there.flow), there.mask)
    values = compute_losses(output, there)
    check_finite(values, batch, "validation")
    totals = {name: float(value) * len(batch.keys) for name, value in values.items()}
    scores = output.logits.float().sigmoid().cpu()
    # a copy: what a loader's worker has given keeps a file open for as long as it is kept
    return Scored(place, totals, batch.keys, batch.mask.sum(1).tolist(), scores, batch.labels.clone())


def summarise(scored: Iterable[Scored]) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """What `evaluate` gives, from all segments in their order. Raises TrainingError where there is none."""
    sums, weights = Sums(), dict[str, float]()
    scores, labels = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for some in scored:
        sums.add(some.losses, len(some.keys))
        for key, length, row, truth in zip(some.keys, some.lengths, some.scores, some.labels, strict=True):
            scores[key] = scores.get(key, torch.zeros(())) + row * length
            weights[key] = weights.get(key, 0.0) + length
            labels[key] = truth
    if not scores:
        raise TrainingError("no flow video of the validation split can be read", "make them anew with extract_flows.py")
    means = sums.means()
    probabilities = {key: total / weights[key] for key, total in scores.items()}
    table, truths = torch.stack(list(probabilities.values())), torch.stack([labels[key] for key in probabilities])
    means["head_map_macro"] = metrics.map_macro(table, truths)
    means["head_map_micro"] = metrics.map_micro(table, truths)
    return means, probabilities
