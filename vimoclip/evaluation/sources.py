"""Whose predictions they are, and what they say of the clips of a split: refused where they don't say it of each."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.annotations import Annotations, stem
from vimoclip.annotations.split_protocol import HELD_OUT, PUBLISHED, THREE_SPLITS
from vimoclip.errors import UserError
from vimoclip.io import predictions_csv
from vimoclip.io.predictions_csv import Table, some

FILES = {"val": "predictions.csv", "selection": "selection_predictions.csv"}  # of a TFAM run


@dataclass(frozen=True)
class Source:
    """Predictions to evaluate: `path`, and of a run what its metrics.json says; `left_out`: video -> why."""

    path: Path
    title: str
    protocol: str | None = None  # that of a run, which has one always
    chosen_by: str | None = None
    student_protocol: str | None = None
    student: str | None = None  # what must be said of the student whose motion it reads
    selection: Path | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    selection_left_out: Mapping[str, str] = field(default_factory=dict)
    dataset: Path | None = None  # the folder that the run's embeddings lie in
    split: str = "val"  # of the clips that a run reports

    @property
    def is_run(self) -> bool:
        """Whether these are a run's, and so probabilities, and not any CSV."""
        return self.protocol is not None

    @property
    def chosen_on(self) -> str:
        """The split, or part of the training split, on which the epoch was chosen and thresholds are fitted."""
        return "val" if self.protocol == THREE_SPLITS else "selection"

    def holds_logits(self, said: bool) -> bool:
        """Where they are said to be logits; never a run's, whatever those of a CSV beside it are."""
        return said and not self.is_run

    def may_lack(self, wanted: Sequence[str], anything: bool) -> Collection[str]:
        """Of which of the wanted videos there may be no predictions."""
        return wanted if anything else self.left_out


def open_source(given: Path, selection: Path | None = None) -> Source:
    """What a run folder or a CSV is; `selection`: predictions of the selection clips, where they aren't the run's own.

    Raises UserError for a folder of no finished run."""
    if not given.is_dir():
        return Source(given, given.name, selection=selection)
    path, about = given / FILES["val"], given / "metrics.json"
    if not (path.is_file() and about.is_file()):
        raise UserError(
            f"{given}: is no finished run of TFAM (it has no {about.name if path.is_file() else path.name})",
            "finish it with the same command, or name a CSV of predictions",
        )
    try:
        said = json.loads(about.read_text(encoding="utf-8"))
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise UserError(f"{about}: is no JSON object", "delete it and run its config again")
    own = given / FILES["selection"]
    protocol = said.get("protocol") or PUBLISHED  # there was no other before there were protocols
    return Source(
        path,
        "/".join(given.absolute().parts[-2:]),
        protocol,
        said.get("epoch_chosen_by"),
        said.get("student_protocol"),
        student_of(said) if protocol == HELD_OUT else None,
        selection or (own if own.is_file() else None),
        said.get("left_out_videos") or {},
        said.get("selection_left_out_videos") or {},
        _dataset_of(given / "config.yaml"),
        said.get("reported_split") or "val",
    )


def student_of(said: Mapping[str, Any]) -> str | None:
    """What a reader must know of the student whose motion a held-out run reads; None where all is well."""
    if said.get("fusion") == "rgb" or (said.get("settings") or {}).get("data.motion") == "none":
        return None
    if "student_protocol" in said and said["student_protocol"] is None:
        return "It is not known on which clips the student whose motion this run reads was trained and chosen."
    if said.get("student_protocol") == PUBLISHED:
        return (
            "The student whose motion this run reads chose its epoch on the clips that are reported (protocol "
            "published), so these numbers are too high."
        )
    if said.get("student_selection_agrees") is False:
        return (
            "The student whose motion this run reads may have learnt from the clips on which this run chose its epoch."
        )
    return None


def _dataset_of(config: Path) -> Path | None:
    from vimoclip.io.yaml_json import read_yaml

    data = read_yaml(config).get("data", {}) if config.is_file() else {}
    embeddings = (data.get("rgb_val_h5") or data.get("rgb_test_h5")) if isinstance(data, dict) else None
    return Path(embeddings).parent.parent if isinstance(embeddings, str) else None


def read_scores(
    path: Path, data: Annotations, wanted: Sequence[str], logits: bool, may_lack: Collection[str]
) -> tuple[list[str], np.ndarray]:
    """(videos, (N, C) probabilities) of the `wanted` videos, in the order of these and of the annotations' classes.

    `may_lack`: videos that may be missing, as the run that predicts said why it couldn't use them. Raises UserError."""
    table = predictions_csv.read(path)
    columns, rows = match_classes(path, table, data.classes), match_videos(path, table, wanted, may_lack)
    scores = table.scores[list(rows.values())][:, columns]
    if logits:
        scores = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
    if (wrong := (scores < 0) | (scores > 1)).any():
        videos = list(rows)
        named = some(
            f"{videos[n]}, {data.classes[c]}: {scores[n, c]:.4g}" for n, c in zip(*wrong.nonzero(), strict=True)
        )
        raise UserError(
            f"{int(wrong.sum())} scores are no probabilities ({named})",
            "write probabilities from 0 to 1, or say with --logits that they are logits",
            path=path,
        )
    return list(rows), scores


def like_probabilities(sigmoids: np.ndarray) -> bool:
    """Whether what was read as logits lies from 0 to 1 itself."""
    return bool((sigmoids >= 0.5).all() and (sigmoids <= 1 / (1 + np.exp(-1))).all())


def match_classes(path: Path, table: Table, classes: Sequence[str]) -> list[int]:
    """The column of each class, found by its name, or, where all columns are numbers, by its id. Raises UserError."""
    place = {name: column for column, name in enumerate(table.classes)}
    names = list(classes)
    if not set(names) & set(place) and all(name.isdecimal() for name in place):
        if len({int(name) for name in place}) < len(place):
            raise UserError(
                f"two columns are of one class id ({some(sorted(place))})", "give each class one", path=path
            )
        place = {str(int(name)): column for name, column in place.items()}
        names = [str(i) for i in range(len(classes))]
    missing, unknown = [n for n in names if n not in place], [n for n in place if n not in set(names)]
    for what, odd in (("classes have no column", missing), ("columns are no class", unknown)):
        if odd:
            raise UserError(
                f"{len(odd)} {what} ({some(odd)})",
                f"give a column each of the {len(classes)} classes of the annotations, headed by their names or ids",
                path=path,
            )
    return [place[name] for name in names]


def match_videos(path: Path, table: Table, wanted: Sequence[str], may_lack: Collection[str]) -> dict[str, int]:
    """Wanted video -> its row, found by its file name, or that without its extension. Raises UserError."""
    by_stem = {stem(video): video for video in wanted}
    known = set(wanted)
    rows: dict[str, int] = {}
    unknown, doubled = [], []
    for number, name in enumerate(table.videos):
        video = name if name in known else by_stem.get(name)
        if video is None:
            unknown.append(name)
        elif video in rows:
            doubled.append(name)
        else:
            rows[video] = number
    accepted = set(may_lack)
    missing = [video for video in wanted if video not in rows and video not in accepted]
    problems = {"have no predictions": missing, "are not among these clips": unknown, "stand twice": doubled}
    said = [f"{len(names)} {what} ({some(names)})" for what, names in problems.items() if names]
    if said:
        raise UserError(
            f"of the {len(wanted)} clips to evaluate, {'; '.join(said)}",
            "predict each clip once, or name the annotations and --split that these are of",
            path=path,
        )
    return {video: rows[video] for video in wanted if video in rows}


def multi_hot(data: Annotations, split: str, videos: Sequence[str]) -> np.ndarray:
    """(N, C) bool."""
    return np.array([data.multi_hot(split, video) for video in videos]).reshape(len(videos), -1) > 0


def prevalences(data: Annotations, without: Sequence[str]) -> tuple[np.ndarray, int] | None:
    """((C,) number of training clips of each class, number of all of them), but for those held out; None of none."""
    videos = [video for video in data.splits.get("train", {}) if video not in set(without)]
    if not videos:
        return None
    return multi_hot(data, "train", videos).sum(0), len(videos)
