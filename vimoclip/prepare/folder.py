"""Importer of a folder with one folder of videos per action."""

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from vimoclip import annotations, cli, video
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.io.names import fold_name, list_some, normalize_name
from vimoclip.prepare import grouped_split
from vimoclip.prepare.place_videos import SourceClip, add_clip, check_names, clean_name, dataset_folders, place_clips
from vimoclip.prepare.write_dataset import PreparedDataset, print_summary, warn_about_duplicates, write_dataset


def prepare(
    root: Path,
    dataset_dir: Path,
    name: str,
    rule: grouped_split.SplitRule,
    seed: int,
    group_by: re.Pattern[str] | None = None,
) -> cli.RunReport:
    """Write the data set and return the report of the run. Raises UserError.

    Existing annotations of the same clips and actions stay as they are, with the same fold. `group_by`: finds a clip's
    source in its path below `root`."""
    skipped: dict[str, str] = {}
    clips, labels = find_clips(root, dataset_dir, skipped)
    warn_about_duplicates(clip.source for clip in clips.values())
    annotations_dir = dataset_dir / "annotations"
    sources = match_sources(root, clips, group_by) if group_by else {}
    data = split_actions(labels, rule, seed, sources)
    has_annotations = any(annotations_dir.glob("*_action.csv"))
    if has_annotations:
        existing = annotations.load(annotations_dir, name)
        check_same_clips(data, existing, annotations_dir)
        if isinstance(rule, grouped_split.Fold) and data.splits != existing.splits:
            hint = "give each fold its own --dataset-dir, and the same --seed"
            raise UserError(f"its val split is not fold {rule.number} of {rule.num_folds}", hint, path=annotations_dir)
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


def find_clips(
    root: Path, dataset_dir: Path, skipped: dict[str, str]
) -> tuple[dict[str, SourceClip], dict[str, list[str]]]:
    """Return (video id -> file, action -> its video ids). Files that can't be used are added to `skipped`.

    A folder in `root` is an action; names of folders below it become part of the id. Raises UserError if there are no
    videos, or two would have one name."""
    clips: dict[str, SourceClip] = {}
    clips_by_action: dict[str, list[str]] = defaultdict(list)
    folder = video.VideoFolder(root, exclude=dataset_folders(dataset_dir))
    skipped |= {str(root / name): reason for name, reason in folder.left_out.items()}
    videos = sorted(folder.videos, key=lambda path: path.relative_to(root).parts)  # those of links to folders are last
    action_folders = dict.fromkeys(path.relative_to(root).parts[0] for path in videos if path.parent != root)
    actions = merge_actions(root, list(action_folders))
    for path in videos:
        action_folder, *parts = path.relative_to(root).with_suffix("").parts
        if not (action := actions.get(action_folder) if parts else None):
            skipped[str(path)] = "is in no folder of an action"
            continue
        if not path.is_file():
            skipped[str(path)] = "is a broken link" if path.is_symlink() else "is no regular file"
            continue
        name = clean_name("__".join([action, *(part.strip() for part in parts)])) + path.suffix
        if add_clip(clips, name, SourceClip(path), skipped):
            clips_by_action[action].append(name)
    if not clips:
        raise UserError("has no folders with videos", f"arrange them as {root}/<action>/<name>.mp4", path=root)
    return clips, clips_by_action


def merge_actions(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """Return the action of each folder. Print a warning for names that differ in case or spaces: they are one."""
    first_folders: dict[str, str] = {}
    actions: dict[str, str] = {}
    for folder in folders:
        first = first_folders.setdefault(fold_name(folder), folder)
        actions[folder] = normalize_name(first).strip()
        if normalize_name(folder) != normalize_name(first):
            print(f"warning: {root / first} and {root / folder} are taken as one action", flush=True)
    return actions


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
    clips_by_action: Mapping[str, Sequence[str]], rule: grouped_split.SplitRule, seed: int, sources: Mapping[str, str]
) -> Annotations:
    """Split the clips of each action at random. Known sources are kept in one split."""
    if not sources and not isinstance(rule, grouped_split.Fold) and set(rule) == {"val"}:
        return _split_per_action(clips_by_action, rule["val"], seed)
    labels = {clip: (label,) for label, clips in enumerate(clips_by_action.values()) for clip in clips}
    return grouped_split.split_videos(tuple(clips_by_action), labels, rule, seed, sources)


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
