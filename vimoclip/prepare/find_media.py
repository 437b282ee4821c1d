"""Find the media files that a table or a BORIS file names, whose paths may come from another computer."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import NamedTuple

from vimoclip import video
from vimoclip.errors import UserError
from vimoclip.io.names import common_tail, list_some, normalize_name, path_parts, plain_path
from vimoclip.video.folder import list_files


class Film(NamedTuple):
    """A media file. `name`: its file name without extension; with folders if films of one import share it."""

    file: Path
    name: str

    @property
    def source(self) -> str:
        """The film as a source of clips, which stay in one split."""
        return self.name + self.file.suffix


def locate_films(
    written_paths: Collection[str], folders: Sequence[Path], origin: Path, exclude: Iterable[Path] = ()
) -> tuple[dict[str, Film], dict[str, str]]:
    """Return (film by path as written, reason by path that can't be used: not found, or found at several places).

    A file at the path itself, absolute or below one of `folders`, is taken. Otherwise that file below them, at any
    depth, whose path has the longest tail in common with the written path; on equal tails the first folder's. Names
    are compared as `normalize_name` returns them, and / and \\ are one; a file whose name differs in case is taken if
    no other matches as well. A name without the extension of a video stands for the video of that name. Paths may be
    in quotes, or file:// URLs. Folders of `exclude` are not searched. Raises UserError if different paths are found at
    one file, which are never merged unless one is a tail of the other, or if a path matches several files of which one
    is that of another path. `origin`: the file that names them."""
    search = _MediaSearch(written_paths, folders, exclude)
    files: dict[str, Path] = {}
    not_found: dict[str, str] = {}
    candidates: dict[str, list[Path]] = {}
    for written in written_paths:
        found = search.find(written)
        if len(found) != 1:
            candidates[written] = found
            not_found[written] = search.describe(written, found)
            continue
        try:
            found[0].name.encode()
            files[written] = found[0]
        except UnicodeEncodeError:
            not_found[written] = "its name is not UTF-8; rename the file, and where it is named"
    one_path = {os.path.realpath(file): file for file in reversed(files.values())}
    files = {written: one_path[os.path.realpath(file)] for written, file in files.items()}
    _check_distinct(files, origin)
    _check_candidates(files, candidates, origin)
    names = video.unique_stems(files.values())
    return {written: Film(file, names[file]) for written, file in files.items()}, not_found


def _check_distinct(files: Mapping[str, Path], origin: Path) -> None:
    """Raise UserError if a file is found for paths of which one is no tail of the other."""
    longest: dict[Path, str] = {}
    for written in sorted(files, key=lambda written: -len(path_parts(written))):
        other, file = longest.setdefault(files[written], written), files[written]
        parts, other_parts = _fold(path_parts(written)), _fold(path_parts(other))
        if common_tail(parts, other_parts) < len(parts):
            raise UserError(
                f"{other} and {written} are both found at {file} only",
                "put each film into folders named as in its path, below --videos-dir; if they are one film, write one "
                "path for it",
                path=origin,
            )


def _check_candidates(files: Mapping[str, Path], candidates: Mapping[str, list[Path]], origin: Path) -> None:
    """Raise UserError if a path may be the file of another path: without its labels, that film would lack some."""
    written_by_file = {os.path.realpath(file): written for written, file in files.items()}
    for written, paths in candidates.items():
        if same := [path for path in paths if os.path.realpath(path) in written_by_file]:
            other = written_by_file[os.path.realpath(same[0])]
            problem = f"{written} may be {list_some(paths)}, and {other} is found at {same[0]}"
            raise UserError(problem, "write the folder of each film, as in its path below --videos-dir", path=origin)


class _MediaSearch:
    """Search for media files below `folders`, which are listed once, and only if a file is not at its path."""

    def __init__(self, written_paths: Iterable[str], folders: Sequence[Path], exclude: Iterable[Path]):
        self.written_paths, self.folders, self.exclude = written_paths, folders, list(exclude)

    def find(self, written: str) -> list[Path]:
        """Return the file of a path; none if there is none, several if they match as well."""
        for folder in self.folders:
            for spelling in (written, written.replace("\\", "/"), plain_path(written)):
                if os.path.isfile(folder / spelling):
                    return [folder / spelling]
        parts = path_parts(written)
        ranked: dict[tuple[int, int, bool, int], list[Path]] = defaultdict(list)
        for number, file in self._files_by_name.get(_fold(parts[-1:]), []):
            is_stem = _has_extension(file.name) and not _has_extension(parts[-1])
            name = file.with_suffix("") if is_stem else file
            file_parts = path_parts(str(name.absolute()))
            is_whole = path_parts(str(name.relative_to(self.folders[number]))) == parts
            tail = common_tail(_fold(file_parts), _fold(parts)), common_tail(file_parts, parts)
            ranked[(*tail, is_whole, -number)].append(file)
        best = {os.path.realpath(file): file for file in ranked[max(ranked)]} if ranked else {}
        return list(best.values())

    def describe(self, written: str, found: Sequence[Path]) -> str:
        """Return why the files that are found for a path are not the one that it names."""
        if found:
            return f"{len(found)} files match its path equally: {list_some(found)}"
        name, places = "".join(path_parts(written)[-1:]) or "name", " or ".join(map(str, self.folders))
        return f"there is no such file, and no {name} in {places} or below"

    @cached_property
    def _files_by_name(self) -> dict[tuple[str, ...], list[tuple[int, Path]]]:
        """(number of the folder, file) by file name, for the written names only."""
        files: dict[tuple[str, ...], list[tuple[int, Path]]] = {
            _fold(path_parts(written)[-1:]): [] for written in self.written_paths
        }
        for number, folder in enumerate(self.folders):
            for file in list_files(folder, {}, self.exclude):
                name = normalize_name(file.name)
                stem = PurePath(name).stem
                spellings = (name, stem) if _has_extension(name) and not _has_extension(stem) else (name,)
                for spelling in spellings:
                    if (found := files.get(_fold((spelling,)))) is not None and file.is_file():
                        found.append((number, file))
        return files


def _has_extension(name: str) -> bool:
    """Return whether a file name has the extension of a video."""
    return PurePath(name).suffix.lower() in video.VIDEO_EXTENSIONS


def _fold(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(part.casefold() for part in parts)
