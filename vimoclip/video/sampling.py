"""Sampling of frames, and how the comment of a flow video records the sampled frames."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

TIMESTAMP_ROUNDING = 0.005  # seconds
MAX_DESCRIBED_FRAMES = 2**24  # accepted from a comment: a week at 25 frames/s


class FilmPart(NamedTuple):
    """Where a clip that keeps its film's times lies in the film: its start, and its first frame, in seconds."""

    start: float
    first_frame: float


@dataclass(frozen=True)
class Sampling:
    """Every `stride`-th frame is kept, of these at most `fps` per second, of these the first `max_frames`.

    Raises ValueError for other numbers than positive ones, as a damaged file may record."""

    stride: int = 1
    fps: float | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            is_number = isinstance(value, int if name != "fps" else int | float)
            if not (is_number and 0 < value < math.inf) and (value is not None or name == "stride"):
                raise ValueError(f"{name} is {value!r}")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def kept_frames(self, frames: float, fps: float) -> float:
        """Return the approximate number of frames that are kept of a video with this frame rate."""
        kept = frames / self.stride
        if self.fps is not None:
            kept = min(kept, frames / fps * self.fps)
        return kept if self.max_frames is None else min(kept, self.max_frames)

    def frame_filter(self, part: FilmPart | None = None) -> Callable[[int, float], bool]:
        """Return a stateful predicate of (index, timestamp in seconds), to be called once per frame in order.

        `fps` counts from the first frame, or from the start of the film's `part` that the video is."""
        state: dict[str, Any] = {"kept": 0, "start": 0.0 if part else None, "next": -math.inf}
        # rounded, as is the time below: a clip that starts on the film's grid has the film's ticks, to the last bit
        phase = round(part.start * (self.fps or 0.0) % 1, 6) if part else 0.0

        def is_kept(index: int, timestamp: float) -> bool:
            if part:
                timestamp = round(timestamp + part.first_frame, 9)
            if state["start"] is None:
                state["start"] = timestamp
            if index % self.stride or (self.max_frames is not None and state["kept"] >= self.max_frames):
                return False
            if self.fps is not None:
                # tolerance: containers round timestamps (Matroska to 1 ms, GIF to 10 ms)
                tick = (timestamp - state["start"]) * self.fps + min(0.25, TIMESTAMP_ROUNDING * self.fps) - phase
                if tick < state["next"]:
                    return False
                state["next"] = int(tick) + 1
            state["kept"] += 1
            return True

        return is_kept


EVERY_FRAME = Sampling()


@dataclass(frozen=True)
class ReadSummary:
    """Summary of a video that was read to its end, see `VideoReader.summary`.

    `frame_indices` (T,) and `timestamps` (T,) in seconds: of the sampled frames; `original_frames`: number of decoded
    frames; `expected_frames`: number according to the file; `problem`: why the two differ; `note`: an irregularity that
    loses no frame."""

    frame_indices: np.ndarray
    timestamps: np.ndarray
    original_frames: int
    fps: float
    expected_frames: int = 0
    problem: str = ""
    note: str = ""


def frames_to_comment(summary: ReadSummary) -> dict[str, Any]:
    """Return the entries of a flow video's comment for its source frames: number, indices, timestamps.

    Evenly spaced frames are stored as start and step, others in full."""
    indices = summary.frame_indices
    step = int(indices[1] - indices[0]) if len(indices) > 1 else 1
    regular = bool((np.diff(indices) == step).all())
    nominal = summary.timestamps[0] + (indices - indices[0]) / summary.fps
    on_time = bool((np.abs(summary.timestamps - nominal) < 0.0005).all())
    return {
        "kept_frames": len(indices),
        "frame_indices": {"start": int(indices[0]), "step": step} if regular else indices.tolist(),
        "timestamps": {"start": float(summary.timestamps[0])} if on_time else summary.timestamps.round(6).tolist(),
    }


def frame_indices_from_comment(comment: dict[str, Any] | None) -> np.ndarray | None:
    """Return the indices (T,) int64 of the frames that a flow video was computed from, None without a valid entry."""
    if not comment or "kept_frames" not in comment or "frame_indices" not in comment:
        return None
    stored = comment["frame_indices"]
    try:
        count = int(comment["kept_frames"])
        if not 0 < count <= MAX_DESCRIBED_FRAMES:
            return None
        if isinstance(stored, dict):
            return np.arange(count, dtype=np.int64) * int(stored["step"]) + int(stored["start"])
        indices = np.array(stored, np.int64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return indices if indices.shape == (count,) else None


def timestamps_from_comment(comment: dict[str, Any] | None, fps: float) -> np.ndarray | None:
    """Return the timestamps (T,) in seconds of the frames that a flow video was computed from, None without them."""
    indices = frame_indices_from_comment(comment)
    if indices is None or not comment or "timestamps" not in comment:
        return None
    stored = comment["timestamps"]
    try:
        if isinstance(stored, dict):
            return float(stored["start"]) + (indices - indices[0]) / fps
        timestamps = np.array(stored, np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return timestamps if timestamps.shape == indices.shape else None
