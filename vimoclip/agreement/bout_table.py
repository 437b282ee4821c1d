"""Codings from tables of bouts, `video,action,start,stop,score` as predict.py writes them, and from its folders."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePath
from typing import NamedTuple

from vimoclip.agreement.coding import Coding, FilmCoding
from vimoclip.agreement.spans import join_spans
from vimoclip.errors import UserError
from vimoclip.io import csv
from vimoclip.io.names import fold_name, list_some, path_parts, portable_stem
from vimoclip.io.numbers import TIME_HINT, check_decimal_mark, format_number, parse_seconds
from vimoclip.timeline import FRAMES_SUFFIX, WINDOWS_SUFFIX, Span, Timeline, read_timeline
from vimoclip.timeline.bouts import CSV_COLUMNS
from vimoclip.timeline.frames import FRAME_COLUMNS

CODING_HINT = (
    "name a project of BORIS (.boris), its aggregated events (CSV, TSV), the <stem>.csv of a video by predict.py, or "
    "the folder of its results"
)
REQUIRED_COLUMNS = CSV_COLUMNS[:-1]  # the score is not used
# of the tables that a page of predict.py saves; browsers add (1) if the name is taken
_SAVED_SUFFIX = re.compile(r"_adjusted_thresholds( ?\(\d+\))?$")


class _Row(NamedTuple):
    line: int
    video: str
    action: str
    start: float
    stop: float


_Video = tuple[list[_Row], Timeline | None]  # the bouts of a video, and the result beside the table if there is one


def read_bout_table(path: Path) -> Coding:
    """Read a table of one or several videos. Raises UserError with the line.

    The length, the classes and the observed spans of a video are those of the `<stem>.json` beside it, if there is one.
    Raises UserError for tables of windows or frames, and for damaged results."""
    rows = _read_rows(path)
    json_path = path.with_name(f"{_SAVED_SUFFIX.sub('', path.stem)}.json")
    if json_path.is_file():
        own = read_timeline(json_path)
        _check_video(path, rows, own)
        return _make_coding(path, [(rows, own)])
    by_video: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        by_video[row.video].append(row)
    if not by_video:
        hint = f"keep {json_path.name} beside it, or leave this video out"
        raise UserError("lists no bout, so it does not name its video", hint, path=path)
    return _make_coding(path, [(of_video, _find_result(path.parent, video)) for video, of_video in by_video.items()])


def read_results_folder(folder: Path) -> Coding:
    """Read the results of predict.py in a folder: each `<stem>.json` with its table. Raises UserError.

    Damaged results, and those without a table, are left out and named."""
    videos, damaged, without_table = list[_Video](), [], []
    for json_path in sorted(folder.glob("*.json")):
        table = json_path.with_suffix(".csv")
        has_table = table.is_file()
        try:
            result = read_timeline(json_path)
        except UserError:
            if has_table and _is_bout_table(table):  # other programs write JSON too
                damaged.append(json_path.name)
            continue
        if not has_table:
            without_table.append(json_path.name)
            continue
        rows = _read_rows(table)
        _check_video(table, rows, result)
        videos.append((rows, result))
    notes = []
    if damaged:
        notes.append(f"Results in {folder} left out, as they are damaged: {list_some(damaged)}.")
    if without_table:
        notes.append(f"Results in {folder} left out, as their tables are missing: {list_some(without_table)}.")
    if not videos:
        problem = "holds no result of predict.py that can be read: <stem>.json with <stem>.csv"
        raise UserError(f"{problem} ({' '.join(notes)})" if notes else problem, CODING_HINT, path=folder)
    return _make_coding(folder, videos, notes)


def _make_coding(path: Path, videos: Sequence[_Video], notes: Sequence[str] = ()) -> Coding:
    results = [result for _, result in videos if result]
    if len({frozenset(result.classes) for result in results}) > 1:
        problem = f"The results of {path} were made with different classes"
        notes = [*notes, f"{problem}; in a film whose model does not have an action, it counts as absent."]
    if changed := [result.video.name for rows, result in videos if result and _differ(rows, result)]:
        problem = (
            f"Tables of {path} whose bouts are not those of the model, as a person has changed them or the thresholds"
        )
        notes = [*notes, f"{problem}: {list_some(changed)}."]
    classes = (name for result in results for name in result.classes)
    actions = dict.fromkeys([*classes, *(row.action for rows, _ in videos for row in rows)])
    films = tuple(_film(path.parent, rows, result) for rows, result in videos)
    return Coding(path, tuple(actions), len(results) == len(videos), films, tuple(notes))


def _differ(rows: Iterable[_Row], result: Timeline) -> bool:
    """Return whether a table has other bouts than the result beside it."""
    written, given = (
        {(bout.action, format_number(bout.start), format_number(bout.stop)) for bout in bouts}
        for bouts in (rows, result.bouts)
    )
    return written != given


def _film(folder: Path, rows: Sequence[_Row], result: Timeline | None) -> FilmCoding:
    if result is None:
        written = rows[0].video
        return FilmCoding(written, None, _bouts(rows), video=find_video(folder, written))
    video = result.video if result.video.is_file() else None
    return FilmCoding(str(result.video), result.seconds, _bouts(rows), covered=result.observed, video=video)


def find_video(folder: Path, written: str) -> Path | None:
    """Return the file of a path that a coding in `folder` names: at this path, or beside the coding."""
    spellings = (written, written.replace("\\", "/"), *path_parts(written)[-1:])
    return next((folder / text for text in spellings if (folder / text).is_file()), None)


def _bouts(rows: Iterable[_Row]) -> dict[str, tuple[Span, ...]]:
    spans: dict[str, list[Span]] = defaultdict(list)
    for row in rows:
        spans[row.action].append((row.start, row.stop))
    return {action: join_spans(of_action) for action, of_action in spans.items()}


def _find_result(folder: Path, video: str) -> Timeline | None:
    """Return the result of a video of a table that lists several, if there is one beside it."""
    name = "".join(path_parts(video)[-1:])
    json_path = folder / f"{portable_stem(PurePath(name).stem)}.json"
    result = read_timeline(json_path) if json_path.is_file() else None
    return result if result and fold_name(result.video.name) == fold_name(name) else None


def _check_video(path: Path, rows: Iterable[_Row], result: Timeline) -> None:
    """Raise UserError if a table has bouts of another video than the result beside it."""
    for row in rows:
        if fold_name("".join(path_parts(row.video)[-1:])) != fold_name(result.video.name):
            problem = f"names {row.video}, but {result.stem}.json beside it is of {result.video.name}"
            raise UserError(problem, "correct the column video, or move the table", path=f"{path}:{row.line}")


def _read_header(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    return csv.read_table(path, CODING_HINT, delimiters=",;\t")


def _is_bout_table(path: Path) -> bool:
    try:
        return set(REQUIRED_COLUMNS) <= set(_read_header(path)[0])
    except UserError:
        return False


def _read_rows(path: Path) -> list[_Row]:
    """Return the rows of a table of bouts. Raises UserError with the line."""
    header, lines = _read_header(path)
    if set(FRAME_COLUMNS) <= set(header):
        raise UserError("is a table of frames, not of bouts", _bouts_hint(path, FRAMES_SUFFIX), path=path)
    if missing := [name for name in REQUIRED_COLUMNS if name not in header]:
        raise UserError(f"is not a coding; it has no column {missing[0]}", CODING_HINT, path=path)
    is_video_name = path.with_suffix(".json").is_file()  # of a video whose name ends like that of a table of windows
    if path.stem.endswith(WINDOWS_SUFFIX) and not is_video_name:
        raise UserError("is a table of windows, not of bouts", _bouts_hint(path, WINDOWS_SUFFIX), path=path)
    check_decimal_mark(path, ((number, row.get(key, "")) for number, row in lines for key in ("start", "stop")))
    rows = [_parse_row(f"{path}:{number}", number, row) for number, row in lines]
    _check_no_windows(path, rows)
    return rows


def _parse_row(location: str, number: int, row: Mapping[str, str]) -> _Row:
    for key in REQUIRED_COLUMNS:
        if not row.get(key):
            raise UserError(f"has no {key}", "complete or remove the line", path=location)
    try:
        start, stop = (parse_seconds(row[key]) for key in ("start", "stop"))
    except ValueError as error:
        raise UserError(str(error), TIME_HINT, path=location) from None
    if start is None or stop is None:
        raise UserError("has no start or no stop", "complete or remove the line", path=location)
    if not 0 <= start < stop:
        problem = f"{row['action']} from {start:g} s to {stop:g} s is no bout"
        raise UserError(problem, "write a start of 0 or more, and a later stop", path=location)
    return _Row(number, row["video"], row["action"], start, stop)


def _check_no_windows(path: Path, rows: Iterable[_Row]) -> None:
    """Raise UserError for a table of windows, which has the same columns.

    Windows of one action overlap. If they only touch, each action has all of them."""
    by_action: dict[str, dict[str, list[_Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_action[row.video][row.action].append(row)
    hint = _bouts_hint(path, WINDOWS_SUFFIX)
    for actions in by_action.values():
        all_touch = len(actions) > 1
        for action, of_action in actions.items():
            steps = list(pairwise(sorted(of_action, key=lambda row: row.start)))
            for first, second in steps:
                if second.start < first.stop:
                    problem = f"{action} overlaps with itself, in lines {first.line} and {second.line}"
                    raise UserError(f"{problem}; a table of windows is not one of bouts", hint, path=path)
            all_touch &= bool(steps) and all(first.stop == second.start for first, second in steps)
        if all_touch and len({frozenset((row.start, row.stop) for row in listed) for listed in actions.values()}) == 1:
            problem = "all its actions have the same spans, without gaps, so it is a table of windows, not of bouts"
            raise UserError(problem, hint, path=path)


def _bouts_hint(path: Path, suffix: str) -> str:
    """Return which table to name instead; `suffix`: of a table of something else."""
    name = f"{path.stem.removesuffix(suffix)}.csv" if path.stem.endswith(suffix) else "<stem>.csv"
    return f"name {name}, the table of bouts by predict.py; if it is one, join bouts of one action that overlap"
