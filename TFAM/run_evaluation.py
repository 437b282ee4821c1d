"""Evaluate a finished run once more on the data that it names, for its model card."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.annotations.split_protocol import HELD_OUT, THREE_SPLITS
from vimoclip.errors import UserError
from vimoclip.evaluation import Evaluation, EvaluationSettings, evaluate, resampling, sources
from vimoclip.evaluation.sources import PredictionSource
from vimoclip.io import yaml_json
from vimoclip.store import EmbeddingReader

TRAINING, SELECTION, EVALUATION = ROLES = ("training", "model selection", "evaluation")  # of clips
PERCENTILES = (5, 50, 95)
TOLERANCE = 1e-5  # of a metric that is computed again


@dataclass(frozen=True)
class RunEvaluation:
    """What is known of a run. `metrics`: its metrics.json; `result`: None if its labels are gone or have changed.

    `sources`: number of sources of the clips by role, {} if there is no sources.csv; `shared_sources`: number of
    those of evaluated clips that have clips of another role, too; `clips_without_source`: of all roles;
    `clip_seconds`: 5th, 50th and 95th percentile of the time from the first to the last sampled frame of the
    evaluated clips, in seconds, None without their embeddings; `rates`: the same of their sampled frames per
    second."""

    metrics: dict[str, Any]
    result: Evaluation | None = None
    sources: Mapping[str, int] = field(default_factory=dict)
    shared_sources: int = 0
    clips_without_source: int = 0
    clip_seconds: np.ndarray | None = None
    rates: np.ndarray | None = None


def evaluate_run(run: Path, dataset_name: str) -> RunEvaluation:
    """Evaluate the predictions of a run folder with the annotations that its config names.

    Intervals are over sources if sources.csv names enough of them. What can't be read is left out, with a note. Raises
    UserError for damaged files of the run."""
    evaluation = RunEvaluation(yaml_json.read_json(run / "metrics.json"))
    data = (yaml_json.read_yaml(run / "config.yaml") if (run / "config.yaml").is_file() else {}).get("data") or {}
    for add, missing in ((_add_result, "no intervals"), (_add_clip_lengths, "no lengths of clips")):
        try:
            evaluation = add(evaluation, run, data, dataset_name)
        except UserError as error:
            print(f"note: the model card has {missing}: {error}", flush=True)
    return evaluation


def _add_result(run: RunEvaluation, path: Path, config: Mapping[str, Any], dataset_name: str) -> RunEvaluation:
    """Add metrics and sources. Raises UserError if predictions or labels can't be read, or have changed."""
    folder = Path(config.get("annotations_dir") or "dataset/annotations")
    source = sources.open_predictions(path)
    data = annotations.load(folder, dataset_name, [source.split])
    clips, known = _clips_by_role(data, source), annotations.read_sources(folder)
    names = {role: {known[clip] for clip in clips[role] if clip in known} for role in clips}
    enough = known and len(names[EVALUATION]) >= resampling.MIN_SOURCES
    over = resampling.SOURCES if enough else resampling.CLIPS
    result = evaluate(source, data, folder, EvaluationSettings(source.split, resample=over))
    if not math.isclose(result.metrics["map_macro"]["value"], run.metrics["map_macro"], abs_tol=TOLERANCE):
        raise UserError("the labels have changed since the run was evaluated on them", "evaluate it again", path=folder)
    others = set[str]().union(*(names[role] for role in names if role != EVALUATION))
    counts = {role: len(found) for role, found in names.items()} if known else {}
    unknown = sum(clip not in known for role in clips for clip in clips[role])
    shared = len(names[EVALUATION] & others)
    return replace(run, result=result, sources=counts, shared_sources=shared, clips_without_source=unknown)


def _clips_by_role(data: Annotations, source: PredictionSource) -> dict[str, list[str]]:
    """Return the clips that a run was trained on, selected on, and evaluated on."""
    selection = {HELD_OUT: data.selection, THREE_SPLITS: data.splits.get("val", ())}.get(source.protocol or "", ())
    drawn = source.training_clips
    train = [clip for clip in data.splits.get("train", {}) if clip not in set(selection)]
    return {
        TRAINING: [clip for clip in train if drawn is None or clip in drawn],
        SELECTION: list(selection),
        EVALUATION: list(data.splits[source.split]),
    }


def _add_clip_lengths(run: RunEvaluation, path: Path, config: Mapping[str, Any], _: str) -> RunEvaluation:
    """Add the lengths and frame rates of the evaluated clips. Raises UserError if their embeddings can't be read."""
    rgb = config.get(f"rgb_{run.metrics.get('reported_split', 'val')}_h5")
    if not rgb:
        raise UserError("names no embeddings of the evaluated clips", path=path / "config.yaml")
    reader = EmbeddingReader(Path(rgb), "rgb")
    times = [found for key in reader.keys if (found := reader.timestamps(key)) is not None and len(found) > 1]
    if not times:
        return run
    seconds = np.array([found[-1] - found[0] for found in times])
    rates = np.array([len(found) - 1 for found in times]) / np.maximum(seconds, 1e-9)
    return replace(run, clip_seconds=np.percentile(seconds, PERCENTILES), rates=np.percentile(rates, PERCENTILES))
