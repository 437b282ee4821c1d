"""Flow: its colours, its direction and size, odd sizes, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.utils import flow_to_image

from vimoclip import flow


def torchvision_color(vectors: np.ndarray) -> np.ndarray:
    """(H, W, 2) of one frame -> (H, W, 3)."""
    return flow_to_image(torch.from_numpy(vectors).float().permute(2, 0, 1)).permute(1, 2, 0).numpy()


def uniform(u: float, v: float, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((1, height, width, 2), (u, v), np.float32)


def saturation(color: np.ndarray) -> int:
    return int(color.max()) - int(color.min())


# --- colours


def test_table_equals_torchvisions_color_wheel() -> None:
    half = flow.COLOR_TABLE_SIDE // 2
    axis = (np.arange(-half, half + 1) / half).astype(np.float32)
    vectors = np.stack(np.meshgrid(axis, axis), axis=-1)
    inside = np.hypot(vectors[..., 0], vectors[..., 1]) <= 1
    expected = torchvision_color(np.where(inside[..., None], vectors, 0))
    difference = np.abs(flow.color_table().astype(int) - expected)[inside]
    assert difference.max() <= 1  # where a float32 lies on the edge between two grey levels
    assert (difference > 0).mean() < 1e-4


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.floats(1e-3, 300))
def test_frame_normalization_is_within_two_grey_levels_of_torchvision(seed: int, size: float) -> None:
    vectors = (np.random.default_rng(seed).normal(size=(3, 20, 24, 2)) * size).astype(np.float32)
    colors = flow.flow_to_color(vectors, "frame")
    for t in range(3):
        size_of = np.linalg.norm(vectors[t], axis=-1)
        u, v = np.moveaxis(vectors[t], -1, 0) / size_of.max()
        away = ~((np.abs(v) < 3 / flow.COLOR_TABLE_SIDE) & (u > 0))  # torchvision's wheel has a seam there
        away &= size_of < size_of.max()  # torchvision's rounding may turn the largest one's 0 into 255
        difference = np.abs(colors[t].astype(int) - torchvision_color(vectors[t]))
        assert difference[away].max() <= 2


@pytest.mark.parametrize("normalization", flow.NORMALIZATIONS)
def test_no_motion_is_white(normalization: str) -> None:
    assert (flow.flow_to_color(uniform(0, 0), normalization) == 255).all()


@pytest.mark.parametrize("normalization", flow.NORMALIZATIONS)
def test_direction_decides_the_hue(normalization: str) -> None:
    right, left = (flow.flow_to_color(uniform(u, 0.001), normalization, 0.05)[0, 0, 0].astype(int) for u in (1, -1))
    down, up = (flow.flow_to_color(uniform(0, v), normalization, 0.05)[0, 0, 0].astype(int) for v in (1, -1))
    assert right.argmax() == 0  # red
    assert left.argmin() == 0  # blue-green
    assert down.argmin() == 2  # yellow
    assert up.argmin() == 1  # violet


@pytest.mark.parametrize("normalization", ["linear", "log"])
def test_saturation_grows_with_speed_and_clips_at_flow_max(normalization: str) -> None:
    diagonal = float(np.hypot(60, 80))
    shares = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 20]
    colors = [flow.flow_to_color(uniform(0, 0.05 * diagonal * s, 60, 80), normalization, 0.05) for s in shares]
    found = [saturation(color) for color in colors]
    assert found[:7] == sorted(set(found[:7]))
    assert found[6] == 255
    assert np.array_equal(colors[6], colors[7])
    assert np.array_equal(colors[6], colors[8])


def test_linear_is_proportional_and_log_lies_above_it() -> None:
    diagonal = float(np.hypot(60, 80))
    for share in (0.1, 0.2, 0.4):
        once, twice, log = (
            saturation(flow.flow_to_color(uniform(0, 0.05 * diagonal * s, 60, 80), how, 0.05))
            for s, how in ((share, "linear"), (2 * share, "linear"), (share, "log"))
        )
        assert once == pytest.approx(255 * share, abs=2)
        assert twice == pytest.approx(2 * once, abs=3)
        knee = flow.LOG_KNEE
        assert log == pytest.approx(255 * np.log(1 + share / knee) / np.log(1 + 1 / knee), abs=2)
        assert once < log < 255


def test_flow_max_is_a_fraction_of_the_diagonal() -> None:
    small = flow.flow_to_color(uniform(1, 2, 30, 40), "linear", 0.1)[0, 0, 0]
    assert np.array_equal(flow.flow_to_color(uniform(2, 4, 60, 80), "linear", 0.1)[0, 0, 0], small)
    assert np.array_equal(flow.flow_to_color(uniform(2, 4, 30, 40), "linear", 0.2)[0, 0, 0], small)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("normalization", flow.NORMALIZATIONS)
def test_torch_version_returns_flow_that_is_not_finite_as_a_magnitude(normalization: str, value: float) -> None:
    vectors = torch.ones(3, 2, 4, 5)
    vectors[1, 0, 2, 3] = value
    images, largest = flow.flow_to_color_torch(vectors, normalization, 0.05)
    assert images.shape == (3, 4, 5, 3)
    assert largest.isfinite().tolist() == [True, False, True]


@pytest.mark.parametrize("normalization", flow.NORMALIZATIONS)
def test_torch_version_equals_numpy_version_except_for_rounding(normalization: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 40, 50, 2)).astype(np.float32) * 3
    by_torch = flow.flow_to_color_torch(torch.from_numpy(vectors).permute(0, 3, 1, 2), normalization, 0.05)[0].numpy()
    here = flow.flow_to_color(vectors, normalization, 0.05)
    assert (by_torch.shape, by_torch.dtype) == (here.shape, here.dtype)
    difference = np.abs(by_torch.astype(int) - here)
    assert difference.max() <= 6  # a neighbouring cell of the table
    assert (difference > 0).mean() < 1e-3
