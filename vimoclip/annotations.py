"""Classes and splits of a data set: the only reader and writer of `dataset/annotations/`."""

import csv
import io
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vimoclip import UserError, files, has_control, safe_name

SPLITS = ("train", "val", "test")
_LABEL = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Annotations:
    """`classes`: names in the order of their ids. `splits`: split -> video id -> label ids, in the files' order."""

    classes: tuple[str, ...]
    splits: Mapping[str, Mapping[str, tuple[int, ...]]]

    def multi_hot(self, split: str, video: str) -> np.ndarray:
        """(C,) float32, 1 where the video has the label."""
        labels = np.zeros(len(self.classes), np.float32)
        labels[list(self.splits[split][video])] = 1
        return labels


def stem(video: str) -> str:
    """A video's id without its last extension: what flow videos and motion embeddings are named after."""
    return video.rpartition(".")[0]


def check_video_id(video: str) -> None:
    """Raise ValueError where a file name can't be a video's id in every file of the chain."""
    name = stem(video)
    if not name:
        raise ValueError(f"{_quoted(video)} is not a file name with an extension")
    if "." in name or video[0] in "=+@" or not safe_name(video):
        raise ValueError(
            f"{_quoted(video)}: without its extension a name may hold no dot, slash or control character, not start "
            "with =, + or @ or a drive, and is 255 bytes long at most; rename the video and its line"
        )


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 300 else text[:297] + "...")


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names of `<name>_action.csv` in the order of their ids, which are 0..C-1. Raises UserError."""
    try:
        rows = list(csv.DictReader(io.StringIO(_read_text(path))))
    except csv.Error as error:
        raise UserError(f"{path}: is no CSV file ({error}); save it as one") from None
    if not rows or not {"id", "name"} <= set(rows[0]):
        raise UserError(f"{path}: needs the header id,name and a line a class")
    names: dict[int, str] = {}
    for line, row in enumerate(rows, start=2):
        try:
            number = int(row["id"])
        except (TypeError, ValueError):
            given = _quoted(str(row["id"]))
            raise UserError(f"{path}:{line}: {given} is not a class id; ids are 0..{len(rows) - 1}") from None
        if number in names:
            raise UserError(f"{path}:{line}: class id {number} stands twice; ids are 0..{len(rows) - 1}, each once")
        names[number] = (row["name"] or "").strip()
        if not names[number]:
            raise UserError(f"{path}:{line}: class {number} has no name")
        if has_control(names[number]):
            raise UserError(f"{path}:{line}: {_quoted(names[number])} holds a control character; rename the class")
    if set(names) != set(range(len(names))):
        raise UserError(f"{path}: class ids must be 0..{len(names) - 1}, each once; found {min(names)}..{max(names)}")
    if len(set(names.values())) != len(names):
        raise UserError(f"{path}: two classes have the same name; give each its own")
    return tuple(names[i] for i in range(len(names)))


def read_split(path: Path, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Video id -> label ids of `<split>_multi.txt`, in its order; a video without labels is a negative.

    The labels are the integers at the end of a line, the name is what stands before them. Raises UserError."""
    videos: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            video, labels = _parse_line(line)
            check_video_id(video)
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}") from None
        wrong = [label for label in labels if not 0 <= label < num_classes]
        if wrong:
            raise UserError(
                f"{path}:{number}: label {wrong[0]} of {video} is not in 0..{num_classes - 1}; mend the line, or the "
                "classes in the _action.csv beside it"
            )
        if video in videos:
            raise UserError(f"{path}:{number}: {video} stands twice; give it one line with all its labels")
        videos[video] = tuple(dict.fromkeys(labels))
    return videos


def _parse_line(line: str) -> tuple[str, list[int]]:
    if has_control(line.replace("\t", " ")):
        raise ValueError(f"{_quoted(line)} holds a control character; remove it")
    words = list(re.finditer(r"\S+", line))
    labels: list[int] = []
    while len(words) > 1 and _LABEL.fullmatch(words[-1][0]):
        labels.append(int(words.pop()[0]))
    return line[words[0].start() : words[-1].end()], labels[::-1]


def load(folder: Path, name: str, splits: Iterable[str] | None = None) -> Annotations:
    """Read `<name>_action.csv` and every `<split>_multi.txt` that is there; `splits` names those that must be.

    Raises UserError, also for a video in two splits or two videos with one stem."""
    cure = "name the data set with --dataset-dir and --dataset-name"
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder with annotations; {cure}")
    classes = read_classes(folder / f"{name}_action.csv")
    there = [s for s in SPLITS if (folder / f"{s}_multi.txt").is_file()]
    missing = [s for s in splits or () if s not in there]
    if missing:
        raise UserError(f"{folder / (missing[0] + '_multi.txt')}: there is no such file; {cure}")
    if not there:
        raise UserError(f"{folder}: holds none of {', '.join(s + '_multi.txt' for s in SPLITS)}; {cure}")
    read = {s: read_split(folder / f"{s}_multi.txt", len(classes)) for s in there}
    _check_distinct(folder, read)
    return Annotations(classes, read)


def write(folder: Path, name: str, data: Annotations) -> None:
    """Write what `load` reads. Raises UserError for what it would refuse or read otherwise, and then writes nothing."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("id", "name"), *enumerate(data.classes)])
    texts: dict[str, str] = {}
    for split, videos in data.splits.items():
        lines = (" ".join([video, *map(str, labels)]) for video, labels in videos.items())
        texts[f"{split}_multi.txt"] = "".join(f"{line}\n" for line in lines)
    texts[f"{name}_action.csv"] = table.getvalue()  # last: where it is, the splits are whole
    with tempfile.TemporaryDirectory() as trial:
        try:
            for file, text in texts.items():
                (Path(trial) / file).write_text(text, encoding="utf-8")
            same = load(Path(trial), name, data.splits) == data
        except UserError as error:
            raise UserError(str(error).replace(trial, str(folder))) from None
        except UnicodeEncodeError as error:
            part = error.object[max(0, error.start - 40) : error.end + 40]
            raise UserError(f"{folder}: {part!r} can't be written as UTF-8; rename the video or class") from None
    if not same:
        raise UserError(f"{folder}: a class or a video has a name that can't be read back; rename it")
    for file, text in texts.items():
        files.write_text(folder / file, text)


def _check_distinct(folder: Path, splits: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for split, videos in splits.items():
        for video in videos:
            if (key := stem(video)) in seen:
                other, where = seen[key]
                raise UserError(
                    f"{folder}: {video} in {split}_multi.txt and {other} in {where}_multi.txt are one video or share "
                    "a name; each video belongs in one split, under a name of its own"
                )
            seen[key] = (video, split)


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such file; name the data set with --dataset-dir, --dataset-name"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); make it a file that you may read") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    return text.replace("\r\n", "\n")
