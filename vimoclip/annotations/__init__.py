"""Classes, labels and splits of a data set. No other package reads or writes `dataset/annotations/`."""

from vimoclip.annotations.annotation_files import (
    PARTITIONS,
    SEGMENTS,
    SELECTION_FILE,
    SPLITS,
    Annotations,
    check_selection,
    find_dataset_name,
    format_selection,
    load,
    read_classes,
    read_partitions,
    read_selection,
    read_split,
    write,
)
from vimoclip.annotations.clip_metadata import (
    ANIMALS_FILE,
    SOURCES_FILE,
    VideoAnimals,
    format_animals,
    format_sources,
    read_animals,
    read_sources,
)
from vimoclip.annotations.parsing import check_video_id, stem

__all__ = [
    "ANIMALS_FILE",
    "PARTITIONS",
    "SEGMENTS",
    "SELECTION_FILE",
    "SOURCES_FILE",
    "SPLITS",
    "Annotations",
    "VideoAnimals",
    "check_selection",
    "check_video_id",
    "find_dataset_name",
    "format_animals",
    "format_selection",
    "format_sources",
    "load",
    "read_animals",
    "read_classes",
    "read_partitions",
    "read_selection",
    "read_sources",
    "read_split",
    "stem",
    "write",
]
