"""Evaluations for the tests of the report."""

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from vimoclip.evaluation import Evaluation
from vimoclip.metrics import METRIC_NAMES
from vimoclip.report import page


def make_evaluation(targets: np.ndarray, scores: np.ndarray, names: list[str], **overrides: Any) -> Evaluation:
    """An evaluation with every optional part; `overrides`: keys of metrics.json."""
    num_videos, num_classes = targets.shape
    has_positive = np.asarray(targets.any(axis=0))
    segments = tuple(
        "head" if c < num_classes / 8 else "middle" if c < num_classes / 3 else "tail" for c in range(num_classes)
    )

    def entry(value: float | None, **more: Any) -> dict[str, Any]:
        return {"value": value, "ci95": [0.1, 0.9], "baseline": 0.25, "random": None, **more}

    def class_row(c: int) -> dict[str, Any]:
        ap = average_precision_score(targets[:, c], scores[:, c]) if has_positive[c] else None
        low, high = (max(0, ap - 0.1), min(1, ap + 0.1)) if ap is not None and c % 7 else (None, None)
        row = {"class": names[c], "id": c, "segment": segments[c], "segment_by_count": "tail"}
        row |= {"positives": int(targets[:, c].sum()), "ap": ap, "ap_low": low, "ap_high": high}
        prevalence = targets[:, c].mean() if has_positive[c] else None
        return row | {"ap_baseline": prevalence, "ap_random": prevalence}

    entries = {"map_macro": entry(0.5, classes=3), "map_micro": entry(0.625)}
    metrics = {
        "predictions": "predictions.csv",
        "predictions_sha256": "0123456789abcdef" * 4,
        "protocol": "held_out",
        "epoch_chosen_on": "selection clips of the training split",
        "split": "val",
        "num_videos": num_videos,
        "num_classes": num_classes,
        "classes_with_a_positive": int(has_positive.sum()),
        "map_macro": entry(0.1234567, classes=int(has_positive.sum())),
        "map_micro": entry(0.7709),
        **dict.fromkeys(key for key in METRIC_NAMES if key not in ("map_macro", "map_micro", "hit_at_1", "ece")),
        "torchmetrics_macro": {"value": 0.4, "note": "what counts absent classes as 0"},
        "segments": {
            "segment": {"head": {"classes": 4, **entries}},
            "segment_by_count": {"tail": {"classes": 5, **entries}},
        },
        "animal_classes": {"Mammal": {"num_videos": 7, **entries}},
        "hit_at_1": entry(0.75),
        "calibration": {"ece": entry(0.0125), "bins": reliability_bins(scores, targets)},
        "bootstrap": {"resamples": 1000, "seed": 0, "level": 0.95, "over": "clips"},
        "comparison": None,
        "notes": [],
        "versions": {"vimoclip": "0.1.0"},
        "command": "evaluate.py run",
        **overrides,
    }
    return Evaluation(
        metrics=metrics,
        per_class=[class_row(c) for c in range(num_classes)],
        classes=tuple(names),
        scores=scores,
        videos=[f"v{i}.mp4" for i in range(num_videos)],
        targets=targets,
        title="a run",
        partitions={"segment": segments, "segment_by_count": ("tail",) * num_classes},
    )


def reliability_bins(scores: np.ndarray, targets: np.ndarray) -> list[dict[str, Any]]:
    bins = []
    for low in (0.0, 0.25, 0.5, 0.75):
        in_bin = (scores >= low) & (scores < low + 0.25)
        mean, fraction = (scores[in_bin].mean(), targets[in_bin].mean()) if in_bin.any() else (None, None)
        count = int(in_bin.sum())
        bins.append({"low": low, "high": low + 0.25, "count": count, "mean_score": mean, "share_positive": fraction})
    return bins


def large_evaluation(**overrides: Any) -> Evaluation:
    """200 clips of 60 classes, the last 13 without a clip; some names are long."""
    rng = np.random.default_rng(0)
    targets = rng.random((200, 60)) < np.minimum(0.4, 4 / np.arange(1, 61))
    targets[0, :47], targets[:, 47:] = True, False
    scores = 1 / (1 + np.exp(-rng.normal(-3, 1, targets.shape) - 3 * targets))
    names = [f"class {c}" + " with a name that is long" * (c % 5 == 0) for c in range(60)]
    return make_evaluation(targets, scores, names, **overrides)


def small_evaluation(
    names: tuple[str, ...] = ("walking", "running", "eating", "sitting", "jumping"), **overrides: Any
) -> Evaluation:
    """40 clips of 5 classes, one label each."""
    rng = np.random.default_rng(1)
    targets = np.eye(5, dtype=bool)[np.arange(40) % 5]
    return make_evaluation(targets, np.clip(rng.random((40, 5)) * 0.6 + 0.3 * targets, 0, 1), list(names), **overrides)


def render_plots(evaluation: Evaluation) -> dict[str, Any]:
    """Element id -> figure, from the JSON in the page."""
    html = page.render_report(evaluation, None, None)
    match = re.search(r'<script type="application/json" id="plots">(.*?)</script>', html, re.S)
    assert match
    return json.loads(match[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def read_filmstrips(html: str) -> list[tuple[str, Image.Image]]:
    """(alternative text, image) of each filmstrip of a page."""
    matches = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)">', html)
    return [(text, Image.open(io.BytesIO(base64.b64decode(data)))) for data, text in matches]
