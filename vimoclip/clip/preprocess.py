"""Preprocessing of video frames as uint8 batches, equal to open_clip's validation transform."""

from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as vision
from open_clip.transform import center_crop_or_pad
from PIL import Image
from torchvision.transforms.v2.functional import InterpolationMode
from torchvision.transforms.v2.functional import resize as resize_uint8

RESIZE_MODES = {"center-crop": "shortest", "squash": "squash", "pad": "longest"}  # ours -> open_clip's

# PyTorch's uint8 kernel has 16-bit weights, PIL 22-bit ones. At this downscaling ratio and above they agree within one
# grey level (of 56 million values at 360 -> 224, 5 differ by two). Below it more values differ, so PIL resizes: exact,
# 7 to 13 times slower.
PIL_BELOW_RATIO = 1.5

CROP_FIRST_RATIO = 4  # frames this many times as long as the crop are cropped before they are resized
RESAMPLING_MARGIN = 4  # source pixels beside the crop that the filter reads


class Preprocess:
    """Resizes, crops and normalizes video frames as open_clip's validation transform does. Can be pickled."""

    def __init__(self, config: dict[str, Any]):
        self.size: tuple[int, int] = tuple(config["image_size"])
        self.mode: str = config["resize_mode"] if config["resize"] == "model" else RESIZE_MODES[config["resize"]]
        self.interpolation = InterpolationMode(config["interpolation"])
        self.fill: int = config["fill_color"]
        self.mean = torch.tensor(config["mean"], device="cpu").view(3, 1, 1)
        self.std = torch.tensor(config["std"], device="cpu").view(3, 1, 1)
        self._copies: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        """(n, H, W, 3) uint8 -> (n, 3, S, S) uint8: resized and cropped, not normalized."""
        resized = self._resize(frames, self.target_size(*frames.shape[1:3]))
        return self.crop_or_pad(resized).contiguous()

    def crop_or_pad(self, resized: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W) resized to `target_size` -> (n, 3, S, S)."""
        if self.mode == "longest":
            return center_crop_or_pad(resized, list(self.size), fill=self.fill)
        return vision.center_crop(resized, list(self.size)) if self.mode == "shortest" else resized

    def normalize(self, prepared: torch.Tensor) -> torch.Tensor:
        """(..., 3, S, S) uint8 -> float32, on the same device."""
        mean, std = self._mean_and_std(prepared.device)
        return (prepared.float() / 255 - mean) / std

    def _mean_and_std(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both on a device, to which they are copied once."""
        if device not in self._copies:
            self._copies[device] = self.mean.to(device), self.std.to(device)
        return self._copies[device]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_copies": {}}  # a worker of a DataLoader needs no tensors on a GPU

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (H, W) that a frame is resized to, before it is cropped or padded."""
        if self.mode == "squash":
            return self.size
        if self.mode == "shortest" and self.size[0] == self.size[1]:  # torchvision's Resize truncates ...
            short = self.size[0]
            longer = int(short * max(height, width) / min(height, width))
            return (short, longer) if height <= width else (longer, short)
        choose = max if self.mode == "longest" else min  # ... open_clip's ResizeKeepRatio rounds
        ratio = choose(height / self.size[0], width / self.size[1])
        return round(height / ratio), round(width / ratio)

    def _resize(self, frames: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        height, width = frames.shape[1:3]
        if (height, width) == size:
            return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        if min(height / size[0], width / size[1]) >= PIL_BELOW_RATIO:
            channels_first = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
            return resize_uint8(channels_first, list(size), self.interpolation, antialias=True)
        resampling = Image.Resampling.BILINEAR if self.interpolation.value == "bilinear" else Image.Resampling.BICUBIC
        box = 0.0, 0.0, float(width), float(height)
        if self.mode == "shortest" and max(size) > CROP_FIRST_RATIO * max(self.size):
            frames, box, size = self._crop_center(frames, size)
        images = [np.asarray(Image.fromarray(frame).resize((size[1], size[0]), resampling, box)) for frame in frames]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def _crop_center(
        self, frames: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, tuple[float, float, float, float], tuple[int, int]]:
        """Return source region, box and output size that give the pixels of resizing to `size` and cropping."""
        (top, rows), (left, columns) = (
            _crop_range(length, target, crop)
            for length, target, crop in zip(frames.shape[1:3], size, self.size, strict=True)
        )
        box = left[0], top[0], left[1], top[1]
        return frames[:, rows, columns], box, self.size


def _crop_range(length: int, target: int, crop: int) -> tuple[tuple[float, float], slice]:
    """Return begin and end of the central `crop` of `target` pixels within a slice of the `length` source pixels."""
    scale, first = length / target, round((target - crop) / 2)
    begin, end = first * scale, (first + crop) * scale
    start = max(0, int(begin) - RESAMPLING_MARGIN)
    return (begin - start, end - start), slice(start, int(end) + 1 + RESAMPLING_MARGIN)
