"""Metrics as pure functions. A name says which average it is.

Those of a training run take tensors; those of an evaluation numpy: `scores` (N, C) float64, `targets` (N, C) bool,
`weights` (R, N) integers, how often each of N videos was drawn in each of R resamples."""

from vimoclip.metrics.average_precision import (
    average_precision,
    average_precision_per_class,
    map_macro,
    map_micro,
    permutations,
)
from vimoclip.metrics.baselines import constant_scores, random_precision, random_scores, torchmetrics_macro
from vimoclip.metrics.bootstrap import (
    Resampled,
    draw_weights,
    interval,
    macro,
    resampled_micro,
    resampled_per_class,
    resampled_precisions,
    weighted_mean,
)
from vimoclip.metrics.calibration import Reliability, ece, reliability
from vimoclip.metrics.thresholds import F1, f1, fit_thresholds
from vimoclip.metrics.top_k import hit_at_1, mean_per_class_top1, precision_at_k, top1

__all__ = [
    "F1",
    "Reliability",
    "Resampled",
    "average_precision",
    "average_precision_per_class",
    "constant_scores",
    "draw_weights",
    "ece",
    "f1",
    "fit_thresholds",
    "hit_at_1",
    "interval",
    "macro",
    "map_macro",
    "map_micro",
    "mean_per_class_top1",
    "permutations",
    "precision_at_k",
    "random_precision",
    "random_scores",
    "reliability",
    "resampled_micro",
    "resampled_per_class",
    "resampled_precisions",
    "top1",
    "torchmetrics_macro",
    "weighted_mean",
]
