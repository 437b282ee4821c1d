"""Average precision (AP) of tensors."""

from collections.abc import Iterator

import numpy as np
import torch

from vimoclip.metrics.ranking import score_steps


def average_precision(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Return AP as in scikit-learn: sum of (R_n - R_(n-1)) P_n over distinct scores, so that ties count as one step.

    scores, targets: (N,). NaN without a positive. Raises ValueError for scores that are not finite."""
    if not torch.isfinite(scores).all():
        raise ValueError("a score is not finite")
    num_positives = int((targets > 0).sum())
    if num_positives == 0:
        return float("nan")
    # numpy has no bfloat16
    _, predicted, true_positives = score_steps(scores.detach().double().cpu().numpy(), (targets > 0).cpu().numpy())
    gains = np.diff(true_positives, prepend=0)
    # torch's sum: numpy's has other last digits
    return float(torch.from_numpy(gains / num_positives * true_positives / predicted).sum())


def average_precision_per_class(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return (C,) float64 APs from (N, C) scores and targets; NaN for a class without a positive."""
    columns = [average_precision(scores[:, c], targets[:, c]) for c in range(scores.shape[1])]
    return torch.tensor(columns, dtype=torch.float64)


def map_macro(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the mean AP over the classes that have a positive: the metric of Animal Kingdom and Charades."""
    per_class = average_precision_per_class(scores, targets)
    valid = per_class[~per_class.isnan()]
    return float(valid.mean()) if len(valid) else float("nan")


def map_micro(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the AP over all (video, class) pairs pooled: the paper's 77.09 (torchmetrics, average="micro")."""
    return average_precision(scores.reshape(-1), targets.reshape(-1))


def permute_targets(targets: torch.Tensor, rounds: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield the rows of (N, C) targets in `rounds` random orders, for the chance level of a metric.

    The chance level of AP is above the prevalence; the fewer positives, the larger the difference."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(rounds):
        yield targets[torch.randperm(len(targets), generator=generator)]
