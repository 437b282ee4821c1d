"""Optical flow as colour images, by the colour wheel of Baker et al. (2011)."""

import math
from functools import lru_cache

import numpy as np
import torch

NORMALIZATIONS = ("frame", "linear", "log")
LOG_KNEE = 0.02  # m0 / m_max of the log normalization; below m0 the scale is nearly linear
COLOR_TABLE_SIDE = 1023  # odd, so that zero motion is the centre of a cell
HALF_SIDE = np.float32((COLOR_TABLE_SIDE - 1) / 2)
EPSILON = np.finfo(np.float32).eps


@lru_cache(maxsize=1)
def color_table() -> np.ndarray:
    """Return (S, S, 3) uint8: the colours of flow (u, v) at index [v, u], each from -1 to 1 along a side.

    The colours are those of torchvision's `flow_to_image`. Cells outside the unit circle are not used."""
    from torchvision.utils import flow_to_image

    half = COLOR_TABLE_SIDE // 2
    axis = torch.arange(-half, half + 1) / half
    flow = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
    # flow_to_image divides by the largest magnitude; move all points into the unit circle, so that it is 1
    flow = flow / flow.norm(dim=0).clamp_min(1)
    return np.ascontiguousarray(flow_to_image(flow).permute(1, 2, 0).numpy())


def flow_to_color(flow: np.ndarray, normalization: str = "frame", flow_max: float = 0.05) -> np.ndarray:
    """(n, H, W, 2) flow in pixels -> (n, H, W, 3) uint8 images.

    The magnitude m with full saturation: with `frame`, the largest of the frame (as in the published code); with
    `linear` and `log`, m_max = `flow_max` times the frame's diagonal. `log` maps m to
    log(1 + m/m0) / log(1 + m_max/m0), which shows both slow and fast motion."""
    colors = np.empty((*flow.shape[:3], 3), np.uint8)
    for vectors, color in zip(flow, colors, strict=True):
        flow_to_color_into(vectors, color, normalization, flow_max)
    return colors


def flow_to_color_into(vectors: np.ndarray, out: np.ndarray, normalization: str, flow_max: float) -> None:
    """(H, W, 2) flow of one frame -> `out`, (H, W, 3) uint8. Raises FloatingPointError for flow that is not finite.

    One frame fits into the processor's cache: 5 times as fast as a batch at once."""
    u, v = vectors[..., 0], vectors[..., 1]
    magnitude = u * u
    magnitude += v * v
    np.sqrt(magnitude, out=magnitude)
    scale = _normalization_scale(magnitude, normalization, flow_max)
    x, y = u * scale, v * scale
    for axis in (x, y):
        axis *= HALF_SIDE
        axis += HALF_SIDE
        np.rint(axis, out=axis)
    y *= COLOR_TABLE_SIDE  # index of the row-major table; float32 is exact up to its last index, 1023^2 - 1
    y += x
    np.take(color_table().reshape(-1, 3), y.astype(np.intp), axis=0, out=out, mode="clip")


def _normalization_scale(magnitude: np.ndarray, normalization: str, flow_max: float) -> np.ndarray:
    """Return the factors (H, W) that map the vectors into the unit circle; overwrites `magnitude` (H, W)."""
    largest = magnitude.max()
    if not np.isfinite(largest):
        raise FloatingPointError("flow that is not finite")
    if normalization == "frame":
        return 1 / np.maximum(largest, EPSILON)
    target = magnitude / np.float32(flow_max * math.hypot(*magnitude.shape))
    if normalization == "log":
        target /= np.float32(LOG_KNEE)
        np.log1p(target, out=target)
        target /= np.float32(math.log1p(1 / LOG_KNEE))
    np.minimum(target, 1, out=target)
    target /= np.maximum(magnitude, EPSILON, out=magnitude)
    return target


def flow_to_color_torch(flow: torch.Tensor, normalization: str, flow_max: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 2, H, W) float32 flow -> (n, H, W, 3) uint8 images, like `flow_to_color`, and (n,) largest magnitudes.

    Both are on the device of the flow; three bytes per pixel are transferred from a GPU instead of eight. A magnitude
    that is not finite is not raised, since the CPU would wait for the GPU."""
    magnitude = flow.norm(dim=1)  # [n, H, W]
    largest = magnitude.amax(dim=(1, 2))
    if normalization == "frame":
        scale = 1 / largest.clamp_min(float(EPSILON))[:, None, None]
    else:
        target = magnitude / (flow_max * math.hypot(*flow.shape[2:]))
        if normalization == "log":
            target = target.div_(LOG_KNEE).log1p_().div_(math.log1p(1 / LOG_KNEE))
        scale = target.clamp_max_(1).div_(magnitude.clamp_min_(float(EPSILON)))
    cells = (flow * scale[:, None]).mul_(float(HALF_SIDE)).add_(float(HALF_SIDE)).round_().int()
    index = (cells[:, 1] * COLOR_TABLE_SIDE).add_(cells[:, 0])
    index.clamp_(0, COLOR_TABLE_SIDE**2 - 1)  # of a flow that is not finite: a wrong index would end CUDA
    return _color_table_tensor(flow.device).index_select(0, index.flatten()).view(*index.shape, 3), largest


@lru_cache(maxsize=8)
def _color_table_tensor(device: torch.device) -> torch.Tensor:
    return torch.from_numpy(color_table().reshape(-1, 3)).to(device)
