"""The evaluation of predictions: what evaluate.py prints, writes and reports."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.annotations.split_protocol import HELD_OUT
from vimoclip.errors import UserError
from vimoclip.evaluation import metrics_with_ci, output, paired_comparison, sources
from vimoclip.evaluation.metrics_with_ci import Clips
from vimoclip.evaluation.sources import Source
from vimoclip.metrics import fit_thresholds, resampled_per_class, torchmetrics_macro
from vimoclip.runtime import versions


@dataclass(frozen=True)
class Evaluation:
    """`metrics`: what metrics.json holds; `per_class`: rows of per_class.csv; `scores` (N, C) and `targets` (N, C)."""

    title: str
    classes: tuple[str, ...]
    partitions: Mapping[str, tuple[str, ...]]
    videos: list[str]
    scores: np.ndarray
    targets: np.ndarray
    metrics: dict[str, Any]
    per_class: list[dict[str, Any]]


@dataclass(frozen=True)
class Settings:
    """How to evaluate: the `split`, whether scores are `logits`, `resamples` and their `seed`.

    `allow_missing`: without the clips that have no predictions."""

    split: str = "val"
    logits: bool = False
    resamples: int = 1000
    seed: int = 0
    allow_missing: bool = False


def evaluate(
    source: Source, data: Annotations, notes: Path, settings: Settings, compare: Source | None = None
) -> Evaluation:
    """All metrics of a source's predictions of the clips of a split. `notes`: the folder of the annotations.

    Raises UserError for predictions that aren't of each of these clips, once, and of these classes."""
    if settings.logits and all(given.is_run for given in (source, compare) if given):
        raise UserError("is a run's, which holds probabilities", "leave --logits out", path=source.path)
    logits = source.holds_logits(settings.logits)
    wanted = list(data.splits[settings.split])
    may_lack = source.may_lack(wanted, settings.allow_missing)
    videos, scores = sources.read_scores(source.path, data, wanted, logits, may_lack)
    if not videos:
        raise UserError(f"has predictions of none of the clips of {settings.split}_multi.txt", path=source.path)
    targets = sources.multi_hot(data, settings.split, videos)
    held = data.selection if source.protocol == HELD_OUT else ()
    training = sources.prevalences(data, held)
    weights = metrics_with_ci.weigh(len(videos), settings.resamples, settings.seed)
    prevalences = training[0] / training[1] if training else None
    clips = Clips(scores, targets, weights, prevalences, settings.seed)
    selection = read_selection(source, data, settings, videos)
    per_class = resampled_per_class(scores, targets, weights)
    found = head(source, settings, clips, per_class)
    found |= metrics_with_ci.precisions(clips, per_class)
    found["torchmetrics_macro"] = {
        "value": torchmetrics_macro(per_class[0]),
        "note": "torchmetrics' average='macro', which counts a class without a positive as 0; not for comparison",
    }
    found["segments"] = metrics_with_ci.by_segment(clips, per_class, data.partitions)
    animals = annotations.read_animals(notes)
    of_video = [animals[video].classes if video in animals else () for video in videos]
    found["animal_classes"] = metrics_with_ci.by_animal(clips, of_video)
    found |= metrics_with_ci.others(clips, selection)
    found["comparison"] = _compare(clips, per_class, data, settings, videos, compare) if compare else None
    thresholds = fit_thresholds(*selection) if selection else None
    rows = output.class_rows(data, clips, per_class, training, thresholds)
    found["notes"] = output.notes(source, clips, rows, videos, wanted) + output.wary(
        source, compare, of_video, selection is not None, logits and sources.like_probabilities(scores)
    )
    return Evaluation(source.title, data.classes, data.partitions, videos, scores, targets, found, rows)


def read_selection(
    source: Source, data: Annotations, settings: Settings, reported: list[str]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores and labels of the selection clips, on which thresholds are fitted. Raises UserError."""
    if source.selection is None:
        return None
    chosen = tuple(data.splits.get("val", ())) if source.chosen_on == "val" else data.selection
    if not chosen:
        raise UserError(
            f"{source.selection}: is of selection clips, but the annotations have no {annotations.SELECTION}",
            "name the annotations that the run learnt from with --annotations-dir",
        )
    if not set(reported).isdisjoint(chosen):
        raise UserError(
            f"{source.selection}: thresholds would be fitted on clips that --split {settings.split} reports",
            "name another --split, or predictions without selection clips",
        )
    may_lack = chosen if settings.allow_missing else source.selection_left_out
    logits = source.holds_logits(settings.logits)
    videos, scores = sources.read_scores(source.selection, data, chosen, logits, may_lack)
    return scores, sources.multi_hot(data, "val" if source.chosen_on == "val" else "train", videos)


def head(source: Source, settings: Settings, clips: Clips, per_class: np.ndarray) -> dict[str, Any]:
    """What stands first in metrics.json: of what the numbers are."""
    return {
        "schema": 1,
        "predictions": source.path.name,
        "predictions_sha256": digest(source.path),
        "protocol": source.protocol,
        "epoch_chosen_on": source.chosen_by,
        "student_protocol": source.student_protocol,
        "split": settings.split,
        "num_videos": len(clips.scores),
        "num_classes": clips.scores.shape[1],
        "classes_with_a_positive": int((~np.isnan(per_class[0])).sum()),
        "videos_with_a_label": int(clips.targets.any(1).sum()),
        "bootstrap": {
            "resamples": settings.resamples,
            "seed": settings.seed,
            "level": 0.95,
            "over": "clips",
            "method": "percentiles, moved so that the resamples' mean is the value",
        },
        "versions": versions.versions(),
    }


def _compare(
    clips: Clips, per_class: np.ndarray, data: Annotations, settings: Settings, videos: list[str], other: Source
) -> dict[str, Any]:
    """On the clips of which both have predictions: that one of them has none was accepted before, or is here."""
    logits = other.holds_logits(settings.logits)
    wanted = list(data.splits[settings.split])
    theirs, scores = sources.read_scores(
        other.path, data, wanted, logits, other.may_lack(wanted, settings.allow_missing)
    )
    place = {video: row for row, video in enumerate(theirs)}
    both = np.array([video in place for video in videos])
    if not both.any():
        raise UserError(
            "has predictions of none of the clips compared", "name predictions of the same ones", path=other.path
        )
    if not both.all():
        clips = clips.part(both)
        per_class = resampled_per_class(clips.scores, clips.targets, clips.weights)
    scores = scores[[place[video] for video in videos if video in place]]
    found = paired_comparison.compare(clips, scores, per_class, data.classes)
    return {"other": other.title, "other_sha256": digest(other.path), "other_protocol": other.protocol} | found


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
