"""Video frames as uint8 batches, prepared as the model's own transform does."""

from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as vision
from open_clip.transform import center_crop_or_pad
from PIL import Image
from torchvision.transforms.v2.functional import InterpolationMode
from torchvision.transforms.v2.functional import resize as resize_uint8

RESIZE_MODES = {"center-crop": "shortest", "squash": "squash", "pad": "longest"}  # ours -> open_clip's


# PyTorch's uint8 kernel has 16-bit weights, PIL 22-bit ones. From here on up the two are within one grey level (of 56
# million values at 360 -> 224, 5 were two off); where frames are enlarged or hardly shrunk, more are, so there PIL
# itself does the work: 7 to 13 times slower, exact.
PIL_BELOW_RATIO = 1.5

FAR_LONGER = 4  # times the size that is cropped from it: then what would be cropped away isn't made
AROUND = 4  # pixels around a box that PIL looks at as well


class Preprocess:
    """Video frames -> what the encoder sees, as open_clip's own validation transform has it. Safe to pickle."""

    def __init__(self, config: dict[str, Any]):
        self.size: tuple[int, int] = tuple(config["image_size"])
        self.mode: str = config["resize_mode"] if config["resize"] == "model" else RESIZE_MODES[config["resize"]]
        self.interpolation = InterpolationMode(config["interpolation"])
        self.fill: int = config["fill_color"]
        self.mean = torch.tensor(config["mean"]).view(3, 1, 1)
        self.std = torch.tensor(config["std"]).view(3, 1, 1)

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        """(n, H, W, 3) uint8 -> (n, 3, S, S) uint8: resized and cropped, not yet normalised."""
        resized = self._resize(frames, self._target(*frames.shape[1:3]))
        if self.mode == "longest":
            resized = center_crop_or_pad(resized, list(self.size), fill=self.fill)
        elif self.mode == "shortest":
            resized = vision.center_crop(resized, list(self.size))
        return resized.contiguous()

    def normalize(self, prepared: torch.Tensor) -> torch.Tensor:
        """(..., 3, S, S) uint8 -> float32, on the same device."""
        device = prepared.device
        return (prepared.float() / 255 - self.mean.to(device)) / self.std.to(device)

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if self.mode == "squash":
            return self.size
        if self.mode == "shortest" and self.size[0] == self.size[1]:  # torchvision's Resize truncates ...
            short = self.size[0]
            longer = int(short * max(height, width) / min(height, width))
            return (short, longer) if height <= width else (longer, short)
        pick = max if self.mode == "longest" else min  # ... open_clip's ResizeKeepRatio rounds
        ratio = pick(height / self.size[0], width / self.size[1])
        return round(height / ratio), round(width / ratio)

    def _resize(self, frames: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        height, width = frames.shape[1:3]
        if (height, width) == size:
            return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        if min(height / size[0], width / size[1]) >= PIL_BELOW_RATIO:
            channels_first = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
            return resize_uint8(channels_first, list(size), self.interpolation, antialias=True)
        how = Image.Resampling.BILINEAR if self.interpolation.value == "bilinear" else Image.Resampling.BICUBIC
        box = 0.0, 0.0, float(width), float(height)
        if self.mode == "shortest" and max(size) > FAR_LONGER * max(self.size):
            frames, box, size = self._middle(frames, size)
        images = [np.asarray(Image.fromarray(frame).resize((size[1], size[0]), how, box)) for frame in frames]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def _middle(
        self, frames: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, tuple[float, float, float, float], tuple[int, int]]:
        """The part of the frames, the box in it and the size for which PIL gives what cropping at `size` would."""
        (top, rows), (left, columns) = (
            _span(length, target, kept) for length, target, kept in zip(frames.shape[1:3], size, self.size, strict=True)
        )
        box = left[0], top[0], left[1], top[1]
        return frames[:, rows, columns], box, self.size


def _span(length: int, target: int, kept: int) -> tuple[tuple[float, float], slice]:
    """Where the middle `kept` of `target` pixels begins and ends, in the slice of `length` pixels that it needs."""
    scale, first = length / target, round((target - kept) / 2)
    begin, end = first * scale, (first + kept) * scale
    start = max(0, int(begin) - AROUND)
    return (begin - start, end - start), slice(start, int(end) + 1 + AROUND)
