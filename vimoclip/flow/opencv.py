"""Motion without learned weights: DIS and Farneback optical flow by OpenCV, and differences of grey frames."""

import threading
from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np

METHODS_WITHOUT_WEIGHTS = ("dis", "farneback", "frame_diff")
MIN_SIDE = 32  # pixels; DIS refuses images smaller than its patches
# Presets of DIS (Kroeger et al. 2016), named as in OpenCV. Mean end-point error at a shorter side of 224, with medium
# at 640x360 as reference (in pixels at 640x360), and time per pair on one core: medium 0.08, 7 ms; fast 0.17, 2.1 ms;
# ultrafast 0.19, 0.9 ms. fast and ultrafast miss the motion of objects smaller than a quarter of the shorter side.
DIS_PRESETS = {
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
}
DEFAULT_DIS_PRESET = "medium"

PairFlow = Callable[[np.ndarray, np.ndarray], np.ndarray]


def make_pair_flow(method: str, preset: str = DEFAULT_DIS_PRESET) -> PairFlow:
    """Return a thread-safe function from two grey frames to their flow, (H, W, 2) float32 in pixels.

    `method`: `dis`, or `farneback` (Farnebäck 2003)."""
    # One thread per pair: two threads of OpenCV take 5.8 ms for a pair of 398x224, one takes 7 ms and half the
    # processor time. The number of threads does not change the result.
    cv2.setNumThreads(1)
    if method == "farneback":
        # the values of OpenCV's example: pyr_scale, levels, winsize, iterations, poly_n, poly_sigma, flags
        return lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 5, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
    thread_state = threading.local()

    def dis(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if not hasattr(thread_state, "dis"):  # the object has buffers, so each thread needs its own
            thread_state.dis = cv2.DISOpticalFlow.create(DIS_PRESETS[preset])
        return thread_state.dis.calc(a, b, None)

    return dis


def opencv_flow(method: str, preset: str = DEFAULT_DIS_PRESET) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from (n + 1, H, W, 3) frames to their flow, (n, H, W, 2) float32 in pixels."""
    pair_flow = make_pair_flow(method, preset)

    def flow(frames: np.ndarray) -> np.ndarray:
        height, width = frames.shape[1:3]
        pairs = pairwise(to_grayscale(pad_to_min_side(frames, MIN_SIDE)))
        return np.stack([pair_flow(a, b) for a, b in pairs])[:, :height, :width]

    return flow


def frame_difference(frames: np.ndarray) -> np.ndarray:
    """(n + 1, H, W, 3) uint8 frames -> (n, H, W, 3) absolute differences of consecutive frames, in grey."""
    return np.stack([cv2.cvtColor(cv2.absdiff(a, b), cv2.COLOR_GRAY2RGB) for a, b in pairwise(to_grayscale(frames))])


def to_grayscale(frames: np.ndarray) -> np.ndarray:
    """(n, H, W, 3) RGB frames -> (n, H, W) grey frames."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def pad_to_min_side(frames: np.ndarray, side: int) -> np.ndarray:
    """Pad (n, H, W, C) frames to at least `side` pixels in both directions, by repeating the last row and column."""
    height, width = frames.shape[1:3]
    extra = max(0, side - height), max(0, side - width)
    return np.pad(frames, ((0, 0), (0, extra[0]), (0, extra[1]), (0, 0)), mode="edge") if any(extra) else frames
