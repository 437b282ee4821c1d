"""Files of `dataset/annotations/`: classes, labels, splits, metadata of the videos; and the rules for video ids."""

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vimoclip.errors import UserError
from vimoclip.io import atomic, csv, yaml_json
from vimoclip.io.names import has_control_characters, is_safe_name, list_some, normalize_name
from vimoclip.io.text import read_text

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "val", "test")
SELECTION_FILE = "selection.txt"
ANIMALS_FILE = "animals.csv"
SOURCES_FILE = "sources.csv"
INFERRED_SOURCE = "inferred from name: "  # in front of a source that nobody has named
OBSERVATIONS_FILE = "observations.csv"
PARTITIONS = ("segment", "segment_by_count")  # of the classes: by the authors, and by counts of training labels
SEGMENTS = ("head", "middle", "tail")
_CLASSES_SUFFIX = "_action.csv"
_ANIMALS_HEADER = ("video_id", "animals", "animal_classes")
_SOURCES_HEADER = ("video_id", "source")
_OBSERVATIONS_HEADER = ("video_id", "observation", "film", "bytes")
_UNFINISHED_FILE = ".unfinished.json"  # files that are about to be written together: name -> text, null to delete it
_LABEL = re.compile(r"[+-]?\d+")
_DATASET_HINT = "name the data set with --dataset-dir and --dataset-name"
_MAX_QUOTED = 300  # characters


@dataclass(frozen=True)
class Annotations:
    """Annotations of a data set.

    `classes`: names in the order of their ids. `splits`: split -> video id -> label ids, in the files' order.
    `partitions`: name of PARTITIONS -> head, middle or tail per class. `selection`: the training videos of the
    model-selection split, may be empty."""

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


def stem(video: str) -> str:
    """Return a video id without its last extension. Flow videos and motion embeddings are named after it."""
    return video.rpartition(".")[0]


def check_video_id(video: str, path: Path | str | None = None) -> None:
    """Raise UserError if a file name can't be a video id in every file of the chain. `path`: the file that holds it."""
    name, hint = stem(video), "rename the video and its line"
    if not name:
        raise UserError(f"{quote(video)} is not a file name with an extension", hint, path=path)
    if "." in name or video[0] in "=+@" or not is_safe_name(video):
        raise UserError(
            f"{quote(video)} is not allowed as a video name: at most 255 bytes; no dot except that of the extension; "
            "no slash, control character or byte that is not UTF-8; must not start with =, +, @ or a drive letter",
            hint,
            path=path,
        )


def invalid_video_ids(videos: Iterable[str]) -> dict[str, str]:
    """Return the names that can't be used as video ids, with the reason."""
    invalid = dict[str, str]()
    for video in videos:
        try:
            check_video_id(video)
        except UserError as error:
            invalid[video] = str(error)
    return invalid


def quote(text: str) -> str:
    """Return the repr of a text from a file, shortened for a message."""
    return repr(text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 3] + "...")


def find_dataset_name(annotations_dir: Path) -> str:
    """Return the data set's name from the only `<name>_action.csv`. Raises UserError if there are none or several."""
    names = sorted(path.name.removesuffix(_CLASSES_SUFFIX) for path in annotations_dir.glob(f"*{_CLASSES_SUFFIX}"))
    if len(names) != 1:
        found = f"several files ({list_some(names)})" if names else "no file"
        hint = "name the data set with --dataset-name"
        raise UserError(f"has {found} of the name <name>{_CLASSES_SUFFIX}", hint, path=annotations_dir)
    return names[0]


def read_classes(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Return the class names of `<name>_action.csv` in the order of their ids, 0..C-1, and the partitions.

    Partitions: name of PARTITIONS -> head, middle or tail per class, of the columns that are not empty. Raises
    UserError."""
    header, rows = csv.read_table(path, _DATASET_HINT)
    if not rows or not {"id", "name"} <= set(header):
        raise UserError("needs the header id,name and one line per class", "correct the file", path=path)
    rows_by_id: dict[int, dict[str, str]] = {}
    hint = f"give each class one id of 0..{len(rows) - 1}"
    for line, row in rows:
        location, name = f"{path}:{line}", row.get("name", "")
        try:
            class_id = int(row.get("id", ""))
        except ValueError:
            raise UserError(f"{quote(row.get('id', ''))} is not a class id", hint, path=location) from None
        if class_id in rows_by_id:
            raise UserError(f"class id {class_id} is duplicated", hint, path=location)
        if not name or has_control_characters(name):
            problem = f"has a control character in its name, {quote(name)}" if name else "has no name"
            raise UserError(f"class {class_id} {problem}", "rename the class", path=location)
        rows_by_id[class_id] = row
    if set(rows_by_id) != set(range(len(rows))):
        raise UserError(f"has the class ids {min(rows_by_id)}..{max(rows_by_id)}", hint, path=path)
    ordered = [rows_by_id[i] for i in range(len(rows))]
    names = tuple(row["name"] for row in ordered)
    if len(set(map(normalize_name, names))) != len(names):
        raise UserError("two classes have the same name", "rename one of them", path=path)
    used_columns = [column for column in PARTITIONS if any(row.get(column) for row in ordered)]
    for line, row in rows:
        for column in used_columns:
            if (segment := row.get(column, "")) not in SEGMENTS:
                problem = f"{column} {quote(segment)} is none of {', '.join(SEGMENTS)}"
                raise UserError(problem, "correct the line", path=f"{path}:{line}")
    return names, {column: tuple(row[column] for row in ordered) for column in used_columns}


def read_split(path: Path, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the label ids by video id of `<split>_multi.txt`, in its order; a video without labels is a negative.

    The integers at the end of a line are the labels, the text before them is the video id. Raises UserError."""
    videos: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(read_text(path, _DATASET_HINT).split("\n"), start=1):
        if not line.strip():
            continue
        location = f"{path}:{number}"
        video, labels = _parse_line(line, location)
        check_video_id(video, location)
        if out_of_range := [label for label in labels if not 0 <= label < num_classes]:
            problem = f"label {out_of_range[0]} of {video} is not in 0..{num_classes - 1}"
            raise UserError(problem, "correct the line, or the classes in the _action.csv beside it", path=location)
        if video in videos:
            raise UserError(f"{video} is duplicated", "give it one line with all its labels", path=location)
        videos[video] = tuple(dict.fromkeys(labels))
    return videos


def _parse_line(line: str, location: str) -> tuple[str, list[int]]:
    """Return the video id and the labels of a line."""
    if has_control_characters(line.replace("\t", " ")):
        raise UserError(f"{quote(line)} has a control character", "remove it", path=location)
    words = list(re.finditer(r"\S+", line))
    labels: list[int] = []
    while len(words) > 1 and _LABEL.fullmatch(words[-1][0]):
        label = words.pop()[0]
        try:
            labels.append(int(label))
        except ValueError:  # more digits than Python converts
            raise UserError(f"{quote(label)} is not a class id", "correct the line", path=location) from None
    return line[words[0].start() : words[-1].end()], labels[::-1]


def read_selection(path: Path) -> tuple[str, ...]:
    """Return the video ids of `selection.txt`, one per line, in its order. Raises UserError, also for duplicates."""
    line_numbers: dict[str, int] = {}
    for number, line in enumerate(read_text(path, _DATASET_HINT).split("\n"), start=1):
        if video := line.strip():
            check_video_id(video, f"{path}:{number}")
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
        raise UserError("there is no such folder", _DATASET_HINT, path=annotations_dir)
    if (annotations_dir / _UNFINISHED_FILE).exists():
        problem = "an import of reviewed predictions is writing these files, or was interrupted"
        hint = "if it is not running, repeat prepare_dataset.py boris, which first completes them"
        raise UserError(problem, hint, path=annotations_dir)
    classes, partitions = read_classes(annotations_dir / f"{name}{_CLASSES_SUFFIX}")
    existing = [split for split in SPLITS if (annotations_dir / f"{split}_multi.txt").is_file()]
    missing = [split for split in splits or () if split not in existing]
    if missing:
        raise UserError("there is no such file", _DATASET_HINT, path=annotations_dir / (missing[0] + "_multi.txt"))
    if not existing:
        files = ", ".join(split + "_multi.txt" for split in SPLITS)
        raise UserError(f"has none of {files}", _DATASET_HINT, path=annotations_dir)
    videos = {split: read_split(annotations_dir / f"{split}_multi.txt", len(classes)) for split in existing}
    _check_unique_stems(annotations_dir, videos)
    selection_path = annotations_dir / SELECTION_FILE
    selection = read_selection(selection_path) if with_selection and selection_path.exists() else ()
    check_selection(selection_path, selection, videos.get("train", {}))
    return Annotations(classes, videos, partitions, selection)


def write(annotations_dir: Path, name: str, data: Annotations) -> None:
    """Write the files that `load` reads. Raises UserError, without writing anything, like `format_files`."""
    write_files(annotations_dir, format_files(annotations_dir, name, data))


def format_files(annotations_dir: Path, name: str, data: Annotations) -> dict[str, str | None]:
    """Return the text of each file that `load` reads, by name; None for one that must not exist.

    Raises UserError if `load` would refuse the files or read other annotations from them."""
    texts = {f"{split}_multi.txt": _format_split(videos) for split, videos in data.splits.items()}
    if data.selection:
        texts[SELECTION_FILE] = format_selection(data.selection)
    rows = zip(range(len(data.classes)), data.classes, *data.partitions.values(), strict=True)
    table = csv.format_csv([("id", "name", *data.partitions), *rows])
    texts[f"{name}{_CLASSES_SUFFIX}"] = table  # written last: if it exists, the others are complete
    with tempfile.TemporaryDirectory() as temporary_dir:
        try:
            for file, text in texts.items():
                (Path(temporary_dir) / file).write_text(text, encoding="utf-8")
            is_unchanged = load(Path(temporary_dir), name, data.splits) == data
        except UserError as error:
            path = (error.path or "").replace(temporary_dir, str(annotations_dir))
            raise UserError(error.problem, error.hint, path=path) from None
        except UnicodeEncodeError as error:
            excerpt = error.object[max(0, error.start - 40) : error.end + 40]
            problem = f"{excerpt!r} can't be written as UTF-8"
            raise UserError(problem, "rename the video or class", path=annotations_dir) from None
    if not is_unchanged:
        raise UserError("a class or video has a name that can't be read back", "rename it", path=annotations_dir)
    return {SELECTION_FILE: None} | texts  # of earlier annotations


def write_files(annotations_dir: Path, texts: Mapping[str, str | None]) -> None:
    """Write the text of each file, by name, in this order; delete those whose text is None."""
    for file, text in texts.items():
        if text is None:
            (annotations_dir / file).unlink(missing_ok=True)
        else:
            atomic.write_text(annotations_dir / file, text)


def replace_files(annotations_dir: Path, texts: Mapping[str, str | None]) -> None:
    """Do the work of `write_files` in annotations that exist: all files change or none.

    After an interruption, `load` refuses the folder until `finish_files` has completed it."""
    atomic.write_text(annotations_dir / _UNFINISHED_FILE, json.dumps(texts, ensure_ascii=False))
    finish_files(annotations_dir)


def finish_files(annotations_dir: Path) -> None:
    """Write the files that an interrupted `replace_files` has not written. Raises UserError."""
    path = annotations_dir / _UNFINISHED_FILE
    if not path.exists():
        return
    hint = "restore the folder from a copy, or create the data set again"
    texts = yaml_json.read_json(path, hint)
    if not all(is_safe_name(name) and isinstance(text, str | None) for name, text in texts.items()):
        raise UserError("does not hold texts of files", hint, path=path)
    write_files(annotations_dir, texts)
    path.unlink()


def _format_split(videos: Mapping[str, tuple[int, ...]]) -> str:
    return "".join(" ".join([video, *map(str, labels)]) + "\n" for video, labels in videos.items())


def format_selection(selection: Iterable[str]) -> str:
    """Return the content of `selection.txt`."""
    return "".join(f"{video}\n" for video in selection)


def _check_unique_stems(annotations_dir: Path, splits: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:
    """Raise UserError if two videos share a stem, in one split or in two."""
    places: dict[str, str] = {}
    for split, videos in splits.items():
        for video in videos:
            place = f"{video} in {split}_multi.txt"
            if (other := places.setdefault(stem(video), place)) is not place:
                problem = f"{place} and {other} have the same name without extension"
                hint = "name each video in one split only, and rename videos that differ by extension"
                raise UserError(problem, hint, path=annotations_dir)


def check_selection(path: Path, selection: Iterable[str], train: Mapping[str, object]) -> None:
    """Raise UserError if a selection names other than training videos."""
    unknown = [video for video in selection if video not in train]
    if unknown:
        raise UserError(
            f"names {len(unknown)} videos that are not in the training split ({list_some(unknown)})",
            "remove these lines, or draw it again with prepare_dataset.py selection --overwrite",
            path=path,
        )


class VideoAnimals(NamedTuple):
    """Animals in a video. `classes`: mammal, bird, ..., each once; an animal of unknown class adds none."""

    animals: tuple[str, ...]
    classes: tuple[str, ...]


def read_animals(annotations_dir: Path) -> dict[str, VideoAnimals]:
    """Return the animals by video id; {} if the folder has no `animals.csv`. Raises UserError."""
    rows = _read_metadata(annotations_dir / ANIMALS_FILE, _ANIMALS_HEADER, required=1)
    return {video: VideoAnimals(*(tuple(filter(None, cell.split(";"))) for cell in cells)) for video, *cells in rows}


def format_animals(animals_by_video: Mapping[str, VideoAnimals]) -> str:
    """Return the content of `animals.csv`. Names are not empty and contain no semicolon or control character."""
    rows = ((video, ";".join(animals), ";".join(classes)) for video, (animals, classes) in animals_by_video.items())
    return csv.format_csv([_ANIMALS_HEADER, *rows])


def read_sources(annotations_dir: Path) -> dict[str, str]:
    """Return the source (recording, animal or site) by video id; {} without `sources.csv`. Raises UserError."""
    return dict(_read_metadata(annotations_dir / SOURCES_FILE, _SOURCES_HEADER, required=2))


def format_sources(sources: Mapping[str, str]) -> str:
    """Return the content of `sources.csv`."""
    return csv.format_csv([_SOURCES_HEADER, *sources.items()])


class ObservedClip(NamedTuple):
    """Where a clip comes from whose labels are a prediction that was reviewed in BORIS.

    `observation`: ids of BORIS' observations, joined by `;`. `film`, `num_bytes`: file name and size of the film."""

    observation: str
    film: str
    num_bytes: int


def read_observations(annotations_dir: Path) -> dict[str, ObservedClip]:
    """Return the clips of reviewed predictions by video id; {} without `observations.csv`. Raises UserError."""
    path, clips = annotations_dir / OBSERVATIONS_FILE, dict[str, ObservedClip]()
    for video, observation, film, num_bytes in _read_metadata(path, _OBSERVATIONS_HEADER, required=4):
        if not num_bytes.isdecimal():
            raise UserError(f"{quote(num_bytes)} is not a size of {film} in bytes", "correct the line", path=path)
        clips[video] = ObservedClip(observation, film, int(num_bytes))
    return clips


def format_observations(clips: Mapping[str, ObservedClip]) -> str:
    """Return the content of `observations.csv`."""
    return csv.format_csv([_OBSERVATIONS_HEADER, *((video, *clip) for video, clip in clips.items())])


def _read_metadata(path: Path, header: Sequence[str], required: int) -> Iterator[list[str]]:
    """Yield the cells of each line in the order of `header`, if the file exists. Raises UserError.

    `required`: number of columns, from the first, that must not be empty."""
    videos: set[str] = set()
    for line, row in csv.read_table(path)[1] if path.exists() else ():
        if not (set(header) <= row.keys() and all(row[column] for column in header[:required])):
            problem = (
                f"needs the header {','.join(header)} and a value for {' and '.join(header[:required])} in each line"
            )
            raise UserError(problem, "correct the header or the line", path=f"{path}:{line}")
        if (video := row[header[0]]) in videos:
            raise UserError(f"{quote(video)} is duplicated", "give each video one line", path=f"{path}:{line}")
        videos.add(video)
        yield [row[column] for column in header]
