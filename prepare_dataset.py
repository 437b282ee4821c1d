"""Lay out a data set for the chain from what there is, and check that all of it fits together.

    python prepare_dataset.py folder my_videos
    python prepare_dataset.py check

folder: a folder with one folder of videos per action, my_videos/<action>/*.mp4, becomes dataset/annotations/ and
dataset/videos/<action>__<name>.mp4 (hard links where the file system has them, else copies), each action split at
random into clips to train on and to validate with. Clips cut from one recording may then stand on both sides: give
such data sets splits of your own, by editing train_multi.txt and val_multi.txt.

check: what is missing, stale, broken or does not fit together among annotations, videos, embeddings, flows and motion,
as a table with a line a problem, for people, and as JSON, for scripts. Changes nothing. Exit code 1 if anything is
wrong. What has not been made yet is not wrong. A few ms a video, ten times that where it was never opened before."""

import argparse
import contextlib
import filecmp
import json
import os
import random
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import UserError, cli, files

if TYPE_CHECKING:
    from vimoclip.annotations import Annotations
    from vimoclip.check import Findings, Places


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    folder = commands.add_parser("folder", help="one folder of videos per action", description=__doc__)
    folder.add_argument("folder", type=Path, help="holds a folder of videos per action")
    folder.add_argument("--val-share", type=share, default=1 / 3, help="of each action's clips, to validate with")
    folder.add_argument("--seed", type=cli.seed, default=49, help="of the split")
    cli.add_dataset(folder)
    check = commands.add_parser("check", help="what is missing, stale, broken or does not fit", description=__doc__)
    add_check(check)
    cli.add_dataset(check)
    folder.set_defaults(run=prepare_folder)
    check.set_defaults(run=check_dataset)
    return parser


def add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--decode", action="store_true", help="decode every video and flow video from end to end")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all of it there; - is stdout")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--num-workers", type=cli.count, default=processors, help="processes")
    parser.add_argument("--videos-dir", type=Path, default=None, help="default: videos/ in the data set")
    parser.add_argument("--flow-videos-dir", type=Path, default=None, help="default: flows/ in the data set")
    parser.add_argument("--embeddings-dir", type=Path, default=None, help="default: embeddings/ in the data set")
    parser.add_argument(
        "--motion-h5-path", type=Path, default=None, help="default: flow_embeddings.h5 among the embeddings"
    )


def share(text: str) -> float:
    """An argparse type: above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def main(argv: list[str] | None = None) -> Any:
    """What the command gives: a folder of annotations, or what a check has found."""
    args = build_parser().parse_args(argv)
    return args.run(args)


def check_dataset(args: argparse.Namespace) -> "Findings":
    """Look at all of a data set, and tell. Raises UserError, with exit code 1 where anything is wrong."""
    from vimoclip.check import Wrong, check

    places = check_places(args)
    to_stdout = args.json == Path("-")
    with contextlib.redirect_stdout(sys.stderr) if to_stdout else contextlib.nullcontext():
        found = check(places, args.decode, cli.usable_workers(args.num_workers))
        print("\n".join(found.lines()), flush=True)
    text = json.dumps(found.as_dict(), indent=1) + "\n"
    if to_stdout:
        sys.stdout.write(text)
        sys.stdout.flush()
    elif args.json:
        print(f"wrote {files.write_text(args.json, text)}")
    if not found.fine:
        raise Wrong(f"{args.dataset_dir}: {found.summary()}; see above what to do")
    print(f"{args.dataset_dir}: nothing is wrong", file=sys.stderr if to_stdout else None)
    return found


def check_places(args: argparse.Namespace) -> "Places":
    """Where to look. Raises UserError where something that was named isn't there."""
    from vimoclip.check import Places

    data, cure = args.dataset_dir, "name the data set with --dataset-dir and --dataset-name"
    notes = cli.need_folder(data / "annotations", cure)
    cli.need_file(notes / f"{args.dataset_name}_action.csv", cure)
    for flag in ("videos_dir", "flow_videos_dir", "embeddings_dir"):
        if folder := getattr(args, flag):
            cli.need_folder(folder, f"name another with --{flag.replace('_', '-')}, or leave it out")
    if args.motion_h5_path:
        cli.need_file(args.motion_h5_path, "name another with --motion-h5-path, or leave it out")
    if args.json and args.json.is_dir():
        raise UserError(f"{args.json}: is a folder; name a file with --json, or - for stdout")
    embeddings = args.embeddings_dir or data / "embeddings"
    return Places(
        args.dataset_name,
        notes,
        args.videos_dir or data / "videos",
        embeddings,
        args.flow_videos_dir or data / "flows",
        args.motion_h5_path or embeddings / "flow_embeddings.h5",
    )


def prepare_folder(args: argparse.Namespace) -> Path:
    """The folder of the annotations."""
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
