"""Which animals are seen in a video, and of which class each is: `animals.csv`."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from vimoclip.annotations.text import quoted, read_rows
from vimoclip.errors import UserError
from vimoclip.io.names import has_control

ANIMALS = "animals.csv"
_HEADER = ("video_id", "animals", "animal_classes")


class Animals(NamedTuple):
    """What is seen in a video. `classes`: mammal, bird, ..., each once; an animal of unknown class adds none."""

    animals: tuple[str, ...]
    classes: tuple[str, ...]


def read_animals(folder: Path) -> dict[str, Animals]:
    """Video id -> its animals, of `animals.csv`; {} where there is none. Raises UserError."""
    path = folder / ANIMALS
    if not path.exists():
        return {}
    found: dict[str, Animals] = {}
    for line, row in enumerate(read_rows(path), start=2):
        video, *parts = (row.get(column) for column in _HEADER)
        if video is None or None in parts or None in row:
            raise UserError(f"{path}:{line}: needs the header {','.join(_HEADER)} and as many values a line")
        if video in found:
            raise UserError(f"{path}:{line}: {quoted(video)} stands twice", "give it one line")
        animals, classes = (tuple(word for word in (part or "").split(";") if word) for part in parts)
        found[video] = Animals(animals, classes)
    return found


def animals_text(animals: Mapping[str, Animals]) -> str:
    """What `animals.csv` holds. Raises ValueError where an animal or class holds what separates them."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_HEADER)
    for video, one in animals.items():
        for word in (*one.animals, *one.classes):
            if not word or ";" in word or has_control(word):
                raise ValueError(f"{quoted(word)} can't be the name of an animal or of a class of animals")
        writer.writerow([video, ";".join(one.animals), ";".join(one.classes)])
    return table.getvalue()
