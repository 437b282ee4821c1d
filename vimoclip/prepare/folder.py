"""A folder with one folder of videos per action becomes a data set."""

import filecmp
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from vimoclip import annotations, video
from vimoclip.annotations import Annotations
from vimoclip.errors import UserError
from vimoclip.prepare import grouped_split
from vimoclip.prepare.trim_clips import seconds_of
from vimoclip.prepare.write_dataset import Prepared, clean, finish, place_videos, tell


def prepare(
    root: Path,
    dataset: Path,
    name: str,
    shares: Mapping[str, float],
    seed: int,
    group_by: re.Pattern[str] | None = None,
) -> Path:
    """The folder of the annotations. Those of the same clips and actions stay, if they are there. Raises UserError.

    `shares`: of the splits that don't train; `group_by`: finds a clip's source in its path below `root`."""
    left_out: dict[str, str] = {}
    found = find_clips(root, left_out)
    notes = dataset / "annotations"
    paths = {clip: path for clips in found.values() for clip, path in clips.items()}
    sources = find_sources(root, paths, group_by) if group_by else {}
    data = split(found, shares, seed, sources)
    if there := any(notes.glob("*_action.csv")):
        data = keep_split(data, annotations.load(notes, name), notes)
        sources = sources or annotations.read_sources(notes)
        print(f"{notes}: is there already, and stays as it is")
    place_videos(paths, dataset / "videos")
    seconds = {clip: length for clip, path in paths.items() if (length := seconds_of(path))}
    prepared = Prepared(data, seconds, left_out, sources)
    if there:
        tell(notes, prepared)
    else:
        finish(notes, name, prepared, seed)  # last: who has annotations has the videos
    print(f"{len(paths)} clips in {dataset / 'videos'}", flush=True)
    return notes


def find_sources(root: Path, paths: Mapping[str, Path], group_by: re.Pattern[str]) -> dict[str, str]:
    """Clip -> what the pattern finds in its path below root: its first group, or all of it. Raises UserError if none.

    A clip in whose path nothing is found is a source of its own."""
    found: dict[str, str] = {}
    for clip, path in paths.items():
        if match := group_by.search(path.relative_to(root).as_posix()):
            found[clip] = (match[1] if group_by.groups else match[0]) or ""
    found = {clip: source for clip, source in found.items() if source}
    if not found:
        example = next(iter(paths.values())).relative_to(root).as_posix()
        raise UserError(f"--group-by {group_by.pattern}: finds nothing in any path like {example}", "mend the pattern")
    unknown = (
        f"; {len(paths) - len(found)} clips have none, and are taken each for one" if len(found) < len(paths) else ""
    )
    print(f"{len(set(found.values()))} sources of {len(found)} clips{unknown}", flush=True)
    return found


def split(
    found: Mapping[str, Sequence[str] | Mapping[str, Path]],
    shares: Mapping[str, float],
    seed: int,
    sources: Mapping[str, str] | None = None,
) -> Annotations:
    """Each action's clips at random into those to train on and those not, whole sources where these are known."""
    if not sources and set(shares) == {"val"}:
        return _split_each(found, shares["val"], seed)
    labels = {clip: (label,) for label, clips in enumerate(found.values()) for clip in clips}
    return grouped_split.split(tuple(found), labels, shares, seed, sources)


def _split_each(found: Mapping[str, Sequence[str] | Mapping[str, Path]], val_share: float, seed: int) -> Annotations:
    """The same share of each action to validate with, to the clip."""
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}}
    generator = random.Random(seed)
    for label, clips in enumerate(found.values()):
        names = list(clips)
        generator.shuffle(names)
        # both splits have some, if there are two
        held = min(len(names) - 1, max(1, round(val_share * len(names))))
        for place, name in enumerate(names):
            splits["val" if place < held else "train"][name] = (label,)
    return Annotations(tuple(found), {s: dict(sorted(videos.items())) for s, videos in splits.items()})


def keep_split(data: Annotations, there: Annotations, notes: Path) -> Annotations:
    """What is there, which its user may have edited. Raises UserError where it is of other clips or actions."""
    ours, theirs = (set().union(*one.splits.values()) for one in (data, there))
    if ours != theirs or data.classes != there.classes:
        odd = sorted(ours ^ theirs) or sorted(set(data.classes) ^ set(there.classes))
        raise UserError(
            f"holds other clips or actions ({', '.join(odd[:3])})",
            "name another --dataset-dir, or delete it and what was made from it",
            path=notes,
        )
    return there


def find_clips(root: Path, left_out: dict[str, str]) -> dict[str, dict[str, Path]]:
    """Action -> new name -> video. Raises UserError where there is none, or two would share a name.

    What isn't taken goes into `left_out`, with the reason."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    taken: dict[str, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        videos, others = video.find(folder)
        left_out |= {str(folder / name): "is not named like a video" for name in others}
        for path in videos:
            name = clean(f"{folder.name.strip()}__{path.stem.strip()}") + path.suffix
            if (twin := taken.setdefault(annotations.stem(name), path)) != path:
                raise UserError(f"{path} and {twin} would share the name {name}", "rename one of them")
            found[folder.name.strip()][name] = path
    warn_of_twins(list(taken.values()))
    if not found:
        raise UserError("holds no folders with videos", f"lay them out as {root}/<action>/<name>.mp4", path=root)
    return found


def warn_of_twins(paths: list[Path]) -> None:
    """Say which files are the same video, which may then be trained on and validated with."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        for twin in by_size[path.stat().st_size]:
            if filecmp.cmp(path, twin, shallow=False):
                print(f"warning: {path} and {twin} are the same video; keep one, and give its line both labels")
                break
        by_size[path.stat().st_size].append(path)
