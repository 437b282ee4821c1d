"""What is seen in one video, when: bouts of actions, and the files that tell of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.timeline.bouts import Bout, edges, find_bouts
from vimoclip.timeline.writing import check_place, made_with, write

__all__ = ["Bout", "Timeline", "check_place", "edges", "find_bouts", "made_with", "write"]


@dataclass(frozen=True)
class Timeline:
    """W windows over a video, scored for C classes in 0..1, and what follows of them. Times are seconds since the
    video's first frame. `starts`, `stops` (W,), in order; `scores` (W, C); `whole` (C,): scores of the video as a
    whole, computed as `whole_by` says in words; `thresholds` (C,); `made_with`: plain Python, for the JSON file."""

    video: Path
    seconds: float
    fps: float
    frames: int
    classes: tuple[str, ...]
    starts: np.ndarray
    stops: np.ndarray
    scores: np.ndarray
    whole: np.ndarray
    whole_by: str
    thresholds: np.ndarray
    bouts: tuple[Bout, ...]
    made_with: Mapping[str, Any] = field(default_factory=dict)
