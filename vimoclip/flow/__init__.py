"""Optical flow by ptlflow or OpenCV, rendered as colour images.

`load_renderer` returns a function from n + 1 consecutive frames to n images; image t shows the motion from frame t to
frame t + 1."""

from vimoclip.flow.factory import FlowRenderer, load_renderer
from vimoclip.flow.opencv import DEFAULT_DIS_PRESET, DIS_PRESETS, METHODS_WITHOUT_WEIGHTS, frame_difference, opencv_flow
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
    "FlowRenderer",
    "PTLFlowModel",
    "color_table",
    "flow_to_color",
    "flow_to_color_torch",
    "frame_difference",
    "load_renderer",
    "missing_download",
    "opencv_flow",
]
