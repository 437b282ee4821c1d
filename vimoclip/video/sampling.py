"""Which frames are kept, and how a flow video says which were."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ROUNDED_BY = 0.005  # s
MOST_FRAMES = 2**24  # that a comment is believed to speak of: a week at 25 frames/s


@dataclass(frozen=True)
class Sampling:
    """Which frames are kept: every `stride`-th, of these at most `fps` a second, of these the first `max_frames`."""

    stride: int = 1
    fps: float | None = None
    max_frames: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def picker(self) -> Callable[[int, float], bool]:
        """A function of (index, timestamp in seconds), called once a frame in order: is it kept?"""
        state: dict[str, Any] = {"kept": 0, "start": None, "next": 0}

        def keep(index: int, timestamp: float) -> bool:
            if state["start"] is None:
                state["start"] = timestamp
            if index % self.stride or (self.max_frames is not None and state["kept"] >= self.max_frames):
                return False
            if self.fps is not None:
                # containers round timestamps (Matroska to 1 ms, GIF to 10): a frame a little early is still in time
                tick = (timestamp - state["start"]) * self.fps + min(0.25, ROUNDED_BY * self.fps)
                if tick < state["next"]:
                    return False
                state["next"] = int(tick) + 1
            state["kept"] += 1
            return True

        return keep


EVERY_FRAME = Sampling()


@dataclass(frozen=True)
class End:
    """What is known when the last frame has been decoded. `frame_indices`, `timestamps` (s): of the kept frames.

    `original_frames` could be decoded of the `expected`; `problem` says why not all, `note` what else is unusual."""

    frame_indices: np.ndarray
    timestamps: np.ndarray
    original_frames: int
    fps: float
    expected: int = 0
    problem: str = ""
    note: str = ""


def describe_frames(end: End) -> dict[str, Any]:
    """What a flow video's comment says of the kept frames that it was made from: number, indices, timestamps.

    Short where frames are evenly spaced, in full where not."""
    indices = end.frame_indices
    step = int(indices[1] - indices[0]) if len(indices) > 1 else 1
    regular = bool((np.diff(indices) == step).all())
    nominal = end.timestamps[0] + (indices - indices[0]) / end.fps
    on_time = bool((np.abs(end.timestamps - nominal) < 0.0005).all())
    return {
        "kept_frames": len(indices),
        "frame_indices": {"start": int(indices[0]), "step": step} if regular else indices.tolist(),
        "timestamps": {"start": float(end.timestamps[0])} if on_time else end.timestamps.round(6).tolist(),
    }


def described_indices(comment: dict[str, Any] | None) -> np.ndarray | None:
    """The indices (T,) of the kept frames behind a flow video, from its comment; None where it says nothing of use."""
    if not comment or "kept_frames" not in comment or "frame_indices" not in comment:
        return None
    said = comment["frame_indices"]
    try:
        count = int(comment["kept_frames"])
        if not 0 < count <= MOST_FRAMES:
            return None
        if isinstance(said, dict):
            return np.arange(count, dtype=np.int64) * int(said["step"]) + int(said["start"])
        indices = np.array(said, np.int64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return indices if indices.shape == (count,) else None


def described_timestamps(comment: dict[str, Any] | None, fps: float) -> np.ndarray | None:
    """The timestamps (T,) in seconds of the kept frames behind a flow video; None where its comment says nothing."""
    indices = described_indices(comment)
    if indices is None or not comment or "timestamps" not in comment:
        return None
    said = comment["timestamps"]
    try:
        if isinstance(said, dict):
            return float(said["start"]) + (indices - indices[0]) / fps
        timestamps = np.array(said, np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return timestamps if timestamps.shape == indices.shape else None
