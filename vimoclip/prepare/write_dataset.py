"""The last step of every importer: videos, selection clips, annotations, a summary and a plot of the class counts."""

import os
import re
import shutil
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vimoclip import annotations, cli
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.names import list_some
from vimoclip.prepare import grouped_split, selection_split

CLASS_COUNTS_FILE = "class_counts.html"
MAX_NAMED = 10  # skipped entries in the summary
MAX_CLASS_LINES = 24
SPLIT_PURPOSE = {"train": "to train on", "val": "to validate with", "test": "to test with"}


@dataclass(frozen=True)
class PreparedDataset:
    """Annotations and metadata of an imported data set.

    `seconds`: video -> duration, if known. `skipped`: unusable entry -> reason. `sources`: video -> recording, animal
    or site that it comes from, if known."""

    data: Annotations
    seconds: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def write_dataset(
    annotations_dir: Path, name: str, prepared: PreparedDataset, seed: int = grouped_split.DEFAULT_SEED
) -> cli.RunReport:
    """Write the annotations with selection clips, print the summary and return the report of the run.

    Existing annotations must be the same, and keep their selection. Raises UserError."""
    data = add_selection(prepared.data, annotations_dir, name, seed, prepared.sources)
    annotations.write(annotations_dir, name, data)
    write_sources(annotations_dir, prepared.sources)
    print_summary(annotations_dir, replace(prepared, data=data))
    return cli.RunReport([annotations_dir], done=count_videos(data), skipped=dict(prepared.skipped))


def count_videos(data: Annotations) -> int:
    return sum(map(len, data.splits.values()))


def add_selection(
    data: Annotations,
    annotations_dir: Path,
    name: str,
    seed: int = grouped_split.DEFAULT_SEED,
    sources: Mapping[str, str] | None = None,
) -> Annotations:
    """Return the annotations with newly drawn selection clips, or with those of the same existing annotations.

    No clips are drawn if there is a test split: epochs and thresholds are then chosen on val. Raises UserError if
    other annotations exist."""
    drawn = () if data.splits.get("test") else grouped_split.draw_stratified(data, seed=seed, sources=sources)
    if not any(annotations_dir.glob("*_action.csv")):
        return replace(data, selection=drawn)
    existing = annotations.load(annotations_dir, name)
    differences = sorted(set(data.classes) ^ set(existing.classes))
    if not differences and data.classes != existing.classes:
        pairs = zip(data.classes, existing.classes, strict=True)
        differences = [new_name for new_name, old_name in pairs if new_name != old_name]
    for split in {*data.splits, *existing.splits}:
        new, old = (version.splits.get(split, {}) for version in (data, existing))
        differences += sorted(video for video in {*new, *old} if new.get(video) != old.get(video))
    if differences:
        raise UserError(
            f"holds {len(differences)} other classes, clips or labels ({list_some(differences)})",
            "name another folder, or delete it and what was made from it",
            path=annotations_dir,
        )
    return replace(data, selection=existing.selection or drawn)


def write_sources(annotations_dir: Path, sources: Mapping[str, str]) -> None:
    """Write `sources.csv`, or remove it if no source is known."""
    path = annotations_dir / annotations.SOURCES_FILE
    if sources:
        atomic.write_text(path, annotations.format_sources(sources))
    else:
        path.unlink(missing_ok=True)


def print_summary(annotations_dir: Path, prepared: PreparedDataset) -> None:
    """Print the summary and the warnings, and plot the class counts."""
    data, sources = prepared.data, prepared.sources
    print("\n".join(summary_lines(prepared)))
    print("\n".join(selection_split.describe_selection(data)))
    leaks = grouped_split.find_leaks(data.splits, sources)
    leaks += grouped_split.find_leaks(_train_and_selection(data), sources)
    for line in leaks:
        print(line)
    print(f"wrote {annotations_dir}, and {plot_class_counts(annotations_dir, data)}", flush=True)


def _train_and_selection(data: Annotations) -> dict[str, list[str]]:
    """Return the training videos that are trained on, and the selection clips."""
    selected = set(data.selection)
    train = [video for video in data.splits.get("train", {}) if video not in selected]
    return {"train": train, "selection": list(data.selection)}


def plot_class_counts(annotations_dir: Path, data: Annotations) -> Path:
    """Write the page with the class counts and return its path."""
    from vimoclip import report

    counts = {split: _class_counts(data, split) for split in data.splits}
    return report.write_class_histogram(
        annotations_dir / CLASS_COUNTS_FILE, "Clips of each action", data.classes, counts
    )


def summary_lines(prepared: PreparedDataset) -> list[str]:
    """Return the summary: skipped entries with reasons, counts per class and split, labels per clip, durations."""
    data = prepared.data
    videos = {video: labels for split in data.splits.values() for video, labels in split.items()}
    split_sizes = ", ".join(f"{len(split)} {SPLIT_PURPOSE[name]}" for name, split in data.splits.items())
    labels_per_clip = Counter(map(len, videos.values()))
    lines = [
        *_skipped_lines(prepared.skipped),
        *_class_lines(data),
        f"{len(videos)} clips: {split_sizes}; {len(data.classes)} actions",
        "labels a clip: "
        + ", ".join(f"{number} in {labels_per_clip[number]} clips" for number in sorted(labels_per_clip)),
    ]
    if seconds := [prepared.seconds[video] for video in videos if video in prepared.seconds]:
        unknown = f", of {len(seconds)} clips that say it" if len(seconds) < len(videos) else ""
        lines.append(
            f"durations: {min(seconds):.1f} to {max(seconds):.1f} s, median {statistics.median(seconds):.1f} s, "
            f"{sum(seconds) / 60:.1f} min in all{unknown}"
        )
    return lines


def _class_counts(data: Annotations, split: str) -> list[int]:
    """Return the number of clips of each class in a split."""
    counts = Counter(label for labels in data.splits[split].values() for label in labels)
    return [counts[label] for label in range(len(data.classes))]


def _class_lines(data: Annotations) -> list[str]:
    """Return a line per class; of many classes the most frequent and the rarest ones."""
    counts_by_split = {split: _class_counts(data, split) for split in data.splits}
    totals_and_lines = []
    for label, action in enumerate(data.classes):
        counts = {split: split_counts[label] for split, split_counts in counts_by_split.items()}
        all_splits = "all" if len(counts) > 2 else "both"
        warning = "" if min(counts.values()) else f"   too few clips to be in {all_splits}"
        text = ", ".join(f"{count} {SPLIT_PURPOSE[split]}" for split, count in counts.items())
        totals_and_lines.append((sum(counts.values()), f"  {action}: {text}{warning}"))
    if len(totals_and_lines) <= MAX_CLASS_LINES:
        return [line for _, line in totals_and_lines]
    totals_and_lines.sort(key=lambda pair: -pair[0])
    lines = [line for _, line in totals_and_lines]
    half = MAX_CLASS_LINES // 2
    more = f"  ... {len(lines) - MAX_CLASS_LINES} more, all of them in {CLASS_COUNTS_FILE} ..."
    return [*lines[:half], more, *lines[-half:]]


def _skipped_lines(skipped: Mapping[str, str]) -> list[str]:
    lines = [f"  left out: {entry}: {reason}" for entry, reason in list(skipped.items())[:MAX_NAMED]]
    if len(skipped) > MAX_NAMED:
        reasons = Counter(skipped.values()).most_common(3)
        lines.append(
            f"  and {len(skipped) - MAX_NAMED} more left out; of all, " + ", ".join(f"{n}: {r}" for r, n in reasons)
        )
    return lines


def clean_name(name: str) -> str:
    """Replace what a video id must not contain: control characters, slashes, dots, and = + @ at the start."""
    return re.sub(r"^[=+@]", "-", re.sub(r"[\x00-\x1f\x7f/\\.]", "-", name))


def link_videos(paths: Mapping[str, Path], folder: Path) -> None:
    """Hard-link each video under its new name, or copy it if that fails. Existing files are kept.

    Raises UserError, before any is linked, if an existing file has another size."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = {folder / name: path for name, path in paths.items() if not (folder / name).exists()}
    for name, path in paths.items():
        target = folder / name
        if target not in missing and target.stat().st_size != path.stat().st_size:
            hint = "name another --dataset-dir, or delete it"
            raise UserError(f"is another video than {path}", hint, path=target)
    for target, path in missing.items():
        try:
            os.link(path.resolve(), target)
        except OSError:
            with atomic.open_atomic(target) as copy, open(path, "rb") as source:
                shutil.copyfileobj(source, copy)
