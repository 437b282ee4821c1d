"""Classes, labels and splits of a data set: the only reader and writer of `dataset/annotations/`."""

from vimoclip.annotations.animals import ANIMALS, Animals, animals_text, read_animals
from vimoclip.annotations.annotation_files import (
    PARTITIONS,
    SEGMENTS,
    SELECTION,
    SPLITS,
    Annotations,
    check_selected,
    load,
    name_in,
    read_classes,
    read_partitions,
    read_selection,
    read_split,
    selection_text,
    write,
)
from vimoclip.annotations.sources import SOURCES, read_sources, sources_text
from vimoclip.annotations.text import check_video_id, quoted, read_rows, stem

__all__ = [
    "ANIMALS",
    "PARTITIONS",
    "SEGMENTS",
    "SELECTION",
    "SOURCES",
    "SPLITS",
    "Animals",
    "Annotations",
    "animals_text",
    "check_selected",
    "check_video_id",
    "load",
    "name_in",
    "quoted",
    "read_animals",
    "read_classes",
    "read_partitions",
    "read_rows",
    "read_selection",
    "read_sources",
    "read_split",
    "selection_text",
    "sources_text",
    "stem",
    "write",
]
