"""MammalNet (Chen et al., CVPR 2023): 12 behaviours of mammals, in the authors' three splits.

What is released: `annotation/composition/{train,val,test}.csv`, a line a video: its path, the id of its behaviour and,
in the files as they are given out, that of its animal; `annotation/behavior_to_id.txt` and `genus_to_id.txt`, a name
and an id a line; `trimmed_videos/<YouTube's id>.mp4`, one clip a YouTube video."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vimoclip import annotations
from vimoclip.annotations import SPLITS, Animals, Annotations
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.prepare.trim_clips import check_names, seconds_of
from vimoclip.prepare.write_dataset import Prepared, clean, finish, place_videos

BEHAVIORS = 12
PLACES = ("", "annotation", "composition", "annotation/composition")  # where the lists may be, below the release
NAMES, ANIMALS = "behavior_to_id.txt", "genus_to_id.txt"


class Line(NamedTuple):
    """A line of a list. `animal`: its id, None where the line has none."""

    where: str
    video: str
    behavior: int
    animal: int | None


def prepare(root: Path, dataset: Path, name: str) -> Path:
    """The folder of the annotations. Raises UserError."""
    lists = find_lists(root)
    lines = {split: read_list(lists / f"{split}.csv") for split in SPLITS}
    classes = class_names(root, lists, lines)
    left_out: dict[str, str] = {}
    paths, splits = _videos(root, lists, lines, left_out)
    if not paths:
        raise UserError(
            f"holds none of the videos, like {next(iter(lines['train'])).video}", "name their folder", path=root
        )
    check_names(lists, paths)
    place_videos(paths, dataset / "videos")
    seconds = {key: length for key, path in paths.items() if (length := seconds_of(path))}
    notes = dataset / "annotations"
    finish(notes, name, Prepared(Annotations(classes, splits), seconds, left_out))
    if animals := _animals(root, lists, lines, paths):
        atomic.write_text(notes / annotations.ANIMALS, annotations.animals_text(animals))
    return notes


def find_lists(root: Path) -> Path:
    """The folder of train.csv, val.csv and test.csv. Raises UserError where there is none."""
    for place in PLACES:
        if all((root / place / f"{split}.csv").is_file() for split in SPLITS):
            return root / place
    raise UserError(
        "holds no train.csv, val.csv and test.csv, neither itself nor in annotation/composition",
        "name the folder that MammalNet's annotation.tar and trimmed_videos.tar.gz were unpacked in",
        path=root,
    )


def read_list(path: Path) -> list[Line]:
    """Raises UserError, with the line."""
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not (words := text.split()):
            continue
        where, ids = f"{path}:{number}", words[1:]
        if not 1 <= len(ids) <= 2 or not all(word.isdecimal() for word in ids):
            raise UserError(f"{where}: is not a video with the id of its behaviour (and of its animal): {text[:80]!r}")
        behavior, *animal = map(int, ids)
        if behavior >= BEHAVIORS:
            raise UserError(
                f"{where}: {behavior} is not the id of a behaviour, which are 0..{BEHAVIORS - 1}", "mend it"
            )
        found.append(Line(where, words[0], behavior, animal[0] if animal else None))
    if not found:
        raise UserError("names no video", "take the file from annotation.tar again", path=path)
    return found


def class_names(root: Path, lists: Path, lines: Mapping[str, list[Line]]) -> tuple[str, ...]:
    """Of the ids 0..11, by the release's own file; without it numbers, as nothing else says which id is what."""
    named = _read_names(_beside(root, lists, NAMES))
    if not named:
        print(f"{root}: has no {NAMES}, so that behaviours are called by their ids; it is in annotation.tar")
        return tuple(f"behavior_{number}" for number in range(BEHAVIORS))
    if set(named) != set(range(BEHAVIORS)):
        raise UserError(
            f"{_beside(root, lists, NAMES)}: names {len(named)} behaviours, not those of 0..{BEHAVIORS - 1}"
        )
    return tuple(named[number] for number in range(BEHAVIORS))


def _beside(root: Path, lists: Path, name: str) -> Path:
    """Where a file of the release is."""
    places = [lists / name, lists.parent / name, *(root / place / name for place in PLACES)]
    return next((place for place in places if place.is_file()), places[0])


def _read_names(path: Path) -> dict[int, str]:
    """Id -> name, of lines with both; {} where there is no such file. Raises UserError."""
    if not path.is_file():
        return {}
    found: dict[int, str] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        name, _, identity = text.strip().rpartition("\t" if "\t" in text else " ")
        if text.strip() and not (name.strip() and identity.strip().isdecimal()):
            raise UserError(
                f"{path}:{number}: is not a name with its id: {text[:80]!r}", "take the file as it is released"
            )
        if text.strip():
            found[int(identity)] = name.strip()
    return found


def _videos(
    root: Path, lists: Path, lines: Mapping[str, list[Line]], left_out: dict[str, str]
) -> tuple[dict[str, Path], dict[str, dict[str, tuple[int, ...]]]]:
    """(video id -> file, splits). A video that stands twice in a split has both labels."""
    paths: dict[str, Path] = {}
    splits: dict[str, dict[str, tuple[int, ...]]] = {}
    for split, of_split in lines.items():
        found = splits[split] = {}
        for line in of_split:
            path = next((p for p in (root / line.video, lists.parent / line.video) if p.is_file()), None)
            key = clean(Path(line.video).stem) + Path(line.video).suffix
            if path is None:
                left_out[line.video] = "there is no such file"
            elif other := next((s for s, videos in splits.items() if s != split and key in videos), None):
                left_out[f"{line.video} in {split}"] = f"is in {other} already"
            elif paths.setdefault(key, path) != path:
                raise UserError(
                    f"{line.where}: {path} and {paths[key]} would share the name {key}", "rename one of them"
                )
            else:
                found[key] = tuple(sorted({*found.get(key, ()), line.behavior}))
    return paths, splits


def _animals(root: Path, lists: Path, lines: Mapping[str, list[Line]], paths: Mapping[str, Path]) -> dict[str, Animals]:
    """Video id -> its animal, where the release says it."""
    names = _read_names(_beside(root, lists, ANIMALS))
    found = {}
    for line in (line for of_split in lines.values() for line in of_split):
        key = clean(Path(line.video).stem) + Path(line.video).suffix
        if key in paths and line.animal in names:
            found[key] = Animals((names[line.animal].replace(";", ","),), ("Mammal",))
    return found
