"""Every metric of one set of predictions: its value, its interval over clips, and what knowing nothing is worth.

An entry is {"value", "ci95", "baseline", "random"}: on all clips; 95 % of the resamples of the clips; the same metric
of the constant predictor, which gives each clip the training prevalences; of a random one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vimoclip import metrics
from vimoclip.annotations import SEGMENTS

ROUNDS = 20  # of random scores, for what has no formula
BINS = 15
# positives from which a class's own interval is given. With fewer it is too narrow: of simulated ones that should hold
# the truth in 95 %, 29 % did at one positive, 67 at two, 83 at three, 90 at five, 94 at ten (NOTES.md)
LEAST = 5
Entry = dict[str, Any]
Rows = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # scores, targets, weights (R, N) -> (R,)


@dataclass(frozen=True)
class Clips:
    """What is measured: `scores` (N, C) probabilities, `targets` (N, C) bool, `weights` (1 + R, N).

    The weights are ones, then resamples. `prevalences` (C,): the share of the training clips that show each class, None
    where there are none."""

    scores: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    prevalences: np.ndarray | None
    seed: int

    def part(self, videos: np.ndarray) -> "Clips":
        """Those of some videos."""
        return Clips(self.scores[videos], self.targets[videos], self.weights[:, videos], self.prevalences, self.seed)

    def constant(self) -> np.ndarray | None:
        """(N, C) of the constant predictor."""
        return None if self.prevalences is None else metrics.constant_scores(self.prevalences, len(self.scores))


def weigh(num_videos: int, resamples: int, seed: int) -> np.ndarray:
    """(1 + R, N): all clips once, then the resamples."""
    drawn = metrics.draw_weights(num_videos, resamples, seed)
    return np.concatenate([np.ones((1, num_videos), drawn.dtype), drawn])


def entry(rows: np.ndarray, baseline: float | None, random: float | None) -> Entry:
    """Of the values (1 + R,) of all clips and of the resamples."""
    return {"value": number(rows[0]), "ci95": bounds(rows), "baseline": number(baseline), "random": number(random)}


def bounds(rows: np.ndarray, low: float = 0.0) -> list[float] | None:
    """The interval of (1 + R,) values, which lie between `low` and 1; None where there is none."""
    ends = metrics.interval(rows[1:], value=float(rows[0]))
    return None if any(math.isnan(end) for end in ends) else [max(low, ends[0]), min(1.0, ends[1])]


def class_bounds(rows: np.ndarray, positives: int, low: float = 0.0) -> list[float] | None:
    """`bounds` of one class's values; None also for one of too few positives."""
    return bounds(rows, low) if positives >= LEAST else None


def number(value: Any) -> float | None:
    """For JSON, which knows no NaN."""
    return None if value is None or math.isnan(value) else float(value)


def precisions(clips: Clips, per_class: np.ndarray, classes: Sequence[int] | None = None) -> dict[str, Entry]:
    """map_macro and map_micro of some classes; `per_class` (1 + R, C) are the APs of all."""
    chosen = np.arange(clips.targets.shape[1]) if classes is None else np.asarray(classes)
    targets, ones = clips.targets[:, chosen], np.ones((1, len(clips.targets)), np.int64)
    positives = targets.sum(0)
    by_chance = [metrics.random_precision(int(count), len(targets)) for count in positives]
    constant, flat_macro, flat_micro = clips.constant(), None, None
    if constant is not None:
        known = metrics.resampled_precisions(constant[:, chosen], targets, ones)
        flat_macro, flat_micro = float(metrics.macro(known.per_class)[0]), float(known.micro[0])
    macro = entry(metrics.macro(per_class[:, chosen]), flat_macro, float(metrics.macro(np.array(by_chance))))
    micro = metrics.resampled_micro(clips.scores[:, chosen], targets, clips.weights)
    return {
        "map_macro": macro | {"classes": int((positives > 0).sum())},
        "map_micro": entry(micro, flat_micro, metrics.random_precision(int(positives.sum()), targets.size)),
    }


def by_segment(
    clips: Clips, per_class: np.ndarray, partitions: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Any]]:
    """Head, middle and tail under each partition."""
    found: dict[str, dict[str, Any]] = {}
    for name, segments in partitions.items():
        places = {s: [c for c, of_class in enumerate(segments) if of_class == s] for s in SEGMENTS}
        found[name] = {
            segment: {"classes": len(classes), **precisions(clips, per_class, classes)}
            for segment, classes in places.items()
            if classes
        }
    return found


def by_animal(clips: Clips, of_video: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Each class of animals, over the clips that show one of it; a clip of two classes of animals is in both."""
    found = {}
    for name in sorted({animal for animals in of_video for animal in animals}):
        part = clips.part(np.array([name in animals for animals in of_video]))
        per_class = metrics.resampled_per_class(part.scores, part.targets, part.weights)
        found[name] = {"num_videos": len(part.scores), **precisions(part, per_class)}
    return found


def others(clips: Clips, selection: tuple[np.ndarray, np.ndarray] | None) -> dict[str, Any]:
    """F1, hit@1, precision@k, ECE, and top-1 where each clip has one label.

    `selection`: scores and labels of the clips on which thresholds are fitted."""
    single = bool((clips.targets.sum(1) == 1).all())
    found: dict[str, Any] = {name: _measured(clips, rows) for name, rows in SIMPLE.items()}
    for average in ("macro", "micro"):
        name = f"f1_{average}_at_fitted_thresholds"
        found[name] = _fitted(clips, selection, average) if selection else None
    for name, rows in ONE_LABEL.items():
        found[name] = _measured(clips, rows) if single else None
    found["calibration"] = {"ece": found.pop("ece"), "bins": bins(clips)}
    return found


def bins(clips: Clips) -> list[dict[str, Any]]:
    """The reliability curve."""
    curve = metrics.reliability(clips.scores, clips.targets, BINS)
    columns = zip(curve.edges[:-1], curve.edges[1:], curve.count, curve.mean_score, curve.share_positive, strict=True)
    return [
        {"low": float(a), "high": float(b), "count": int(n), "mean_score": number(m), "share_positive": number(s)}
        for a, b, n, m, s in columns
    ]


def _measured(clips: Clips, rows: Rows) -> Entry:
    constant, once = clips.constant(), clips.weights[:1]
    flat = None if constant is None else rows(constant, clips.targets, once)[0]
    drawn = metrics.random_scores(clips.targets.shape, ROUNDS, clips.seed)
    random = float(np.mean([rows(scores, clips.targets, once)[0] for scores in drawn]))
    return entry(rows(clips.scores, clips.targets, clips.weights), flat, random)


def _fitted(clips: Clips, selection: tuple[np.ndarray, np.ndarray], average: str) -> Entry:
    """F1 at thresholds fitted on other clips; the constant and the random predictor have theirs fitted there too."""
    known, labels = selection

    def rows(scores: np.ndarray, fitted_on: np.ndarray, weights: np.ndarray) -> np.ndarray:
        decided = scores >= metrics.fit_thresholds(fitted_on, labels)
        return getattr(metrics.f1(decided, clips.targets, weights), average)

    once, constant, flat = clips.weights[:1], clips.constant(), None
    if constant is not None and clips.prevalences is not None:
        flat = rows(constant, metrics.constant_scores(clips.prevalences, len(known)), once)[0]
    shape = (len(clips.scores) + len(known), clips.scores.shape[1])
    drawn = metrics.random_scores(shape, ROUNDS, clips.seed)
    random = float(np.mean([rows(s[len(known) :], s[: len(known)], once)[0] for s in drawn]))
    return entry(rows(clips.scores, known, clips.weights), flat, random)


def _precision_at(k: int) -> Rows:
    def rows(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if k > scores.shape[1]:
            return np.full(len(weights), np.nan)  # of fewer classes it would be another metric under this name
        return metrics.weighted_mean(metrics.precision_at_k(scores, targets, k), weights)

    return rows


SIMPLE: dict[str, Rows] = {
    "f1_macro_at_0.5": lambda scores, targets, weights: metrics.f1(scores >= 0.5, targets, weights).macro,
    "f1_micro_at_0.5": lambda scores, targets, weights: metrics.f1(scores >= 0.5, targets, weights).micro,
    "hit_at_1": _precision_at(1),
    "precision_at_3": _precision_at(3),
    "precision_at_5": _precision_at(5),
    "ece": lambda scores, targets, weights: metrics.ece(scores, targets, BINS, weights),
}
ONE_LABEL: dict[str, Rows] = {
    "top1": lambda scores, targets, weights: metrics.weighted_mean(metrics.top1(scores, targets), weights),
    "mean_per_class_top1": metrics.mean_per_class_top1,
}
