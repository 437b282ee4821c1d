"""Training and evaluation loops of the student."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch

from vimoclip import metrics
from vimoclip.clip import Preprocess
from vimoclip.errors import TrainingError
from vimoclip.moclip import MoCLIP, StudentOutput
from vimoclip.moclip.dataset import SegmentBatch, UnreadableVideo
from vimoclip.runtime.device import FetchFunction, copy_to_device, copy_to_host
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.runtime.onednn import use_onednn
from vimoclip.training import losses
from vimoclip.training.data_parallel import ModelReplica
from vimoclip.training.late_fetch import FiniteCheck, StepLosses, delay_by_one
from vimoclip.training.losses import LossMeter
from vimoclip.training.trainer import EvaluationResult

UnreadableCallback = Callable[[UnreadableVideo], None]
LOSS_NAMES = ("loss", "distillation_loss", "classification_loss")
NON_FINITE_HINT = "check these videos, or use a smaller --learning-rate"


@dataclass(frozen=True)
class StudentObjective:
    """Forward pass and losses of the student; "loss" is the one that is minimised."""

    preprocess: Preprocess
    autocast: Callable[[], AbstractContextManager[Any]]
    distillation_mode: str  # cosine or mse
    class_positive_weight: float
    distillation_weight: float = 1.0

    def __call__(
        self, model: Callable[..., StudentOutput], batch: SegmentBatch
    ) -> tuple[StudentOutput, dict[str, torch.Tensor]]:
        """Return (output, losses by name), the losses as means over segments."""
        with self.autocast():
            output = model(self.preprocess.normalize(batch.flow), batch.mask, batch.lengths)
        # paper, equations 4, 5 and, with weight 1, 6
        distill = losses.distillation_loss(output.predicted.float(), batch.z_image, batch.mask, self.distillation_mode)
        classify = losses.classification_loss(output.logits.float(), batch.labels, self.class_positive_weight)
        loss = self.distillation_weight * distill + classify
        return output, dict(zip(LOSS_NAMES, (loss, distill, classify), strict=True))


def train_steps(
    replica: ModelReplica,
    batches: Iterable[SegmentBatch],
    objective: StudentObjective,
    micro_batch_size: int | None = None,
    on_unreadable: UnreadableCallback = print,
) -> Iterator[LossMeter]:
    """Take an optimizer step per batch of all processes; yield its losses, empty if no segment could be read.

    Reading losses that are not finite raises TrainingError with the names of the micro-batch's videos.
    The gradient is that of the mean loss over all segments of the step: both losses are means over segments of values
    that depend on one segment only, so the gradients of micro-batches (default: one) add up to it."""
    model: Any = replica.state.model
    device = next(model.parameters()).device
    set_train_mode(model)
    for batch in batches:
        for video in chain(*replica.group.gather(batch.unreadable)):
            on_unreadable(video)
        with replica.step(len(batch.keys)) as step, use_onednn(device):
            for micro_batch in split_into_micro_batches(to_device(batch, device), micro_batch_size):
                count = len(micro_batch.keys)
                with step.micro_batch(count):
                    _, loss_values = objective(replica, micro_batch)
                    step.backward(loss_values, count, finite_check("training", micro_batch))
        yield step.losses


def split_into_micro_batches(batch: SegmentBatch, size: int | None) -> Iterator[SegmentBatch]:
    """Yield micro-batches of at most `size` segments; None: the whole batch."""
    for start in range(0, len(batch.keys), size or len(batch.keys) or 1):
        rows = slice(start, start + size if size else None)
        tensors = (batch.flow[rows], batch.z_image[rows], batch.mask[rows], batch.labels[rows])
        yield SegmentBatch(*tensors, batch.keys[rows], [], batch.indices[rows], batch.lengths[rows])


def to_device(batch: SegmentBatch, device: torch.device) -> SegmentBatch:
    """Copy the tensors to a device, and count the frames of each segment before, on the CPU."""
    lengths = batch.mask.sum(1).tolist() if batch.keys else []
    flow, z_image, mask, labels = (copy_to_device(tensor, device) for tensor in batch[:4])
    return batch._replace(flow=flow, z_image=z_image, mask=mask, labels=labels, lengths=lengths)


def finite_check(phase: str, batch: SegmentBatch) -> FiniteCheck:
    """Return the check of a batch's loss."""
    return partial(losses.check_finite, name=f"the {phase} loss", videos=batch.keys, hint=NON_FINITE_HINT)


def set_train_mode(model: MoCLIP) -> None:
    """Set training mode, except for a frozen encoder, whose running means must not change either."""
    model.train()
    if not any(p.requires_grad for p in model.visual_encoder.parameters()):
        model.visual_encoder.eval()


class SegmentScores(NamedTuple):
    """Results of one micro-batch of B segments."""

    first_index: int  # of the first segment in the dataset
    loss_sums: Mapping[str, float]
    keys: list[str]  # video id of each segment
    lengths: Sequence[int]  # numbers of flow frames
    scores: torch.Tensor  # (B, C) probabilities
    labels: torch.Tensor  # (B, C)


@torch.no_grad()
def evaluate(
    model: MoCLIP,
    batches: Iterable[SegmentBatch],
    objective: StudentObjective,
    micro_batch_size: int | None = None,
    on_unreadable: UnreadableCallback = print,
    group: ProcessGroup = ProcessGroup(),  # noqa: B008 - immutable
) -> EvaluationResult:
    """Return the mean losses, `head_map_macro` and `head_map_micro`, and the probabilities of all videos.

    A video's probabilities are the mean over its segments, weighted by their number of flow frames, over all processes
    of the group. Raises TrainingError if a loss is not finite, or if no segment could be read."""
    segment_scores, unreadable = list[SegmentScores](), list[UnreadableVideo]()
    device = next(model.parameters()).device
    model.eval()

    def score() -> Iterator[tuple[SegmentBatch, StepLosses, FetchFunction]]:
        for batch in batches:
            for video in batch.unreadable:
                unreadable.append(video)
                on_unreadable(video)
            for micro_batch in split_into_micro_batches(batch, micro_batch_size):
                on_device = to_device(micro_batch, device)
                with use_onednn(device):
                    output, loss_values = objective(model, on_device)
                step_losses = StepLosses()
                step_losses.add_part(loss_values, len(micro_batch.keys), finite_check("validation", micro_batch))
                fetch_scores = copy_to_host(output.logits.float().sigmoid().detach())
                yield micro_batch._replace(lengths=on_device.lengths), step_losses, fetch_scores

    for micro_batch, step_losses, fetch_scores in delay_by_one(score()):
        first_index = micro_batch.indices[0] if micro_batch.indices else len(segment_scores)
        # copy the labels: a tensor from a loader's worker keeps a file open
        scores = torch.from_numpy(fetch_scores())
        result = (micro_batch.keys, micro_batch.lengths, scores, micro_batch.labels.clone())
        segment_scores.append(SegmentScores(first_index, step_losses.sums, *result))
    gathered = group.gather((segment_scores, unreadable))
    for video in chain(*(videos for rank, (_, videos) in enumerate(gathered) if rank != group.rank)):
        on_unreadable(video)
    all_scores = chain(*(scores for scores, _ in gathered))
    return aggregate_scores(sorted(all_scores, key=lambda scores: scores.first_index))


def aggregate_scores(segment_scores: Iterable[SegmentScores]) -> EvaluationResult:
    """Compute the results of `evaluate` from all segments, in order. Raises TrainingError if there is none."""
    meter, weights = LossMeter(), dict[str, float]()
    weighted_sums, labels = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for _, loss_sums, keys, lengths, scores, segment_labels in segment_scores:
        meter.add(loss_sums)
        for key, length, segment_score, label in zip(keys, lengths, scores, segment_labels, strict=True):
            weighted_sums[key] = weighted_sums.get(key, torch.zeros(())) + segment_score * length
            weights[key] = weights.get(key, 0.0) + length
            labels[key] = label
    if not weighted_sums:
        raise TrainingError("no flow video of the validation split is readable", "run extract_flows.py again")
    probabilities = torch.stack([total / weights[key] for key, total in weighted_sums.items()])
    targets = torch.stack(list(labels.values()))
    head_metrics = {
        "head_map_macro": metrics.map_macro(probabilities, targets),
        "head_map_micro": metrics.map_micro(probabilities, targets),
    }
    return EvaluationResult(meter.means() | head_metrics, list(labels), probabilities, targets)
