"""Small codings for the tests, written by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vimoclip.agreement.coding import Coding, CodingPair, FilmCoding, FilmPair
from vimoclip.timeline.bouts import Span

Bouts = Mapping[str, Sequence[Span]]


def make_film(bouts: Bouts, name: str = "a.mp4", seconds: float | None = 10.0, **changed: Any) -> FilmCoding:
    """`bouts`: of each action; `changed`: other members of FilmCoding."""
    return FilmCoding(name, seconds, {action: tuple(spans) for action, spans in bouts.items()}, **changed)


def make_coding(*films: FilmCoding, actions: Sequence[str] = (), is_complete: bool = True, **changed: Any) -> Coding:
    """`actions`: those of the ethogram beside those that occur; `changed`: other members of Coding."""
    occurring = (action for film in films for action in (*film.bouts, *film.points, *film.unknown))
    listed = dict.fromkeys([*occurring, *actions])
    return Coding(changed.pop("path", Path("coding.boris")), tuple(listed), is_complete, films, **changed)


def make_film_pair(
    coded: Bouts, predicted: Bouts, name: str = "a.mp4", seconds: float = 10.0, compared: Sequence[Span] = ()
) -> FilmPair:
    """The whole film is compared, unless `compared` says which spans are."""
    films = make_film(coded, name, seconds), make_film(predicted, name, seconds)
    return FilmPair(name, *films, seconds, tuple(compared) or ((0.0, seconds),))


def make_pair(*films: FilmPair) -> CodingPair:
    """A pair of codings of the films, of all actions that have a bout."""
    actions = dict.fromkeys(action for film in films for side in (film.coded, film.predicted) for action in side.bouts)
    return CodingPair(tuple(actions), films, ())
