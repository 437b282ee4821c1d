"""Runs of a cross-validation: the out-of-fold predictions of one config and seed, pooled over all folds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from TFAM.run_bootstrap import METRICS, RunBootstrap, open_split, read_labels, read_sources
from TFAM.run_groups import RunMetrics, read_metrics, student_remark
from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.io.names import list_some

if TYPE_CHECKING:
    import numpy as np

HINT = "give one folder for each fold of one division (prepare_dataset.py --fold K/N, with one --seed)"
ANNOTATIONS_NAME = "folds"  # of the data set in which all clips are the val split


class PooledBootstrap(RunBootstrap):
    """Average precision of pooled runs, whose labels and sources are those of their folds' data sets."""

    def read_labels(self, run: RunMetrics, videos: Sequence[str]) -> "np.ndarray":
        import numpy as np

        return np.stack([run["labels"][video] for video in videos])

    def read_sources(self, run: RunMetrics) -> Mapping[str, str]:
        """Return the source by clip, of the clips that each fold evaluates."""
        sources: dict[str, str] = {}
        for fold, videos in zip(run["folds"], run["fold_videos"], strict=True):
            of_fold = read_sources(fold)
            sources |= {video: of_fold[video] for video in videos if video in of_fold}
        return sources


def find_runs(folders: Sequence[Path]) -> tuple[dict[str, Sequence[RunMetrics]], dict[str, str]]:
    """Return (runs of all folds by `<config>/<seed folder>`, missing metrics.json -> what is left out for it).

    `folders`: one per fold, which contain TFAM/. Raises UserError if no run is finished in all folds."""
    if len(folders) < 2:
        raise UserError("a cross-validation has two folds or more", HINT)
    found, names = [], set[str]()
    for folder in folders:
        places = {path.relative_to(folder / "TFAM").as_posix(): path for path in sorted(folder.glob("TFAM/*/seed*/"))}
        names |= places.keys()
        paths = {name: path / "metrics.json" for name, path in places.items()}
        found.append({name: read_metrics(path) for name, path in paths.items() if path.is_file()})
        if not found[-1]:
            raise UserError("has no finished run", "run TFAM/run_experiments.sh", path=folder / "TFAM")
    complete: dict[str, Sequence[RunMetrics]] = {
        name: [runs[name] for runs in found] for name in sorted(names) if all(name in runs for runs in found)
    }
    missing = {
        str(folder / "TFAM" / name / "metrics.json"): f"the run of this fold is not finished: no row has {name}"
        for name in sorted(names)
        for folder, runs in zip(folders, found, strict=True)
        if name not in runs
    }
    if not complete:
        path, reason = next(iter(missing.items()))
        raise UserError(f"no config and seed is finished in all {len(folders)} folds ({reason})", HINT, path=path)
    return complete, missing


def pool_runs(runs: Sequence[RunMetrics], folder: Path) -> dict[str, Any]:
    """Write the predictions of all folds to `folder`, and return their run, without its average precision.

    It has the keys of the first fold's metrics.json; `labels` and `scores`: clip -> (C,); `classes`; `folds`: the run
    of each fold; and `fold_videos`, the clips of each. Raises UserError for runs of other settings or classes, and for
    a clip in two folds."""
    import numpy as np

    from vimoclip.io import predictions_csv

    tables = [predictions_csv.read(run["folder"] / "predictions.csv") for run in runs]
    first = _settings(runs[0], tables[0].classes)
    for run, table in zip(runs[1:], tables[1:], strict=True):
        hint = "train all folds with the same settings and classes"
        other = _settings(run, table.classes)
        cli.check_settings_match(first, other, str(runs[0]["folder"]), str(run["folder"]), hint)
    labels: dict[str, np.ndarray] = {}
    for run, table in zip(runs, tables, strict=True):
        if twice := labels.keys() & set(table.videos):
            problem = f"{len(twice)} of its clips are also in another fold ({list_some(sorted(twice))})"
            raise UserError(problem, HINT, path=run["folder"] / "predictions.csv")
        labels |= dict(zip(table.videos, read_labels(run, table.videos), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    scores = np.concatenate([table.scores for table in tables])
    predictions_csv.write(folder / "predictions.csv", list(labels), scores, tables[0].classes)
    hashes = [run.get("inputs_sha256") or {} for run in runs]
    return {key: value for key, value in runs[0].items() if key not in METRICS} | {
        "folder": folder,
        "num_videos": len(labels),
        # what no run records, like the motion of RGB alone, stays None, which agrees with anything
        "inputs_sha256": {
            key: [of_fold.get(key) for of_fold in hashes] if hashes[0][key] else None for key in hashes[0]
        },
        "student_sha256": [run.get("student_sha256") for run in runs],
        "classes": tables[0].classes,
        "labels": labels,
        "scores": dict(zip(labels, scores, strict=True)),
        "folds": runs,
        "fold_videos": [table.videos for table in tables],
    }


def _settings(run: RunMetrics, classes: Sequence[str]) -> dict[str, Any]:
    """Return what must be the same in all folds."""
    settings = " ".join(f"{key}={value}" for key, value in sorted(run["settings"].items()))
    keys = ("fusion", "seed", "protocol", "reported_split")
    student = {"student": student_remark(run), "student_seed": run.get("student_seed")}
    return {key: run.get(key) for key in keys} | {"settings": settings} | student | {"classes": list(classes)}


def describe_missing_clips(run: RunMetrics) -> list[str]:
    """Return warnings about clips of the data sets that no fold has evaluated. Raises UserError."""
    left_out = {video: reason for fold in run["folds"] for video, reason in (fold.get("left_out_videos") or {}).items()}
    lines = (
        [f"{len(left_out)} clips were left out, like {min(left_out)}: {left_out[min(left_out)]}"] if left_out else []
    )
    trained = {video for fold in run["folds"] for video in open_split(fold, "rgb_train_h5").keys}
    if unused := trained - run["labels"].keys() - left_out.keys():
        lines.append(f"{len(unused)} training clips are evaluated in no fold ({list_some(sorted(unused))}): {HINT}")
    return [f"{run['config']}: {line}" for line in lines]


def mean_of_folds(run: RunMetrics, metric: str, rounds: int, seed: int) -> tuple[float, float] | None:
    """Return the mean of the folds' average precisions, and that of their chance levels, see `chance_level`.

    None if a fold has no positive or no negative clip of a class."""
    import numpy as np

    for videos in run["fold_videos"]:
        labels = np.stack([run["labels"][video] for video in videos])
        if not labels.any(0).all() or labels.all(0).any():
            return None
    chances = [chance_level(run, videos, metric, rounds, seed) for videos in run["fold_videos"]]
    return mean(fold[metric] for fold in run["folds"]), mean(chances)


def chance_level(run: RunMetrics, videos: Sequence[str], metric: str, rounds: int, seed: int) -> float:
    """Return the expected average precision of a ranking of these videos that ignores them.

    Macro, or of one class: exact. Micro of several classes: the mean over random permutations of the videos' labels,
    after which the scores still follow how frequent each class is."""
    import numpy as np
    import torch

    from vimoclip import metrics

    labels = np.stack([run["labels"][video] for video in videos])
    if metric == "map_macro" or labels.shape[1] == 1:
        chances = [metrics.expected_random_ap(int(positives), len(labels)) for positives in labels.sum(0)]
        return float(metrics.macro_average(np.array(chances)))
    scores = torch.from_numpy(np.stack([run["scores"][video] for video in videos]))
    permuted = metrics.permute_targets(torch.from_numpy(labels), rounds, seed)
    return mean(metrics.map_micro(scores, targets) for targets in permuted)


def write_annotations(runs: Sequence[RunMetrics], annotations_dir: Path) -> None:
    """Write annotations whose val split is all clips, for evaluate.py; sources.csv too if each fold has one."""
    import numpy as np

    from vimoclip import annotations

    labels = {video: tuple(np.flatnonzero(row).tolist()) for run in runs for video, row in run["labels"].items()}
    data = annotations.Annotations(tuple(runs[0]["classes"]), {"val": dict(sorted(labels.items()))})
    try:
        bootstrap = PooledBootstrap(0, 0)
        sources = {video: source for run in runs for video, source in bootstrap.read_sources(run).items()}
    except UserError:
        sources = {}
    texts = {annotations.SOURCES_FILE: annotations.format_sources(sources) if sources else None}
    annotations_dir.mkdir(parents=True, exist_ok=True)
    texts |= annotations.format_files(annotations_dir, ANNOTATIONS_NAME, data)
    annotations.write_files(annotations_dir, texts)
