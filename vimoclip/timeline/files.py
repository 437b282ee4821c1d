"""The files of a timeline: JSON, two CSVs, the page, and what BORIS imports. The only reader of the JSON."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import boris
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.timeline import page
from vimoclip.timeline.bouts import DECIMALS

if TYPE_CHECKING:
    from vimoclip.timeline import Timeline

SCHEMA = 1
CSV_COLUMNS = ("video", "action", "start", "stop", "score")
ROWS_PER_WRITE = 4096  # windows of a long video are millions of rows


def write_timeline(folder: Path, made: "Timeline") -> list[Path]:
    """All files of a video, `<stem>.json` last: where that is, the others are. Raises OSError."""
    place = folder / made.video.stem
    last = place.with_name(f"{place.name}.json")
    last.unlink(missing_ok=True)  # of what is replaced now
    written = [
        _write_csv(place.with_name(f"{place.name}.csv"), _bout_rows(made)),
        _write_csv(place.with_name(f"{place.name}_windows.csv"), _window_rows(made)),
        atomic.write_text(place.with_name(f"{place.name}.html"), page.render_timeline(made, folder)),
        boris.export_bouts(place.with_name(f"{place.name}.boris.tsv"), made.video, made.fps, made.seconds, made.bouts),
    ]
    return [*written, atomic.write_text(last, _format_json(made))]


def check_output_name(folder: Path, stem: str) -> None:
    """Raise UserError where a table of somebody else's has the name that the bouts would get."""
    path = folder / f"{stem}.csv"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            own = file.readline().strip() in (",".join(CSV_COLUMNS), "")
    except OSError:
        return
    if not own:
        raise UserError(
            "is there already, and no table of bouts", "name another folder with -o, or rename it", path=path
        )


def read_provenance(path: Path) -> dict[str, Any] | None:
    """What a `<stem>.json` says that it was made with; None where there is no such file. Raises UserError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema"] == SCHEMA:
            return dict(found["made_with"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError("is no timeline that this version has written", "remove it, or give another folder", path=path)


def _bout_rows(timeline: "Timeline") -> Iterator[tuple[str, ...]]:
    for bout in timeline.bouts:
        yield timeline.video.name, bout.action, *map(_format_number, bout[1:])


def _window_rows(timeline: "Timeline") -> Iterator[tuple[str, ...]]:
    for start, stop, row in zip(timeline.starts, timeline.stops, timeline.scores.tolist(), strict=True):
        when = _format_number(start), _format_number(stop)
        for action, score in zip(timeline.classes, row, strict=True):
            yield timeline.video.name, action, *when, _format_number(score)


def _format_number(number: float) -> str:
    """Seconds or a score; empty where it is none."""
    return f"{number:.{DECIMALS}f}".rstrip("0").rstrip(".") if math.isfinite(number) else ""


def _write_csv(path: Path, rows: Iterable[tuple[str, ...]]) -> Path:
    with atomic.open_atomic(path) as file:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for number, row in enumerate(rows):
            writer.writerow(row)
            if number % ROWS_PER_WRITE == 0:
                file.write(text.getvalue().encode("utf-8"))
                text.seek(0)
                text.truncate()
        file.write(text.getvalue().encode("utf-8"))
    return path


def _format_json(timeline: "Timeline") -> str:
    """A line a member, and a line a window."""
    members = {
        "schema": SCHEMA,
        "video": timeline.video.name,
        "seconds": timeline.seconds,
        "fps": timeline.fps,
        "frames": timeline.frames,
        "made_with": timeline.made_with,
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
    """The same, with None for numbers that JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _non_finite_to_none(item) for key, item in value.items()}
    return [_non_finite_to_none(item) for item in value] if isinstance(value, list | tuple) else value
