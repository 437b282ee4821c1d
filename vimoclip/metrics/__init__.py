"""Metrics as pure functions.

Training uses average_precision.py, which takes tensors. The other modules take numpy arrays: `scores` (N, C) float64,
`targets` (N, C) bool, `weights` (R, N) int: how often each of R resamples contains each of N videos."""

from vimoclip.metrics.average_precision import (
    average_precision_per_class,
    bootstrap_ap_micro,
    bootstrap_ap_per_class,
    bootstrap_weights,
    confidence_interval,
    expected_random_ap,
    macro_average,
    map_macro,
    map_micro,
    permute_targets,
    weighted_mean,
)
from vimoclip.metrics.baselines import constant_scores, random_scores, torchmetrics_macro
from vimoclip.metrics.calibration import ReliabilityCurve, ece, reliability_curve
from vimoclip.metrics.names import METRIC_NAMES, MetricName
from vimoclip.metrics.ranking import ScoreSteps, descending_order, score_steps
from vimoclip.metrics.thresholds import F1Scores, f1_scores, fit_thresholds
from vimoclip.metrics.top_k import hit_at_1, mean_per_class_top1, precision_at_k, top1

__all__ = [
    "METRIC_NAMES",
    "F1Scores",
    "MetricName",
    "ReliabilityCurve",
    "ScoreSteps",
    "average_precision_per_class",
    "bootstrap_ap_micro",
    "bootstrap_ap_per_class",
    "bootstrap_weights",
    "confidence_interval",
    "constant_scores",
    "descending_order",
    "ece",
    "expected_random_ap",
    "f1_scores",
    "fit_thresholds",
    "hit_at_1",
    "macro_average",
    "map_macro",
    "map_micro",
    "mean_per_class_top1",
    "permute_targets",
    "precision_at_k",
    "random_scores",
    "reliability_curve",
    "score_steps",
    "top1",
    "torchmetrics_macro",
    "weighted_mean",
]
