"""Metrics as pure functions.

`map_macro`, `map_micro` and `average_precision_per_class`, which training uses, take tensors. The others take arrays:
`scores` (N, C) float64, `targets` (N, C) bool, `weights` (R, N) int: how often each of R resamples contains each of N
videos."""

from vimoclip.metrics.average_precision import (
    average_precision_per_class,
    bootstrap_ap_micro,
    bootstrap_ap_per_class,
    bootstrap_weights,
    cluster_bootstrap_weights,
    confidence_interval,
    expected_random_ap,
    macro_average,
    map_macro,
    map_micro,
    permute_targets,
    weighted_mean,
)
from vimoclip.metrics.calibration import ece, f1_scores, fit_thresholds, reliability_bins
from vimoclip.metrics.names import METRIC_NAMES, format_fraction
from vimoclip.metrics.ranking import descending_order, mean_per_class_top1, precision_at_k, score_steps

__all__ = [
    "METRIC_NAMES",
    "average_precision_per_class",
    "bootstrap_ap_micro",
    "bootstrap_ap_per_class",
    "bootstrap_weights",
    "cluster_bootstrap_weights",
    "confidence_interval",
    "descending_order",
    "ece",
    "expected_random_ap",
    "f1_scores",
    "fit_thresholds",
    "format_fraction",
    "macro_average",
    "map_macro",
    "map_micro",
    "mean_per_class_top1",
    "permute_targets",
    "precision_at_k",
    "reliability_bins",
    "score_steps",
    "weighted_mean",
]
