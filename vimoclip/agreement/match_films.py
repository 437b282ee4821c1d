"""Match the films of two codings by the paths that these name, which may come from different computers."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath

from vimoclip.agreement.coding import FilmCoding
from vimoclip.errors import UserError
from vimoclip.io.names import common_tail, fold_name, list_some, path_parts

Pair = tuple[FilmCoding, FilmCoding]
Sides = tuple[Sequence[FilmCoding], Sequence[FilmCoding]]  # films of both codings


def match_films(films: Sides, labels: tuple[str, str], notes: list[str]) -> dict[str, Pair]:
    """Return the films of both codings, by a unique name. Raises UserError.

    Films are matched by file name; several of one name by the longest common end of their paths; then those whose names
    differ only in the extension, if each coding has one."""
    matched = [pair for same in _grouped(films, _file_name) for pair in _match_same_name(same, labels)]
    others = _without(films, matched)
    by_stem = [
        (first[0], second[0])
        for first, second in _grouped(others, lambda film: PurePath(_file_name(film)).stem)
        if len(first) == len(second) == 1 and fold_name(_file_name(first[0])) != fold_name(_file_name(second[0]))
    ]
    if by_stem:
        texts = (f"{_file_name(first)} and {_file_name(second)}" for first, second in by_stem)
        notes.append(f"Films whose names differ only in the extension, and which count as one: {list_some(texts)}.")
    matched += by_stem
    others = _without(films, matched)
    if not matched:
        lists = (f"{label} has {_list_films(side)}" for label, side in zip(labels, others, strict=True))
        raise UserError(f"the codings have no film in common: {', '.join(lists)}", "films are matched by file name")
    for label, side in zip(labels, others, strict=True):
        if side:
            count = f"{len(side)} of {len(matched) + len(side)}"
            notes.append(f"Films left out, as only {label} has them ({count}): {_list_films(side)}.")
    return dict(zip(_unique_names([coded for coded, _ in matched]), matched, strict=True))


def _file_name(film: FilmCoding) -> str:
    return "".join(path_parts(film.written_path)[-1:])


def _list_films(films: Iterable[FilmCoding]) -> str:
    return list_some(map(_file_name, films)) or "none"


def _grouped(films: Sides, key: Callable[[FilmCoding], str]) -> Iterator[Sides]:
    """Yield the films of both codings that have one key, but for case and spaces."""
    groups: dict[str, tuple[list[FilmCoding], list[FilmCoding]]] = {}
    for number, side in enumerate(films):
        for film in side:
            groups.setdefault(fold_name(key(film)), ([], []))[number].append(film)
    return (group for group in groups.values() if all(group))


def _without(films: Sides, matched: Iterable[Pair]) -> Sides:
    used = {id(film) for pair in matched for film in pair}
    first, second = ([film for film in side if id(film) not in used] for side in films)
    return first, second


def _match_same_name(films: Sides, labels: tuple[str, str]) -> Iterator[Pair]:
    """Yield pairs of films of one file name. Raises UserError if it is not clear which belong together.

    If there are several, paths must have a folder in common, or one be the end of the other."""
    paths = [[tuple(map(fold_name, path_parts(film.written_path))) for film in side] for side in films]
    tails = {
        (i, j): common_tail(first, second) for i, first in enumerate(paths[0]) for j, second in enumerate(paths[1])
    }
    if len(tails) > 1:
        tails = {
            (i, j): tail
            for (i, j), tail in tails.items()
            if tail > 1 or tail == min(len(paths[0][i]), len(paths[1][j]))
        }
    if not tails:
        raise _ambiguity(films, labels)
    while tails:
        longest = max(tails.values())
        best = [pair for pair, tail in tails.items() if tail == longest]
        rows, columns = {i for i, _ in best}, {j for _, j in best}
        if not len(rows) == len(columns) == len(best):
            raise _ambiguity(films, labels)
        yield from ((films[0][i], films[1][j]) for i, j in best)
        tails = {(i, j): tail for (i, j), tail in tails.items() if i not in rows and j not in columns}


def _ambiguity(films: Sides, labels: tuple[str, str]) -> UserError:
    texts = (
        f"{label} has {list_some(film.written_path for film in side)}"
        for label, side in zip(labels, films, strict=True)
    )
    problem = f"it is not clear which films of one name belong together: {', '.join(texts)}"
    return UserError(problem, "name the folder of each film in both codings, or choose with --observations")


def _unique_names(films: Sequence[FilmCoding]) -> list[str]:
    """Return the file names; of films that share one, with as many folders as tell them apart."""
    same = defaultdict[str, list[tuple[str, ...]]](list)
    for film in films:
        same[fold_name(_file_name(film))].append(tuple(map(fold_name, path_parts(film.written_path))))
    depths = {name: _distinct_depth(paths) for name, paths in same.items()}
    return ["/".join(path_parts(film.written_path)[-depths[fold_name(_file_name(film))] :]) for film in films]


def _distinct_depth(paths: Sequence[tuple[str, ...]]) -> int:
    """Return how many of the last names of paths tell them apart."""
    deepest = max(map(len, paths))
    return next((d for d in range(1, deepest) if len({path[-d:] for path in paths}) == len(paths)), deepest)
