"""Metrics with confidence intervals over videos and chance levels.

An entry is {"value", "ci95", "baseline", "random"}: the metric of all videos, its 95 % bootstrap interval, and the same
metric of two predictors that ignore the videos. The baseline scores each video with the training prevalences, the other
at random."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vimoclip import metrics
from vimoclip.annotations import PARTITIONS, SEGMENTS, Annotations
from vimoclip.evaluation.sources import TrainingCounts

RANDOM_ROUNDS = 20  # random predictors, for metrics whose chance level has no formula
CALIBRATION_BINS = 15
# Classes with fewer positives get no interval, since a bootstrap interval of few positives is too narrow: simulated
# 95 % intervals covered the true value in 29 % of cases at one positive, 67 at two, 83 at three, 90 at five, 94 at ten
# (NOTES.md)
MIN_POSITIVES_FOR_CI = 5
MetricEntry = dict[str, Any]
MetricFunction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # scores, targets, weights (R, N) -> (R,)


@dataclass(frozen=True)
class ScoredVideos:
    """`scores` (N, C) probabilities, `targets` (N, C) bool, `weights` (1 + R, N): ones, then R resamples.

    `prevalences` (C,): fraction of the training videos that have each class; None without training videos."""

    scores: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    prevalences: np.ndarray | None
    seed: int

    def subset(self, videos: np.ndarray) -> "ScoredVideos":
        """Return the videos selected by indices or a mask."""
        return ScoredVideos(
            self.scores[videos], self.targets[videos], self.weights[:, videos], self.prevalences, self.seed
        )

    def constant_scores(self) -> np.ndarray | None:
        """Return the (N, C) scores of the constant predictor; None without training videos."""
        return None if self.prevalences is None else metrics.constant_scores(self.prevalences, len(self.scores))


def draw_sample_weights(num_videos: int, resamples: int, seed: int) -> np.ndarray:
    """Return (1 + R, N) weights: ones for all videos, then those of the resamples."""
    weights = metrics.bootstrap_weights(num_videos, resamples, seed)
    return np.concatenate([np.ones((1, num_videos), weights.dtype), weights])


def metric_entry(values: np.ndarray, baseline: float | None, random: float | None) -> MetricEntry:
    """Return an entry from (1 + R,) values: of all videos, then of the resamples."""
    return {
        "value": nan_to_none(values[0]),
        "ci95": bounded_interval(values),
        "baseline": nan_to_none(baseline),
        "random": nan_to_none(random),
    }


def bounded_interval(values: np.ndarray, low: float = 0.0) -> list[float] | None:
    """Return the interval of (1 + R,) values, clipped to `low`..1; None if it is not defined."""
    bounds = metrics.confidence_interval(values[1:], value=float(values[0]))
    return None if any(math.isnan(bound) for bound in bounds) else [max(low, bounds[0]), min(1.0, bounds[1])]


def class_interval(values: np.ndarray, positives: int, low: float = 0.0) -> list[float] | None:
    """Return `bounded_interval` of one class; None also for a class with few positives."""
    return bounded_interval(values, low) if positives >= MIN_POSITIVES_FOR_CI else None


def nan_to_none(value: Any) -> float | None:
    """Return a float, or None for None and NaN, which JSON lacks."""
    return None if value is None or math.isnan(value) else float(value)


def map_entries(
    scored: ScoredVideos, ap_per_class: np.ndarray, class_ids: Sequence[int] | None = None
) -> dict[str, MetricEntry]:
    """Return `map_macro` and `map_micro` of the class ids (default: all). `ap_per_class` (1 + R, C): of all classes."""
    columns = np.arange(scored.targets.shape[1]) if class_ids is None else np.asarray(class_ids)
    targets, unit_weights = scored.targets[:, columns], np.ones((1, len(scored.targets)), np.int64)
    positives = targets.sum(0)
    random_ap = [metrics.expected_random_ap(int(count), len(targets)) for count in positives]
    constant, constant_macro, constant_micro = scored.constant_scores(), None, None
    if constant is not None:
        ap = metrics.bootstrap_ap_per_class(constant[:, columns], targets, unit_weights)
        constant_macro = float(metrics.macro_average(ap)[0])
        constant_micro = float(metrics.bootstrap_ap_micro(constant[:, columns], targets, unit_weights)[0])
    macro = metric_entry(
        metrics.macro_average(ap_per_class[:, columns]),
        constant_macro,
        float(metrics.macro_average(np.array(random_ap))),
    )
    micro = metrics.bootstrap_ap_micro(scored.scores[:, columns], targets, scored.weights)
    random_micro = metrics.expected_random_ap(int(positives.sum()), targets.size)
    return {
        "map_macro": macro | {"classes": int((positives > 0).sum())},
        "map_micro": metric_entry(micro, constant_micro, random_micro),
    }


def metrics_by_segment(
    scored: ScoredVideos, ap_per_class: np.ndarray, partitions: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """Return partition -> segment (head, middle, tail) -> entries of its classes."""
    entries: dict[str, dict[str, Any]] = {}
    for name, segments in partitions.items():
        ids_by_segment = {s: [c for c, segment in enumerate(segments) if segment == s] for s in SEGMENTS}
        entries[name] = {
            segment: {"classes": len(class_ids), **map_entries(scored, ap_per_class, class_ids)}
            for segment, class_ids in ids_by_segment.items()
            if class_ids
        }
    return entries


def metrics_by_animal_class(scored: ScoredVideos, animal_classes: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Return class of animals -> entries of the videos that show one. A video with several classes counts in each.

    `animal_classes`: the classes of animals of each video."""
    entries = {}
    for name in sorted({name for names in animal_classes for name in names}):
        subset = scored.subset(np.array([name in names for names in animal_classes]))
        ap_per_class = metrics.bootstrap_ap_per_class(subset.scores, subset.targets, subset.weights)
        entries[name] = {"num_videos": len(subset.scores), **map_entries(subset, ap_per_class)}
    return entries


def threshold_and_ranking_metrics(
    scored: ScoredVideos, selection: tuple[np.ndarray, np.ndarray] | None
) -> dict[str, Any]:
    """Return entries of F1, hit@1, precision@k, ECE, and, if each video has one label, top-1 accuracy.

    `selection`: (scores, labels) of the videos that thresholds are fitted on."""
    single_label = bool((scored.targets.sum(1) == 1).all())
    entries: dict[str, Any] = {name: _evaluate_metric(scored, metric) for name, metric in MULTI_LABEL_METRICS.items()}
    for average in ("macro", "micro"):
        name = f"f1_{average}_at_fitted_thresholds"
        entries[name] = _f1_at_fitted_thresholds(scored, selection, average) if selection else None
    for name, metric in SINGLE_LABEL_METRICS.items():
        entries[name] = _evaluate_metric(scored, metric) if single_label else None
    entries["calibration"] = {"ece": entries.pop("ece"), "bins": reliability_bins(scored)}
    return entries


def reliability_bins(scored: ScoredVideos) -> list[dict[str, Any]]:
    """Return the reliability curve, one dict per bin."""
    curve = metrics.reliability_curve(scored.scores, scored.targets, CALIBRATION_BINS)
    columns = zip(
        curve.edges[:-1], curve.edges[1:], curve.count, curve.mean_score, curve.fraction_positive, strict=True
    )
    return [
        {
            "low": float(low),
            "high": float(high),
            "count": int(count),
            "mean_score": nan_to_none(mean),
            "share_positive": nan_to_none(fraction),
        }
        for low, high, count, mean, fraction in columns
    ]


def per_class_rows(
    data: Annotations,
    scored: ScoredVideos,
    ap_per_class: np.ndarray,
    training: TrainingCounts | None,
    thresholds: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Return the rows of per_class.csv in the order of the class ids; undefined numbers are None."""
    num_videos, positives = len(scored.targets), scored.targets.sum(0)
    f1_at_half = metrics.f1_scores(scored.scores >= 0.5, scored.targets).per_class
    f1_fitted = None if thresholds is None else metrics.f1_scores(scored.scores >= thresholds, scored.targets).per_class
    rows = []
    for c, name in enumerate(data.classes):
        low, high = class_interval(ap_per_class[:, c], positives[c]) or (None, None)
        segments = {name: data.partitions[name][c] if name in data.partitions else None for name in PARTITIONS}
        rows.append(
            {
                "class": name,
                "id": c,
                **segments,
                "positives": int(positives[c]),
                "prevalence": float(positives[c] / num_videos),
                "train_positives": int(training.positives[c]) if training else None,
                "train_prevalence": float(training.positives[c] / training.num_videos) if training else None,
                "ap": nan_to_none(ap_per_class[0, c]),
                "ap_low": low,
                "ap_high": high,
                "ap_baseline": float(positives[c] / num_videos) if positives[c] else None,  # all scores tie
                "ap_random": nan_to_none(metrics.expected_random_ap(int(positives[c]), num_videos)),
                "threshold": None if thresholds is None else float(thresholds[c]),
                "f1_at_threshold": None if f1_fitted is None else nan_to_none(f1_fitted[c]),
                "f1_at_0.5": nan_to_none(f1_at_half[c]),
            }
        )
    return rows


def _evaluate_metric(scored: ScoredVideos, metric: MetricFunction) -> MetricEntry:
    constant, unit_weights = scored.constant_scores(), scored.weights[:1]
    baseline = None if constant is None else metric(constant, scored.targets, unit_weights)[0]
    rounds = metrics.random_scores(scored.targets.shape, RANDOM_ROUNDS, scored.seed)
    random = float(np.mean([metric(scores, scored.targets, unit_weights)[0] for scores in rounds]))
    return metric_entry(metric(scored.scores, scored.targets, scored.weights), baseline, random)


def _f1_at_fitted_thresholds(
    scored: ScoredVideos, selection: tuple[np.ndarray, np.ndarray], average: str
) -> MetricEntry:
    """Return the entry of F1 at thresholds fitted on the selection split, for all three predictors."""
    selection_scores, selection_targets = selection

    def metric(scores: np.ndarray, fit_scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        decisions = scores >= metrics.fit_thresholds(fit_scores, selection_targets)
        return getattr(metrics.f1_scores(decisions, scored.targets, weights), average)

    unit_weights, constant, baseline = scored.weights[:1], scored.constant_scores(), None
    num_selection = len(selection_scores)
    if constant is not None and scored.prevalences is not None:
        constant_selection = metrics.constant_scores(scored.prevalences, num_selection)
        baseline = metric(constant, constant_selection, unit_weights)[0]
    shape = (len(scored.scores) + num_selection, scored.scores.shape[1])
    rounds = metrics.random_scores(shape, RANDOM_ROUNDS, scored.seed)
    random = float(np.mean([metric(s[num_selection:], s[:num_selection], unit_weights)[0] for s in rounds]))
    return metric_entry(metric(scored.scores, selection_scores, scored.weights), baseline, random)


def _precision_at(k: int) -> MetricFunction:
    def metric(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if k > scores.shape[1]:
            return np.full(len(weights), np.nan)  # precision@k of fewer than k classes is another metric
        return metrics.weighted_mean(metrics.precision_at_k(scores, targets, k), weights)

    return metric


MULTI_LABEL_METRICS: dict[str, MetricFunction] = {
    "f1_macro_at_0.5": lambda scores, targets, weights: metrics.f1_scores(scores >= 0.5, targets, weights).macro,
    "f1_micro_at_0.5": lambda scores, targets, weights: metrics.f1_scores(scores >= 0.5, targets, weights).micro,
    "hit_at_1": _precision_at(1),
    "precision_at_3": _precision_at(3),
    "precision_at_5": _precision_at(5),
    "ece": lambda scores, targets, weights: metrics.ece(scores, targets, CALIBRATION_BINS, weights),
}
SINGLE_LABEL_METRICS: dict[str, MetricFunction] = {
    "top1": lambda scores, targets, weights: metrics.weighted_mean(metrics.top1(scores, targets), weights),
    "mean_per_class_top1": metrics.mean_per_class_top1,
}
