"""Metadata of each video: its animals (`animals.csv`) and its source (`sources.csv`).

A source is a recording, an animal or a site. All videos of one source belong in one split."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vimoclip.annotations.annotation_files import quote
from vimoclip.errors import UserError
from vimoclip.io import csv

ANIMALS_FILE = "animals.csv"
SOURCES_FILE = "sources.csv"
_ANIMALS_HEADER = ("video_id", "animals", "animal_classes")
_SOURCES_HEADER = ("video_id", "source")


class VideoAnimals(NamedTuple):
    """Animals in a video. `classes`: mammal, bird, ..., each once; an animal of unknown class adds none."""

    animals: tuple[str, ...]
    classes: tuple[str, ...]


def read_animals(annotations_dir: Path) -> dict[str, VideoAnimals]:
    """Return the animals by video id; {} if the folder has no `animals.csv`. Raises UserError."""
    path = annotations_dir / ANIMALS_FILE
    if not path.exists():
        return {}
    animals_by_video: dict[str, VideoAnimals] = {}
    for line, row in csv.read_table(path)[1]:
        if not set(_ANIMALS_HEADER) <= row.keys():
            problem = f"needs the header {','.join(_ANIMALS_HEADER)} and three values per line"
            raise UserError(problem, "correct the header or the line", path=f"{path}:{line}")
        video, *cells = (row[column] for column in _ANIMALS_HEADER)
        if video in animals_by_video:
            raise UserError(f"{quote(video)} is duplicated", "give each video one line", path=f"{path}:{line}")
        animals, classes = (tuple(name for name in cell.split(";") if name) for cell in cells)
        animals_by_video[video] = VideoAnimals(animals, classes)
    return animals_by_video


def format_animals(animals_by_video: Mapping[str, VideoAnimals]) -> str:
    """Return the content of `animals.csv`. Names are not empty and contain no semicolon or control character."""
    rows = ((video, ";".join(animals), ";".join(classes)) for video, (animals, classes) in animals_by_video.items())
    return csv.format_csv([_ANIMALS_HEADER, *rows])


def read_sources(annotations_dir: Path) -> dict[str, str]:
    """Return the source by video id; {} if the folder has no `sources.csv`. Raises UserError."""
    path = annotations_dir / SOURCES_FILE
    if not path.exists():
        return {}
    sources: dict[str, str] = {}
    for line, row in csv.read_table(path)[1]:
        video, source = (row.get(column) for column in _SOURCES_HEADER)
        if not video or not source:
            problem = f"needs the header {','.join(_SOURCES_HEADER)} and both values per line"
            raise UserError(problem, "correct the header or the line", path=f"{path}:{line}")
        if video in sources:
            raise UserError(f"{quote(video)} is duplicated", "give each video one line", path=f"{path}:{line}")
        sources[video] = source
    return sources


def format_sources(sources: Mapping[str, str]) -> str:
    """Return the content of `sources.csv`."""
    return csv.format_csv([_SOURCES_HEADER, *sources.items()])
