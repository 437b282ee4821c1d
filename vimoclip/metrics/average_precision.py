"""Average precision of tensors."""

from collections.abc import Iterator

import torch


def average_precision(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Average precision as scikit-learn defines it: sum of (R_n - R_(n-1)) P_n over distinct scores, ties together.

    scores, targets: (N,). NaN where there is no positive. Raises ValueError for scores that are not finite."""
    if not torch.isfinite(scores).all():
        raise ValueError("a score is not finite")
    positives = int((targets > 0).sum())
    if positives == 0:
        return float("nan")
    order = torch.argsort(scores, descending=True, stable=True)
    ranked, hits = scores[order], (targets[order] > 0).double().cumsum(0)
    # the last place of each run of equal scores is the threshold that takes in the run whole
    last = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool, device=ranked.device)])
    found, taken = hits[last], torch.nonzero(last).squeeze(1).double() + 1
    gained = torch.diff(found, prepend=found.new_zeros(1))
    return float((gained / positives * found / taken).sum())


def average_precision_per_class(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(C,) float64 of each class's average precision from (N, C); NaN for a class without a positive."""
    columns = [average_precision(scores[:, c], targets[:, c]) for c in range(scores.shape[1])]
    return torch.tensor(columns, dtype=torch.float64)


def map_macro(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean of per-class AP over the classes that have a positive: Animal Kingdom's own metric, as in Charades."""
    per_class = average_precision_per_class(scores, targets)
    known = per_class[~per_class.isnan()]
    return float(known.mean()) if len(known) else float("nan")


def map_micro(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """AP over all (video, class) pairs pooled: what the paper's 77.09 is (torchmetrics, average="micro")."""
    return average_precision(scores.reshape(-1), targets.reshape(-1))


def permutations(targets: torch.Tensor, rounds: int, seed: int) -> Iterator[torch.Tensor]:
    """The rows of (N, C) in `rounds` random orders: what a metric gives for these is its chance level.

    Not a class's prevalence: the AP of random scores lies above it, the more the fewer positives there are."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(rounds):
        yield targets[torch.randperm(len(targets), generator=generator)]
