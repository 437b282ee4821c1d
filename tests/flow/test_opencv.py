"""Flow by OpenCV: direction, size and time, tiny frames, presets, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import moving_frames
from vimoclip import flow
from vimoclip.errors import UserError

CPU = torch.device("cpu")
OPENCV = ("dis", "farneback")
SIZES = [(1, 1), (2, 2), (17, 31)]


def load_renderer(method: str, normalization: str = "frame") -> Any:
    return flow.load_renderer(method, None, None, normalization, 0.05, CPU)


# --- direction, size and time


@pytest.mark.parametrize("method", OPENCV)
@pytest.mark.parametrize("velocity", [(-3, 0), (0, 2), (3, -2), (-1, 4)])
def test_translation_is_recovered(method: str, velocity: tuple[int, int]) -> None:
    vectors = flow.opencv_flow(method)(moving_frames(3, velocity, 120, 160))
    assert vectors.shape == (2, 120, 160, 2)
    for pair in vectors:
        assert np.median(pair[10:-10, 10:-10].reshape(-1, 2), axis=0) == pytest.approx(velocity, abs=0.3)


@pytest.mark.parametrize("method", OPENCV)
def test_frame_t_shows_the_motion_from_t_to_t_plus_1(method: str) -> None:
    moving = moving_frames(3, (3, 0), 120, 160)
    frames = np.concatenate([moving[:1], moving[:1], moving[1:], moving[2:]])
    u = np.median(flow.opencv_flow(method)(frames)[:, 10:-10, 10:-10, 0], axis=(1, 2))
    assert u == pytest.approx([0, 3, 3, 0], abs=0.3)


@pytest.mark.parametrize("method", flow.METHODS_WITHOUT_WEIGHTS)
def test_n_frames_give_n_minus_1_colour_frames(method: str) -> None:
    frames, render = moving_frames(6, (2, 1)), load_renderer(method)
    colors = render(frames)
    assert (colors.shape, colors.dtype) == ((5, 48, 64, 3), np.uint8)
    for t in range(5):
        assert np.array_equal(render(frames[t : t + 2])[0], colors[t])


@pytest.mark.parametrize("method", flow.METHODS_WITHOUT_WEIGHTS)
@pytest.mark.parametrize("size", SIZES)
def test_tiny_frames_work(method: str, size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    colors = load_renderer(method)(frames)
    assert (colors.shape, colors.dtype) == ((3, *size, 3), np.uint8)
    still = load_renderer(method, "linear")(frames[:1].repeat(3, axis=0))
    assert (np.abs(still.astype(int) - (0 if method == "frame_diff" else 255)) < 16).all()


def test_frame_difference_is_the_absolute_difference_of_grey_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    frames[1], frames[2] = 255, 0  # the full range, both ways
    found = flow.frame_difference(frames)
    assert (found.shape, found.dtype) == ((4, 7, 9, 3), np.uint8)
    assert np.array_equal(found[..., 0], found[..., 1])
    assert np.array_equal(found[..., 0], found[..., 2])
    grey = frames @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found[..., 0] - np.abs(np.diff(grey, axis=0))).max() <= 1.01  # each grey is rounded
    assert (found[1] == 255).all()


# --- presets, threads, and what is written


def test_every_preset_finds_the_motion_and_medium_is_the_default() -> None:
    frames = moving_frames(3, (3, -2), 120, 160)
    found = [flow.opencv_flow("dis", preset)(frames) for preset in flow.DIS_PRESETS]
    for vectors in found:
        assert np.median(vectors[:, 10:-10, 10:-10].reshape(-1, 2), axis=0) == pytest.approx((3, -2), abs=0.3)
    assert np.array_equal(flow.opencv_flow("dis")(frames), found[0])
    assert len({vectors.tobytes() for vectors in found}) == 3


@pytest.mark.parametrize(("method", "preset"), [("farneback", "fast"), ("frame_diff", "medium"), ("raft", "fast")])
def test_presets_of_another_method_are_refused(method: str, preset: str) -> None:
    with pytest.raises(UserError, match=f"--dis-preset {preset}"):
        flow.load_renderer(method, None, None, "frame", 0.05, CPU, preset=preset)


# --- what is refused, and what is not imported


@pytest.mark.parametrize("method", flow.METHODS_WITHOUT_WEIGHTS)
def test_iterations_of_a_method_without_any_are_refused(method: str) -> None:
    with pytest.raises(UserError, match=rf"--iters 12: {method}"):
        flow.load_renderer(method, None, 12, "frame", 0.05, CPU)
