"""Write the files of a timeline: JSON, two CSV tables, an HTML page and a table for BORIS; read the JSON again."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import boris
from vimoclip.errors import UserError
from vimoclip.io import atomic, csv, yaml_json
from vimoclip.timeline import page
from vimoclip.timeline.bouts import DECIMALS

if TYPE_CHECKING:
    from vimoclip.timeline import Timeline

SCHEMA = 1
LONGEST_SUFFIX = "_windows.csv"  # of the files of a video
CSV_COLUMNS = ("video", "action", "start", "stop", "score")


def write_timeline(folder: Path, timeline: "Timeline") -> list[Path]:
    """Write all files of a video, `<name>.json` last: if it exists, the others are complete. Raises OSError."""
    stem, video = timeline.name or timeline.video.stem, timeline.video
    json_path = folder / f"{stem}.json"
    json_path.unlink(missing_ok=True)  # of an earlier result
    written = [
        csv.write_csv(folder / f"{stem}.csv", CSV_COLUMNS, _bout_rows(timeline)),
        csv.write_csv(folder / f"{stem}{LONGEST_SUFFIX}", CSV_COLUMNS, _window_rows(timeline)),
        atomic.write_text(folder / f"{stem}.html", page.render_timeline(timeline, folder)),
        boris.export_bouts(folder / f"{stem}.boris.tsv", video, timeline.fps, timeline.seconds, timeline.bouts),
    ]
    return [*written, atomic.write_text(json_path, _format_json(timeline))]


def check_output_name(folder: Path, stem: str) -> None:
    """Raise UserError if the file of the table of bouts exists and is something else."""
    path = folder / f"{stem}.csv"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            is_own = file.readline().strip() in (",".join(CSV_COLUMNS), "")
    except OSError:
        return
    if not is_own:
        raise UserError("exists and is not a table of bouts", "use another folder with -o, or rename it", path=path)


def read_provenance(path: Path) -> dict[str, Any] | None:
    """Return the provenance that a `<stem>.json` records; None if the file is missing. Raises UserError."""
    if not path.exists():
        return None
    hint = "remove it, or use another folder with -o"
    document = yaml_json.read_json(path, hint)
    if document.get("schema") != SCHEMA or not isinstance(document.get("made_with"), dict):
        raise UserError("is not a timeline of this version", hint, path=path)
    return document["made_with"]


def _bout_rows(timeline: "Timeline") -> Iterator[tuple[str, ...]]:
    for bout in timeline.bouts:
        yield timeline.video.name, bout.action, *map(_format_number, bout[1:])


def _window_rows(timeline: "Timeline") -> Iterator[tuple[str, ...]]:
    for start, stop, row in zip(timeline.starts, timeline.stops, timeline.scores.tolist(), strict=True):
        span = _format_number(start), _format_number(stop)
        for action, score in zip(timeline.classes, row, strict=True):
            yield timeline.video.name, action, *span, _format_number(score)


def _format_number(number: float) -> str:
    """Format seconds or a score; NaN is an empty field."""
    return f"{number:.{DECIMALS}f}".rstrip("0").rstrip(".") if math.isfinite(number) else ""


def _format_json(timeline: "Timeline") -> str:
    """Format with one line for each member and one for the scores of each window."""
    members = {
        "schema": SCHEMA,
        "video": timeline.video.name,
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
    }
    lines = [f"{_to_json(key)}: {_to_json(value)}" for key, value in members.items()]
    rows = ",\n".join(map(_to_json, timeline.scores.round(DECIMALS).tolist()))
    return "{\n" + ",\n".join([*lines, f'"scores": [\n{rows}\n]']) + "\n}\n"


def _to_json(value: Any) -> str:
    return json.dumps(_non_finite_to_none(value), ensure_ascii=False, allow_nan=False)


def _non_finite_to_none(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _non_finite_to_none(item) for key, item in value.items()}
    return [_non_finite_to_none(item) for item in value] if isinstance(value, list | tuple) else value
