"""Measured films, kept in `films.jsonl` so that an interrupted import need not decode them again."""

import json
import time
from pathlib import Path
from typing import Any

from vimoclip.extraction.manifest import stat_source
from vimoclip.io import atomic
from vimoclip.video import (
    MeasuredVideo,
    ReadSummary,
    frame_indices_from_comment,
    frames_to_comment,
    measure,
    timestamps_from_comment,
)

FILMS_FILE = "films.jsonl"
UNSAVED_SECONDS = 10.0  # of decoding, after which the file is written
# in a line: its times go on where the clock of a recording restarts. Films of earlier lines are measured again
CLOCK = {"clock": "continuous"}


class FilmMeasurer:
    """Measures films and keeps the results in `films.jsonl` of the data set, a line per film.

    A line holds for the path, size and modification time in it."""

    def __init__(self, dataset_dir: Path):
        self.path = dataset_dir / FILMS_FILE
        self._lines = _read_lines(self.path)
        self._unsaved_seconds = 0.0

    def measure(self, film: Path) -> MeasuredVideo:
        """Return what decodes of a film. Raises VideoError."""
        name, state = str(film.absolute()), stat_source(film)
        if (line := self._lines.get(name, {})).items() >= (state | CLOCK).items() and (measured := _parse_line(line)):
            return measured
        started = time.monotonic()
        measured = measure(film)
        self._lines[name] = {"film": name, **state, **CLOCK, **_format_line(measured)}
        self._unsaved_seconds += time.monotonic() - started
        if self._unsaved_seconds >= UNSAVED_SECONDS:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_text(self.path, "".join(json.dumps(line) + "\n" for line in self._lines.values()))
            self._unsaved_seconds = 0.0
        return measured


def _read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """Return the lines by film, without those that can't be read: their films are measured again."""
    lines: dict[str, dict[str, Any]] = {}
    for text in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
            lines[line["film"]] = line
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return lines


def _format_line(measured: MeasuredVideo) -> dict[str, Any]:
    summary = ReadSummary(measured.indices, measured.times, len(measured.indices), measured.fps)
    numbers = {"fps": measured.fps, "header_seconds": measured.header_seconds, "problem": measured.problem}
    return numbers | frames_to_comment(summary)


def _parse_line(line: dict[str, Any]) -> MeasuredVideo | None:
    """Return the measured film of a line; None if the line is damaged."""
    try:
        fps, header_seconds = float(line["fps"]), float(line["header_seconds"])
        indices, times = frame_indices_from_comment(line), timestamps_from_comment(line, fps)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if indices is None or times is None:
        return None
    return MeasuredVideo(indices, times, fps, header_seconds, str(line.get("problem", "")))


def print_warnings(film: Path, measured: MeasuredVideo, coded_seconds: float | None = None) -> None:
    """Print what of a film can't be decoded, and its lengths, if they differ by more than two frames.

    `coded_seconds`: the length in BORIS, if known."""
    if measured.problem:
        print(f"warning: {film}: {measured.problem}", flush=True)
    decoded = measured.decoded_seconds
    lengths = {"in its header": measured.header_seconds, "in BORIS": coded_seconds}
    known = {place: length for place, length in lengths.items() if length}
    if not all(measured.agrees(decoded, length) for length in known.values()):
        texts = [f"{length:.6g} s {place}" for place, length in known.items()]
        print(
            f"warning: {film} has different lengths: {', '.join(texts)}, and {decoded:.6g} s decode. No clip goes "
            "beyond these; check that it is the film that was coded",
            flush=True,
        )
