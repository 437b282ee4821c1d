"""Evaluations for the tests of the report."""

import base64
import io
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vimoclip import annotations
from vimoclip.annotations import Annotations, VideoAnimals
from vimoclip.evaluation import Evaluation, EvaluationSettings, evaluate
from vimoclip.evaluation.sources import open_predictions
from vimoclip.io import predictions_csv
from vimoclip.report import page


def make_evaluation(
    targets: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
    calibration: dict[str, Any] | None = None,
    **overrides: Any,
) -> Evaluation:
    """Evaluate scores of clips v0.mp4, v1.mp4, ... with segments and animals; `overrides`: keys of metrics.json.

    `calibration`: content of calibration.json of a run."""
    videos, num_classes = [f"v{i}.mp4" for i in range(len(targets))], len(names)
    segments = tuple(
        "head" if c < num_classes / 8 else "middle" if c < num_classes / 3 else "tail" for c in range(num_classes)
    )
    labels = {video: tuple(np.flatnonzero(row).tolist()) for video, row in zip(videos, targets, strict=True)}
    train = {f"t{i}.mp4": row for i, row in enumerate(labels.values())}
    partitions = {"segment": segments, "segment_by_count": ("tail",) * num_classes}
    data = Annotations(tuple(names), {"train": train, "val": labels}, partitions)
    with tempfile.TemporaryDirectory() as folder:
        path = predictions_csv.write(Path(folder) / "predictions.csv", videos, scores, names)
        animals = {video: VideoAnimals(("Lion",), ("Mammal",)) for video in videos[:7]}
        (Path(folder) / annotations.ANIMALS_FILE).write_text(annotations.format_animals(animals))
        if calibration:
            (Path(folder) / "calibration.json").write_text(json.dumps(calibration))
            (Path(folder) / "metrics.json").write_text('{"protocol": "held_out"}')
        source = open_predictions(Path(folder) if calibration else path)
        result = evaluate(source, data, Path(folder), EvaluationSettings(resamples=20))
    result.metrics.update({"protocol": "held_out", "command": "evaluate.py run", **overrides})
    return result


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
    return make_evaluation(targets, np.clip(rng.random((40, 5)) * 0.6 + 0.3 * targets, 0, 1), names, **overrides)


def calibrated_evaluation(
    names: tuple[str, ...] = ("walking", "running", "eating", "sitting", "jumping"), **overrides: Any
) -> Evaluation:
    """300 clips of 5 classes. Class c has slope (c + 1) / 4, and rests on 8 + c positives."""
    rng = np.random.default_rng(2)
    logits = rng.normal(-1, 2, (300, 5))
    targets = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    slopes = (np.arange(5) + 1) / 4
    rows = {
        name: {
            "scaling": "platt" if c >= 2 else "temperature",
            "slope": float(slopes[c]),
            "intercept": 0.0,
            "positives": 8 + c,
            "threshold": 0.5,
        }
        for c, name in enumerate(names)
    }
    calibration = {"schema": 1, "method": "platt", "num_videos": 25, "cross_validated_log_loss": {}, "classes": rows}
    return make_evaluation(targets, 1 / (1 + np.exp(-logits / slopes)), names, calibration, **overrides)


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
