"""Two codings side by side: the same films, the same actions, and the time that both cover."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import chain
from typing import Literal, TypeVar

from vimoclip.agreement.coding import Coding, CodingPair, FilmCoding, FilmPair
from vimoclip.agreement.match_films import Pair, match_films
from vimoclip.agreement.spans import intersect_spans, join_spans
from vimoclip.errors import UserError
from vimoclip.io.names import fold_name, list_some
from vimoclip.timeline import Span

Item = TypeVar("Item")
SpanName = Literal["film", "events"]
LENGTH_TOLERANCE = 0.5  # seconds: containers and programs round the length of a film
MAP_HINT = "if an action has another name in one of them, give --map NAME=OTHER"


def pair_codings(
    coded: Coding, predicted: Coding, renamed: Mapping[str, str], actions: Collection[str], span: SpanName
) -> CodingPair:
    """Match the films and actions of two codings. Raises UserError.

    `renamed`: an action of either coding -> the one that it counts as. `actions`: those to compare; without any, all.
    `span`: `film`, the time that both cover; `events`, its part from the first to the last event of either, as BORIS
    compares."""
    labels = _labels(coded, predicted)
    notes = list[str]()
    coded, predicted = _unify_names((coded, predicted), renamed, notes)
    compared = _choose_actions((coded, predicted), labels, actions, notes)
    matched = match_films((coded.films, predicted.films), labels, notes)
    notes += _unnamed_films_notes((coded, predicted), labels, len(matched))
    pairs = [_pair_films(name, films, compared, span) for name, films in matched.items()]
    notes += _length_notes(pairs)
    notes += _outside_notes(pairs)
    films = [pair for pair in pairs if pair.compared]
    if left_out := [pair.name for pair in pairs if not pair.compared]:
        reason = "no event of the compared actions, or no time that both codings cover"
        notes.append(f"Films left out, as they have {reason}: {list_some(left_out)}.")
    if not films:
        hint = "compare other actions" if span == "film" else "compare other actions, or --span film"
        raise UserError(f"{labels[0]} and {labels[1]} have no time to compare in any film", hint)
    events = [(_events(pair.coded), _events(pair.predicted)) for pair in films]
    if any(first for first, _ in events) and all(first == second for first, second in events):
        notes.append(
            f"{labels[0]} and {labels[1]} have the same bouts and points in all films; independent codings hardly ever "
            "do, so one may be a copy of the other."
        )
    return CodingPair(compared, tuple(films), tuple(notes))


def _labels(coded: Coding, predicted: Coding) -> tuple[str, str]:
    """Return how notes name the codings."""
    first, second = str(coded.path), str(predicted.path)
    return (first, second) if first != second else (f"{first} (CODED)", f"{second} (PREDICTED)")


# --- actions


def _unify_names(codings: tuple[Coding, Coding], renamed: Mapping[str, str], notes: list[str]) -> Iterator[Coding]:
    """Return the codings with the names of `renamed`, and one spelling of names that differ in case or spaces only."""
    known = dict.fromkeys(chain(codings[0].actions, codings[1].actions))
    _check_known("--map", renamed, known)
    targets = {fold_name(name): target for name, target in renamed.items()}
    names = {name: targets.get(fold_name(name), name) for name in known}
    spellings: dict[str, dict[str, None]] = {}
    for name in names.values():
        spellings.setdefault(fold_name(name), {})[name] = None
    if same := [" = ".join(map(repr, group)) for group in spellings.values() if len(group) > 1]:
        notes.append(f"Names of actions that differ only in case or spaces are one action: {list_some(same)}.")
    names = {name: next(iter(spellings[fold_name(target)])) for name, target in names.items()}
    return (_rename(coding, names) for coding in codings)


def _rename(coding: Coding, names: Mapping[str, str]) -> Coding:
    films = [
        replace(
            film,
            bouts=_group(film.bouts, names, join_spans),
            points=_group(film.points, names, lambda times: tuple(sorted(set(times)))),
            unknown=_group(film.unknown, names, join_spans),
        )
        for film in coding.films
    ]
    actions = tuple(dict.fromkeys(names[action] for action in coding.actions))
    return replace(coding, actions=actions, films=tuple(films))


def _group(
    items: Mapping[str, Sequence[Item]],
    names: Mapping[str, str],
    join: Callable[[Iterable[Item]], tuple[Item, ...]],
) -> dict[str, tuple[Item, ...]]:
    """Return what actions have that get one name, joined."""
    grouped: dict[str, list[Item]] = {}
    for action, of_action in items.items():
        grouped.setdefault(names[action], []).extend(of_action)
    return {action: join(of_action) for action, of_action in grouped.items()}


def _check_known(flag: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise UserError for a name that no coding has, with similar names."""
    folded = {fold_name(name): name for name in known}
    for name in given:
        if fold_name(name) not in folded:
            near = [folded[key] for key in get_close_matches(fold_name(name), folded)] or list(known)
            raise UserError(f"{flag}: neither coding has an action {name!r}", f"choose from {_quoted(near)}")


def _choose_actions(
    codings: tuple[Coding, Coding], labels: tuple[str, str], actions: Collection[str], notes: list[str]
) -> tuple[str, ...]:
    """Return the actions to compare: those of both codings, and those that an incomplete one may have had."""
    known = tuple(dict.fromkeys(chain(codings[0].actions, codings[1].actions)))
    _check_known("--actions", actions, known)
    asked = set(map(fold_name, actions))
    known = tuple(name for name in known if not asked or fold_name(name) in asked)
    left_out = set[str]()
    for coding, other, label, other_label in zip(codings, codings[::-1], labels, labels[::-1], strict=True):
        single = [name for name in known if name not in other.actions]
        if not single:
            continue
        if other.is_complete and asked:
            problem = f"{other_label} has no action {single[0]!r}, and lists all that it knows"
            raise UserError(problem, f"its actions are {_quoted(other.actions)}; {MAP_HINT}")
        left_out.update(single if other.is_complete else ())
        consequence = "are left out" if other.is_complete else f"count as absent in {other_label}"
        counts = _count_events(coding)
        texts = [f"{name} (events: {counts[name]})" for name in sorted(single, key=lambda name: -counts[name])]
        notes.append(f"Actions that only {label} has {consequence}: {list_some(texts)}.")
    only_coded, only_predicted = ([n for n in known if n not in coding.actions] for coding in codings[::-1])
    if similar := list(_similar(only_coded, only_predicted)):
        notes.append(f"Actions with similar names are compared as one if given: --map {' '.join(similar)}.")
    compared = tuple(name for name in known if name not in left_out)
    if not compared or not (asked or set(codings[0].actions) & set(codings[1].actions)):
        lists = (f"{label} has {_quoted(coding.actions)}" for label, coding in zip(labels, codings, strict=True))
        raise UserError(f"the codings have no action in common: {', '.join(lists)}", MAP_HINT)
    return compared


def _similar(names: Iterable[str], others: Iterable[str]) -> Iterator[str]:
    """Yield "NAME=OTHER" for actions of one coding only and similar ones of the other only."""
    folded = {fold_name(name): name for name in others}
    for name in names:
        for near in get_close_matches(fold_name(name), folded, n=1):
            yield f'"{name}={folded[near]}"'


def _count_events(coding: Coding) -> Counter[str]:
    """Return the number of bouts and points of each action."""
    counts = Counter[str]()
    for film in coding.films:
        for action, items in chain(film.bouts.items(), film.points.items()):
            counts[action] += len(items)
    return counts


def _quoted(names: Iterable[str]) -> str:
    return list_some(map(repr, names), 10) or "none"


def _unnamed_films_notes(codings: tuple[Coding, Coding], labels: tuple[str, str], num_matched: int) -> Iterator[str]:
    for coding, other, label in zip(codings, codings[::-1], labels, strict=True):
        if not coding.is_complete and len(other.films) > num_matched:
            yield (
                f"{label} is a table, which does not name films without an event. If it is of more films, wrong events "
                "of the other coding in them are not counted: give BORIS' project, or the folder of predict.py."
            )


# --- time


def _pair_films(name: str, films: Pair, actions: Collection[str], span: SpanName) -> FilmPair:
    """Return both codings of a film, of the compared actions only, and the time that is compared."""
    coded, predicted = (_restrict(film, actions) for film in films)
    lengths = [film.seconds for film in films if film.seconds is not None]
    spans = [event for film in (coded, predicted) for _, event in _events(film)]
    last = max((stop for _, stop in spans), default=0.0)
    seconds = min(lengths) if lengths else last
    within = (0.0, seconds) if span == "film" else (min((start for start, _ in spans), default=last), last)
    compared = intersect_spans(intersect_spans(coded.covered, predicted.covered), [within])
    return FilmPair(name, _clip_unknown(coded, compared), _clip_unknown(predicted, compared), seconds, compared)


def _restrict(film: FilmCoding, actions: Collection[str]) -> FilmCoding:
    bouts, unknown = (
        {action: spans for action, spans in of_film.items() if action in actions}
        for of_film in (film.bouts, film.unknown)
    )
    points = {action: times for action, times in film.points.items() if action in actions}
    return replace(film, bouts=bouts, points=points, unknown=unknown)


def _events(film: FilmCoding) -> list[tuple[str, Span]]:
    """Return (action, start and stop) of each bout and point, sorted."""
    bouts = [(action, span) for action, spans in film.bouts.items() for span in spans]
    points = [(action, (time, time)) for action, times in film.points.items() for time in times]
    return sorted(bouts + points)


def _clip_unknown(film: FilmCoding, compared: Sequence[Span]) -> FilmCoding:
    """Return a film whose unknown spans lie in the compared ones: an unpaired event has no end."""
    unknown = {action: intersect_spans(spans, compared) for action, spans in film.unknown.items()}
    return replace(film, unknown={action: spans for action, spans in unknown.items() if spans})


def _length_notes(pairs: Iterable[FilmPair]) -> Iterator[str]:
    differing, unknown = [], []
    for pair in pairs:
        lengths = pair.coded.seconds, pair.predicted.seconds
        if lengths[0] is None and lengths[1] is None:
            unknown.append(pair.name)
        elif lengths[0] is not None and lengths[1] is not None and abs(lengths[0] - lengths[1]) > LENGTH_TOLERANCE:
            differing.append(f"{pair.name} ({lengths[0]:.6g} s and {lengths[1]:.6g} s)")
    if differing:
        yield f"Films with another length in each coding, of which the smaller counts: {list_some(differing)}."
    if unknown:
        yield f"Films of unknown length, whose last event counts as the end: {list_some(unknown)}."


def _outside_notes(pairs: Iterable[FilmPair]) -> Iterator[str]:
    texts = []
    for pair in pairs:
        end = pair.seconds
        spans = [span for film in (pair.coded, pair.predicted) for _, span in _events(film)]
        num_outside = sum(
            start < -LENGTH_TOLERANCE or stop > end + LENGTH_TOLERANCE or stop < 0 or start > end
            for start, stop in spans
        )
        if num_outside:
            texts.append(f"{pair.name} ({num_outside} of {len(spans)} events, film of {end:.6g} s)")
    if texts:
        yield f"Films with events before their start or after their end: {list_some(texts)}."
