"""PIL's resampling as matrix products, for a GPU: the pixels equal those of PIL.

PIL resizes one axis and then the other. Each time it sums pixels with coefficients of 22 bits, rounds, and clamps to
0..255. Here a coefficient is split into two parts of 11 bits. A float32 sum of pixels times such parts is exact in any
order, so both sums give PIL's integers. TF32, whose numbers have 11 bits, gives the same sums, unless a coefficient is
above 1: bicubic ones are so at the borders of enlarged frames."""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image

COEFFICIENT_BITS = 22
PART_BITS = 11  # as in TF32
PART_UNIT = 2**PART_BITS
MAX_EXACT_SUM = 2**24  # float32 has all integers up to it
MAX_LEVEL = 255
PROBED_PIXELS = 16  # along each axis, to find the axis that PIL resizes first
PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}  # in output pixels when shrinking, in source pixels when enlarging


class AxisResampling:
    """Resampling of an axis of `length` pixels to `target` pixels, of which `count` from `first` are computed.

    `source`: the pixels that they depend on. `matrix`: (2 * count, pixels) float32, the upper and then the lower parts
    of the coefficients, in units of 2^-11 grey levels. `is_exact`: whether float32 has all sums; `is_exact_in_tf32`:
    whether TF32 has all factors."""

    def __init__(self, length: int, target: int, first: int, count: int, interpolation: str):
        start, coefficients = _integer_coefficients(length, target, first, count, interpolation)
        self.source = slice(start, start + coefficients.shape[1])
        upper = (coefficients + PART_UNIT // 2) // PART_UNIT
        lower = coefficients - upper * PART_UNIT
        largest_sums = [np.maximum(part, 0).sum(1).max() for part in (upper, -upper, lower, -lower)]
        self.is_exact = max(largest_sums) * MAX_LEVEL <= MAX_EXACT_SUM
        self.is_exact_in_tf32 = bool(np.abs(upper).max() <= PART_UNIT)
        self.matrix = torch.from_numpy(np.concatenate([upper, lower / PART_UNIT]).astype(np.float32))


def resample(pixels: torch.Tensor, vertical: torch.Tensor, horizontal: torch.Tensor, rows_first: bool) -> torch.Tensor:
    """(n, h, w, 3) uint8 -> (n, 3, H, W) float32 grey levels, by the matrices of both axes.

    `rows_first`: resize the rows, that is horizontally, and then the columns."""
    planes = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).flatten(0, 1)
    vertical, horizontal = (matrix.expand(len(planes), -1, -1) for matrix in (vertical, horizontal))
    if rows_first:
        planes = _round_sums(torch.bmm(planes, horizontal.mT), dim=2)
    planes = _round_sums(torch.bmm(vertical, planes), dim=1)
    if not rows_first:
        planes = _round_sums(torch.bmm(planes, horizontal.mT), dim=2)
    return planes.unflatten(0, (-1, 3))


def _round_sums(sums: torch.Tensor, dim: int) -> torch.Tensor:
    """Add the sums of upper and lower parts, which are stacked along `dim`; round to grey levels. Overwrites `sums`."""
    upper, lower = sums.chunk(2, dim)
    levels = lower.floor_().add_(upper).add_(PART_UNIT // 2)
    return levels.div_(PART_UNIT, rounding_mode="floor").clamp_(0, MAX_LEVEL)


@lru_cache(maxsize=64)
def resizes_rows_first(size: tuple[int, int], target: tuple[int, int], interpolation: str) -> bool | None:
    """Return which axis the installed PIL resizes first, for frames of `size` = (H, W); None if it has other pixels.

    Pillow 13 chooses by the sizes, earlier versions start with the rows."""
    probed = [min(PROBED_PIXELS, length) for length in target]
    vertical, horizontal = (
        AxisResampling(length, length_after, (length_after - count) // 2, count, interpolation)
        for length, length_after, count in zip(size, target, probed, strict=True)
    )
    frame = np.zeros((*size, 3), np.uint8)
    window = frame[vertical.source, horizontal.source]
    window[:] = MAX_LEVEL * np.random.default_rng(0).integers(0, 2, window.shape, np.uint8)
    resized = np.asarray(Image.fromarray(frame).resize(target[::-1], PIL_FILTERS[interpolation]))
    top, left = ((length - count) // 2 for length, count in zip(target, probed, strict=True))
    expected = torch.from_numpy(resized[top : top + probed[0], left : left + probed[1]].copy()).permute(2, 0, 1)
    pixels = torch.from_numpy(window[None])
    for rows_first in (True, False):
        if torch.equal(resample(pixels, vertical.matrix, horizontal.matrix, rows_first)[0], expected.float()):
            return rows_first
    return None


def _integer_coefficients(
    length: int, target: int, first: int, count: int, interpolation: str
) -> tuple[int, np.ndarray]:
    """Return the first source pixel, and (count, pixels) coefficients as PIL computes them (precompute_coeffs)."""
    scale = length / target
    shrinking = max(scale, 1.0)
    support = SUPPORT[interpolation] * shrinking
    centers = (np.arange(first, first + count)[:, None] + 0.5) * scale
    starts = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    stops = np.minimum((centers + support + 0.5).astype(np.int64), length)
    pixels = np.arange(starts[0, 0], stops[-1, 0])
    weights = _filter((pixels - centers + 0.5) * (1.0 / shrinking), interpolation)
    weights[(pixels < starts) | (pixels >= stops)] = 0
    weights /= np.cumsum(weights, 1)[:, -1:]  # sums from left to right as PIL does
    return int(starts[0, 0]), np.trunc(weights * 2**COEFFICIENT_BITS + np.copysign(0.5, weights)).astype(np.int64)


def _filter(x: np.ndarray, interpolation: str) -> np.ndarray:
    x = np.abs(x)
    if interpolation == "bilinear":
        return np.maximum(1.0 - x, 0.0)
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
