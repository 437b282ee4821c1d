"""The annotation format: classes, labels, splits and selection clips in `dataset/annotations/`."""

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip.annotations.parsing import check_video_id, quote, stem
from vimoclip.errors import UserError
from vimoclip.io import atomic, csv
from vimoclip.io.names import has_control_characters, list_some
from vimoclip.io.text import read_text

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "val", "test")
SELECTION_FILE = "selection.txt"
PARTITIONS = ("segment", "segment_by_count")  # of the classes: by the authors, and by counts of training labels
SEGMENTS = ("head", "middle", "tail")
_CLASSES_SUFFIX = "_action.csv"
_LABEL = re.compile(r"[+-]?\d+")
_DATASET_HINT = "name the data set with --dataset-dir and --dataset-name"


@dataclass(frozen=True)
class Annotations:
    """Annotations of a data set.

    `classes`: names in the order of their ids. `splits`: split -> video id -> label ids, in the files' order.
    `partitions`: name of PARTITIONS -> head, middle or tail per class. `selection`: the training videos on which epochs
    are chosen, may be empty."""

    classes: tuple[str, ...]
    splits: Mapping[str, Mapping[str, tuple[int, ...]]]
    partitions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    selection: tuple[str, ...] = ()

    def multi_hot(self, split: str, video: str) -> "np.ndarray":
        """Return the labels of a video as (C,) float32 of zeros and ones."""
        import numpy as np  # not at the top, so that --help does not load numpy

        labels = np.zeros(len(self.classes), np.float32)
        labels[list(self.splits[split][video])] = 1
        return labels


def find_dataset_name(annotations_dir: Path) -> str:
    """Return the data set's name from the only `<name>_action.csv`. Raises UserError if there are none or several."""
    names = sorted(path.name.removesuffix(_CLASSES_SUFFIX) for path in annotations_dir.glob(f"*{_CLASSES_SUFFIX}"))
    if len(names) == 1:
        return names[0]
    found = f"several ({list_some(names)})" if names else "none"
    hint = "name the data set with --dataset-name"
    raise UserError(f"holds {found} of <name>{_CLASSES_SUFFIX}", hint, path=annotations_dir)


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the class names of `<name>_action.csv` in the order of their ids, which are 0..C-1. Raises UserError."""
    header, rows = csv.read_table(path, _DATASET_HINT)
    if not rows or not {"id", "name"} <= set(header):
        raise UserError("needs the header id,name and a line a class", path=path)
    names: dict[int, str] = {}
    hint = f"ids are 0..{len(rows) - 1}"
    for line, row in rows:
        try:
            class_id = int(row["id"])
        except (KeyError, ValueError):
            raise UserError(f"{quote(row.get('id', ''))} is not a class id", hint, path=f"{path}:{line}") from None
        if class_id in names:
            raise UserError(f"class id {class_id} is duplicated", f"{hint}, each once", path=f"{path}:{line}")
        names[class_id] = row.get("name", "")
        if not names[class_id]:
            raise UserError(f"class {class_id} has no name", path=f"{path}:{line}")
        if has_control_characters(names[class_id]):
            problem = f"{quote(names[class_id])} holds a control character"
            raise UserError(problem, "rename the class", path=f"{path}:{line}")
    if set(names) != set(range(len(names))):
        problem = f"class ids must be 0..{len(names) - 1}, each once"
        raise UserError(problem, f"found {min(names)}..{max(names)}", path=path)
    if len(set(names.values())) != len(names):
        raise UserError("two classes have the same name", "give each its own", path=path)
    return tuple(names[i] for i in range(len(names)))


def read_partitions(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the segment of each class by partition, from the columns of `<name>_action.csv` that are not empty.

    Raises UserError if a column is empty for some classes only, or holds an unknown segment."""
    _, rows = csv.read_table(path, _DATASET_HINT)
    partitions: dict[str, tuple[str, ...]] = {}
    for column in PARTITIONS:
        segments = {int(row["id"]): row.get(column, "") for _, row in rows}
        if not any(segments.values()):
            continue
        for (line, _), segment in zip(rows, segments.values(), strict=True):
            if segment not in SEGMENTS:
                problem = f"{column} {quote(segment)} is none of {', '.join(SEGMENTS)}"
                raise UserError(problem, "fix it", path=f"{path}:{line}")
        partitions[column] = tuple(segments[i] for i in range(len(segments)))
    return partitions


def read_split(path: Path, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the label ids by video id of `<split>_multi.txt`, in its order; a video without labels is a negative.

    The integers at the end of a line are the labels, the text before them is the video id. Raises UserError."""
    videos: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(read_text(path, _DATASET_HINT).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            video, labels = _parse_line(line)
            check_video_id(video)
        except UserError as error:
            raise UserError(error.problem, error.hint, path=f"{path}:{number}") from None
        out_of_range = [label for label in labels if not 0 <= label < num_classes]
        if out_of_range:
            raise UserError(
                f"label {out_of_range[0]} of {video} is not in 0..{num_classes - 1}",
                "fix the line, or the classes in the _action.csv beside it",
                path=f"{path}:{number}",
            )
        if video in videos:
            problem = f"{video} is duplicated"
            raise UserError(problem, "give it one line with all its labels", path=f"{path}:{number}")
        videos[video] = tuple(dict.fromkeys(labels))
    return videos


def _parse_line(line: str) -> tuple[str, list[int]]:
    """Return the video id and the labels of a line."""
    if has_control_characters(line.replace("\t", " ")):
        raise UserError(f"{quote(line)} holds a control character", "remove it")
    words = list(re.finditer(r"\S+", line))
    labels: list[int] = []
    while len(words) > 1 and _LABEL.fullmatch(words[-1][0]):
        label = words.pop()[0]
        try:
            labels.append(int(label))
        except ValueError:  # more digits than Python converts
            raise UserError(f"{quote(label)} is not a class id", "fix the line") from None
    return line[words[0].start() : words[-1].end()], labels[::-1]


def read_selection(path: Path) -> tuple[str, ...]:
    """Return the video ids of `selection.txt`, one a line, in its order. Raises UserError, also for duplicates."""
    line_numbers: dict[str, int] = {}
    for number, line in enumerate(read_text(path, _DATASET_HINT).split("\n"), start=1):
        if not (video := line.strip()):
            continue
        try:
            check_video_id(video)
        except UserError as error:
            raise UserError(error.problem, error.hint, path=f"{path}:{number}") from None
        if line_numbers.setdefault(video, number) != number:
            raise UserError(f"{video} is duplicated", "remove one of the lines", path=f"{path}:{number}")
    if not line_numbers:
        raise UserError("names no video", "delete it, or draw one with prepare_dataset.py selection", path=path)
    return tuple(line_numbers)


def load(
    annotations_dir: Path, name: str, splits: Iterable[str] | None = None, with_selection: bool = True
) -> Annotations:
    """Read `<name>_action.csv`, `selection.txt` and every `<split>_multi.txt` that exists.

    `splits` are those that must exist. `with_selection=False` ignores `selection.txt`. Raises UserError, also for a
    video in two splits, two videos with one stem, or a selection of other than training videos."""
    if not annotations_dir.is_dir():
        raise UserError("there is no such folder with annotations", _DATASET_HINT, path=annotations_dir)
    classes = read_classes(annotations_dir / f"{name}{_CLASSES_SUFFIX}")
    existing = [split for split in SPLITS if (annotations_dir / f"{split}_multi.txt").is_file()]
    missing = [split for split in splits or () if split not in existing]
    if missing:
        raise UserError("there is no such file", _DATASET_HINT, path=annotations_dir / (missing[0] + "_multi.txt"))
    if not existing:
        files = ", ".join(split + "_multi.txt" for split in SPLITS)
        raise UserError(f"holds none of {files}", _DATASET_HINT, path=annotations_dir)
    videos = {split: read_split(annotations_dir / f"{split}_multi.txt", len(classes)) for split in existing}
    _check_unique_stems(annotations_dir, videos)
    selection_path = annotations_dir / SELECTION_FILE
    selection = read_selection(selection_path) if with_selection and selection_path.exists() else ()
    check_selection(selection_path, selection, videos.get("train", {}))
    partitions = read_partitions(annotations_dir / f"{name}{_CLASSES_SUFFIX}")
    return Annotations(classes, videos, partitions, selection)


def write(annotations_dir: Path, name: str, data: Annotations) -> None:
    """Write the files that `load` reads.

    Raises UserError, without writing anything, if `load` would refuse the files or read other annotations from them."""
    texts = _format_files(name, data)
    with tempfile.TemporaryDirectory() as temporary_dir:
        try:
            for file, text in texts.items():
                (Path(temporary_dir) / file).write_text(text, encoding="utf-8")
            is_unchanged = load(Path(temporary_dir), name, data.splits) == data
        except UserError as error:
            path = (error.path or "").replace(temporary_dir, str(annotations_dir))
            raise UserError(error.problem, error.hint, path=path or annotations_dir) from None
        except UnicodeEncodeError as error:
            excerpt = error.object[max(0, error.start - 40) : error.end + 40]
            problem = f"{excerpt!r} can't be written as UTF-8"
            raise UserError(problem, "rename the video or class", path=annotations_dir) from None
    if not is_unchanged:
        raise UserError("a class or a video has a name that can't be read back", "rename it", path=annotations_dir)
    if not data.selection:
        (annotations_dir / SELECTION_FILE).unlink(missing_ok=True)  # of earlier annotations
    for file, text in texts.items():
        atomic.write_text(annotations_dir / file, text)


def _format_files(name: str, data: Annotations) -> dict[str, str]:
    """Return the content of each file, by name."""
    texts: dict[str, str] = {}
    for split, videos in data.splits.items():
        lines = (" ".join([video, *map(str, labels)]) for video, labels in videos.items())
        texts[f"{split}_multi.txt"] = "".join(f"{line}\n" for line in lines)
    if data.selection:
        texts[SELECTION_FILE] = format_selection(data.selection)
    rows = zip(range(len(data.classes)), data.classes, *data.partitions.values(), strict=True)
    table = csv.format_csv([("id", "name", *data.partitions), *rows])
    texts[f"{name}{_CLASSES_SUFFIX}"] = table  # written last: if it exists, the others are complete
    return texts


def format_selection(selection: Iterable[str]) -> str:
    """Return the content of `selection.txt`."""
    return "".join(f"{video}\n" for video in selection)


def _check_unique_stems(annotations_dir: Path, splits: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:
    """Raise UserError if two videos share a stem, in one split or in two."""
    video_and_split: dict[str, tuple[str, str]] = {}
    for split, videos in splits.items():
        for video in videos:
            if (key := stem(video)) in video_and_split:
                other, other_split = video_and_split[key]
                files = f"{video} in {split}_multi.txt and {other} in {other_split}_multi.txt"
                hint = "each video belongs in one split, under a unique name"
                raise UserError(f"{files} are one video or share a name", hint, path=annotations_dir)
            video_and_split[key] = (video, split)


def check_selection(path: Path, selection: Iterable[str], train: Mapping[str, object]) -> None:
    """Raise UserError if a selection names other than training videos."""
    unknown = [video for video in selection if video not in train]
    if unknown:
        raise UserError(
            f"names {len(unknown)} that are no training videos ({list_some(unknown)})",
            "remove these lines, or draw others with prepare_dataset.py selection --overwrite",
            path=path,
        )
