"""A folder with one folder of videos per action becomes a data set."""

import filecmp
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vimoclip import UserError, annotations, video
from vimoclip.annotations import Annotations
from vimoclip.prepare import selection
from vimoclip.prepare.placing import clean, place_videos


def prepare(root: Path, dataset: Path, name: str, val_share: float, seed: int) -> Path:
    """The folder of the annotations. Those of the same clips and actions stay, if they are there. Raises UserError."""
    found = find_clips(root)
    notes = dataset / "annotations"
    data = split(found, val_share, seed)
    there = any(notes.glob("*_action.csv"))
    if there:
        data = keep_split(data, annotations.load(notes, name), notes)
        print(f"{notes}: is there already, and stays as it is")
    else:
        data = replace(data, selection=selection.draw(data, seed=seed))
    place_videos({n: path for clips in found.values() for n, path in clips.items()}, dataset / "videos")
    if not there:
        annotations.write(notes, name, data)  # last: who has annotations has the videos
    for label, action in enumerate(data.classes):
        counts = {s: sum(label in labels for labels in videos.values()) for s, videos in data.splits.items()}
        few = "" if min(counts.values()) else "   too few clips to be in both"
        print(f"  {action}: {counts['train']} to train on, {counts['val']} to validate with{few}")
    print("\n".join(selection.describe(data)))
    print(f"{sum(map(len, data.splits.values()))} clips in {dataset / 'videos'}", flush=True)
    return notes


def split(found: Mapping[str, Sequence[str] | Mapping[str, Path]], val_share: float, seed: int) -> Annotations:
    """Each action's clips at random into those to train on and those to validate with."""
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
            f"{notes}: holds other clips or actions ({', '.join(odd[:3])}); name another --dataset-dir, or delete it "
            "and what was made from it"
        )
    return there


def find_clips(root: Path) -> dict[str, dict[str, Path]]:
    """Action -> new name -> video. Raises UserError where there is none, or two would share a name."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    taken: dict[str, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        videos, others = video.find(folder)
        for name in others:
            print(f"  left out: {folder / name}: is not named like a video")
        for path in videos:
            name = clean(f"{folder.name.strip()}__{path.stem.strip()}") + path.suffix
            if (twin := taken.setdefault(annotations.stem(name), path)) != path:
                raise UserError(f"{path} and {twin} would share the name {name}; rename one of them")
            found[folder.name.strip()][name] = path
    warn_of_twins(list(taken.values()))
    if not found:
        raise UserError(f"{root}: holds no folders with videos; lay them out as {root}/<action>/<name>.mp4")
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
