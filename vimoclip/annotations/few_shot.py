"""Few-shot training: a subset of the training clips with N clips of each class, the same for every model and seed."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

DRAW_SEED = 0  # fixed: runs of different training seeds are trained on the same clips
CURVES_FILE = "few_shot.csv"  # learning curves, which TFAM.table writes and the report reads
ALL_CLIPS = "all"  # in its column `shots`: all training clips
MORE_LABELS = "of more labels"  # in its column `protocol`: the student was trained on more labels than the run
UNLABELLED = -1  # clips without a label are drawn like a class


def draw_shots(labels: Mapping[str, Sequence[int]], shots: int) -> list[str]:
    """Return the clips to train on, sorted by name: of each class the first `shots` clips in a fixed random order.

    `labels`: training clip -> label ids. The order depends on the names of the clips only, so a draw of more shots
    contains the draw of fewer. A clip keeps all its labels: a class of clips with several labels may have more than
    `shots` clips. A class with fewer clips has all of them. Clips without a label are drawn like those of a class.
    Raises ValueError for less than one shot."""
    if shots < 1:
        raise ValueError(f"{shots} shots")
    clips_by_class: dict[int, list[str]] = defaultdict(list)
    for clip in sorted(labels, key=_rank):
        for label in set(labels[clip]) or {UNLABELLED}:
            clips_by_class[label].append(clip)
    return sorted({clip for clips in clips_by_class.values() for clip in clips[:shots]})


def _rank(clip: str) -> bytes:
    return hashlib.sha256(f"{DRAW_SEED} {clip}".encode()).digest()
