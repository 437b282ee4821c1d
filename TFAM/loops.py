"""Training and evaluation loops of the fusion Transformer."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import zip_longest

import numpy as np
import torch

from TFAM.data import FusionBatch
from vimoclip import metrics
from vimoclip.runtime.device import FetchFunction, autocast, copy_to_device, copy_to_host
from vimoclip.runtime.distributed import ProcessGroup
from vimoclip.training.data_parallel import ModelReplica
from vimoclip.training.late_fetch import delay_by_one
from vimoclip.training.losses import LossMeter, check_finite
from vimoclip.training.trainer import EvaluationResult

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
NON_FINITE_HINT = "check their embeddings for NaN, or use a smaller training.lr, training.grad_clip_norm=1 or "
NON_FINITE_HINT += "--precision fp32"


def train_steps(
    replica: ModelReplica,
    batches: Iterable[FusionBatch],
    loss_function: LossFunction,
    device: torch.device,
    precision: str,
) -> Iterator[LossMeter]:
    """Take an optimizer step per batch of all processes, and yield its loss.

    Reading a loss that is not finite raises TrainingError with the names of the batch's videos."""
    replica.state.model.train()
    for batch in batches:
        with replica.step(len(batch.videos)) as step:
            for part in batch.parts() if batch.videos else ():
                count = len(part.videos)
                with step.micro_batch(count):
                    with autocast(device, precision):
                        logits = replica(*part.model_inputs(device))
                    loss = loss_function(logits.float(), copy_to_device(part.labels, device))
                    check = partial(check_finite, name="the loss", videos=part.videos, hint=NON_FINITE_HINT)
                    step.backward({"loss": loss}, count, check)
        yield step.losses


def score_batch(model: torch.nn.Module, batch: FusionBatch, device: torch.device, precision: str) -> torch.Tensor:
    """Return the logits (B, C) of a batch, in float32."""
    with autocast(device, precision):
        return torch.cat([model(*part.model_inputs(device)).float() for part in batch.parts()])


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    loader: Iterable[FusionBatch],
    loss_function: LossFunction,
    device: torch.device,
    precision: str,
    group: ProcessGroup = ProcessGroup(),  # noqa: B008 - immutable
) -> EvaluationResult:
    """Evaluate the videos of all processes.

    Each process has the batches of `sequential_batches`. Raises TrainingError with the names of the batch's videos if
    logits are not finite."""
    model.eval()
    # per batch: (video, logits, labels); in NumPy, as a pickled row of a tensor carries the tensor's whole storage
    local_batches: list[list[tuple[str, np.ndarray, np.ndarray]]] = []
    for names, fetch_logits, fetch_labels in delay_by_one(_score(model, loader, device, precision)):
        logits = fetch_logits()
        check_finite(torch.from_numpy(logits), "a logit", names, NON_FINITE_HINT)
        local_batches.append(list(zip(names, logits, fetch_labels().copy(), strict=True)))
    batches_of_ranks = group.gather(local_batches)
    # batch i of a rank is batch rank + i * size of all
    rows = [row for batches in zip_longest(*batches_of_ranks, fillvalue=[]) for batch in batches for row in batch]
    videos = [video for video, _, _ in rows]
    all_logits, labels = (torch.from_numpy(np.stack([row[column] for row in rows])) for column in (1, 2))
    probabilities = all_logits.sigmoid()
    return EvaluationResult(
        {
            "loss": float(loss_function(all_logits, labels)),
            "map_macro": metrics.map_macro(probabilities, labels),
            "map_micro": metrics.map_micro(probabilities, labels),
            "classes_with_a_positive": int((labels > 0).any(0).sum()),
            "num_videos": len(videos),
        },
        videos,
        probabilities,
        labels,
    )


def _score(
    model: torch.nn.Module, loader: Iterable[FusionBatch], device: torch.device, precision: str
) -> Iterator[tuple[list[str], FetchFunction, FetchFunction]]:
    """Yield (videos, functions that fetch logits and labels) of each batch."""
    for batch in loader:
        logits = score_batch(model, batch, device, precision)
        yield batch.videos, copy_to_host(logits), copy_to_host(batch.labels)
