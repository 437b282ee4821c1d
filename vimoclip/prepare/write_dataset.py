"""How every import of a data set ends: selection clips, annotations, a summary, a plot of the class counts."""

import os
import re
import shutil
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vimoclip import annotations
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.prepare import grouped_split, selection
from vimoclip.prepare.grouped_split import leaks

COUNTS = "class_counts.html"
NAMED = 10  # of what is left out so many are named, all are counted
LISTED = 24  # classes that are listed
SPLITS = {"train": "to train on", "val": "to validate with", "test": "to test with"}


@dataclass(frozen=True)
class Prepared:
    """A data set as it was found. `seconds`: of the videos of which it is known; `left_out`: what -> why;
    `sources`: video -> the recording, animal or site that it comes from, where known."""

    data: Annotations
    seconds: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def finish(notes: Path, name: str, prepared: Prepared, seed: int = grouped_split.SEED) -> Path:
    """Write the annotations, with selection clips, and say what they hold; the folder. Raises UserError.

    Annotations that are there already must be the same; their selection stays."""
    data = with_selection(prepared.data, notes, name, seed, prepared.sources)
    annotations.write(notes, name, data)
    write_sources(notes, prepared.sources)
    tell(notes, replace(prepared, data=data))
    return notes


def with_selection(
    data: Annotations, notes: Path, name: str, seed: int = grouped_split.SEED, sources: Mapping[str, str] | None = None
) -> Annotations:
    """With selection clips drawn, or those of the same annotations that are there. Raises UserError for others.

    No clips are drawn where there is a test split: then epochs and thresholds are chosen on val."""
    drawn = () if data.splits.get("test") else grouped_split.draw(data, seed=seed, sources=sources)
    if not any(notes.glob("*_action.csv")):
        return replace(data, selection=drawn)
    there = annotations.load(notes, name)
    odd = sorted(set(data.classes) ^ set(there.classes))
    if not odd and data.classes != there.classes:
        odd = [ours for ours, theirs in zip(data.classes, there.classes, strict=True) if ours != theirs]
    for split in {*data.splits, *there.splits}:
        ours, theirs = (one.splits.get(split, {}) for one in (data, there))
        odd += sorted(video for video in {*ours, *theirs} if ours.get(video) != theirs.get(video))
    if odd:
        raise UserError(
            f"holds {len(odd)} other classes, clips or labels ({', '.join(odd[:3])})",
            "name another folder, or delete it and what was made from it",
            path=notes,
        )
    return replace(data, selection=there.selection or drawn)


def write_sources(notes: Path, sources: Mapping[str, str]) -> None:
    """sources.csv, or none where nothing is known."""
    if sources:
        atomic.write_text(notes / annotations.SOURCES, annotations.sources_text(sources))
    else:
        (notes / annotations.SOURCES).unlink(missing_ok=True)


def tell(notes: Path, prepared: Prepared) -> None:
    """Print the summary and the warnings, and plot the class counts."""
    print("\n".join(summary(prepared)))
    print("\n".join(selection.describe(prepared.data)))
    for line in leaks(prepared.data.splits, prepared.sources) + leaks(_training(prepared.data), prepared.sources):
        print(line)
    print(f"wrote {notes}, and {plot(notes, prepared.data)}", flush=True)


def plot(notes: Path, data: Annotations) -> Path:
    """The class counts as a page."""
    from vimoclip.report import class_histogram

    found = {split: _counts(data, split) for split in data.splits}
    return class_histogram.write(notes / COUNTS, "Clips of each action", data.classes, found)


def summary(prepared: Prepared) -> list[str]:
    """Clips, classes, counts a split, durations, labels a clip, what was left out and why."""
    data = prepared.data
    videos = {video: labels for of_split in data.splits.values() for video, labels in of_split.items()}
    shares = ", ".join(f"{len(of_split)} {SPLITS[split]}" for split, of_split in data.splits.items())
    labels = Counter(map(len, videos.values()))
    lines = [
        *_left_out(prepared.left_out),
        *_classes(data),
        f"{len(videos)} clips: {shares}; {len(data.classes)} actions",
        "labels a clip: " + ", ".join(f"{number} in {labels[number]} clips" for number in sorted(labels)),
    ]
    if known := [prepared.seconds[video] for video in videos if video in prepared.seconds]:
        unknown = f", of {len(known)} clips that say it" if len(known) < len(videos) else ""
        lines.append(
            f"durations: {min(known):.1f} to {max(known):.1f} s, median {statistics.median(known):.1f} s, "
            f"{sum(known) / 60:.1f} min in all{unknown}"
        )
    return lines


def _counts(data: Annotations, split: str) -> list[int]:
    counted = Counter(label for labels in data.splits[split].values() for label in labels)
    return [counted[label] for label in range(len(data.classes))]


def _classes(data: Annotations) -> list[str]:
    """A line a class; of many the commonest and the rarest."""
    by_split = {split: _counts(data, split) for split in data.splits}
    lines = []
    for label, action in enumerate(data.classes):
        counts = {split: of_split[label] for split, of_split in by_split.items()}
        few = "" if min(counts.values()) else "   too few clips to be in both"
        few = few.replace("both", "all") if len(counts) > 2 else few
        said = ", ".join(f"{count} {SPLITS[split]}" for split, count in counts.items())
        lines.append((sum(counts.values()), f"  {action}: {said}{few}"))
    if len(lines) <= LISTED:
        return [line for _, line in lines]
    lines.sort(key=lambda pair: -pair[0])
    half = LISTED // 2
    between = f"  ... {len(lines) - LISTED} more, all of them in {COUNTS} ..."
    return [*(line for _, line in lines[:half]), between, *(line for _, line in lines[-half:])]


def _left_out(left_out: Mapping[str, str]) -> list[str]:
    lines = [f"  left out: {what}: {why}" for what, why in list(left_out.items())[:NAMED]]
    if len(left_out) > NAMED:
        reasons = Counter(left_out.values()).most_common(3)
        lines.append(
            f"  and {len(left_out) - NAMED} more left out; of all, " + ", ".join(f"{n}: {r}" for r, n in reasons)
        )
    return lines


def _training(data: Annotations) -> dict[str, list[str]]:
    """What is trained on, and what epochs are chosen on."""
    chosen = set(data.selection)
    rest = [video for video in data.splits.get("train", {}) if video not in chosen]
    return {"train": rest, "selection": list(data.selection)}


def clean(name: str) -> str:
    """A name that every file of the chain takes: DESIGN's rule for stems."""
    return re.sub(r"^[=+@]", "-", re.sub(r"[\x00-\x1f\x7f/\\.]", "-", name))


def place_videos(paths: Mapping[str, Path], folder: Path) -> None:
    """Link or copy each video under its new name; those that are there stay. Raises UserError before it places any."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = {folder / name: path for name, path in paths.items() if not (folder / name).exists()}
    for name, path in paths.items():
        if folder / name not in missing and (folder / name).stat().st_size != path.stat().st_size:
            raise UserError(
                f"is another video than {path}", "name another --dataset-dir, or delete it", path=folder / name
            )
    for target, path in missing.items():
        try:
            os.link(path.resolve(), target)
        except OSError:
            with atomic.new_file(target) as copy, open(path, "rb") as source:
                shutil.copyfileobj(source, copy)
