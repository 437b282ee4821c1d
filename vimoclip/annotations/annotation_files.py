"""Classes and splits of a data set: the only reader and writer of `dataset/annotations/`."""

import csv
import io
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vimoclip.annotations.text import check_video_id, quoted, read_rows, read_text, stem
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.names import has_control

SPLITS = ("train", "val", "test")
SELECTION = "selection.txt"
PARTITIONS = ("segment", "segment_by_count")  # of the classes: the authors', and that by counts of training labels
SEGMENTS = ("head", "middle", "tail")
_LABEL = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Annotations:
    """`classes`: names in the order of their ids. `splits`: split -> video id -> label ids, in the files' order.

    `partitions`: name of PARTITIONS -> head, middle or tail per class. `selection`: training videos on which epochs are
    chosen, where there are any."""

    classes: tuple[str, ...]
    splits: Mapping[str, Mapping[str, tuple[int, ...]]]
    partitions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    selection: tuple[str, ...] = ()

    def multi_hot(self, split: str, video: str) -> np.ndarray:
        """(C,) float32, 1 where the video has the label."""
        labels = np.zeros(len(self.classes), np.float32)
        labels[list(self.splits[split][video])] = 1
        return labels


def name_in(folder: Path) -> str:
    """The data set's name, by the one `<name>_action.csv` in a folder. Raises UserError where none or several."""
    ending = "_action.csv"
    names = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
    if len(names) == 1:
        return names[0]
    found = f"several ({', '.join(names[:3])})" if names else "none"
    raise UserError(f"holds {found} of <name>{ending}", "name the data set with --dataset-name", path=folder)


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names of `<name>_action.csv` in the order of their ids, which are 0..C-1. Raises UserError."""
    rows = read_rows(path)
    if not rows or not {"id", "name"} <= set(rows[0]):
        raise UserError("needs the header id,name and a line a class", path=path)
    names: dict[int, str] = {}
    for line, row in enumerate(rows, start=2):
        try:
            number = int(row["id"])
        except (TypeError, ValueError):
            given = quoted(str(row["id"]))
            raise UserError(f"{path}:{line}: {given} is not a class id", f"ids are 0..{len(rows) - 1}") from None
        if number in names:
            raise UserError(f"{path}:{line}: class id {number} stands twice", f"ids are 0..{len(rows) - 1}, each once")
        names[number] = (row["name"] or "").strip()
        if not names[number]:
            raise UserError(f"{path}:{line}: class {number} has no name")
        if has_control(names[number]):
            raise UserError(f"{path}:{line}: {quoted(names[number])} holds a control character", "rename the class")
    if set(names) != set(range(len(names))):
        raise UserError(
            f"class ids must be 0..{len(names) - 1}, each once", f"found {min(names)}..{max(names)}", path=path
        )
    if len(set(names.values())) != len(names):
        raise UserError("two classes have the same name", "give each its own", path=path)
    return tuple(names[i] for i in range(len(names)))


def read_partitions(path: Path) -> dict[str, tuple[str, ...]]:
    """Partition -> segment of each class, of those columns of `<name>_action.csv` that say anything.

    Raises UserError where a column says it of some classes only, or something else."""
    rows = read_rows(path)
    found: dict[str, tuple[str, ...]] = {}
    for column in PARTITIONS:
        segments = {int(row["id"]): (row.get(column) or "").strip() for row in rows}
        for line, segment in enumerate(segments.values(), start=2):
            if any(segments.values()) and segment not in SEGMENTS:
                raise UserError(
                    f"{path}:{line}: {column} {quoted(segment)} is none of {', '.join(SEGMENTS)}", "mend it"
                )
        if any(segments.values()):
            found[column] = tuple(segments[i] for i in range(len(segments)))
    return found


def read_split(path: Path, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Video id -> label ids of `<split>_multi.txt`, in its order; a video without labels is a negative.

    The labels are the integers at the end of a line, the name is what stands before them. Raises UserError."""
    videos: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            video, labels = _parse_line(line)
            check_video_id(video)
        except UserError as error:
            raise UserError(error.problem, error.hint, path=f"{path}:{number}") from None
        wrong = [label for label in labels if not 0 <= label < num_classes]
        if wrong:
            raise UserError(
                f"{path}:{number}: label {wrong[0]} of {video} is not in 0..{num_classes - 1}",
                "mend the line, or the classes in the _action.csv beside it",
            )
        if video in videos:
            raise UserError(f"{path}:{number}: {video} stands twice", "give it one line with all its labels")
        videos[video] = tuple(dict.fromkeys(labels))
    return videos


def _parse_line(line: str) -> tuple[str, list[int]]:
    if has_control(line.replace("\t", " ")):
        raise UserError(f"{quoted(line)} holds a control character", "remove it")
    words = list(re.finditer(r"\S+", line))
    labels: list[int] = []
    while len(words) > 1 and _LABEL.fullmatch(words[-1][0]):
        labels.append(int(words.pop()[0]))
    return line[words[0].start() : words[-1].end()], labels[::-1]


def read_selection(path: Path) -> tuple[str, ...]:
    """File names of `selection.txt`, one a line, in its order. Raises UserError, also for a name that stands twice."""
    names: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not (video := line.strip()):
            continue
        try:
            check_video_id(video)
        except UserError as error:
            raise UserError(error.problem, error.hint, path=f"{path}:{number}") from None
        if names.setdefault(video, number) != number:
            raise UserError(f"{path}:{number}: {video} stands twice", "remove one of the lines")
    if not names:
        raise UserError("names no video", "delete it, or draw one with prepare_dataset.py selection", path=path)
    return tuple(names)


def load(folder: Path, name: str, splits: Iterable[str] | None = None, with_selection: bool = True) -> Annotations:
    """Read `<name>_action.csv`, `selection.txt` and every `<split>_multi.txt` there is; `splits` names those needed.

    Raises UserError, also for a video in two splits, two videos with one stem, or a selection of others than training
    videos. Without `with_selection` that file is left aside."""
    cure = "name the data set with --dataset-dir and --dataset-name"
    if not folder.is_dir():
        raise UserError("there is no such folder with annotations", cure, path=folder)
    classes = read_classes(folder / f"{name}_action.csv")
    there = [s for s in SPLITS if (folder / f"{s}_multi.txt").is_file()]
    missing = [s for s in splits or () if s not in there]
    if missing:
        raise UserError("there is no such file", cure, path=folder / (missing[0] + "_multi.txt"))
    if not there:
        raise UserError(f"holds none of {', '.join(s + '_multi.txt' for s in SPLITS)}", cure, path=folder)
    read = {s: read_split(folder / f"{s}_multi.txt", len(classes)) for s in there}
    _check_distinct(folder, read)
    chosen = folder / SELECTION
    selection = read_selection(chosen) if with_selection and chosen.exists() else ()
    check_selected(chosen, selection, read.get("train", {}))
    return Annotations(classes, read, read_partitions(folder / f"{name}_action.csv"), selection)


def write(folder: Path, name: str, data: Annotations) -> None:
    """Write what `load` reads. Raises UserError for what it would refuse or read otherwise, and then writes nothing."""
    texts = _texts(name, data)
    with tempfile.TemporaryDirectory() as trial:
        try:
            for file, text in texts.items():
                (Path(trial) / file).write_text(text, encoding="utf-8")
            same = load(Path(trial), name, data.splits) == data
        except UserError as error:
            raise UserError(str(error).replace(trial, str(folder))) from None
        except UnicodeEncodeError as error:
            part = error.object[max(0, error.start - 40) : error.end + 40]
            raise UserError(f"{part!r} can't be written as UTF-8", "rename the video or class", path=folder) from None
    if not same:
        raise UserError("a class or a video has a name that can't be read back", "rename it", path=folder)
    if not data.selection:
        (folder / SELECTION).unlink(missing_ok=True)  # of what was here before
    for file, text in texts.items():
        atomic.write_text(folder / file, text)


def _texts(name: str, data: Annotations) -> dict[str, str]:
    """File name -> what it holds."""
    texts: dict[str, str] = {}
    for split, videos in data.splits.items():
        lines = (" ".join([video, *map(str, labels)]) for video, labels in videos.items())
        texts[f"{split}_multi.txt"] = "".join(f"{line}\n" for line in lines)
    if data.selection:
        texts[SELECTION] = selection_text(data.selection)
    table = io.StringIO()
    rows = zip(range(len(data.classes)), data.classes, *data.partitions.values(), strict=True)
    csv.writer(table, lineterminator="\n").writerows([("id", "name", *data.partitions), *rows])
    texts[f"{name}_action.csv"] = table.getvalue()  # last: where it is, the rest is whole
    return texts


def selection_text(selection: Iterable[str]) -> str:
    """What `selection.txt` holds."""
    return "".join(f"{video}\n" for video in selection)


def _check_distinct(folder: Path, splits: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for split, videos in splits.items():
        for video in videos:
            if (key := stem(video)) in seen:
                other, where = seen[key]
                raise UserError(
                    f"{video} in {split}_multi.txt and {other} in {where}_multi.txt are one video or share a name",
                    "each video belongs in one split, under a name of its own",
                    path=folder,
                )
            seen[key] = (video, split)


def check_selected(path: Path, selection: Iterable[str], train: Mapping[str, object]) -> None:
    """Raise UserError where a selection names others than training videos."""
    strange = [video for video in selection if video not in train]
    if strange:
        raise UserError(
            f"names {len(strange)} that are no training videos ({', '.join(strange[:3])})",
            "remove these lines, or draw others with prepare_dataset.py selection --overwrite",
            path=path,
        )
