"""The only user of ptlflow and of OpenCV's flow: pairs of frames -> flow -> colour frames.

`load` gives a function from n + 1 neighbouring frames to n colour frames: frame t shows the motion from t to t + 1."""

from vimoclip.flow.factory import load_renderer
from vimoclip.flow.opencv import DEFAULT_DIS_PRESET, DIS_PRESETS, frame_difference, opencv_flow
from vimoclip.flow.padding import METHODS_WITHOUT_WEIGHTS
from vimoclip.flow.ptlflow_model import PTLFlowModel, missing_download
from vimoclip.flow.visualization import (
    COLOR_TABLE_SIDE,
    LOG_KNEE,
    NORMALIZATIONS,
    color_table,
    flow_to_color,
    flow_to_color_torch,
)

__all__ = [
    "COLOR_TABLE_SIDE",
    "DEFAULT_DIS_PRESET",
    "DIS_PRESETS",
    "LOG_KNEE",
    "METHODS_WITHOUT_WEIGHTS",
    "NORMALIZATIONS",
    "PTLFlowModel",
    "color_table",
    "flow_to_color",
    "flow_to_color_torch",
    "frame_difference",
    "load_renderer",
    "missing_download",
    "opencv_flow",
]
