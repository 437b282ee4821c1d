"""Importer of a folder with one folder of videos per action."""

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from vimoclip import annotations, cli, video
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.io.names import list_some
from vimoclip.prepare import grouped_split
from vimoclip.prepare.place_videos import SourceClip, add_clip, check_names, clean_name, place_clips
from vimoclip.prepare.write_dataset import PreparedDataset, print_summary, warn_about_duplicates, write_dataset


def prepare(
    root: Path,
    dataset_dir: Path,
    name: str,
    fractions: Mapping[str, float],
    seed: int,
    group_by: re.Pattern[str] | None = None,
) -> cli.RunReport:
    """Write the data set and return the report of the run. Raises UserError.

    Existing annotations of the same clips and actions stay as they are. `fractions`: of val and test. `group_by`: finds
    a clip's source in its path below `root`."""
    skipped: dict[str, str] = {}
    clips, labels = find_clips(root, skipped)
    warn_about_duplicates(clip.source for clip in clips.values())
    annotations_dir = dataset_dir / "annotations"
    sources = match_sources(root, clips, group_by) if group_by else {}
    data = split_actions(labels, fractions, seed, sources)
    has_annotations = any(annotations_dir.glob("*_action.csv"))
    if has_annotations:
        existing = annotations.load(annotations_dir, name)
        check_same_clips(data, existing, annotations_dir)
        data, sources = existing, sources or annotations.read_sources(annotations_dir)
        print(f"{annotations_dir} exists already and is kept")
    if has_annotations:
        check_names(clips, root)
        seconds, _ = place_clips(clips, dataset_dir)
        print_summary(annotations_dir, data, seconds, skipped, sources)
        report = cli.RunReport([annotations_dir], already_done=len(clips), skipped=skipped)
    else:
        report = write_dataset(dataset_dir, name, PreparedDataset(data, clips, root, skipped, sources=sources), seed)
    print(f"{len(clips)} clips in {dataset_dir / 'videos'}", flush=True)
    return report


def find_clips(root: Path, skipped: dict[str, str]) -> tuple[dict[str, SourceClip], dict[str, list[str]]]:
    """Return (video id -> file, action -> its video ids). Files that are no videos are added to `skipped`.

    Raises UserError if there are no videos, or two would have one name."""
    clips: dict[str, SourceClip] = {}
    clips_by_action: dict[str, list[str]] = defaultdict(list)
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        action = folder.name.strip()
        videos, others = video.find_videos(folder)
        skipped |= {str(folder / name): "has no extension of a video" for name in others}
        for path in videos:
            name = clean_name(f"{action}__{path.stem.strip()}") + path.suffix
            add_clip(clips, name, SourceClip(path))
            clips_by_action[action].append(name)
    if not clips:
        raise UserError("has no folders with videos", f"arrange them as {root}/<action>/<name>.mp4", path=root)
    return clips, clips_by_action


def match_sources(root: Path, clips: Mapping[str, SourceClip], group_by: re.Pattern[str]) -> dict[str, str]:
    """Return the source by clip: the match of the pattern in its path below `root`, or the match of its first group.

    A clip without a match is a source by itself. Raises UserError if no clip matches."""
    sources: dict[str, str] = {}
    for name, clip in clips.items():
        match = group_by.search(clip.source.relative_to(root).as_posix())
        source = match and (match[1] if group_by.groups else match[0])
        if source:
            sources[name] = source
    if not sources:
        example = next(iter(clips.values())).source.relative_to(root).as_posix()
        raise UserError(f"--group-by {group_by.pattern} matches no path, as {example}", "correct the pattern")
    num_without = len(clips) - len(sources)
    remark = f"; {num_without} clips without a match are one source each" if num_without else ""
    print(f"{len(set(sources.values()))} sources of {len(sources)} clips{remark}", flush=True)
    return sources


def split_actions(
    clips_by_action: Mapping[str, Sequence[str]], fractions: Mapping[str, float], seed: int, sources: Mapping[str, str]
) -> Annotations:
    """Split the clips of each action at random. Known sources are kept in one split."""
    if not sources and set(fractions) == {"val"}:
        return _split_per_action(clips_by_action, fractions["val"], seed)
    labels = {clip: (label,) for label, clips in enumerate(clips_by_action.values()) for clip in clips}
    return grouped_split.split_videos(tuple(clips_by_action), labels, fractions, seed, sources)


def _split_per_action(clips_by_action: Mapping[str, Sequence[str]], val_fraction: float, seed: int) -> Annotations:
    """Put the same fraction of each action into val, exact to the clip."""
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}}
    generator = random.Random(seed)
    for label, clips in enumerate(clips_by_action.values()):
        names = list(clips)
        generator.shuffle(names)
        # at least one clip in each split, if there are two
        num_val = min(len(names) - 1, max(1, round(val_fraction * len(names))))
        splits["val"] |= dict.fromkeys(names[:num_val], (label,))
        splits["train"] |= dict.fromkeys(names[num_val:], (label,))
    sorted_splits = {split: dict(sorted(videos.items())) for split, videos in splits.items()}
    return Annotations(tuple(clips_by_action), sorted_splits)


def check_same_clips(data: Annotations, existing: Annotations, annotations_dir: Path) -> None:
    """Raise UserError if existing annotations, whose splits may have been edited, have other clips or actions."""
    new_clips, old_clips = (set().union(*version.splits.values()) for version in (data, existing))
    if new_clips != old_clips or data.classes != existing.classes:
        differences = sorted(new_clips ^ old_clips) or sorted(set(data.classes) ^ set(existing.classes))
        raise UserError(
            f"has other clips or actions ({list_some(differences)})",
            "choose another --dataset-dir, or delete it and all files created from it",
            path=annotations_dir,
        )
