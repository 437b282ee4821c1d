"""What a metric is worth to one who knows nothing of the videos, and another library's way of averaging."""

from collections.abc import Iterator

import numpy as np


def constant_scores(prevalences: np.ndarray, num_videos: int) -> np.ndarray:
    """(N, C) of the predictor that gives every video the same (C,) prevalences, those of training."""
    return np.tile(np.asarray(prevalences, np.float64), (num_videos, 1))


def random_scores(shape: tuple[int, int], rounds: int, seed: int) -> Iterator[np.ndarray]:
    """Scores drawn evenly from 0 to 1, `rounds` times: for metrics that have no formula for it."""
    generator = np.random.default_rng(seed)
    for _ in range(rounds):
        yield generator.random(shape)


def random_precision(positives: int, count: int) -> float:
    """The expected AP of a random ranking of `count` of which so many are positive; NaN without one.

    At rank i a positive has expected precision (1 + (i - 1) (m - 1) / (n - 1)) / i, and each rank is as likely. It lies
    above the prevalence, the more the fewer there are (Bestgen, 2015)."""
    if not positives:
        return float("nan")
    harmonic = float((1 / np.arange(1, count + 1)).sum())
    others = (positives - 1) / (count - 1) if count > 1 else 0.0
    return (harmonic + others * (count - harmonic)) / count


def torchmetrics_macro(per_class: np.ndarray) -> float:
    """What torchmetrics' MultilabelAveragePrecision(average="macro") makes of (C,) per-class APs.

    There a class without a positive counts as 0 (torchmetrics 1.9), so that a perfect model is below 1."""
    return float(np.nan_to_num(per_class).mean())
