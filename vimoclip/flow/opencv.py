"""Flow by OpenCV, without weights, and the difference of grey frames."""

import threading
from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np

from vimoclip.flow.padding import pad_to_min_side

METHODS_WITHOUT_WEIGHTS = ("dis", "farneback", "frame_diff")
MIN_SIDE = 32  # DIS refuses pictures smaller than its patches
# DIS (Kroeger et al., 2016) by OpenCV's own names. Mean end-point error against medium at 640x360, in its pixels, and
# time a pair of one core, both at a shorter side of 224: medium 0.08, 7 ms; fast 0.17, 2.1 ms; ultrafast 0.19, 0.9 ms.
# Up to a quarter of the source's resolution, fast and ultrafast see no motion of things that are smaller.
DIS_PRESETS = {
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
}
DEFAULT_DIS_PRESET = "medium"

PairFlow = Callable[[np.ndarray, np.ndarray], np.ndarray]


def make_pair_flow(method: str, preset: str = DEFAULT_DIS_PRESET) -> PairFlow:
    """`dis` or `farneback` (2003): two grey frames -> (H, W, 2) float32 in pixels; threads may call it at once."""
    # One pair a thread: OpenCV's own two threads take 5.8 ms for a pair of 398x224, and twice that of processor time,
    # where one takes 7. Its results don't depend on their number.
    cv2.setNumThreads(1)
    if method == "farneback":
        # pyramid of 5 levels at half size each, windows of 15 pixels, 3 rounds, neighbourhoods of 5: OpenCV's example
        return lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 5, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
    own = threading.local()

    def dis(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if not hasattr(own, "dis"):  # it keeps its pyramids in itself
            own.dis = cv2.DISOpticalFlow.create(DIS_PRESETS[preset])
        return own.dis.calc(a, b, None)

    return dis


def opencv_flow(method: str, preset: str = DEFAULT_DIS_PRESET) -> Callable[[np.ndarray], np.ndarray]:
    """n + 1 frames -> (n, H, W, 2) float32 in pixels."""
    between = make_pair_flow(method, preset)

    def flow(frames: np.ndarray) -> np.ndarray:
        height, width = frames.shape[1:3]
        pairs = pairwise(to_grayscale(pad_to_min_side(frames, MIN_SIDE)))
        return np.stack([between(a, b) for a, b in pairs])[:, :height, :width]

    return flow


def frame_difference(frames: np.ndarray) -> np.ndarray:
    """(n + 1, H, W, 3) uint8 -> (n, H, W, 3): the absolute difference of neighbouring grey frames, as grey."""
    return np.stack([cv2.cvtColor(cv2.absdiff(a, b), cv2.COLOR_GRAY2RGB) for a, b in pairwise(to_grayscale(frames))])


def to_grayscale(frames: np.ndarray) -> np.ndarray:
    """(n, H, W, 3) -> (n, H, W)."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
