"""The resizing of a CUDA GPU, run on the CPU, against PIL and open_clip's own transform."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from tests.clip.test_preprocess import make_config
from vimoclip.clip import cuda_preprocess, pil_resampling
from vimoclip.clip.cuda_preprocess import CudaPreprocess
from vimoclip.clip.pil_resampling import AxisResampling
from vimoclip.clip.preprocess import Preprocess

CPU = torch.device("cpu")
SIZES = [(360, 640), (1080, 1920), (480, 270), (223, 225), (224, 398), (224, 224), (90, 160), (100, 390)]


@pytest.fixture(autouse=True)
def pageable_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_preprocess, "copy_to_pinned", lambda tensor: tensor.clone())


def make_frames(kind: str, height: int, width: int) -> np.ndarray:
    """Return two frames: noise, or strong edges, at which the bicubic filter overshoots 0..255."""
    rng = np.random.default_rng(height * width)
    if kind == "noise":
        return rng.integers(0, 256, (2, height, width, 3), np.uint8)
    rows, columns = rng.integers(0, 2, (2, height, 1, 3), np.uint8), rng.integers(0, 2, (2, 1, width, 3), np.uint8)
    return np.where(rows ^ columns, np.uint8(255), np.uint8(0))


def resize_as_on_a_gpu(config: dict[str, Any], frames: np.ndarray) -> torch.Tensor:
    prepare = CudaPreprocess(Preprocess(config), CPU)
    pinned = prepare.pin(frames)
    assert pinned.size is not None  # not resized before the copy
    return prepare(pinned)


@pytest.mark.parametrize("kind", ["noise", "edges"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_pixels_equal_those_of_open_clips_transform(mode: str, interpolation: str, kind: str) -> None:
    reference = image_transform_v2(
        PreprocessCfg(size=224, mean=(0, 0, 0), std=(1, 1, 1), interpolation=interpolation, resize_mode=mode), False
    )
    config = make_config(224, "model", mode, interpolation)
    for size in SIZES:
        frames = make_frames(kind, *size)
        expected = torch.stack([reference(Image.fromarray(frame)) for frame in frames]).mul(255).round()
        assert torch.equal(resize_as_on_a_gpu(config, frames).float(), expected)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.tuples(st.integers(16, 300), st.integers(16, 300)),
    st.sampled_from(["bicubic", "bilinear"]),
    st.sampled_from(["noise", "edges"]),
)
def test_pixels_equal_those_of_pil(
    size: tuple[int, int], target: tuple[int, int], interpolation: str, kind: str
) -> None:
    frames = make_frames(kind, *size)
    axes = [AxisResampling(*lengths, 0, lengths[1], interpolation) for lengths in zip(size, target, strict=True)]
    assert all(axis.is_exact for axis in axes)
    rows_first = pil_resampling.resizes_rows_first(size, target, interpolation)
    assert rows_first is not None
    pixels = torch.from_numpy(frames[:, axes[0].source, axes[1].source])
    ours = pil_resampling.resample(pixels, axes[0].matrix, axes[1].matrix, rows_first)
    for frame, resized in zip(frames, ours, strict=True):
        expected = Image.fromarray(frame).resize(target[::-1], pil_resampling.PIL_FILTERS[interpolation])
        assert np.array_equal(resized.permute(1, 2, 0).numpy(), np.asarray(expected))


def round_to_tf32(numbers: torch.Tensor) -> torch.Tensor:
    """Round to 10 explicit bits of the mantissa, of float32's 23."""
    bits = numbers.contiguous().view(torch.int32)
    return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_tf32_gives_the_same_pixels(mode: str, interpolation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    matmul, allowed = torch.backends.cuda.matmul, list[bool]()
    product = torch.bmm

    def product_in_tf32(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        allowed.append(matmul.allow_tf32)
        return product(round_to_tf32(first), round_to_tf32(second)) if allowed[-1] else product(first, second)

    config, kinds = make_config(224, "model", mode, interpolation), ("noise", "edges")
    frames = [make_frames(kind, *size)[:1] for size in SIZES for kind in kinds]
    expected = [resize_as_on_a_gpu(config, batch) for batch in frames]
    monkeypatch.setattr(torch, "bmm", product_in_tf32)
    assert all(map(torch.equal, (resize_as_on_a_gpu(config, batch) for batch in frames), expected))
    assert all(allowed) or interpolation == "bicubic"
    assert sum(allowed) > 10
    assert not matmul.allow_tf32  # the model's own products stay in float32
    assert not torch.equal(round_to_tf32(torch.tensor([1 + 2**-12])), torch.tensor([1 + 2**-12]))


def test_parts_of_a_batch_have_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    config, frames = make_config(64, "center-crop"), make_frames("noise", 200, 300).repeat(3, 0)
    expected = resize_as_on_a_gpu(config, frames)
    monkeypatch.setattr(cuda_preprocess, "PART_PIXELS", 130_000)
    assert torch.equal(resize_as_on_a_gpu(config, frames), expected)


@pytest.mark.parametrize("size", [(8, 3000), (3000, 8)])
def test_frames_that_are_not_exact_in_float32_are_resized_by_the_cpu(size: tuple[int, int]) -> None:
    """Elongated frames are cropped first, and sums of very many pixels may be too large for float32."""
    for resize in ("center-crop", "squash"):
        preprocess, frames = Preprocess(make_config(32, resize)), make_frames("noise", *size)
        prepare = CudaPreprocess(preprocess, CPU)
        assert torch.equal(prepare(prepare.pin(frames)), preprocess(frames))


def test_a_pil_with_other_pixels_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Image.Image, "resize", lambda image, size, *args: Image.new("RGB", size, (9, 9, 9)), raising=True
    )
    pil_resampling.resizes_rows_first.cache_clear()
    assert pil_resampling.resizes_rows_first((90, 80), (40, 50), "bicubic") is None
    pil_resampling.resizes_rows_first.cache_clear()
