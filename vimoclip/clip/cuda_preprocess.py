"""Preprocessing of video frames on a CUDA GPU, equal to open_clip's validation transform with PIL."""

from dataclasses import dataclass

import numpy as np
import torch

from vimoclip.clip.pil_resampling import AxisResampling, resample, resizes_rows_first
from vimoclip.clip.preprocess import CROP_FIRST_RATIO, Preprocess
from vimoclip.runtime.device import allow_tf32, copy_to_device, copy_to_pinned

PART_PIXELS = 2**24  # source pixels of the frames that are resized at once; they take 0.5 GB in float32
MAX_CACHED_SIZES = 32  # of frames


@dataclass(frozen=True)
class PinnedFrames:
    """n frames in pinned memory. `pixels`: (n, h, w, 3), the part that the crop depends on, of frames of `size` (H, W).

    `size` is None for frames that are prepared already, (n, 3, S, S)."""

    pixels: torch.Tensor
    size: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class _Plan:
    """How frames of one size are resized. `axes`: vertical and horizontal; None if the frames are only cropped."""

    source: tuple[slice, slice]
    axes: tuple[AxisResampling, AxisResampling] | None = None
    rows_first: bool = True


class CudaPreprocess:
    """`Preprocess` in two steps: `pin` in any thread, then a call, which copies each frame once and resizes it.

    The copy and the resizing run on the current stream, always the same one."""

    def __init__(self, preprocess: Preprocess, device: torch.device):
        self.preprocess, self.device = preprocess, device
        self._plans: dict[tuple[int, int], _Plan | None] = {}
        self._matrices: dict[tuple[int, int], list[torch.Tensor]] = {}

    def pin(self, frames: np.ndarray) -> PinnedFrames:
        """(n, H, W, 3) uint8 -> frames in pinned memory. Resizes those that are not resized exactly on a GPU."""
        height, width = frames.shape[1:3]
        plan = self._plan((height, width))
        if plan is None:
            return PinnedFrames(copy_to_pinned(self.preprocess(frames)), None)
        rows, columns = plan.source
        return PinnedFrames(copy_to_pinned(torch.from_numpy(frames[:, rows, columns])), (height, width))

    def __call__(self, frames: PinnedFrames) -> torch.Tensor:
        """Return (n, 3, S, S) uint8 on the GPU: resized and cropped, not normalized."""
        pixels = copy_to_device(frames.pixels, self.device)
        if frames.size is None:
            return pixels
        plan = self._plan(frames.size)
        assert plan is not None
        if plan.axes is None:
            return self.preprocess.crop_or_pad(pixels.permute(0, 3, 1, 2))
        return self.preprocess.crop_or_pad(self._resize(pixels, frames.size, plan))

    def _resize(self, pixels: torch.Tensor, size: tuple[int, int], plan: _Plan) -> torch.Tensor:
        vertical, horizontal = self._matrices_on_device(size, plan)
        height, width = len(vertical) // 2, len(horizontal) // 2
        part_frames = max(1, PART_PIXELS // (max(pixels.shape[1], 2 * height) * max(pixels.shape[2], 2 * width)))
        resized = torch.empty((len(pixels), 3, height, width), dtype=torch.uint8, device=self.device)
        assert plan.axes is not None
        with allow_tf32(all(axis.is_exact_in_tf32 for axis in plan.axes)):
            for part, out in zip(pixels.split(part_frames), resized.split(part_frames), strict=True):
                out.copy_(resample(part, vertical, horizontal, plan.rows_first))
        return resized

    def _matrices_on_device(self, size: tuple[int, int], plan: _Plan) -> list[torch.Tensor]:
        if size not in self._matrices:
            assert plan.axes is not None
            if len(self._matrices) == MAX_CACHED_SIZES:
                self._matrices.clear()
            self._matrices[size] = [copy_to_device(axis.matrix, self.device) for axis in plan.axes]
        return self._matrices[size]

    def _plan(self, size: tuple[int, int]) -> _Plan | None:
        """Return how frames of a size are resized on the GPU, None if the CPU resizes them."""
        if size not in self._plans:  # threads may find it at the same time, with the same result
            self._plans[size] = self._make_plan(size)
        return self._plans[size]

    def _make_plan(self, size: tuple[int, int]) -> _Plan | None:
        target = self.preprocess.target_size(*size)
        lengths = zip(target, self.preprocess.size, strict=True)
        kept = [min(pair) for pair in lengths] if self.preprocess.mode == "shortest" else target
        first = [round((length - count) / 2) for length, count in zip(target, kept, strict=True)]
        if size == target:
            (top, left), (rows, columns) = first, kept
            return _Plan((slice(top, top + rows), slice(left, left + columns)))
        if max(target) > CROP_FIRST_RATIO * max(self.preprocess.size):
            return None  # PIL itself would resize far more pixels than the crop has
        interpolation = self.preprocess.interpolation.value
        vertical, horizontal = (
            AxisResampling(*lengths, interpolation) for lengths in zip(size, target, first, kept, strict=True)
        )
        rows_first = resizes_rows_first(size, target, interpolation)
        if rows_first is None or not (vertical.is_exact and horizontal.is_exact):
            return None
        return _Plan((vertical.source, horizontal.source), (vertical, horizontal), rows_first)
