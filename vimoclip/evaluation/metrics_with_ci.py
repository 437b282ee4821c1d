"""Metrics with confidence intervals, over videos or their sources, and chance levels.

An entry is {"value", "ci95", "baseline", "random"}: the metric of all videos, its 95 % bootstrap interval, and the same
metric of two predictors that ignore the videos. The baseline scores each video with the training prevalences, the other
at random."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from vimoclip import metrics
from vimoclip.annotations import PARTITIONS, SEGMENTS, Annotations
from vimoclip.evaluation.calibration_file import RunCalibration
from vimoclip.evaluation.resampling import MIN_SOURCES
from vimoclip.evaluation.sources import TrainingCounts
from vimoclip.metrics.score_calibration import log_losses

RANDOM_ROUNDS = 20  # random predictors, for metrics whose chance level has no formula
CALIBRATION_BINS = 15
# Classes with fewer positives get no interval, since a bootstrap interval of few positives is too narrow: simulated
# 95 % intervals covered the true value in 29 % of cases at one positive, 67 at two, 83 at three, 90 at five, 94 at ten
# (NOTES.md)
MIN_POSITIVES_FOR_CI = 5
MAX_COMPARED_CLASSES = 10  # in each of two lists: the largest increases and decreases of AP
MetricEntry = dict[str, Any]
MetricFunction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # scores, targets, weights (R, N) -> (R,)


@dataclass(frozen=True)
class ScoredVideos:
    """`scores` (N, C) probabilities, `targets` (N, C) bool, `weights` (1 + R, N): ones, then R resamples.

    `sources` (N,): index of each video's source if these are resampled, None if videos are.

    `raw_scores` (N, C): those before calibration, or `scores` themselves. APs of classes are of them, since calibration
    keeps their order, but rounds some scores near 0 and 1 to equal ones. `prevalences` (C,): fraction of the training
    videos that have each class; None without training videos."""

    scores: np.ndarray
    raw_scores: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    prevalences: np.ndarray | None
    seed: int
    sources: np.ndarray | None = None

    def subset(self, videos: np.ndarray) -> "ScoredVideos":
        """Return the videos selected by indices or a mask, without resamples if they have too few sources."""
        sources = None if self.sources is None else self.sources[videos]
        has_intervals = sources is None or len(np.unique(sources)) >= MIN_SOURCES
        return replace(
            self,
            scores=self.scores[videos],
            raw_scores=self.raw_scores[videos],
            targets=self.targets[videos],
            weights=self.weights[: None if has_intervals else 1, videos],
            sources=sources,
        )

    def units_with_class(self) -> np.ndarray:
        """Return (C,): the number of videos that have each class, or of sources if these are resampled."""
        if self.sources is None:
            return self.targets.sum(0)
        return np.array([len(np.unique(self.sources[has_class])) for has_class in self.targets.T])

    def ap_per_class(self) -> np.ndarray:
        """Return (1 + R, C) APs, of the raw scores."""
        return metrics.bootstrap_ap_per_class(self.raw_scores, self.targets, self.weights)


def metric_entry(values: np.ndarray, baseline: float | None, random: float | None, highest: float = 1.0) -> MetricEntry:
    """Return an entry from (1 + R,) values: of all videos, then of the resamples. `highest`: bound of the metric."""
    return {
        "value": nan_to_none(values[0]),
        "ci95": bounded_interval(values, highest=highest),
        "baseline": nan_to_none(baseline),
        "random": nan_to_none(random),
    }


def bounded_interval(values: np.ndarray, lowest: float = 0.0, highest: float = 1.0) -> list[float] | None:
    """Return the interval of (1 + R,) values, clipped to `lowest`..`highest`; None if it is not defined."""
    bounds = metrics.confidence_interval(values[1:], float(values[0]))
    return None if any(math.isnan(bound) for bound in bounds) else [max(lowest, bounds[0]), min(highest, bounds[1])]


def class_interval(values: np.ndarray, units: int, lowest: float = 0.0) -> list[float] | None:
    """Return `bounded_interval` of one class; None also for a class that few videos have, or few sources."""
    return bounded_interval(values, lowest) if units >= MIN_POSITIVES_FOR_CI else None


def nan_to_none(value: Any) -> float | None:
    """Return a float, or None for None and NaN, which JSON lacks."""
    return None if value is None or math.isnan(value) else float(value)


def map_entries(
    scored: ScoredVideos, ap_per_class: np.ndarray, class_ids: Sequence[int] | None = None
) -> dict[str, MetricEntry]:
    """Return `map_macro` and `map_micro` of the class ids (default: all). `ap_per_class` (1 + R, C): of all classes."""
    columns = np.arange(scored.targets.shape[1]) if class_ids is None else np.asarray(class_ids)
    targets, constant_macro, constant_micro = scored.targets[:, columns], None, None
    positives = targets.sum(0)
    if scored.prevalences is not None:
        constant = np.tile(scored.prevalences[columns], (len(targets), 1))
        constant_ap = metrics.bootstrap_ap_per_class(constant, targets, scored.weights[:1])
        constant_macro = float(metrics.macro_average(constant_ap)[0])
        constant_micro = float(metrics.bootstrap_ap_micro(constant, targets, scored.weights[:1])[0])
    random_ap = np.array([metrics.expected_random_ap(int(count), len(targets)) for count in positives])
    macro = metrics.macro_average(ap_per_class[:, columns])
    micro = metrics.bootstrap_ap_micro(scored.scores[:, columns], targets, scored.weights)
    random_micro = metrics.expected_random_ap(int(positives.sum()), targets.size)
    return {
        "map_macro": metric_entry(macro, constant_macro, float(metrics.macro_average(random_ap)))
        | {"classes": int((positives > 0).sum())},
        "map_micro": metric_entry(micro, constant_micro, random_micro),
    }


def metrics_by_segment(
    scored: ScoredVideos, ap_per_class: np.ndarray, partitions: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """Return partition -> segment (head, middle, tail) -> entries of its classes."""
    return {
        name: {
            segment: {"classes": len(class_ids), **map_entries(scored, ap_per_class, class_ids)}
            for segment in SEGMENTS
            if (class_ids := [c for c, other in enumerate(segments) if other == segment])
        }
        for name, segments in partitions.items()
    }


def metrics_by_animal_class(scored: ScoredVideos, animal_classes: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Return class of animals -> entries of the videos that show one. A video with several classes counts in each.

    `animal_classes`: the classes of animals of each video."""
    entries = {}
    for name in sorted({name for names in animal_classes for name in names}):
        subset = scored.subset(np.array([name in names for names in animal_classes]))
        entries[name] = {"num_videos": len(subset.scores), **map_entries(subset, subset.ap_per_class())}
    return entries


def threshold_and_ranking_metrics(
    scored: ScoredVideos, selection: tuple[np.ndarray, np.ndarray] | None
) -> dict[str, Any]:
    """Return entries of F1, hit@1, precision@k, and, if each video has one label, top-1 accuracy.

    `selection`: (scores, labels) of the videos that thresholds are fitted on."""
    single_label = bool((scored.targets.sum(1) == 1).all())
    entries: dict[str, Any] = {name: _evaluate_metric(scored, metric) for name, metric in MULTI_LABEL_METRICS.items()}
    for average in ("macro", "micro"):
        entries[f"f1_{average}_at_fitted_thresholds"] = (
            _evaluate_metric(scored, _f1_at_fitted_thresholds(selection[1], average), selection[0])
            if selection
            else None
        )
    for name, metric in SINGLE_LABEL_METRICS.items():
        entries[name] = _evaluate_metric(scored, metric) if single_label else None
    return entries


def calibration_entries(
    scored: ScoredVideos, ap_per_class: np.ndarray, calibration: RunCalibration | None
) -> dict[str, Any]:
    """Return `calibration` of metrics.json: of the scores, how they were calibrated, and `raw`, of those before."""
    entries = _calibration_metrics(scored) | dict.fromkeys(("method", "num_videos", "cross_validated_log_loss", "raw"))
    if calibration:
        raw = replace(scored, scores=scored.raw_scores)
        entries |= {"method": calibration.method, "num_videos": calibration.num_videos}
        entries["cross_validated_log_loss"] = calibration.log_losses
        entries["raw"] = _calibration_metrics(raw) | {"map_micro": map_entries(raw, ap_per_class)["map_micro"]}
    return entries


def _calibration_metrics(scored: ScoredVideos) -> dict[str, Any]:
    return {
        "ece": _evaluate_metric(scored, _ece),
        "log_loss": _evaluate_metric(scored, _log_loss, highest=math.inf),
        "bins": metrics.reliability_bins(scored.scores, scored.targets, CALIBRATION_BINS),
    }


def per_class_rows(
    data: Annotations,
    scored: ScoredVideos,
    ap_per_class: np.ndarray,
    training: TrainingCounts | None,
    thresholds: np.ndarray | None,
    calibration: RunCalibration | None,
) -> list[dict[str, Any]]:
    """Return the rows of per_class.csv in the order of the class ids; undefined numbers are None."""
    num_videos, positives, units = len(scored.targets), scored.targets.sum(0), scored.units_with_class()

    def f1_at(threshold: float | np.ndarray) -> np.ndarray:
        return metrics.f1_scores(scored.scores >= threshold, scored.targets, scored.weights[:1]).per_class[0]

    f1_at_half, f1_fitted = f1_at(0.5), None if thresholds is None else f1_at(thresholds)
    errors = _errors_per_class(scored.scores, scored.targets)
    raw_errors = _errors_per_class(scored.raw_scores, scored.targets) if calibration else errors
    rows = []
    for c, name in enumerate(data.classes):
        low, high = class_interval(ap_per_class[:, c], units[c]) or (None, None)
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
                "ece": errors[c].ece,
                "ece_raw": raw_errors[c].ece if calibration else None,
                "log_loss": errors[c].log_loss,
                "log_loss_raw": raw_errors[c].log_loss if calibration else None,
                "scaling": calibration.scalings[c] if calibration else None,
                "selection_positives": int(calibration.positives[c]) if calibration else None,
            }
        )
    return rows


class _ClassErrors(NamedTuple):
    ece: float
    log_loss: float


def _errors_per_class(scores: np.ndarray, targets: np.ndarray) -> list[_ClassErrors]:
    weights = np.ones((1, len(scores)), int)
    return [
        _ClassErrors(*(float(metric(scores[:, [c]], targets[:, [c]], weights)[0]) for metric in (_ece, _log_loss)))
        for c in range(scores.shape[1])
    ]


def compare_predictions(
    scored: ScoredVideos, other: ScoredVideos, ap_per_class: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Return the entries of `comparison` in metrics.json.

    `other`: the other predictions of the same videos; `ap_per_class` (1 + R, C): APs of `scored`."""
    targets, weights = scored.targets, scored.weights
    other_ap = other.ap_per_class()
    micro, other_micro = (metrics.bootstrap_ap_micro(s.scores, targets, weights) for s in (scored, other))
    gains, positives, units = ap_per_class - other_ap, targets.sum(0), scored.units_with_class()
    rows = [
        {
            "class": classes[c],
            "positives": int(positives[c]),
            "ap": nan_to_none(ap_per_class[0, c]),
            "other_ap": nan_to_none(other_ap[0, c]),
            "difference": nan_to_none(gains[0, c]),
            "ci95": class_interval(gains[:, c], units[c], lowest=-1.0),
        }
        for c in metrics.descending_order(gains[0])
        if not np.isnan(gains[0, c])
    ]
    return {
        "num_videos": len(targets),
        "classes": len(rows),
        "map_macro": _difference_entry(metrics.macro_average(ap_per_class) - metrics.macro_average(other_ap)),
        "map_micro": _difference_entry(micro - other_micro),
        "gained": [row for row in rows if row["difference"] > 0][:MAX_COMPARED_CLASSES],
        "lost": [row for row in rows[::-1] if row["difference"] < 0][:MAX_COMPARED_CLASSES],
    }


def _difference_entry(differences: np.ndarray) -> dict[str, Any]:
    """Return an entry from (1 + R,) differences: of all videos, then of the resamples."""
    return {"difference": nan_to_none(differences[0]), "ci95": bounded_interval(differences, lowest=-1.0)}


def _evaluate_metric(
    scored: ScoredVideos,
    metric: MetricFunction,
    selection_scores: np.ndarray | None = None,
    highest: float = 1.0,
) -> MetricEntry:
    """Return the entry of a metric, which gets `selection_scores` (of the model-selection split) before the others.

    `highest`: bound of the metric."""
    scores = scored.scores if selection_scores is None else np.concatenate([selection_scores, scored.scores])
    unit_weights, baseline = scored.weights[:1], None
    if scored.prevalences is not None:
        baseline = metric(np.tile(scored.prevalences, (len(scores), 1)), scored.targets, unit_weights)[0]
    generator = np.random.default_rng(scored.seed)
    rounds = [metric(generator.random(scores.shape), scored.targets, unit_weights)[0] for _ in range(RANDOM_ROUNDS)]
    return metric_entry(metric(scores, scored.targets, scored.weights), baseline, float(np.mean(rounds)), highest)


def _f1_at_fitted_thresholds(selection_targets: np.ndarray, average: str) -> MetricFunction:
    """Return a metric of scores that begin with those of the model-selection split."""
    count = len(selection_targets)

    def metric(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        decisions = scores[count:] >= metrics.fit_thresholds(scores[:count], selection_targets)
        return getattr(metrics.f1_scores(decisions, targets, weights), average)

    return metric


def _precision_at(k: int) -> MetricFunction:
    def metric(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if k > scores.shape[1]:
            return np.full(len(weights), np.nan)  # precision@k of fewer than k classes is another metric
        return metrics.weighted_mean(metrics.precision_at_k(scores, targets, k), weights)

    return metric


def _ece(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return metrics.ece(scores, targets, weights, CALIBRATION_BINS)


def _log_loss(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return metrics.weighted_mean(log_losses(scores, targets).mean(1), weights)


MULTI_LABEL_METRICS: dict[str, MetricFunction] = {
    "f1_macro_at_0.5": lambda scores, targets, weights: metrics.f1_scores(scores >= 0.5, targets, weights).macro,
    "f1_micro_at_0.5": lambda scores, targets, weights: metrics.f1_scores(scores >= 0.5, targets, weights).micro,
    "hit_at_1": _precision_at(1),
    "precision_at_3": _precision_at(3),
    "precision_at_5": _precision_at(5),
}
SINGLE_LABEL_METRICS: dict[str, MetricFunction] = {
    "top1": _precision_at(1),
    "mean_per_class_top1": metrics.mean_per_class_top1,
}
