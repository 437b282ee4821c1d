"""What a coding says of each film, and two codings of the same films side by side.

Times are in seconds since the film's first frame."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vimoclip.timeline.bouts import Span


@dataclass(frozen=True)
class FilmCoding:
    """One film as one person or model coded it.

    `written_path`: as the file names it; `seconds`: its length, None if the file does not say; `bouts`: of each action,
    sorted, without overlap; `points`: times of point events of each action, sorted; `unknown`: spans of an action in
    which it may or may not occur, as a start or stop is missing; `covered`: the spans that were coded, sorted, the last
    of which may end at infinity; `video`: the file, if it is known where it is; `observations`: ids in BORIS."""

    written_path: str
    seconds: float | None
    bouts: Mapping[str, tuple[Span, ...]]
    points: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    unknown: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    covered: tuple[Span, ...] = ((0.0, float("inf")),)
    video: Path | None = None
    observations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Coding:
    """All films of one file or folder.

    `actions`: those that it lists, or, unless `is_complete`, those that occur: a table lists no other. `notes`:
    sentences about what was left out or can't be known; `observations`: the regular expression that chose those of
    BORIS, if there was one."""

    path: Path
    actions: tuple[str, ...]
    is_complete: bool
    films: tuple[FilmCoding, ...]
    notes: tuple[str, ...] = ()
    observations: str | None = None


@dataclass(frozen=True)
class FilmPair:
    """One film in two codings. `name`: as tables and pages name it; `seconds`: its length, as far as both know it;
    `compared`: the spans that are compared, sorted: those that both codings cover, within `seconds` and --span."""

    name: str
    coded: FilmCoding
    predicted: FilmCoding
    seconds: float
    compared: tuple[Span, ...]


@dataclass(frozen=True)
class CodingPair:
    """Two codings whose films and actions are matched. `actions`: the compared ones, in order; `films`: those of
    which any time is compared; `notes`: what differs between the codings, or was left out, as sentences."""

    actions: tuple[str, ...]
    films: tuple[FilmPair, ...]
    notes: tuple[str, ...]
