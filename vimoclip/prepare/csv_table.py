"""Importer of a CSV table of videos and labels, as written by hand or with a spreadsheet."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from vimoclip import cli, video
from vimoclip.annotations import SPLITS, Annotations
from vimoclip.errors import UserError, VideoError
from vimoclip.io import csv
from vimoclip.io.names import fold_name, list_some, normalize_name
from vimoclip.io.numbers import (
    TIME_HINT,
    Timecode,
    check_decimal_mark,
    parse_number,
    parse_seconds,
    parse_timecode,
)
from vimoclip.prepare import grouped_split
from vimoclip.prepare.film_lengths import FilmMeasurer, print_warnings
from vimoclip.prepare.find_media import Film, locate_films
from vimoclip.prepare.place_videos import SourceClip, add_clip, dataset_folders
from vimoclip.prepare.write_dataset import PreparedDataset, warn_about_duplicates, write_dataset

COLUMNS = ("video", "labels", "start", "end", "split")
SPLIT_SYNONYMS = {"validation": "val", "valid": "val", "training": "train", "testing": "test"}
LABEL_SEPARATOR = ";"  # in a cell


class LabelRow(NamedTuple):
    """A line of the table.

    `labels`: class names. `start`, `end`: seconds, or timecodes, which depend on the film's frame rate, or None.
    `split`, `source`: may be empty."""

    line: int
    video: str
    labels: tuple[str, ...]
    start: float | Timecode | None
    end: float | Timecode | None
    split: str
    source: str


@dataclass
class LabelTable:
    """A parsed table. `classes`: in the order of their ids. `rows`: in the file's order."""

    path: Path
    classes: tuple[str, ...]
    rows: list[LabelRow]

    def clip_span(self, row: LabelRow, rate: Fraction) -> tuple[float | None, float | None]:
        """Return (start, end) of a row in seconds, in a film of `rate` frames/s. Raises UserError."""
        try:
            start, end = (time.at_rate(rate) if isinstance(time, Timecode) else time for time in (row.start, row.end))
        except ValueError as error:
            raise UserError(str(error), "correct the line", path=f"{self.path}:{row.line}") from None
        return start, end


def prepare(
    table: LabelTable,
    videos_dir: Path,
    dataset_dir: Path,
    name: str,
    rule: grouped_split.SplitRule,
    seed: int,
    geometry: video.Geometry = video.AS_DISPLAYED,
) -> cli.RunReport:
    """Write the data set and return the report of the run. Raises UserError.

    `rule`: of the splits, if the table has none. Clips of one file are of one source, unless the table
    names another. `geometry`: of clips that are trimmed out of the videos."""
    skipped: dict[str, str] = {}
    clips, rows = _find_clips(table, videos_dir, dataset_dir, skipped)
    if not clips:
        entry, reason = next(iter(skipped.items()))
        raise UserError(f"none of its videos can be used ({entry}: {reason})", "see --videos-dir", path=table.path)
    warn_about_duplicates(clip.source for clip in clips.values() if clip.start is None)
    sources = _group_sources(clips, rows)
    ids = {name: class_id for class_id, name in enumerate(table.classes)}
    labels = {key: tuple(sorted({ids[label] for row in rows[key] for label in row.labels})) for key in clips}
    if any(row.split for row in table.rows):
        if isinstance(rule, grouped_split.Fold):
            hint = "remove the column to divide the clips into folds, or omit --fold"
            raise UserError("has a column split, which defines the splits", hint, path=table.path)
        splits: dict[str, dict[str, tuple[int, ...]]] = {}
        for split in SPLITS:
            if keys := sorted(key for key in clips if rows[key][0].split == split):
                splits[split] = {key: labels[key] for key in keys}
        data = Annotations(table.classes, splits)
    else:
        data = grouped_split.split_videos(table.classes, labels, rule, seed, sources)
    coded = Counter(label for row in table.rows for label in row.labels)
    used = {label for key in clips for row in rows[key] for label in row.labels}
    lost = {label: f"none of its {count} lines can be used" for label, count in coded.items() if label not in used}
    prepared = PreparedDataset(data, clips, table.path, skipped, lost, sources, geometry=geometry)
    return write_dataset(dataset_dir, name, prepared, seed)


def _find_clips(
    table: LabelTable, videos_dir: Path, dataset_dir: Path, skipped: dict[str, str]
) -> tuple[dict[str, SourceClip], dict[str, list[LabelRow]]]:
    """Return the clip and the table's rows by video id. Films of which parts are used are decoded to measure them."""
    rows_by_video: dict[str, list[LabelRow]] = defaultdict(list)
    for row in table.rows:
        rows_by_video[row.video].append(row)
    folders = list(dict.fromkeys((videos_dir, table.path.parent)))
    films, not_found = locate_films(rows_by_video, folders, table.path, dataset_folders(dataset_dir))
    _check_one_split(table, films)
    clips: dict[str, SourceClip] = {}
    rows_by_clip: dict[str, list[LabelRow]] = defaultdict(list)
    measurer = FilmMeasurer(dataset_dir)
    for name, rows in cli.progress(rows_by_video.items(), len(rows_by_video), "film", "measuring"):
        lines_remark = f", in {len(rows)} lines" if len(rows) > 1 else ""
        if name in not_found:
            skipped[name] = f"{not_found[name]}{lines_remark}"
            continue
        try:
            clip_by_line = _clips_of_film(table, films[name], rows, measurer, skipped)
        except VideoError as error:
            skipped[name] = f"{error}{lines_remark}"
            continue
        for row in rows:
            if (clip := clip_by_line.get(row.line)) and add_clip(clips, clip.name, clip, skipped):
                rows_by_clip[clip.name].append(row)
    return {key: clips[key] for key in sorted(clips, key=lambda key: rows_by_clip[key][0].line)}, rows_by_clip


def _check_one_split(table: LabelTable, films: Mapping[str, Film]) -> None:
    """Raise UserError if two rows of one clip, whose film may be written in two ways, have different splits."""
    first_rows: dict[tuple[Film | str, float | Timecode, float | Timecode | None], LabelRow] = {}
    for row in table.rows:
        first = first_rows.setdefault((films.get(row.video, row.video), row.start or 0.0, row.end), row)
        if first.split != row.split:
            problem = f"{row.video} is in {row.split}, but in line {first.line} in {first.split}"
            raise UserError(problem, "a video belongs in one split", path=f"{table.path}:{row.line}")


def _clips_of_film(
    table: LabelTable, film: Film, rows: Sequence[LabelRow], measurer: FilmMeasurer, skipped: dict[str, str]
) -> dict[int, SourceClip]:
    """Return the clip by line of the table. Raises VideoError if the film can't be read.

    Lines whose clip would be shorter than asked for are added to `skipped`. Only films that are cut are measured."""
    rate = video.probe(film.file).fps
    spans = {row.line: table.clip_span(row, rate) for row in rows}
    whole = SourceClip(film.file, film_name=film.name)
    clips = {line: whole for line, span in spans.items() if span == (None, None)}
    if len(clips) == len(spans):
        return clips
    measured = measurer.measure(film.file)
    print_warnings(film.file, measured)
    for line, (start, end) in spans.items():
        if line in clips:
            continue
        start, end = start or 0.0, measured.seconds if end is None else end
        if reason := measured.incomplete_reason(start, end):
            skipped[f"{rows[0].video} in line {line}"] = reason
        else:
            clips[line] = SourceClip(film.file, start, end, film.name)
    return clips


def _group_sources(clips: Mapping[str, SourceClip], rows: Mapping[str, list[LabelRow]]) -> dict[str, str]:
    """Return the source by video id: the table's sources, joined with the file if it has several clips."""
    clips_per_file = Counter(clip.source for clip in clips.values())
    names: dict[str, list[str]] = {}
    for key, clip in clips.items():
        names[key] = sorted({row.source for row in rows[key] if row.source})
        if clips_per_file[clip.source] > 1:
            names[key].append(f"film {clip.film_name}{clip.source.suffix}")
    return grouped_split.join_sources(names)


def read_table(
    path: Path, classes: Sequence[str] | None = None, group_by: str | None = None, timecodes: bool = False
) -> LabelTable:
    """Read a table. Raises UserError with the line.

    `classes`: names by id, if labels may be ids; default: the names in the table, sorted, or its 0/1 columns.
    `group_by`: the column with the source of a video. `timecodes`: start and end are timecodes, not seconds."""
    header, lines = _read_lines(path, group_by)
    _check_header(path, header, group_by)
    _check_classes(classes or ())
    # columns without a name are ignored: spreadsheets add them
    other_columns = [name for name in header if name and name not in (*COLUMNS, group_by)]
    if "labels" in header:
        cells = {line: _split_labels(row["labels"]) for line, row in lines}
        names = _class_names_of_labels(path, cells, classes)
        class_names = tuple(classes) if classes else tuple(sorted(set(names.values()), key=str.casefold))
        if other_columns:
            print(f"{path}: columns that are not used: {', '.join(map(repr, other_columns))}", flush=True)
    else:
        names = _class_names_of_columns(path, other_columns, classes)
        cells = {line: _parse_one_hot(f"{path}:{line}", row, other_columns) for line, row in lines}
        class_names = tuple(classes or dict.fromkeys(names.values()))
    if not class_names:
        raise UserError("has no label", "add a column labels, or a column of 0/1 per class", path=path)
    _warn_about_spellings(path, names)
    check_decimal_mark(path, ((line, row[column]) for line, row in lines for column in ("start", "end")))
    rows = []
    for line, row in lines:
        labels = tuple(dict.fromkeys(names[cell] for cell in cells[line]))
        rows.append(_parse_row(f"{path}:{line}", line, row, labels, group_by, timecodes))
    _check_splits(path, rows)
    return LabelTable(path, class_names, rows)


def _read_lines(path: Path, group_by: str | None) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the header, with COLUMNS and `group_by` as they are spelled here, and the lines with their numbers.

    A line has a cell for each column."""
    header, rows = csv.read_table(path, delimiters=",;\t")
    if not rows:
        raise UserError("has no video", "add a header such as video,labels and a line per video", path=path)
    known = {fold_name(name): name for name in ([group_by] if group_by and group_by not in header else [])}
    known |= {name: name for name in COLUMNS}
    columns = {name: known.get(fold_name(name), name) for name in header}
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


def _check_classes(classes: Sequence[str]) -> None:
    folded = list(map(fold_name, classes))
    if same := [name for name in classes if folded.count(fold_name(name)) > 1]:
        raise UserError(f"--classes: {' and '.join(map(repr, same))} are one name", "name each class once")


def _split_labels(cell: str) -> list[str]:
    return [word.strip() for word in normalize_name(cell).split(LABEL_SEPARATOR) if word.strip()]


def _class_names_of_labels(path: Path, cells: Mapping[int, list[str]], classes: Sequence[str] | None) -> dict[str, str]:
    """Return the class name by label as written. Numbers are ids if `classes` gives their names."""
    names: dict[str, str] = {}
    spellings: dict[str, str] = {fold_name(name): name for name in classes or ()}
    for line, label in ((line, label) for line, labels in cells.items() for label in labels):
        if not classes or fold_name(label) in spellings:
            names[label] = spellings.setdefault(fold_name(label), " ".join(label.split()))  # the first spelling is used
        elif label.isdecimal() and int(label) < len(classes):
            names[label] = classes[int(label)]
        else:
            problem = f"label {label!r} is none of --classes and none of the ids 0..{len(classes) - 1}"
            raise UserError(problem, "correct the line, or --classes", path=f"{path}:{line}")
    if not classes and names and all(name.isdecimal() for name in names):
        print(f"{path}: the labels are numbers, which become class names; name them with --classes", flush=True)
    return names


def _class_names_of_columns(path: Path, columns: Sequence[str], classes: Sequence[str] | None) -> dict[str, str]:
    """Return the class name by column."""
    spellings: dict[str, str] = {fold_name(name): name for name in classes or ()}
    if classes and (differences := spellings.keys() ^ set(map(fold_name, columns))):
        problem = f"its columns differ from --classes ({list_some(sorted(differences))})"
        raise UserError(problem, "correct one of them", path=path)
    return {column: spellings.setdefault(fold_name(column), normalize_name(column)) for column in columns}


def _warn_about_spellings(path: Path, names: Mapping[str, str]) -> None:
    """Print a warning if several spellings are one class. `names`: class by spelling."""
    spellings: dict[str, dict[str, None]] = defaultdict(dict)
    for written, name in names.items():
        if fold_name(written) == fold_name(name):  # it is no id
            spellings[name] |= dict.fromkeys((name, normalize_name(written)))
    same = [" = ".join(map(repr, group)) for group in spellings.values() if len(group) > 1]
    if same:
        print(f"warning: {path}: names that differ only in case or spaces are one class: {list_some(same)}", flush=True)


def _parse_one_hot(location: str, row: Mapping[str, str], columns: Iterable[str]) -> list[str]:
    """Return the columns that hold a 1."""
    positive = []
    for name in columns:
        try:
            value = parse_number(row[name] or 0)
        except ValueError:
            value = None
        if value not in (0, 1):
            hint = "without a column labels, each other column is a class"
            raise UserError(f"{name} is {row[name]!r}, not 0 or 1", hint, path=location)
        positive += [name] if value else []
    return positive


def _parse_row(
    location: str, line: int, row: Mapping[str, str], labels: tuple[str, ...], group_by: str | None, timecodes: bool
) -> LabelRow:
    if not row["video"]:
        raise UserError("names no video", "complete or remove the line", path=location)
    start, end = _parse_times(location, row, timecodes)
    split = row["split"].casefold()
    split = SPLIT_SYNONYMS.get(split, split)
    if split not in ("", *SPLITS):
        raise UserError(f"split {split!r} is none of {', '.join(SPLITS)}", "correct the line", path=location)
    return LabelRow(line, row["video"], labels, start, end, split, normalize_name(row[group_by]) if group_by else "")


def _parse_times(
    location: str, row: Mapping[str, str], timecodes: bool
) -> tuple[float | Timecode | None, float | Timecode | None]:
    """Return start and end of a line; None for an empty cell."""
    hint = f"{TIME_HINT}; timecodes hh:mm:ss:ff need --time-format timecode"
    if timecodes:
        hint = "write all times as hh:mm:ss:ff, or omit --time-format timecode"
    times: list[float | Timecode | None] = []
    for cell in (row["start"], row["end"]):
        try:
            time = parse_timecode(cell) if timecodes else parse_seconds(cell)
        except ValueError as error:
            raise UserError(str(error), hint, path=location) from None
        if isinstance(time, float) and time < 0:
            raise UserError(f"{cell!r} is a time before the video", hint, path=location)
        times.append(time)
    start, end = times
    first = start if start is not None else Timecode(0, 0, False) if timecodes else 0.0
    if end is not None and end <= first:  # type: ignore[operator] # both are of one type
        stop, begin = (f"{time:g} s" if isinstance(time, float) else str(time) for time in (end, first))
        raise UserError(f"the clip ends at {stop}, before or at its start, {begin}", "correct the line", path=location)
    return start, end


def _check_splits(path: Path, rows: Sequence[LabelRow]) -> None:
    """Raise UserError if only some rows have a split, or train or val is missing."""
    splits = {row.split for row in rows}
    for row in rows:
        if len(splits) > 1 and not row.split:
            raise UserError("has no split", "give a split in all lines or in none", path=f"{path}:{row.line}")
    if splits != {""} and not {"train", "val"} <= splits:
        raise UserError(f"has only the split {', '.join(sorted(splits))}", "add train and val", path=path)
