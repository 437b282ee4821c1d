"""Random access: a range of frames equals the slice of the video."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import indexed_frames, moving_frames, write_video
from tests.video.helpers import AWKWARD_CLIP_SIZES, AWKWARD_CLIPS, decode_all, needs_clips, write_two_sizes
from vimoclip import video
from vimoclip.errors import VideoError


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(0, 76), st.integers(1, 77)).filter(lambda span: span[0] < span[1]))
def test_a_range_equals_the_slice_of_the_video(indexed_clip: Path, span: tuple[int, int]) -> None:
    frames = video.RandomAccessReader(indexed_clip).read(*span)
    assert np.array_equal(frames, indexed_frames(77)[slice(*span)])  # the clip is lossless


@pytest.mark.parametrize("lossless", [True, False])
def test_random_ranges_equal_slices_of_the_video(tmp_path: Path, lossless: bool) -> None:
    path = write_video(tmp_path / "a.mp4", moving_frames(70, (1, 1)), fps=100 / 13, lossless=lossless)
    check_ranges(path, ranges=12)


def check_ranges(path: Path, ranges: int) -> None:
    frames, reader, rng = decode_all(path), video.RandomAccessReader(path), np.random.default_rng(0)
    for _ in range(ranges):
        start = int(rng.integers(0, len(frames)))
        stop = int(rng.integers(start + 1, min(len(frames), start + 20) + 1))
        assert np.array_equal(reader.read(start, stop), frames[start:stop])
    assert np.array_equal(reader.read(len(frames) - 1, len(frames)), frames[-1:])
    with pytest.raises(VideoError):
        reader.read(0, len(frames) + 1)


def test_ranges_of_a_video_with_b_frames(b_frame_clip: Path) -> None:
    check_ranges(b_frame_clip, ranges=10)


@needs_clips
@pytest.mark.parametrize(
    "name", [name for name in AWKWARD_CLIP_SIZES if name not in ("testsrc2_mpeg4.avi", "av1_video.mkv")]
)
def test_ranges_of_awkward_clips(name: str) -> None:
    check_ranges(AWKWARD_CLIPS / name, ranges=5)


def test_range_across_a_change_of_size(tmp_path: Path) -> None:
    path = write_two_sizes(tmp_path / "a.mkv")
    frames, reader = decode_all(path), video.RandomAccessReader(path)
    for start, stop in ((8, 12), (12, 15)):
        assert np.array_equal(reader.read(start, stop), frames[start:stop])
