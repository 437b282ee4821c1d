"""Write the files of a timeline: JSON, two CSV tables, an HTML page and a table for BORIS; read the JSON again."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vimoclip import boris
from vimoclip.errors import UserError
from vimoclip.io import atomic, csv, yaml_json
from vimoclip.io.names import relative_path
from vimoclip.io.numbers import DECIMALS, format_number
from vimoclip.io.written_files import WrittenFiles
from vimoclip.timeline import page
from vimoclip.timeline.bouts import CSV_COLUMNS, Bout, StreamDisagreement, observed_spans, window_edges
from vimoclip.timeline.frames import FRAME_COLUMNS

if TYPE_CHECKING:
    from vimoclip.timeline import Timeline

SCHEMA = 1
WINDOWS_SUFFIX, FRAMES_SUFFIX = "_windows", "_frames"  # of the names of a video's tables
SD_COLUMN = "score_sd"  # of the table of windows, and member of the JSON, if the scores are of several runs
LONGEST_ENDING = f"{WINDOWS_SUFFIX}.csv"  # of the files of a video
WRITE_AGAIN = "remove it, or use another folder with -o"


def write_timeline(
    folder: Path, timeline: "Timeline", written: WrittenFiles | None = None, index: str = ""
) -> list[Path]:
    """Write all files of a video, `<name>.json` last: if it exists, the others are complete. Raises OSError.

    `written`: record of the folder, by which files that somebody has edited are kept. The table of frames of an
    earlier result is removed. `index`: see `render_timeline`."""
    stem, video, record = timeline.stem, timeline.video, written or WrittenFiles(folder)
    json_path = folder / f"{stem}.json"
    json_path.unlink(missing_ok=True)  # of an earlier result
    record.remove(frames_file(folder, stem))
    window_columns = CSV_COLUMNS if timeline.score_sd is None else (*CSV_COLUMNS, SD_COLUMN)
    files: dict[str, Callable[[Path], Path]] = {
        f"{stem}.csv": lambda path: csv.write_csv(path, CSV_COLUMNS, _bout_rows(timeline)),
        f"{stem}{WINDOWS_SUFFIX}.csv": lambda path: csv.write_csv(path, window_columns, _window_rows(timeline)),
        f"{stem}.html": lambda path: atomic.write_text(path, page.render_timeline(timeline, folder, index)),
        f"{stem}.boris.tsv": lambda path: boris.export_bouts(
            path, video, timeline.fps, timeline.seconds, timeline.bouts
        ),
    }
    paths = [record.replace(folder / name, write) for name, write in files.items()]
    return [*paths, write_result(folder, timeline)]


def write_result(folder: Path, timeline: "Timeline") -> Path:
    """Write the `<stem>.json` of a video. Raises OSError."""
    return atomic.write_text(folder / f"{timeline.stem}.json", _format_json(timeline, folder))


def frames_file(folder: Path, stem: str) -> Path:
    """Return the path of a video's table of frames."""
    return folder / f"{stem}{FRAMES_SUFFIX}.csv"


def check_output_name(folder: Path, stem: str) -> None:
    """Raise UserError if a file exists that has the name of one of a video's tables, and is something else."""
    columns = {
        folder / f"{stem}.csv": CSV_COLUMNS,
        folder / f"{stem}{WINDOWS_SUFFIX}.csv": CSV_COLUMNS,
        frames_file(folder, stem): FRAME_COLUMNS,
    }
    for path, expected in columns.items():
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                line = file.readline().strip()
        except OSError:
            continue
        if line and tuple(line.split(",")[: len(expected)]) != expected:
            raise UserError(
                "exists and is not a table of predict.py", "use another folder with -o, or rename it", path=path
            )


class TimelineHeader(NamedTuple):
    """What a `<stem>.json` records about its making: settings and versions; path of the video, None if not recorded."""

    provenance: dict[str, Any]
    video: Path | None


def read_header(path: Path) -> TimelineHeader | None:
    """Return the header of a `<stem>.json`; None if the file is missing. Raises UserError."""
    if not path.exists():
        return None
    document = _read_document(path)
    recorded = document.get("path")
    return TimelineHeader(document["made_with"], path.parent / recorded if recorded else None)


def _read_document(path: Path) -> dict[str, Any]:
    """Return the members of a `<stem>.json`. Raises UserError if it is something else."""
    document = yaml_json.read_json(path, WRITE_AGAIN)
    if document.get("schema") != SCHEMA or not isinstance(document.get("made_with"), dict):
        raise UserError("is not a timeline of this version", WRITE_AGAIN, path=path)
    return document


def read_timeline(path: Path) -> "Timeline":
    """Return the timeline of a `<stem>.json`. Raises UserError.

    Files of versions that recorded no observed spans give those with scores."""
    document = _read_document(path)
    try:
        return _parse_document(document, path)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        problem = f"is a damaged timeline ({type(error).__name__}: {error})"
        raise UserError(problem, WRITE_AGAIN, path=path) from None


def _parse_document(document: Mapping[str, Any], path: Path) -> "Timeline":
    """Return the timeline of a document. Raises the errors that `read_timeline` catches."""
    from vimoclip.timeline import Timeline

    classes, seconds = tuple(document["classes"]), float(document["seconds"])
    starts, stops = np.array(document["starts"], float), np.array(document["stops"], float)
    scores = np.array(document["scores"], float).reshape(len(starts), len(classes))  # null becomes NaN
    observed = document.get("observed")
    if observed is None:
        observed = observed_spans(np.empty(0), window_edges(starts, stops, seconds), scores, seconds)
    numbers = Bout._fields[1:]
    bouts = tuple(Bout(bout["action"], *(float(bout[key]) for key in numbers)) for bout in document["bouts"])
    if unknown := {bout.action for bout in bouts}.difference(classes):
        raise ValueError(f"a bout of {min(unknown)!r}, which is no class")
    return Timeline(
        video=path.parent / document.get("path", document["video"]),
        seconds=seconds,
        fps=float(document["fps"]),
        frames=int(document["frames"]),
        classes=classes,
        starts=starts,
        stops=stops,
        scores=scores,
        whole=np.array([document["whole"][name] for name in classes], float),
        whole_by=document["whole_by"],
        thresholds=np.array([document["thresholds"][name] for name in classes], float),
        bouts=bouts,
        provenance=document["made_with"],
        name=path.stem,
        observed=tuple((float(start), float(stop)) for start, stop in observed),
        positives={name: int(count) for name, count in dict(document.get("positives") or {}).items()},
        score_sd=np.array(document[SD_COLUMN], float).reshape(scores.shape) if SD_COLUMN in document else None,
        disagreements=tuple(item and StreamDisagreement(*item) for item in document.get("disagreements", ())),
    )


def _bout_rows(timeline: "Timeline") -> Iterator[tuple[str, ...]]:
    for bout in timeline.bouts:
        yield timeline.video.name, bout.action, *map(format_number, bout[1:])


def _window_rows(timeline: "Timeline") -> Iterator[tuple[str, ...]]:
    columns = [timeline.scores] if timeline.score_sd is None else [timeline.scores, timeline.score_sd]
    for start, stop, row in zip(timeline.starts, timeline.stops, np.dstack(columns).tolist(), strict=True):
        span = format_number(start), format_number(stop)
        for action, numbers in zip(timeline.classes, row, strict=True):
            yield timeline.video.name, action, *span, *map(format_number, numbers)


def _format_json(timeline: "Timeline", folder: Path) -> str:
    """Format with one line for each member and one for the scores of each window."""
    members: dict[str, Any] = {
        "schema": SCHEMA,
        "video": timeline.video.name,
        "path": relative_path(timeline.video, folder),
        "seconds": timeline.seconds,
        "fps": timeline.fps,
        "frames": timeline.frames,
        "made_with": timeline.provenance,
        "classes": timeline.classes,
        "whole": dict(zip(timeline.classes, timeline.whole.tolist(), strict=True)),
        "whole_by": timeline.whole_by,
        "thresholds": dict(zip(timeline.classes, timeline.thresholds.tolist(), strict=True)),
        "bouts": [bout._asdict() for bout in timeline.bouts],
        "starts": timeline.starts.tolist(),
        "stops": timeline.stops.tolist(),
        "observed": timeline.observed,
        "disagreements": timeline.disagreements,
    }
    if timeline.positives:
        members["positives"] = timeline.positives
    tables = {"scores": timeline.scores}
    if timeline.score_sd is not None:
        tables[SD_COLUMN] = timeline.score_sd
    lines = [f"{_to_json(key)}: {_to_json(value)}" for key, value in members.items()]
    lines += [f"{_to_json(key)}: {_format_rows(table)}" for key, table in tables.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    return text.encode("utf-8", "backslashreplace").decode()  # a folder's name that is not UTF-8, as JSON escapes it


def _format_rows(table: np.ndarray) -> str:
    rows = ",\n".join(map(_to_json, table.round(DECIMALS).tolist()))
    return f"[\n{rows}\n]"


def _to_json(value: Any) -> str:
    return json.dumps(_non_finite_to_none(value), ensure_ascii=False, allow_nan=False)


def _non_finite_to_none(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _non_finite_to_none(item) for key, item in value.items()}
    return [_non_finite_to_none(item) for item in value] if isinstance(value, list | tuple) else value
