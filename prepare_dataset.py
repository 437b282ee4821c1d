"""Lay out a data set for the chain from what there is.

    python prepare_dataset.py folder my_videos
A folder with one folder of videos per action, my_videos/<action>/*.mp4, becomes dataset/videos/<action>__<name>.mp4
(hard links where the file system has them, else copies) and dataset/annotations/, each action split at random into
clips to train on and to validate with. Clips cut from one recording may then stand on both sides: give such data sets
splits of your own, by editing train_multi.txt and val_multi.txt."""

import argparse
import filecmp
import os
import random
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip import UserError, cli, files

if TYPE_CHECKING:
    from vimoclip.annotations import Annotations


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    folder = commands.add_parser("folder", help="one folder of videos per action", description=__doc__)
    folder.add_argument("folder", type=Path, help="holds a folder of videos per action")
    folder.add_argument("--val-share", type=share, default=1 / 3, help="of each action's clips, to validate with")
    folder.add_argument("--seed", type=cli.seed, default=49, help="of the split")
    cli.add_dataset(folder)
    return parser


def share(text: str) -> float:
    """An argparse type: above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def main(argv: list[str] | None = None) -> Path:
    """The folder of the annotations."""
    args = build_parser().parse_args(argv)
    from vimoclip import annotations

    found = find_clips(cli.need_folder(args.folder, "name one that holds a folder of videos per action"))
    classes = tuple(found)
    splits: dict[str, dict[str, tuple[int, ...]]] = {"train": {}, "val": {}}
    generator = random.Random(args.seed)
    for label, clips in enumerate(found.values()):
        names = list(clips)
        generator.shuffle(names)
        # both splits have some, if there are two
        held = min(len(names) - 1, max(1, round(args.val_share * len(names))))
        for place, name in enumerate(names):
            splits["val" if place < held else "train"][name] = (label,)
    notes = args.dataset_dir / "annotations"
    data = annotations.Annotations(classes, {s: dict(sorted(videos.items())) for s, videos in splits.items()})
    if any(notes.glob("*_action.csv")):
        data = keep_split(data, annotations.load(notes, args.dataset_name), notes)
        print(f"{notes}: is there already, and stays as it is")
    place_videos({n: path for clips in found.values() for n, path in clips.items()}, args.dataset_dir / "videos")
    if not any(notes.glob("*_action.csv")):
        annotations.write(notes, args.dataset_name, data)  # last: who has annotations has the videos
    splits = {split: dict(videos) for split, videos in data.splits.items()}
    for label, action in enumerate(classes):
        counts = {s: sum(label in labels for labels in videos.values()) for s, videos in splits.items()}
        few = "" if min(counts.values()) else "   too few clips to be in both"
        print(f"  {action}: {counts['train']} to train on, {counts['val']} to validate with{few}")
    print(f"{sum(map(len, splits.values()))} clips in {args.dataset_dir / 'videos'}", flush=True)
    return notes


def keep_split(data: "Annotations", there: "Annotations", notes: Path) -> "Annotations":
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
    from vimoclip import annotations, video

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


def clean(name: str) -> str:
    """A name that every file of the chain takes: DESIGN's rule for stems."""
    return re.sub(r"^[=+@]", "-", re.sub(r"[\x00-\x1f\x7f/\\.]", "-", name))


def place_videos(paths: dict[str, Path], folder: Path) -> None:
    """Link or copy each video under its new name; those that are there stay. Raises UserError before it places any."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = {folder / name: path for name, path in paths.items() if not (folder / name).exists()}
    for name, path in paths.items():
        if folder / name not in missing and (folder / name).stat().st_size != path.stat().st_size:
            raise UserError(f"{folder / name}: is another video than {path}; name another --dataset-dir, or delete it")
    for target, path in missing.items():
        try:
            os.link(path.resolve(), target)
        except OSError:
            with files.new_file(target) as copy, open(path, "rb") as source:
                shutil.copyfileobj(source, copy)


if __name__ == "__main__":
    cli.run(main)
