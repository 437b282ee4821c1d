"""Predictors that ignore the videos (constant, random), and torchmetrics' macro average."""

from collections.abc import Iterator

import numpy as np


def constant_scores(prevalences: np.ndarray, num_videos: int) -> np.ndarray:
    """Return the (N, C) scores of a predictor that gives every video the (C,) prevalences of the training split."""
    return np.tile(np.asarray(prevalences, np.float64), (num_videos, 1))


def random_scores(shape: tuple[int, int], rounds: int, seed: int) -> Iterator[np.ndarray]:
    """Yield uniform scores in [0, 1) `rounds` times, for metrics whose chance level has no formula."""
    generator = np.random.default_rng(seed)
    for _ in range(rounds):
        yield generator.random(shape)


def torchmetrics_macro(per_class: np.ndarray) -> float:
    """Return the value of torchmetrics' MultilabelAveragePrecision(average="macro") for (C,) per-class APs.

    torchmetrics 1.9 counts a class without a positive as 0, so that a perfect model scores below 1."""
    return float(np.nan_to_num(per_class).mean())
