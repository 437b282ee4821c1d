"""A small timeline for the tests."""

from pathlib import Path
from typing import Any

import numpy as np

from vimoclip.timeline import Timeline, find_bouts


def make_timeline(
    video: Path, seconds: float = 4.0, classes: tuple[str, ...] = ("resting", "drinking"), **changed: Any
) -> Timeline:
    """Windows of 1 s every 0.5 s; all classes but the first occur in the third quarter of the video."""
    starts = np.arange(0, seconds - 0.75, 0.5)
    scores = np.full((len(starts), len(classes)), 0.125)
    scores[:, 1:] = np.where((starts + 0.5 > seconds / 2) & (starts + 0.5 <= seconds * 0.75), 0.75, 0.25)[:, None]
    thresholds = np.full(len(classes), 0.5)
    given: dict[str, Any] = {
        "frames": round(seconds * 25),
        "scores": scores,
        "thresholds": thresholds,
        "bouts": find_bouts(starts, starts + 1, scores, thresholds, classes, seconds),
        "whole": scores.mean(axis=0),
        "whole_by": f"mean over {len(starts)} windows",
        "provenance": {"tfam": "seed49", "none": None, "sizes": [1, 2.5]},
        **changed,
    }
    return Timeline(video, seconds, 25.0, classes=classes, starts=starts, stops=starts + 1, **given)
