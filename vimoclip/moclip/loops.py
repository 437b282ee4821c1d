"""Training and evaluation loops of the student."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import nn

from vimoclip import metrics
from vimoclip.clip import Preprocess
from vimoclip.errors import TrainingError
from vimoclip.moclip import MoCLIP, StudentOutput
from vimoclip.moclip.data_parallel import DistributedStudent, split_into_micro_batches
from vimoclip.moclip.dataset import SegmentBatch, UnreadableVideo
from vimoclip.moclip.train_state import LossMeter, StudentTrainerState
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.runtime.onednn import use_onednn
from vimoclip.training import losses

# (output, batch) -> losses by name; "loss" is the one that is minimised
StudentLossFunction = Callable[[StudentOutput, SegmentBatch], dict[str, torch.Tensor]]
UnreadableCallback = Callable[[UnreadableVideo], None]


def make_loss_function(
    mode: str, class_positive_weight: float, distillation_weight: float = 1.0
) -> StudentLossFunction:
    """Return a function that computes L_cls + weight * L_distill (paper, eq. 6, with weight 1) and both terms."""

    def compute_losses(output: StudentOutput, batch: SegmentBatch) -> dict[str, torch.Tensor]:
        distillation = losses.distillation_loss(output.predicted.float(), batch.z_image, batch.mask, mode)
        classification = losses.classification_loss(output.logits.float(), batch.labels, class_positive_weight)
        return {
            "loss": distillation_weight * distillation + classification,
            "distillation_loss": distillation,
            "classification_loss": classification,
        }

    return compute_losses


def to_device(batch: SegmentBatch, device: torch.device) -> SegmentBatch:
    tensors = {name: getattr(batch, name) for name in ("flow", "z_image", "mask", "labels")}
    return batch._replace(**{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


def check_finite(loss_values: dict[str, torch.Tensor], batch: SegmentBatch, phase: str) -> None:
    """Raise TrainingError with the names of the batch's videos if the loss is not finite."""
    if not torch.isfinite(loss_values["loss"]):
        videos = ", ".join(dict.fromkeys(batch.keys))
        raise TrainingError(
            f"the {phase} loss is {loss_values['loss'].item()} at videos {videos}",
            "check these videos, or lower --learning-rate; earlier checkpoints are intact",
        )


def train_one_epoch(
    state: StudentTrainerState,
    loader: Iterable[SegmentBatch],
    compute_losses: StudentLossFunction,
    preprocess: Preprocess,
    autocast: Callable[[], Any],
    *,
    meter: LossMeter,
    student: DistributedStudent | None = None,
    micro_batch_size: int | None = None,
    grad_clip_norm: float | None = None,
    after_step: Callable[[dict[str, float]], None] = lambda mean_losses: None,
    on_unreadable: UnreadableCallback = print,
) -> dict[str, float]:
    """Train on the loader's batches and return the mean losses over segments, including those already in `meter`.

    A step consists of one batch of each process, split into micro-batches (default: one) whose gradients add up to
    the gradient of the mean loss over all segments of the step. `after_step` gets the mean losses of the step, empty
    if none of its segments could be read. Raises TrainingError if a loss is not finite."""
    student = student or DistributedStudent(state.model)
    device = next(state.model.parameters()).device
    set_train_mode(state.model)
    for step, batch in enumerate(loader, state.progress["global_step"]):
        gathered = student.group.gather((len(batch.keys), batch.unreadable))
        for unreadable in chain(*(videos for _, videos in gathered)):
            on_unreadable(unreadable)
        num_segments = sum(count for count, _ in gathered)
        if not num_segments:
            after_step({})
            continue
        student.seed_step(step)
        state.optimizer.zero_grad(set_to_none=True)
        with use_onednn(device):
            local_sums = accumulate_gradients(
                student,
                to_device(batch, device),
                num_segments,
                micro_batch_size,
                state.scaler,
                compute_losses,
                preprocess,
                autocast,
            )
        optimizer_step(state, grad_clip_norm)
        rank_sums = student.group.gather(local_sums)
        loss_sums = {name: sum(sums.get(name, 0.0) for sums in rank_sums) for name in max(rank_sums, key=len)}
        meter.add(loss_sums, num_segments)
        after_step({name: total / num_segments for name, total in loss_sums.items()})
    if not meter.state:
        raise TrainingError(
            "no flow video of the training split can be read", "create them again with extract_flows.py"
        )
    return meter.means()


def set_train_mode(model: MoCLIP) -> None:
    """Set training mode, except for a frozen encoder, whose running means must not change either."""
    model.train()
    if not any(p.requires_grad for p in model.visual_encoder.parameters()):
        model.visual_encoder.eval()


def accumulate_gradients(
    student: DistributedStudent,
    batch: SegmentBatch,
    num_segments: int,
    micro_batch_size: int | None,
    scaler: torch.amp.GradScaler,
    compute_losses: StudentLossFunction,
    preprocess: Preprocess,
    autocast: Callable[[], Any],
) -> dict[str, float]:
    """Add this batch's part of the gradient of the mean loss over `num_segments`; return the batch's summed losses.

    Both losses are means over segments of values that depend on one segment only, so a micro-batch is weighted by its
    number of segments. Raises TrainingError if a loss is not finite."""
    if not batch.keys:
        scaler.scale(student.zero_loss()).backward()
        return {}
    meter, remaining = LossMeter(), len(batch.keys)
    for micro_batch in split_into_micro_batches(batch, micro_batch_size or remaining):
        size = len(micro_batch.keys)
        remaining -= size
        with student.gradient_sync(is_last=not remaining):
            with autocast():
                output = student(preprocess.normalize(micro_batch.flow), micro_batch.mask)
            loss_values = compute_losses(output, micro_batch)
            check_finite(loss_values, micro_batch, "training")
            # times the number of processes, over which DistributedDataParallel averages gradients
            scaler.scale(loss_values["loss"] * (size * student.group.size / num_segments)).backward()
        meter.add({name: float(value.detach()) * size for name, value in loss_values.items()}, size)
    return {name: total for name, total in meter.state.items() if name != "count"}


def optimizer_step(state: StudentTrainerState, grad_clip_norm: float | None) -> None:
    """Clip the accumulated gradients, if requested, and update parameters, gradient scale and learning rate."""
    if grad_clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_([p for p in state.model.parameters() if p.requires_grad], grad_clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.scheduler.step()


class SegmentScores(NamedTuple):
    """Results of one micro-batch of B segments."""

    first_index: int  # of the first segment in the dataset
    loss_sums: dict[str, float]
    keys: list[str]  # videos of the segments
    lengths: list[int]  # numbers of flow frames
    scores: torch.Tensor  # (B, C) probabilities
    labels: torch.Tensor  # (B, C)


def evaluate(
    model: MoCLIP,
    loader: Iterable[SegmentBatch],
    compute_losses: StudentLossFunction,
    preprocess: Preprocess,
    autocast: Callable[[], Any],
    on_unreadable: UnreadableCallback = print,
    *,
    group: ProcessGroup = ProcessGroup(),  # noqa: B008 - immutable
    micro_batch_size: int | None = None,
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Return (mean losses, with `head_map_macro` and `head_map_micro` over all videos; video -> (C,) probabilities).

    A video's probabilities are the mean over its segments, weighted by their number of flow frames, over all processes
    of the group. Raises TrainingError if a loss is not finite, or if no segment could be read."""
    segment_scores, unreadable = list[SegmentScores](), list[UnreadableVideo]()
    model.eval()
    for batch in loader:
        for video in batch.unreadable:
            unreadable.append(video)
            on_unreadable(video)
        for micro_batch in split_into_micro_batches(batch, micro_batch_size or max(1, len(batch.keys))):
            first_index = micro_batch.indices[0] if micro_batch.indices else len(segment_scores)
            segment_scores.append(score_segments(model, micro_batch, first_index, compute_losses, preprocess, autocast))
    gathered = group.gather((segment_scores, unreadable))
    for video in chain(*(videos for rank, (_, videos) in enumerate(gathered) if rank != group.rank)):
        on_unreadable(video)
    all_scores = chain(*(scores for scores, _ in gathered))
    return aggregate_scores(sorted(all_scores, key=lambda scores: scores.first_index))


@torch.no_grad()
def score_segments(
    model: MoCLIP,
    batch: SegmentBatch,
    first_index: int,
    compute_losses: StudentLossFunction,
    preprocess: Preprocess,
    autocast: Callable[[], Any],
) -> SegmentScores:
    """Evaluate one micro-batch. Raises TrainingError if the loss is not finite."""
    on_device = to_device(batch, next(model.parameters()).device)
    with autocast(), use_onednn(on_device.flow.device):
        output = model(preprocess.normalize(on_device.flow), on_device.mask)
    loss_values = compute_losses(output, on_device)
    check_finite(loss_values, batch, "validation")
    loss_sums = {name: float(value) * len(batch.keys) for name, value in loss_values.items()}
    scores = output.logits.float().sigmoid().cpu()
    # copy the labels: a tensor from a loader's worker keeps a file open
    return SegmentScores(first_index, loss_sums, batch.keys, batch.mask.sum(1).tolist(), scores, batch.labels.clone())


def aggregate_scores(
    segment_scores: Iterable[SegmentScores],
) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Compute the results of `evaluate` from all segments, in order. Raises TrainingError if there is none."""
    meter, weights = LossMeter(), dict[str, float]()
    weighted_sums, labels = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for batch_scores in segment_scores:
        _, loss_sums, keys, lengths, scores, segment_labels = batch_scores
        meter.add(loss_sums, len(keys))
        for key, length, segment_score, label in zip(keys, lengths, scores, segment_labels, strict=True):
            weighted_sums[key] = weighted_sums.get(key, torch.zeros(())) + segment_score * length
            weights[key] = weights.get(key, 0.0) + length
            labels[key] = label
    if not weighted_sums:
        raise TrainingError(
            "no flow video of the validation split can be read", "create them again with extract_flows.py"
        )
    means = meter.means()
    probabilities = {key: total / weights[key] for key, total in weighted_sums.items()}
    all_scores, targets = torch.stack(list(probabilities.values())), torch.stack([labels[key] for key in probabilities])
    means["head_map_macro"] = metrics.map_macro(all_scores, targets)
    means["head_map_micro"] = metrics.map_micro(all_scores, targets)
    return means, probabilities
