"""Importer of a CSV table of videos and labels, as written by hand or with a spreadsheet."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vimoclip import cli, video
from vimoclip.annotations import SPLITS, Annotations
from vimoclip.errors import UserError, VideoError
from vimoclip.io import csv
from vimoclip.io.names import list_some
from vimoclip.prepare import grouped_split
from vimoclip.prepare.find_media import locate_films
from vimoclip.prepare.place_videos import SourceClip, add_clip, dataset_folders, place_clips
from vimoclip.prepare.write_dataset import PreparedDataset, warn_about_duplicates, write_dataset

COLUMNS = ("video", "labels", "start", "end", "split")
SPLIT_SYNONYMS = {"validation": "val", "valid": "val", "training": "train", "testing": "test"}
LABEL_SEPARATOR = ";"  # in a cell


class LabelRow(NamedTuple):
    """A line of the table. `labels`: class names. `start`, `end`: seconds or None. `split`, `source`: may be empty."""

    line: int
    video: str
    labels: tuple[str, ...]
    start: float | None
    end: float | None
    split: str
    source: str


@dataclass
class LabelTable:
    """A parsed table. `classes`: in the order of their ids. `rows`: in the file's order."""

    path: Path
    classes: tuple[str, ...]
    rows: list[LabelRow]


def prepare(
    table: LabelTable, videos_dir: Path, dataset_dir: Path, name: str, fractions: Mapping[str, float], seed: int
) -> cli.RunReport:
    """Write the data set and return the report of the run. Raises UserError.

    `fractions`: of val and test, if the table has no splits. Clips of one file are of one source, unless the table
    names another."""
    skipped: dict[str, str] = {}
    clips, rows = _find_clips(table, videos_dir, dataset_dir, skipped)
    seconds = place_clips(clips, dataset_dir, skipped, table.path)
    clips = {key: clip for key, clip in clips.items() if key not in skipped}
    if not clips:
        entry, reason = next(iter(skipped.items()))
        raise UserError(f"none of its videos can be used ({entry}: {reason})", "see --videos-dir", path=table.path)
    warn_about_duplicates(clip.source for clip in clips.values() if clip.start is None)
    sources = _group_sources(clips, rows)
    ids = {name: class_id for class_id, name in enumerate(table.classes)}
    labels = {key: tuple(sorted({ids[label] for row in rows[key] for label in row.labels})) for key in clips}
    if any(row.split for row in table.rows):
        splits: dict[str, dict[str, tuple[int, ...]]] = {}
        for split in SPLITS:
            if keys := sorted(key for key in clips if rows[key][0].split == split):
                splits[split] = {key: labels[key] for key in keys}
        data = Annotations(table.classes, splits)
    else:
        data = grouped_split.split_videos(table.classes, labels, fractions, seed, sources)
    return write_dataset(dataset_dir / "annotations", name, PreparedDataset(data, seconds, skipped, sources), seed)


def _find_clips(
    table: LabelTable, videos_dir: Path, dataset_dir: Path, skipped: dict[str, str]
) -> tuple[dict[str, SourceClip], dict[str, list[LabelRow]]]:
    """Return the clip and the table's rows by video id."""
    clips: dict[str, SourceClip] = {}
    rows: dict[str, list[LabelRow]] = defaultdict(list)
    num_lines = Counter(row.video for row in table.rows)
    folders = list(dict.fromkeys((videos_dir, table.path.parent)))
    films, not_found = locate_films(num_lines, folders, table.path, dataset_folders(dataset_dir))
    for row in table.rows:
        lines_remark = f", in {num_lines[row.video]} lines" if num_lines[row.video] > 1 else ""
        if row.video in not_found:
            skipped[row.video] = f"{not_found[row.video]}{lines_remark}"
            continue
        film = films[row.video]
        try:
            info = video.probe(film.file)
        except VideoError as error:
            skipped[row.video] = f"{error}{lines_remark}"
            continue
        clip = SourceClip(film.file, film_name=film.name)
        if row.start is not None or row.end is not None:
            clip = SourceClip(film.file, row.start or 0.0, info.seconds if row.end is None else row.end, film.name)
        add_clip(clips, clip.name, clip)
        rows[clip.name].append(row)
    return clips, rows


def _group_sources(clips: Mapping[str, SourceClip], rows: Mapping[str, list[LabelRow]]) -> dict[str, str]:
    """Return the source by video id: the table's sources, joined with the file if it has several clips.

    Clips that share a source or a file are of one source, transitively (union-find)."""
    clips_per_file = Counter(clip.source for clip in clips.values())
    parents: dict[str, str] = {}

    def find_root(node: str) -> str:
        while parents.setdefault(node, node) != node:
            node = parents[node]
        return node

    first_nodes: dict[str, str] = {}
    for key, clip in clips.items():
        nodes = sorted({row.source for row in rows[key] if row.source})
        if clips_per_file[clip.source] > 1:
            nodes.append(f"film {clip.film_name}{clip.source.suffix}")
        for node in nodes:
            parents[find_root(node)] = find_root(nodes[0])
        if nodes:
            first_nodes[key] = nodes[0]
    return {key: find_root(node) for key, node in first_nodes.items()}


def read_table(path: Path, classes: Sequence[str] | None = None, group_by: str | None = None) -> LabelTable:
    """Read a table. Raises UserError with the line.

    `classes`: names by id, if labels may be ids; default: the names in the table, sorted, or its 0/1 columns.
    `group_by`: the column with the source of a video."""
    header, lines = _read_lines(path)
    _check_header(path, header, group_by)
    # columns without a name are ignored: spreadsheets add them
    other_columns = [name for name in header if name and name not in (*COLUMNS, group_by)]
    if "labels" in header:
        cells = {line: _split_labels(row["labels"]) for line, row in lines}
        names = _class_names_of_labels(path, cells, classes)
        labels = {line: tuple(names[label] for label in line_labels) for line, line_labels in cells.items()}
        class_names = tuple(classes) if classes else tuple(sorted(set(names.values()), key=str.casefold))
        if other_columns:
            print(f"{path}: columns that are not used: {', '.join(map(repr, other_columns))}", flush=True)
    else:
        if classes and set(classes) != set(other_columns):
            differences = list_some(sorted(set(classes) ^ set(other_columns)))
            raise UserError(f"its columns differ from --classes ({differences})", "correct one of them", path=path)
        labels = {line: _parse_one_hot(f"{path}:{line}", row, other_columns) for line, row in lines}
        class_names = tuple(classes or other_columns)
    if not class_names:
        raise UserError("has no label", "add a column labels, or a column of 0/1 per class", path=path)
    rows = [_parse_row(f"{path}:{line}", line, row, labels[line], group_by) for line, row in lines]
    _check_splits(path, rows)
    return LabelTable(path, class_names, rows)


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the header, with COLUMNS in lower case, and the lines with their numbers and a cell for each column."""
    header, rows = csv.read_table(path, delimiters=",;\t")
    if not rows:
        raise UserError("has no video", "add a header such as video,labels and a line per video", path=path)
    columns = {name: name.casefold() if name.casefold() in COLUMNS else name for name in header}
    empty = dict.fromkeys((*columns.values(), *COLUMNS), "")
    lines = [(line, empty | {columns[name]: cell for name, cell in row.items()}) for line, row in rows]
    return [columns[name] for name in header], lines


def _check_header(path: Path, header: list[str], group_by: str | None) -> None:
    names = ", ".join(header)
    if "video" not in header:
        raise UserError(f"has no column video (its columns: {names})", "name the column of file names video", path=path)
    if duplicates := sorted({name for name in header if name and header.count(name) > 1}):
        raise UserError(f"column {duplicates[0]} is duplicated", "remove or rename one", path=path)
    if group_by and (group_by not in header or group_by in COLUMNS):
        raise UserError(f"has no column {group_by}", f"choose --group-by from {names}", path=path)
    if ("start" in header) != ("end" in header):
        raise UserError("has only one of the columns start and end", "give both, in seconds", path=path)


def _split_labels(cell: str) -> list[str]:
    return list(dict.fromkeys(" ".join(word.split()) for word in cell.split(LABEL_SEPARATOR) if word.strip()))


def _class_names_of_labels(path: Path, cells: Mapping[int, list[str]], classes: Sequence[str] | None) -> dict[str, str]:
    """Return the class name by label as written. Numbers are ids if `classes` gives their names."""
    names: dict[str, str] = {}
    spellings: dict[str, str] = {name.casefold(): name for name in classes or ()}
    for line, label in ((line, label) for line, labels in cells.items() for label in labels):
        if not classes or label.casefold() in spellings:
            names[label] = spellings.setdefault(label.casefold(), label)  # the first spelling is used
        elif label.isdecimal() and int(label) < len(classes):
            names[label] = classes[int(label)]
        else:
            problem = f"label {label!r} is none of --classes and none of the ids 0..{len(classes) - 1}"
            raise UserError(problem, "correct the line, or --classes", path=f"{path}:{line}")
    if not classes and names and all(name.isdecimal() for name in names):
        print(f"{path}: the labels are numbers, which become class names; name them with --classes", flush=True)
    return names


def _parse_one_hot(location: str, row: Mapping[str, str], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that hold a 1."""
    for name in columns:
        if row[name] not in ("0", "1", "0.0", "1.0", ""):
            hint = "without a column labels, each other column is a class"
            raise UserError(f"{name} is {row[name]!r}, not 0 or 1", hint, path=location)
    return tuple(name for name in columns if row[name] in ("1", "1.0"))


def _parse_row(
    location: str, line: int, row: Mapping[str, str], labels: tuple[str, ...], group_by: str | None
) -> LabelRow:
    if not row["video"]:
        raise UserError("names no video", "complete or remove the line", path=location)
    start, end = (_parse_seconds(location, row[column]) for column in ("start", "end"))
    if end is not None and end <= (start or 0.0):
        problem = f"the clip ends at {end:g} s, before or at its start, {start or 0:g} s"
        raise UserError(problem, "correct the line", path=location)
    split = row["split"].casefold()
    split = SPLIT_SYNONYMS.get(split, split)
    if split not in ("", *SPLITS):
        raise UserError(f"split {split!r} is none of {', '.join(SPLITS)}", "correct the line", path=location)
    return LabelRow(line, row["video"], labels, start, end, split, row[group_by] if group_by else "")


def _parse_seconds(location: str, cell: str) -> float | None:
    """Return seconds, from a number (also with a decimal comma) or 1:02:03.5; None for an empty cell."""
    if not cell:
        return None
    try:
        parts = [float(part.replace(",", ".")) for part in cell.split(":")]
        seconds = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UserError(f"{cell!r} is not a time", "write seconds, such as 12.5, or 1:02:03", path=location)
    return seconds


def _check_splits(path: Path, rows: Sequence[LabelRow]) -> None:
    """Raise UserError if only some rows have a split, a video has two, or train or val is missing."""
    splits = {row.split for row in rows}
    first_rows: dict[tuple[str, float | None, float | None], LabelRow] = {}
    for row in rows:
        if len(splits) > 1 and not row.split:
            raise UserError("has no split", "give a split in all lines or in none", path=f"{path}:{row.line}")
        first = first_rows.setdefault((row.video, row.start, row.end), row)
        if first.split != row.split:
            problem = f"{row.video} is in {row.split}, but in line {first.line} in {first.split}"
            raise UserError(problem, "a video belongs in one split", path=f"{path}:{row.line}")
    if splits != {""} and not {"train", "val"} <= splits:
        raise UserError(f"has only the split {', '.join(sorted(splits))}", "add train and val", path=path)
