"""What all flow methods share."""

import numpy as np

METHODS_WITHOUT_WEIGHTS = ("dis", "farneback", "frame_diff")


def pad_to_min_side(frames: np.ndarray, side: int) -> np.ndarray:
    """At least `side` pixels high and wide, by repeating the last row and column."""
    height, width = frames.shape[1:3]
    extra = max(0, side - height), max(0, side - width)
    return np.pad(frames, ((0, 0), (0, extra[0]), (0, extra[1]), (0, 0)), mode="edge") if any(extra) else frames
