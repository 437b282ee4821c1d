"""The last step of every importer: model-selection split, annotations, a summary and a plot of the class counts."""

import filecmp
import statistics
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from vimoclip import annotations, cli
from vimoclip.annotations import SELECTION_FILE, Annotations, ObservedClip, VideoAnimals, split_checks
from vimoclip.errors import UserError, escape_line
from vimoclip.io import atomic, yaml_json
from vimoclip.io.names import fold_name, list_some, normalize_name
from vimoclip.prepare import grouped_split
from vimoclip.prepare.merge_predictions import ExistingDataset
from vimoclip.prepare.place_videos import SourceClip, check_names, place_clips
from vimoclip.video.geometry import AS_DISPLAYED, Geometry

CLASS_COUNTS_FILE = "class_counts.html"
FAILED_FILE = "failed_clips.json"  # clip that can't be written -> reason; a repeated import leaves it out
MAX_NAMED = 10  # skipped entries in the summary
MAX_CLASS_LINES = 24


@dataclass(frozen=True)
class PreparedDataset:
    """What an importer found.

    `clips`: video id -> the file, or the part of it, that becomes the video; `origin`: the file or folder that names
    them. `skipped`: unusable entry -> reason. `lost`: class that was coded but has no clip -> reason. `sources`:
    video -> recording, animal or site that it comes from, if known. `animals`: video -> its animals, if known.
    `observed`: clips of reviewed predictions. `geometry`: of clips that are trimmed out of films. `merged_with`: the
    existing data set, of which `data`, `sources`, `animals` and `observed` keep what is not replaced."""

    data: Annotations
    clips: Mapping[str, SourceClip]
    origin: Path
    skipped: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    animals: Mapping[str, VideoAnimals] = field(default_factory=dict)
    observed: Mapping[str, ObservedClip] = field(default_factory=dict)
    geometry: Geometry = AS_DISPLAYED
    merged_with: ExistingDataset | None = None


def write_dataset(
    dataset_dir: Path, name: str, prepared: PreparedDataset, seed: int = grouped_split.DEFAULT_SEED
) -> cli.RunReport:
    """Write videos, then annotations with a model-selection split; print the summary and return the report of the run.

    Existing annotations must be the same, unless they are merged with, and keep their selection and the clips that
    failed. Raises UserError, before anything is written."""
    annotations_dir, existing = dataset_dir / "annotations", prepared.merged_with
    failed_path, is_repeated = annotations_dir / FAILED_FILE, has_annotations(annotations_dir)
    failed_before = yaml_json.read_json(failed_path) if is_repeated and failed_path.is_file() else {}
    clips = {video: clip for video, clip in prepared.clips.items() if video not in failed_before}
    check_names(clips, prepared.origin)
    data = without_videos(prepared.data, failed_before)
    if not existing:
        data = replace(data, classes=tuple(map(normalize_name, data.classes)))
        data = replace(data, selection=existing_selection(data, annotations_dir, name))
    annotations.format_files(annotations_dir, name, data)  # refuses names before a video is written
    seconds, failed = place_clips(clips, dataset_dir, prepared.geometry)
    unusable = {video: str(reason) for video, reason in failed_before.items() if video in prepared.clips} | failed
    sources = {video: source for video, source in prepared.sources.items() if video not in unusable}
    animals = {video: names for video, names in prepared.animals.items() if video not in unusable}
    observed = {video: clip for video, clip in prepared.observed.items() if video not in unusable}
    data = without_videos(data, failed)
    if not existing:
        data = add_selection(data, seed, sources)
    if failed_clips := failed_before | failed:
        yaml_json.write_json(failed_path, failed_clips)
    else:
        failed_path.unlink(missing_ok=True)  # of earlier annotations
    texts = {annotations.SOURCES_FILE: annotations.format_sources(sources) if sources else None}
    if animals or existing:
        texts[annotations.ANIMALS_FILE] = annotations.format_animals(animals) if animals else None
    if observed or existing or not is_repeated:
        texts[annotations.OBSERVATIONS_FILE] = annotations.format_observations(observed) if observed else None
    texts |= annotations.format_files(annotations_dir, name, data)  # last: they imply that all other files exist
    (annotations.replace_files if existing else annotations.write_files)(annotations_dir, texts)
    if existing:
        print("\n".join(map(escape_line, existing.describe_changes(data, observed))), flush=True)
    skipped = {**prepared.skipped, **unusable}
    print_summary(annotations_dir, data, seconds, skipped, sources)
    unusable_labels = _used_labels(prepared.data) - _used_labels(data)
    lost = {**prepared.lost, **{data.classes[label]: "none of its clips can be used" for label in unusable_labels}}
    if existing:  # it may have clips of them
        used = {fold_name(data.classes[label]) for label in _used_labels(data)}
        lost = {action: reason for action, reason in lost.items() if fold_name(action) not in used}
    for action, reason in lost.items():
        print(escape_line(f"lost: {action} has no clip: {reason}"), flush=True)
    num_videos = sum(map(len, data.splits.values()))
    return cli.RunReport([annotations_dir], done=num_videos, skipped=skipped, failed=lost)


def _used_labels(data: Annotations) -> set[int]:
    return {label for videos in data.splits.values() for labels in videos.values() for label in labels}


def without_videos(data: Annotations, excluded: Container[str]) -> Annotations:
    """Return the annotations without some videos."""
    splits = {
        split: {video: labels for video, labels in videos.items() if video not in excluded}
        for split, videos in data.splits.items()
    }
    return replace(data, splits=splits, selection=tuple(video for video in data.selection if video not in excluded))


def add_selection(
    data: Annotations, seed: int = grouped_split.DEFAULT_SEED, sources: Mapping[str, str] | None = None
) -> Annotations:
    """Return the annotations with a newly drawn model-selection split, unless they have one.

    None is drawn if there is a test split: epochs and thresholds are then selected on val."""
    if data.selection or data.splits.get("test"):
        return data
    return replace(data, selection=grouped_split.draw_stratified(data, seed=seed, sources=sources))


def existing_selection(data: Annotations, annotations_dir: Path, name: str) -> tuple[str, ...]:
    """Return the model-selection split of existing annotations, if any. Raises UserError if they differ from `data`."""
    if not has_annotations(annotations_dir):
        return ()
    existing = annotations.load(annotations_dir, name)
    classes, existing_classes = (tuple(map(normalize_name, version.classes)) for version in (data, existing))
    differences = sorted(set(classes) ^ set(existing_classes))
    if not differences and classes != existing_classes:
        pairs = zip(classes, existing_classes, strict=True)
        differences = [new_name for new_name, old_name in pairs if new_name != old_name]
    for split in {*data.splits, *existing.splits}:
        new, old = (version.splits.get(split, {}) for version in (data, existing))
        differences += sorted(video for video in {*new, *old} if new.get(video) != old.get(video))
    if differences:
        raise UserError(
            f"has {len(differences)} other classes, clips or labels ({list_some(differences)})",
            "choose another folder, or delete it and all files created from it",
            path=annotations_dir,
        )
    return existing.selection


def has_annotations(annotations_dir: Path) -> bool:
    """Return whether an importer has finished there."""
    return any(annotations_dir.glob("*_action.csv"))


def draw_selection(annotations_dir: Path, name: str, fraction: float, seed: int, overwrite: bool) -> cli.RunReport:
    """Draw `selection.txt` for existing annotations and return the report of the run.

    Raises UserError if another selection exists and `overwrite` is not set."""
    data = annotations.load(annotations_dir, name, ["train"], with_selection=False)
    path = annotations_dir / SELECTION_FILE
    sources = annotations.read_sources(annotations_dir)
    data = replace(data, selection=grouped_split.draw_stratified(data, fraction, seed, sources))
    if not data.selection:
        hint = "add training videos"
        raise UserError("names fewer than two videos", hint, path=annotations_dir / "train_multi.txt")
    if not any(data.splits["train"][video] for video in data.selection):
        problem = f"none of the {len(data.selection)} clips of a model-selection split would have a label"
        raise UserError(problem, split_checks.UNLABELLED_HINT, path=annotations_dir / "train_multi.txt")
    text = annotations.format_selection(data.selection)
    if not overwrite and path.exists() and path.read_bytes() != text.encode():
        hint = "keep it, or draw it again with --overwrite and then train again"
        raise UserError("exists already, with other clips", hint, path=path)
    atomic.write_text(path, text)
    print("\n".join(describe_selection(data, sources)), flush=True)
    return cli.RunReport([path], done=len(data.selection))


def describe_selection(data: Annotations, sources: Mapping[str, str]) -> list[str]:
    """Return lines: the size of the model-selection split, and the classes without a clip in it or to train on."""
    train = data.splits.get("train", {})
    if data.selection:
        count = f"{len(data.selection)} of {len(train)} training clips"
        text = f"{SELECTION_FILE}: {count} are the model-selection split, on which epochs and thresholds are selected"
    elif data.splits.get("test"):
        text = "no model-selection split, as there is a test split: epochs and thresholds are selected on val"
    else:
        text = f"no {SELECTION_FILE}: prepare_dataset.py selection draws it from two or more training clips"
    return [text, *split_checks.describe_gaps(data, sources)]


def print_summary(
    annotations_dir: Path,
    data: Annotations,
    seconds: Mapping[str, float],
    skipped: Mapping[str, str],
    sources: Mapping[str, str],
) -> None:
    """Print the summary and the warnings, and plot the class counts. `seconds`: video -> duration, if known."""
    from vimoclip import report

    lines = [*summary_lines(data, seconds, skipped), *describe_selection(data, sources)]
    lines += split_checks.find_all_leaks(data, sources)
    counts = {split: _class_counts(data, split) for split in data.splits}
    path = annotations_dir / CLASS_COUNTS_FILE
    report.write_class_histogram(path, "Clips of each action", data.classes, counts)
    print("\n".join(lines))
    print(f"wrote {annotations_dir}, and {path}", flush=True)


def summary_lines(data: Annotations, seconds_of: Mapping[str, float], skipped: Mapping[str, str]) -> list[str]:
    """Return the summary: skipped entries with reasons, counts per class and split, labels per clip, durations."""
    videos = {video: labels for split in data.splits.values() for video, labels in split.items()}
    split_sizes = ", ".join(f"{len(split)} in {name}" for name, split in data.splits.items())
    labels_per_clip = Counter(map(len, videos.values()))
    lines = [escape_line(f"  skipped: {entry}: {reason}") for entry, reason in list(skipped.items())[:MAX_NAMED]]
    if len(skipped) > MAX_NAMED:
        reasons = ", ".join(f"{n}: {reason}" for reason, n in Counter(skipped.values()).most_common(3))
        more = f"{len(skipped) - MAX_NAMED} more are skipped (--report FILE lists all)"
        lines.append(f"  {more}; most frequent reasons of all: {reasons}")
    lines += [
        *_class_lines(data),
        f"{len(videos)} clips: {split_sizes}; {len(data.classes)} actions",
        "labels per clip: " + ", ".join(f"{count} in {n} clips" for count, n in sorted(labels_per_clip.items())),
    ]
    if seconds := [seconds_of[video] for video in videos if video in seconds_of]:
        known = f" (of {len(seconds)} clips with a known duration)" if len(seconds) < len(videos) else ""
        lines.append(
            f"durations: {min(seconds):.1f} to {max(seconds):.1f} s, median {statistics.median(seconds):.1f} s, "
            f"total {sum(seconds) / 60:.1f} min{known}"
        )
    return lines


def _class_counts(data: Annotations, split: str) -> list[int]:
    """Return the number of clips of each class in a split."""
    counts = Counter(label for labels in data.splits[split].values() for label in labels)
    return [counts[label] for label in range(len(data.classes))]


def _class_lines(data: Annotations) -> list[str]:
    """Return a line per class; of many classes the most frequent and the rarest ones."""
    counts_by_class = zip(*(_class_counts(data, split) for split in data.splits), strict=True)
    totals_and_lines = []
    for action, counts in zip(data.classes, counts_by_class, strict=True):
        warning = "" if min(counts) else "   too few clips for all splits"
        text = ", ".join(f"{count} in {split}" for split, count in zip(data.splits, counts, strict=True))
        totals_and_lines.append((sum(counts), f"  {action}: {text}{warning}"))
    if len(totals_and_lines) > MAX_CLASS_LINES:
        totals_and_lines.sort(key=lambda pair: -pair[0])
        half = MAX_CLASS_LINES // 2
        more = f"  ... {len(totals_and_lines) - MAX_CLASS_LINES} more, see {CLASS_COUNTS_FILE} ..."
        totals_and_lines[half:-half] = [(0, more)]
        for split in data.splits:
            pairs = zip(data.classes, _class_counts(data, split), strict=True)
            if missing := [action for action, count in pairs if not count]:
                totals_and_lines.append((0, f"  {len(missing)} classes have no clip in {split}: {list_some(missing)}"))
    return [line for _, line in totals_and_lines]


def warn_about_duplicates(paths: Iterable[Path]) -> None:
    """Print a warning for files with the same content, which may end up in both train and val."""
    paths_by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        same_size = paths_by_size[path.stat().st_size]
        if other := next((other for other in same_size if filecmp.cmp(path, other, shallow=False)), None):
            print(f"warning: {path} and {other} are the same video; keep one, with the labels of both")
        same_size.append(path)
