"""Preprocessing of frames against open_clip's own transform."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from tests.conftest import SHARED, indexed_frames, moving_frames
from vimoclip import clip, video
from vimoclip.clip import preprocess


def make_config(size: int, resize: str, resize_mode: str = "shortest", interpolation: str = "bicubic") -> dict:
    return {
        "image_size": [size, size],
        "resize": resize,
        "resize_mode": resize_mode,
        "interpolation": interpolation,
        "fill_color": 0,
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    }


def real_frames() -> list[np.ndarray]:
    names = ["labelled/running.gif", "labelled/G0068-Run.gif", "labelled/ZG0217-Trot.gif", "awkward/av1_video.mkv"]
    names += ["awkward/nasa_13013_rotated.mp4", "awkward/testsrc2_odd_height_and_width_vp9.mp4"]
    paths = [SHARED / "clips" / name for name in names]
    if not paths[0].exists():
        return [moving_frames(2, (3, 1), 240, 320), moving_frames(2, (1, 2), 360, 640)]
    return [next(iter(video.VideoReader(path, 4))).frames for path in paths]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_preprocessing_is_within_one_grey_level_of_open_clips_pil_transform(mode: str, interpolation: str) -> None:
    size = 224
    reference = image_transform_v2(
        PreprocessCfg(size=size, mean=(0, 0, 0), std=(1, 1, 1), interpolation=interpolation, resize_mode=mode), False
    )
    prepare = clip.Preprocess(make_config(size, "model", mode, interpolation))
    for frames in real_frames():
        ours = prepare(frames).int()
        theirs = torch.stack([reference(Image.fromarray(frame)) for frame in frames]).mul(255).round().int()
        difference = (ours - theirs).abs()
        assert ours.shape == theirs.shape
        assert difference.max() <= 1
        assert difference.float().mean() < 0.02


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 1200)),
    st.booleans(),
    st.sampled_from(["bicubic", "bilinear"]),
    st.integers(0, 2**32 - 1),
)
def test_cropping_elongated_frames_before_resizing_gives_the_same_pixels(
    size: tuple[int, int], tall: bool, interpolation: str, seed: int
) -> None:
    """Without that, frames of 8000x16 pixels would be resized to 112000x224."""
    rng = np.random.default_rng(seed)
    # values that the bicubic filter doesn't clip: clipping would depend on the axis that PIL resizes first
    frames = rng.integers(64, 192, (1, *size[:: -1 if tall else 1], 3), dtype=np.uint8)
    prepare = clip.Preprocess(make_config(64, "model", "shortest", interpolation))
    ours = prepare(frames).int()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess, "CROP_FIRST_RATIO", 10**9)
        assert (ours - prepare(frames).int()).abs().max() <= 1


@pytest.mark.parametrize(("resize", "mode"), [("center-crop", "shortest"), ("squash", "squash"), ("pad", "longest")])
def test_resize_flag_overrides_the_models_resize_mode(resize: str, mode: str) -> None:
    frames = indexed_frames(2, 60, 90)
    other = "squash" if mode != "squash" else "shortest"
    ours = clip.Preprocess(make_config(32, resize, other))(frames)
    assert torch.equal(ours, clip.Preprocess(make_config(32, "model", mode))(frames))
    assert not torch.equal(ours, clip.Preprocess(make_config(32, "model", other))(frames))


def test_normalization_equals_the_models_own_transform(tiny_clip: str) -> None:
    encoder = clip.load_encoder(tiny_clip, None)
    frames = moving_frames(3, (1, 1), 32, 32)  # the model's input size: not resized
    own = image_transform_v2(PreprocessCfg(size=32, mean=(0.48, 0.45, 0.4), std=(0.27, 0.26, 0.27)), False)
    ours = encoder.preprocess.normalize(encoder.preprocess(frames))
    assert torch.allclose(ours, torch.stack([own(Image.fromarray(frame)) for frame in frames]), atol=1e-6)
