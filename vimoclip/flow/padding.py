"""Padding of frames to the smallest size that a flow method accepts."""

import numpy as np


def pad_to_min_side(frames: np.ndarray, side: int) -> np.ndarray:
    """Pad (n, H, W, C) frames to at least `side` pixels in both directions, by repeating the last row and column."""
    height, width = frames.shape[1:3]
    extra = max(0, side - height), max(0, side - width)
    return np.pad(frames, ((0, 0), (0, extra[0]), (0, extra[1]), (0, 0)), mode="edge") if any(extra) else frames
