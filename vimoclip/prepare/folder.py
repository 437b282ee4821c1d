"""Importer of a folder with one folder of videos per action."""

import filecmp
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
from vimoclip.prepare.trim_clips import video_seconds
from vimoclip.prepare.write_dataset import PreparedDataset, clean_name, link_videos, print_summary, write_dataset


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
    clips_by_action = find_clips(root, skipped)
    annotations_dir = dataset_dir / "annotations"
    paths = {clip: path for clips in clips_by_action.values() for clip, path in clips.items()}
    sources = match_sources(root, paths, group_by) if group_by else {}
    data = split_actions(clips_by_action, fractions, seed, sources)
    has_annotations = any(annotations_dir.glob("*_action.csv"))
    if has_annotations:
        data = check_existing_split(data, annotations.load(annotations_dir, name), annotations_dir)
        sources = sources or annotations.read_sources(annotations_dir)
        print(f"{annotations_dir}: is there already, and stays as it is")
    link_videos(paths, dataset_dir / "videos")
    seconds = {clip: length for clip, path in paths.items() if (length := video_seconds(path))}
    prepared = PreparedDataset(data, seconds, skipped, sources)
    if has_annotations:
        print_summary(annotations_dir, prepared)
        report = cli.RunReport([annotations_dir], already_done=len(paths), skipped=skipped)
    else:
        report = write_dataset(annotations_dir, name, prepared, seed)  # last: annotations imply that the videos exist
    print(f"{len(paths)} clips in {dataset_dir / 'videos'}", flush=True)
    return report


def find_clips(root: Path, skipped: dict[str, str]) -> dict[str, dict[str, Path]]:
    """Return action -> video id -> file. Files that are no videos are added to `skipped`, with the reason.

    Raises UserError if there are no videos, or two would have one stem."""
    clips_by_action: dict[str, dict[str, Path]] = defaultdict(dict)
    paths_by_stem: dict[str, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        videos, others = video.find_videos(folder)
        skipped |= {str(folder / name): "is not named like a video" for name in others}
        for path in videos:
            name = clean_name(f"{folder.name.strip()}__{path.stem.strip()}") + path.suffix
            if (other := paths_by_stem.setdefault(annotations.stem(name), path)) != path:
                raise UserError(f"{path} and {other} would share the name {name}", "rename one of them")
            clips_by_action[folder.name.strip()][name] = path
    warn_about_duplicates(list(paths_by_stem.values()))
    if not clips_by_action:
        raise UserError("holds no folders with videos", f"lay them out as {root}/<action>/<name>.mp4", path=root)
    return clips_by_action


def match_sources(root: Path, paths: Mapping[str, Path], group_by: re.Pattern[str]) -> dict[str, str]:
    """Return the source by clip: what the pattern matches in its path below `root`, the first group if it has one.

    A clip without a match is a source by itself. Raises UserError if no clip matches."""
    sources: dict[str, str] = {}
    for clip, path in paths.items():
        match = group_by.search(path.relative_to(root).as_posix())
        source = match and (match[1] if group_by.groups else match[0])
        if source:
            sources[clip] = source
    if not sources:
        example = next(iter(paths.values())).relative_to(root).as_posix()
        raise UserError(f"--group-by {group_by.pattern}: finds nothing in any path like {example}", "fix the pattern")
    num_without = len(paths) - len(sources)
    remark = f"; {num_without} clips have none, and are taken each for one" if num_without else ""
    print(f"{len(set(sources.values()))} sources of {len(sources)} clips{remark}", flush=True)
    return sources


def split_actions(
    clips_by_action: Mapping[str, Sequence[str] | Mapping[str, Path]],
    fractions: Mapping[str, float],
    seed: int,
    sources: Mapping[str, str] | None = None,
) -> Annotations:
    """Split the clips of each action at random. Known sources are kept in one split."""
    if not sources and set(fractions) == {"val"}:
        return _split_per_action(clips_by_action, fractions["val"], seed)
    labels = {clip: (label,) for label, clips in enumerate(clips_by_action.values()) for clip in clips}
    return grouped_split.split_videos(tuple(clips_by_action), labels, fractions, seed, sources)


def _split_per_action(
    clips_by_action: Mapping[str, Sequence[str] | Mapping[str, Path]], val_fraction: float, seed: int
) -> Annotations:
    """Put the same fraction of each action into val, exact to the clip."""
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}}
    generator = random.Random(seed)
    for label, clips in enumerate(clips_by_action.values()):
        names = list(clips)
        generator.shuffle(names)
        # at least one clip in each split, if there are two
        num_val = min(len(names) - 1, max(1, round(val_fraction * len(names))))
        for index, name in enumerate(names):
            splits["val" if index < num_val else "train"][name] = (label,)
    sorted_splits = {split: dict(sorted(videos.items())) for split, videos in splits.items()}
    return Annotations(tuple(clips_by_action), sorted_splits)


def check_existing_split(data: Annotations, existing: Annotations, annotations_dir: Path) -> Annotations:
    """Return the existing annotations, which may have been edited. Raises UserError for other clips or actions."""
    new_clips, old_clips = (set().union(*version.splits.values()) for version in (data, existing))
    if new_clips != old_clips or data.classes != existing.classes:
        differences = sorted(new_clips ^ old_clips) or sorted(set(data.classes) ^ set(existing.classes))
        raise UserError(
            f"holds other clips or actions ({list_some(differences)})",
            "name another --dataset-dir, or delete it and what was made from it",
            path=annotations_dir,
        )
    return existing


def warn_about_duplicates(paths: list[Path]) -> None:
    """Print a warning for files with the same content, which may end up in both train and val."""
    paths_by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        same_size = paths_by_size[path.stat().st_size]
        for other in same_size:
            if filecmp.cmp(path, other, shallow=False):
                print(f"warning: {path} and {other} are the same video; keep one, and give its line both labels")
                break
        same_size.append(path)
