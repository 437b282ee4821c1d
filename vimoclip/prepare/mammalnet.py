"""Importer of MammalNet (Chen et al., CVPR 2023): 12 behaviours of mammals, in the authors' three splits.

The release: `annotation/composition/{train,val,test}.csv`, a line per video with its path, the id of its behaviour and,
in the files as released, the id of its animal; `annotation/behavior_to_id.txt` and `genus_to_id.txt`, a name and an id
per line; `trimmed_videos/<YouTube's id>.mp4`, one clip per YouTube video."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vimoclip import cli
from vimoclip.annotations import SPLITS, Annotations, VideoAnimals
from vimoclip.errors import UserError
from vimoclip.io.text import read_text
from vimoclip.prepare.place_videos import SourceClip, add_clip, clean_name
from vimoclip.prepare.write_dataset import PreparedDataset, write_dataset

NUM_BEHAVIORS = 12
LIST_FOLDERS = ("", "annotation", "composition", "annotation/composition")  # of the lists, below the release
BEHAVIOR_FILE, GENUS_FILE = "behavior_to_id.txt", "genus_to_id.txt"


class ListEntry(NamedTuple):
    """A line of a list. `animal_id`: None if the line has none."""

    video: str
    behavior_id: int
    animal_id: int | None

    @property
    def video_id(self) -> str:
        return clean_name(Path(self.video).stem) + Path(self.video).suffix


def prepare(root: Path, dataset_dir: Path, name: str) -> cli.RunReport:
    """Write the data set and return the report of the run. Raises UserError."""
    lists_dir = find_lists(root)
    entries = {split: read_list(lists_dir / f"{split}.csv") for split in SPLITS}
    classes = read_class_names(root, lists_dir)
    skipped: dict[str, str] = {}
    clips, splits = _assign_videos(root, lists_dir, entries, skipped)
    if not clips:
        problem = f"has none of the videos, such as {next(iter(entries['train'])).video}"
        raise UserError(problem, "name the folder that has trimmed_videos/", path=root)
    genera = _read_id_file(_find_release_file(root, lists_dir, GENUS_FILE))
    animals, placed = {}, clips.keys() - skipped.keys()
    for entry in (entry for split_entries in entries.values() for entry in split_entries):
        if entry.video_id in placed and entry.animal_id in genera:
            genus = genera[entry.animal_id].replace(";", ",")  # animals.csv joins with semicolons
            animals[entry.video_id] = VideoAnimals((genus,), ("Mammal",))
    data = Annotations(classes, splits)
    return write_dataset(dataset_dir, name, PreparedDataset(data, clips, lists_dir, skipped, animals=animals))


def find_lists(root: Path) -> Path:
    """Return the folder with train.csv, val.csv and test.csv. Raises UserError if there is none."""
    for folder in LIST_FOLDERS:
        if all((root / folder / f"{split}.csv").is_file() for split in SPLITS):
            return root / folder
    raise UserError(
        "has no train.csv, val.csv and test.csv, also not in annotation/composition",
        "name the folder with the content of MammalNet's annotation.tar and trimmed_videos.tar.gz",
        path=root,
    )


def read_list(path: Path) -> list[ListEntry]:
    """Return the entries of a list. Raises UserError with the line."""
    entries = []
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        if not (words := text.split()):
            continue
        location, ids = f"{path}:{number}", words[1:]
        if len(ids) not in (1, 2) or not all(word.isdecimal() for word in ids) or int(ids[0]) >= NUM_BEHAVIORS:
            problem = (
                f"{text[:80]!r} is not a video with a behaviour's id of 0..{NUM_BEHAVIORS - 1}, then an animal's id"
            )
            raise UserError(problem, "correct the line", path=location)
        behavior_id, *animal_id = map(int, ids)
        entries.append(ListEntry(words[0], behavior_id, animal_id[0] if animal_id else None))
    if not entries:
        raise UserError("names no video", "extract it again from annotation.tar", path=path)
    return entries


def read_class_names(root: Path, lists_dir: Path) -> tuple[str, ...]:
    """Return the names of the ids 0..11 from the release's file, or behavior_<id> if the file is missing."""
    path = _find_release_file(root, lists_dir, BEHAVIOR_FILE)
    names = _read_id_file(path)
    if not names:
        print(
            f"{root} has no {BEHAVIOR_FILE} (of annotation.tar), so the classes are named behavior_0, behavior_1, ..."
        )
        return tuple(f"behavior_{class_id}" for class_id in range(NUM_BEHAVIORS))
    if set(names) != set(range(NUM_BEHAVIORS)):
        hint = "extract it again from annotation.tar"
        raise UserError(f"does not name the behaviours 0..{NUM_BEHAVIORS - 1}", hint, path=path)
    return tuple(names[class_id] for class_id in range(NUM_BEHAVIORS))


def _find_release_file(root: Path, lists_dir: Path, name: str) -> Path:
    """Return the path of a file of the release, or where it should be."""
    candidates = [lists_dir / name, lists_dir.parent / name, *(root / folder / name for folder in LIST_FOLDERS)]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _read_id_file(path: Path) -> dict[int, str]:
    """Return the name by id of a file with a name and an id per line; {} if it does not exist. Raises UserError."""
    if not path.is_file():
        return {}
    names: dict[int, str] = {}
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        name, _, class_id = text.strip().rpartition("\t" if "\t" in text else " ")
        if not (name.strip() and class_id.strip().isdecimal()):
            problem = f"{text[:80]!r} is not a name with an id"
            raise UserError(problem, "extract it again from annotation.tar", path=f"{path}:{number}")
        names[int(class_id)] = name.strip()
    return names


def _assign_videos(
    root: Path, lists_dir: Path, entries: Mapping[str, list[ListEntry]], skipped: dict[str, str]
) -> tuple[dict[str, SourceClip], dict[str, dict[str, tuple[int, ...]]]]:
    """Return (video id -> file, splits). A video with two entries in a split has both labels."""
    clips: dict[str, SourceClip] = {}
    splits: dict[str, dict[str, tuple[int, ...]]] = {}
    for split, split_entries in entries.items():
        labels = splits[split] = {}
        for entry in split_entries:
            path = next((p for p in (root / entry.video, lists_dir.parent / entry.video) if p.is_file()), None)
            key = entry.video_id
            if path is None:
                skipped[entry.video] = "there is no such file"
            elif other := next((s for s, videos in splits.items() if s != split and key in videos), None):
                skipped[f"{entry.video} in {split}"] = f"is also in {other}"
            elif add_clip(clips, key, SourceClip(path), skipped):
                labels[key] = tuple(sorted({*labels.get(key, ()), entry.behavior_id}))
    return clips, splits
