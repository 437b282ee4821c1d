"""Sliding windows over embeddings, and their scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import write_video
from vimoclip import timeline, video
from vimoclip.prediction import WindowFeatures, WindowScores, sliding_window
from vimoclip.prediction.frame_encoder import FrameEmbeddings, FrameEncoder, TwoStreamEncoder
from vimoclip.prediction.sliding_window import SlidingWindows, score_windows
from vimoclip.timeline.bouts import WindowGrid


def indexed_embeddings(times: np.ndarray, first: int) -> FrameEmbeddings:
    """Embeddings whose value is the index of the frame, or of the first frame of a motion."""
    rgb = torch.arange(first, first + len(times)).float()[:, None]
    start = max(0, first - 1)
    return FrameEmbeddings(times, rgb, torch.arange(start, first + len(times) - 1).float()[:, None])


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 120),
    fps=st.sampled_from([5.0, 12.5, 29.97, 30.0]),
    length=st.sampled_from([0.5, 1.0, 2.4, 6.0]),
    stride=st.sampled_from([0.1, 0.7, 1.0, 2.5]),
    batch=st.integers(1, 40),
    origin=st.sampled_from([0.0, 1.25]),
)
def test_windows_hold_the_frames_of_their_interval_and_reach_the_end(
    count: int, fps: float, length: float, stride: float, batch: int, origin: float
) -> None:
    times = origin + np.arange(count) / fps
    sliding, windows, buffered = SlidingWindows(length, stride), [], 0
    for first in range(0, count, batch):
        windows += list(sliding.add(indexed_embeddings(times[first : first + batch], first)))
        buffered = max(buffered, len(sliding._buffer.times))
    seconds = count / fps
    windows += list(sliding.flush(seconds, 1 / fps))
    for window in windows:
        inside = [i for i in range(count) if window.start - 1e-6 <= i / fps < window.stop - 1e-6]
        assert window.frames == len(inside)
        assert window.rgb is not None and window.motion is not None
        assert window.rgb.flatten().tolist() == inside
        assert window.motion.flatten().tolist() == inside[:-1]
        assert window.stop <= seconds + 1e-6
    positions = [(window.start, window.stop) for window in windows]
    last = [(round(seconds - length, 6), seconds)]
    assert WindowGrid(length, stride).spans(seconds) in (positions, positions + last)  # of less than half a frame
    starts = [window.start for window in windows]
    assert starts[0] == 0 and sorted(set(starts)) == starts
    assert windows[-1].stop == pytest.approx(seconds, abs=0.5 / fps + 1e-6)
    if seconds >= length:
        assert all(window.stop - window.start == pytest.approx(length, abs=1e-5) for window in windows)
        assert starts[:-1] == pytest.approx([i * stride for i in range(len(starts) - 1)])
    assert buffered <= (length + stride) * fps + batch + 2


def resident_bytes() -> int:
    """Return the bytes of resident memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_does_not_grow_with_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embeddings of all 1,500 frames would take 98 MB, at 64 KB each."""
    monkeypatch.setattr(sliding_window, "MAX_WHOLE_VIDEO_FRAMES", 100)
    monkeypatch.setattr(sliding_window, "WINDOWS_PER_BATCH", 2)
    path = write_video(tmp_path / "long.mp4", np.zeros((1500, 16, 16, 3), np.uint8), fps=50)
    encoder = FrameEncoder(
        torch.from_numpy, lambda frames: torch.ones(len(frames), 1), lambda frames: torch.ones(len(frames), 16_384)
    )
    used: list[int] = []
    before = resident_bytes()

    def score(windows: Sequence[WindowFeatures]) -> WindowScores:
        assert {window.frames for window in windows} == {50}
        used.append(resident_bytes() - before)
        return WindowScores(np.zeros((len(windows), 2)))

    result = score_windows(path, TwoStreamEncoder(video.EVERY_FRAME, encoder), score, 1.0, 1.0)
    assert len(result.scores) == 30
    assert "30 windows" in result.whole_by
    assert max(used) < 85 * 1e6


def test_pauses_of_the_recording_have_no_scores() -> None:
    """A camera with a motion trigger: frames only in the first two and the last two of ten seconds."""
    times = np.concatenate([np.arange(0, 2, 0.1), np.arange(8, 10, 0.1)])
    sliding = SlidingWindows(1.0, 1.0)
    windows = [*sliding.add(indexed_embeddings(times, 0)), *sliding.flush(10.0, 0.1)]
    spans, rows = sliding_window.score_in_batches(windows, lambda windows: np.ones((len(windows), 1)), 2)
    starts, stops = np.array(spans).T
    assert len(spans) - len(rows) == 6
    scores = np.array([rows.get(index, [np.nan]) for index in range(len(spans))])
    bouts = timeline.find_bouts(starts, stops, scores, np.array([0.5]), ("a",), 10.0)
    assert [(bout.start, bout.stop, bout.score) for bout in bouts] == [(0.0, 2.0, 1.0), (8.0, 10.0, 1.0)]
