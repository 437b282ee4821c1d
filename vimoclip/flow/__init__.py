"""The only user of ptlflow and of OpenCV's flow: pairs of frames -> flow -> colour frames.

`load` gives a function from n + 1 neighbouring frames to n colour frames: frame t shows the motion from t to t + 1."""

from vimoclip.flow.factory import load
from vimoclip.flow.opencv import DEFAULT_PRESET, PRESETS, frame_difference, opencv_flow
from vimoclip.flow.padding import WITHOUT_WEIGHTS
from vimoclip.flow.ptlflow_model import LearnedFlow, missing_download
from vimoclip.flow.visualization import LOG_KNEE, NORMALIZATIONS, TABLE_SIDE, color_table, device_color, to_color

__all__ = [
    "DEFAULT_PRESET",
    "LOG_KNEE",
    "NORMALIZATIONS",
    "PRESETS",
    "TABLE_SIDE",
    "WITHOUT_WEIGHTS",
    "LearnedFlow",
    "color_table",
    "device_color",
    "frame_difference",
    "load",
    "missing_download",
    "opencv_flow",
    "to_color",
]
