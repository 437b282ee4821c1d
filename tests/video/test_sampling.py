"""Sampling, and the record of sampled frames in the comment of a flow video."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import indexed_frames, read_index
from tests.video.helpers import decode
from vimoclip import video


def expected_indices(sampling: video.Sampling, count: int, fps: int) -> list[int]:
    """The definition in exact arithmetic: the first frame in each window of 1 / sampling.fps seconds is kept."""
    kept: list[int] = []
    for index in range(0, count, sampling.stride):
        window = math.floor(Fraction(index, fps) * Fraction(sampling.fps)) if sampling.fps is not None else index
        last_window = math.floor(Fraction(kept[-1], fps) * Fraction(sampling.fps or fps)) if kept else -1
        if sampling.fps is None or window > last_window:
            kept.append(index)
    return kept[: sampling.max_frames]


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        video.Sampling,
        stride=st.integers(1, 9),
        fps=st.none() | st.sampled_from([0.5, 1, 2.5, 3, 4, 5, 7, 10, 24, 100]),
        max_frames=st.none() | st.integers(1, 80),
    )
)
def test_sampling_matches_its_definition(indexed_clip: Path, sampling: video.Sampling) -> None:
    batches, summary = decode(indexed_clip, 16, sampling)
    expected = expected_indices(sampling, count=77, fps=10)
    assert [read_index(frame) for frame in np.concatenate(batches)] == expected
    assert summary.frame_indices.tolist() == expected
    assert summary.timestamps == pytest.approx(np.array(expected) / 10)
    assert summary.original_frames == 77


def test_sampling_by_fps_starts_at_the_first_timestamp() -> None:
    keep = video.Sampling(fps=2).frame_filter()
    times = [8.333, 8.5, 8.7, 8.84, 9.2, 9.34, 11.0, 11.2, 11.34]
    assert [i for i, time in enumerate(times) if keep(i, time)] == [0, 3, 5, 6, 8]


@pytest.mark.parametrize("indices", [[0, 1, 2, 3], [0, 5, 10], [7], [3, 5], [0, 1, 3, 4], [0, 2, 5, 6, 90]])
def test_frame_indices_and_timestamps_survive_the_comment(tmp_path: Path, indices: list[int]) -> None:
    summary = video.ReadSummary(np.array(indices), np.array(indices) / 10 + 8.25, 100, 10.0)
    comment = video.frames_to_comment(summary)
    with video.VideoWriter(tmp_path / "a.mp4", 10, comment) as writer:
        writer.write(indexed_frames(2))
    read = video.probe(tmp_path / "a.mp4").comment
    stored = video.frame_indices_from_comment(read)
    assert stored is not None
    assert stored.dtype == np.int64
    assert stored.tolist() == indices
    assert read is not None
    assert read["kept_frames"] == len(indices)
    timestamps = video.timestamps_from_comment(read, 10.0)
    assert timestamps is not None
    assert np.allclose(timestamps, summary.timestamps, atol=1e-6)


def test_uneven_timestamps_are_stored_in_full() -> None:
    uneven = np.array([0.0, 0.03, 0.07, 0.1, 0.13])
    comment = video.frames_to_comment(video.ReadSummary(np.arange(5), uneven, 5, 100 / 3))
    assert np.allclose(video.timestamps_from_comment(comment, 100 / 3), uneven)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [30, 24, 50])
def test_sampling_at_the_source_fps_keeps_every_frame_despite_rounding(tmp_path: Path, rate: int) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:  # Matroska rounds to milliseconds
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in indexed_frames(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    for fps, expected in ((rate, range(60)), (rate / 2, range(0, 60, 2))):
        _, summary = decode(tmp_path / "a.mkv", 16, video.Sampling(fps=fps))
        assert summary.frame_indices.tolist() == list(expected)


def test_regular_indices_are_stored_in_a_few_bytes() -> None:
    summary = video.ReadSummary(np.arange(0, 300_000, 3), np.arange(0, 300_000, 3) / 25, 300_000, 25.0)
    assert len(str(video.frames_to_comment(summary))) < 200
