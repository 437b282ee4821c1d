"""Two sets of predictions of the same clips: their difference on the same resamples, and the classes it comes from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vimoclip import metrics
from vimoclip.evaluation.metrics_with_ci import Clips, bounds, class_bounds, number

SHOWN = 10  # classes that gained, and as many that lost


def compare(clips: Clips, other: np.ndarray, per_class: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """The numbers of metrics.json; `other` (N, C) are the other's scores, `per_class` (1 + R, C) these ones' APs."""
    theirs = metrics.resampled_per_class(other, clips.targets, clips.weights)
    micro = [metrics.resampled_micro(scores, clips.targets, clips.weights) for scores in (clips.scores, other)]
    gain, positives = per_class - theirs, clips.targets.sum(0)
    rows = [
        {
            "class": classes[c],
            "positives": int(positives[c]),
            "ap": number(per_class[0, c]),
            "other_ap": number(theirs[0, c]),
            "difference": number(gain[0, c]),
            "ci95": class_bounds(gain[:, c], positives[c], low=-1.0),
        }
        for c in np.argsort(-gain[0], kind="stable")
        if not np.isnan(gain[0, c])
    ]
    return {
        "num_videos": len(clips.targets),
        "classes": len(rows),
        "map_macro": difference(metrics.macro(per_class) - metrics.macro(theirs)),
        "map_micro": difference(micro[0] - micro[1]),
        "gained": [row for row in rows if row["difference"] > 0][:SHOWN],
        "lost": [row for row in rows[::-1] if row["difference"] < 0][:SHOWN],
    }


def difference(rows: np.ndarray) -> dict[str, Any]:
    """Of (1 + R,) differences: that of all clips, and the interval of the resamples'."""
    return {"difference": number(rows[0]), "ci95": bounds(rows, low=-1.0)}
