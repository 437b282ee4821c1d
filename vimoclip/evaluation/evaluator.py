"""Compute all metrics of one set of predictions."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.annotations.split_protocol import (
    HELD_OUT,
    PROTOCOL_NOTES,
    PUBLISHED,
    THREE_SPLITS,
    UNKNOWN_PROTOCOL_NOTE,
    ZERO_SHOT,
)
from vimoclip.errors import UserError
from vimoclip.evaluation import calibration_file, metrics_with_ci, resampling, sources
from vimoclip.evaluation.calibration_file import RunCalibration
from vimoclip.evaluation.metrics_with_ci import MIN_POSITIVES_FOR_CI, ScoredVideos
from vimoclip.evaluation.sources import PredictionSource
from vimoclip.io.names import list_some
from vimoclip.metrics import bootstrap_weights, fit_thresholds, format_fraction
from vimoclip.metrics.score_calibration import MIN_POSITIVES
from vimoclip.runtime import versions

FEW_POSITIVES = 10  # below this number a class's AP depends on single clips


@dataclass(frozen=True)
class Evaluation:
    """The result for N videos and C classes.

    `metrics`: content of metrics.json; `per_class`: rows of per_class.csv; `scores` (N, C) float64 probabilities;
    `raw_scores` (N, C): those before calibration, or `scores` themselves; `targets` (N, C) bool; `partitions`: name ->
    the segment of each class, or {}."""

    title: str
    classes: tuple[str, ...]
    partitions: Mapping[str, tuple[str, ...]]
    videos: list[str]
    scores: np.ndarray
    raw_scores: np.ndarray
    targets: np.ndarray
    metrics: dict[str, Any]
    per_class: list[dict[str, Any]]


@dataclass(frozen=True)
class EvaluationSettings:
    """Options of an evaluation.

    `split`: the evaluation split; `logits`: the scores of a CSV are logits; `resamples`: number of bootstrap resamples,
    drawn with `seed`; `allow_missing`: exclude videos without predictions; `raw`: do not calibrate scores of runs;
    `resample`: what is drawn, clips or sources."""

    split: str = "val"
    logits: bool = False
    resamples: int = 1000
    seed: int = 0
    allow_missing: bool = False
    raw: bool = False
    resample: str = resampling.CLIPS


def evaluate(
    source: PredictionSource,
    data: Annotations,
    annotations_dir: Path,
    settings: EvaluationSettings,
    other: PredictionSource | None = None,
) -> Evaluation:
    """Evaluate a source on a split, and compare it with `other` if given. Scores of runs are calibrated.

    Raises UserError unless the predictions cover each video of the split once, and exactly the classes; and if sources
    are to be drawn and none are known."""
    if settings.logits and all(candidate.is_run for candidate in (source, other) if candidate):
        raise UserError("belongs to a run, which has probabilities", "omit --logits", path=source.path)
    expected = list(data.splits[settings.split])
    calibration = _read_calibration(source, data, settings)
    videos, raw_scores, notes = _read_scores(source, data, settings)
    if not videos:
        raise UserError(f"contains no prediction for a clip of {settings.split}_multi.txt", path=source.path)
    targets = sources.multi_hot_matrix(data, settings.split, videos)
    training = sources.training_counts(data, source)
    drawn = None
    if settings.resample == resampling.SOURCES:
        drawn = resampling.source_indices(resampling.read_sources(annotations_dir), videos)
    if drawn is None:
        resamples = bootstrap_weights(len(videos), settings.resamples, settings.seed)
    else:
        resamples = resampling.source_weights(drawn, settings.resamples, settings.seed)
    weights = np.concatenate([np.ones((1, len(videos)), resamples.dtype), resamples])
    prevalences = training.positives / training.num_videos if training else None
    scores = _calibrate(raw_scores, calibration)
    scored = ScoredVideos(scores, raw_scores, targets, weights, prevalences, settings.seed, drawn)
    selection = _read_selection_predictions(source, data, settings, videos, calibration, notes)
    ap_per_class = scored.ap_per_class()
    metrics = _header(source, settings, scored, ap_per_class)
    metrics |= metrics_with_ci.map_entries(scored, ap_per_class)
    metrics["torchmetrics_macro"] = {
        "value": float(np.nan_to_num(ap_per_class[0]).mean()),
        "note": "torchmetrics' average='macro', which counts a class without a positive as 0, so do not compare it",
    }
    metrics["segments"] = metrics_with_ci.metrics_by_segment(scored, ap_per_class, data.partitions)
    animals = annotations.read_animals(annotations_dir)
    animal_classes = [animals[video].classes if video in animals else () for video in videos]
    metrics["animal_classes"] = metrics_with_ci.metrics_by_animal_class(scored, animal_classes)
    metrics |= metrics_with_ci.threshold_and_ranking_metrics(scored, selection)
    metrics["calibration"] = metrics_with_ci.calibration_entries(scored, ap_per_class, calibration)
    metrics["comparison"] = _compare(scored, ap_per_class, data, settings, videos, other, notes) if other else None
    thresholds = fit_thresholds(*selection) if selection else None
    rows = metrics_with_ci.per_class_rows(data, scored, ap_per_class, training, thresholds, calibration)
    metrics["notes"] = (
        notes + _source_notes(scored, videos, data.classes, annotations_dir) + _calibration_notes(metrics)
    )
    metrics["notes"] += _caveats(
        source,
        other,
        scored,
        rows,
        videos,
        expected,
        several_animal_classes=sum(len(set(names)) > 1 for names in animal_classes),
        thresholds_fitted=selection is not None,
    )
    return Evaluation(source.title, data.classes, data.partitions, videos, scores, raw_scores, targets, metrics, rows)


def _read_calibration(
    source: PredictionSource, data: Annotations, settings: EvaluationSettings
) -> RunCalibration | None:
    """Return the calibration of a run, None for a CSV. Raises UserError."""
    return None if settings.raw or not source.is_run else calibration_file.read(source.path.parent, data.classes)


def _calibrate(scores: np.ndarray, calibration: RunCalibration | None) -> np.ndarray:
    return calibration.scores(scores) if calibration else scores


def _read_scores(source: PredictionSource, data: Annotations, settings: EvaluationSettings) -> sources.Scores:
    """Return the probabilities of the evaluation split. Raises UserError for a missing video."""
    expected = list(data.splits[settings.split])
    optional = expected if settings.allow_missing else source.excluded_videos
    logits = settings.logits and not source.is_run
    return sources.read_scores(source.path, data, expected, logits, optional, source.is_run)


def _read_selection_predictions(
    source: PredictionSource,
    data: Annotations,
    settings: EvaluationSettings,
    evaluated: list[str],
    calibration: RunCalibration | None,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (scores, labels) of the model-selection split, on which thresholds are fitted; None without predictions.

    `evaluated`: the videos of the evaluation split. Adds to `notes`. Raises UserError if the two splits overlap."""
    if source.selection_path is None:
        return None
    from_val = source.protocol == THREE_SPLITS
    expected = tuple(data.splits.get("val", ())) if from_val else data.selection
    if not expected:
        raise UserError(
            f"belongs to the model-selection split, but the annotations have no {annotations.SELECTION_FILE}",
            "give the annotations that the run was trained with by --annotations-dir",
            path=source.selection_path,
        )
    if not set(evaluated).isdisjoint(expected):
        raise UserError(
            f"contains clips of the evaluation split, so thresholds can't be fitted on it (--split {settings.split})",
            "give another --split, or predictions without the model-selection split",
            path=source.selection_path,
        )
    optional = expected if settings.allow_missing else source.excluded_selection_videos
    logits = settings.logits and not source.is_run
    path = source.selection_path
    videos, scores, new_notes = sources.read_scores(path, data, expected, logits, optional, source.is_run)
    notes += new_notes
    return _calibrate(scores, calibration), sources.multi_hot_matrix(data, "val" if from_val else "train", videos)


def _header(
    source: PredictionSource, settings: EvaluationSettings, scored: ScoredVideos, ap_per_class: np.ndarray
) -> dict[str, Any]:
    """Return the first keys of metrics.json, which describe the evaluation."""
    return {
        "schema": 1,
        "predictions": source.path.name,
        "predictions_sha256": _sha256(source.path),
        "protocol": source.protocol,
        "epoch_chosen_on": source.epoch_chosen_by,
        "student_protocol": source.student_protocol,
        "split": settings.split,
        "num_videos": len(scored.scores),
        "num_classes": scored.scores.shape[1],
        "classes_with_a_positive": int((~np.isnan(ap_per_class[0])).sum()),
        "videos_with_a_label": int(scored.targets.any(1).sum()),
        "bootstrap": {
            "resamples": settings.resamples,
            "seed": settings.seed,
            "level": 0.95,
            "over": settings.resample,
            "units": len(scored.scores) if scored.sources is None else len(np.unique(scored.sources)),
            "method": "percentiles, shifted so that the mean of the resamples is the value",
        },
        "versions": versions.package_versions(),
    }


def _compare(
    scored: ScoredVideos,
    ap_per_class: np.ndarray,
    data: Annotations,
    settings: EvaluationSettings,
    videos: list[str],
    other: PredictionSource,
    notes: list[str],
) -> dict[str, Any]:
    """Return `comparison` of metrics.json, on the videos of both sources (read_scores checks the missing ones).

    Adds to `notes`."""
    calibration = _read_calibration(other, data, settings)
    other_videos, raw_scores, new_notes = _read_scores(other, data, settings)
    notes += new_notes
    other_rows = {video: row for row, video in enumerate(other_videos)}
    in_both = np.array([video in other_rows for video in videos])
    if not in_both.any():
        raise UserError(
            "contains no prediction for a clip to compare", "give predictions of the same clips", path=other.path
        )
    if not in_both.all():
        scored = scored.subset(in_both)
        ap_per_class = scored.ap_per_class()
    raw_scores = raw_scores[[other_rows[video] for video in videos if video in other_rows]]
    other_scored = replace(scored, scores=_calibrate(raw_scores, calibration), raw_scores=raw_scores)
    comparison = metrics_with_ci.compare_predictions(scored, other_scored, ap_per_class, data.classes)
    return {
        "other": other.title,
        "other_sha256": _sha256(other.path),
        "other_protocol": other.protocol,
        "other_calibration": calibration.method if calibration else None,
    } | comparison


def _source_notes(
    scored: ScoredVideos, videos: Sequence[str], classes: Sequence[str], annotations_dir: Path
) -> list[str]:
    """Return sentences about intervals over sources: which are missing, and what the sources rest on."""
    if scored.sources is None:
        return []
    known, num_sources = annotations.read_sources(annotations_dir), len(np.unique(scored.sources))
    notes = [
        f"Intervals are over {num_sources} sources, which are drawn with all their clips: they show how much the "
        "numbers would differ with other sources."
    ]
    if any(known.get(video, "").startswith(annotations.INFERRED_SOURCE) for video in videos):
        notes.append("The sources are inferred from the clips' names; they are not given by the data set's authors.")
    if unknown := [video for video in videos if video not in known]:
        notes.append(f"Clips without a source are one each: {len(unknown)} ({list_some(unknown)}).")
    if num_sources < resampling.MIN_SOURCES:
        return [*notes, f"There are no intervals, as they need {resampling.MIN_SOURCES} sources."]
    units = scored.units_with_class()
    if few := [name for name, count in zip(classes, units, strict=True) if 0 < count < MIN_POSITIVES_FOR_CI]:
        notes.append(
            f"Classes that clips of fewer than {MIN_POSITIVES_FOR_CI} sources have, and therefore no interval: "
            f"{len(few)} ({list_some(few)})."
        )
    return notes


def _calibration_notes(metrics: dict[str, Any]) -> list[str]:
    """Return sentences about which numbers of metrics.json are of calibrated scores."""
    calibration, comparison, notes = metrics["calibration"], metrics["comparison"], []
    clips = f"{calibration['num_videos']} clips of the model-selection split"
    if calibration["method"] == "none":
        notes.append(f"The scores are not calibrated, as {clips} give no calibration.")
    elif calibration["method"] == "temperature":
        notes.append(
            f"Scores are calibrated by one temperature, fitted on {clips}. It changes calibration error and log loss; "
            "all other numbers are those of raw scores, except where float64 rounds scores near 0 or 1 to equal ones."
        )
    elif calibration["method"]:
        raw = calibration["raw"]["map_micro"]["value"]
        raw_micro = "" if raw is None else f" The micro AP of the raw scores is {format_fraction(raw)}."
        notes.append(
            f"Scores are calibrated by Platt scaling, fitted on {clips}; classes with fewer than {MIN_POSITIVES} clips "
            "with or without the label have a temperature. Macro AP and the AP of each class are unchanged by it. "
            "Micro AP (map_micro), hit@1, precision@k, top-1 and F1 at 0.5 are of calibrated scores: do not compare "
            f"them with TFAM's metrics.json and table.csv, which are of raw scores.{raw_micro}"
        )
    if comparison and (calibration["method"] == "platt") != (comparison["other_calibration"] == "platt"):
        notes.append(
            "Only one of the compared models has Platt scaling, so the difference of their micro AP is not due to the "
            "models alone; --raw compares raw scores."
        )
    return notes


def _caveats(
    source: PredictionSource,
    other: PredictionSource | None,
    scored: ScoredVideos,
    class_rows: Sequence[dict[str, Any]],
    videos: Sequence[str],
    expected: Sequence[str],
    *,
    several_animal_classes: int,
    thresholds_fitted: bool,
) -> list[str]:
    """Return sentences about what limits the numbers: `notes` of metrics.json.

    `class_rows`: of per_class.csv; `videos`: the scored ones among the `expected`; `several_animal_classes`: number of
    videos that show more than one class of animals."""
    caveats = []
    if source.protocol in (PUBLISHED, ZERO_SHOT):
        caveats.append(PROTOCOL_NOTES[source.protocol])
    if source.student_caveat:
        caveats.append(source.student_caveat)
    if source.protocol is None:
        caveats.append(UNKNOWN_PROTOCOL_NOTE)
    scored_videos = set(videos)
    if missing := [video for video in expected if video not in scored_videos]:
        caveats.append(f"Clips without predictions are excluded: {len(missing)} ({list_some(missing)}).")
    if unlabelled := int((~scored.targets.any(1)).sum()):
        labelled = len(videos) - unlabelled
        caveats.append(f"Clips without a label: {unlabelled}; hit@1 and precision@k are over the other {labelled}.")
    if len(videos) > 1:
        constant = [row["class"] for row in class_rows if np.ptp(scored.scores[:, row["id"]]) == 0]
        if len(constant) == len(class_rows):
            caveats.append("All clips have the same scores: these predictions do not depend on the clips.")
        elif constant:
            caveats.append(f"Classes with the same score for all clips: {len(constant)} ({list_some(constant)}).")
    if perfect := [row["class"] for row in class_rows if row["ap"] == 1 and row["positives"] < len(videos)]:
        caveats.append(f"Classes with an AP of exactly 1, which is suspicious: {len(perfect)} ({list_some(perfect)}).")
    if rare := [row["class"] for row in class_rows if 0 < row["positives"] < FEW_POSITIVES]:
        caveats.append(
            f"Classes with fewer than {FEW_POSITIVES} positive clips: {len(rare)}. Their AP depends on single clips, "
            f"more than their interval shows. With fewer than {MIN_POSITIVES_FOR_CI} there is no interval."
        )
    if empty := [row["class"] for row in class_rows if not row["positives"]]:
        caveats.append(
            f"Classes without a positive clip: {len(empty)} ({list_some(empty)}). They have no AP, and macro averages "
            "exclude them."
        )
    if thresholds_fitted and source.protocol not in (HELD_OUT, THREE_SPLITS):
        caveats.append("Thresholds are fitted on the model-selection split, on which this model may have been trained.")
    if other and other.protocol != source.protocol:
        protocol, other_protocol = (s.protocol or "unknown" for s in (source, other))
        caveats.append(
            f"The epochs of the compared models were selected by different protocols (here {protocol}, other "
            f"{other_protocol}), so their difference is not due to the models alone."
        )
    if several_animal_classes:
        caveats.append(f"Clips that show several classes of animals count in each: {several_animal_classes}.")
    return caveats


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
