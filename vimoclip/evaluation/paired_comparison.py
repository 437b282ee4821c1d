"""Paired comparison of two sets of predictions of the same videos, on the same resamples."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vimoclip import metrics
from vimoclip.evaluation.metrics_with_ci import ScoredVideos, bounded_interval, class_interval, nan_to_none

MAX_CLASSES = 10  # in the file, with the largest gain, and with the largest loss


def compare_predictions(
    scored: ScoredVideos, other_scores: np.ndarray, ap_per_class: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """Return the entries of `comparison` in metrics.json.

    `other_scores` (N, C): of the other predictions; `ap_per_class` (1 + R, C): APs of `scored`."""
    targets, weights = scored.targets, scored.weights
    other_ap = metrics.bootstrap_ap_per_class(other_scores, targets, weights)
    micro = metrics.bootstrap_ap_micro(scored.scores, targets, weights)
    other_micro = metrics.bootstrap_ap_micro(other_scores, targets, weights)
    gains, positives = ap_per_class - other_ap, targets.sum(0)
    rows = [
        {
            "class": classes[c],
            "positives": int(positives[c]),
            "ap": nan_to_none(ap_per_class[0, c]),
            "other_ap": nan_to_none(other_ap[0, c]),
            "difference": nan_to_none(gains[0, c]),
            "ci95": class_interval(gains[:, c], positives[c], low=-1.0),
        }
        for c in metrics.descending_order(gains[0])
        if not np.isnan(gains[0, c])
    ]
    return {
        "num_videos": len(targets),
        "classes": len(rows),
        "map_macro": _difference_entry(metrics.macro_average(ap_per_class) - metrics.macro_average(other_ap)),
        "map_micro": _difference_entry(micro - other_micro),
        "gained": [row for row in rows if row["difference"] > 0][:MAX_CLASSES],
        "lost": [row for row in rows[::-1] if row["difference"] < 0][:MAX_CLASSES],
    }


def _difference_entry(differences: np.ndarray) -> dict[str, Any]:
    """Return an entry from (1 + R,) differences: of all videos, then of the resamples."""
    return {"difference": nan_to_none(differences[0]), "ci95": bounded_interval(differences, low=-1.0)}
