"""predict.py: the same numbers as the chain by its files, windows, what it writes, and what it refuses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import write_video
from vimoclip import timeline, video
from vimoclip.prediction import (
    FrameEmbeddings,
    FrameEncoder,
    SlidingWindows,
    TwoStreamEncoder,
    WindowFeatures,
    score_windows,
    sliding_window,
)


def indexed_embeddings(times: np.ndarray, first: int) -> FrameEmbeddings:
    """Frames that hold their own index, and motions that hold that of the frame where they start."""
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
    windows, parts, kept = SlidingWindows(length, stride), [], 0
    for first in range(0, count, batch):
        parts += list(windows.add(indexed_embeddings(times[first : first + batch], first)))
        kept = max(kept, len(windows._kept.times))
    seconds = count / fps
    parts += list(windows.finish(seconds, 1 / fps))
    for part in parts:
        inside = [i for i in range(count) if part.start - 1e-6 <= i / fps < part.stop - 1e-6]
        assert part.frames == len(inside)
        assert part.rgb is not None and part.motion is not None
        assert part.rgb.flatten().tolist() == inside
        assert part.motion.flatten().tolist() == inside[:-1]
        assert part.stop <= seconds + 1e-6
    starts = [part.start for part in parts]
    assert starts[0] == 0 and sorted(set(starts)) == starts
    assert parts[-1].stop == pytest.approx(seconds, abs=0.5 / fps + 1e-6)
    if seconds >= length:
        assert all(part.stop - part.start == pytest.approx(length, abs=1e-5) for part in parts)
        assert starts[:-1] == pytest.approx([i * stride for i in range(len(starts) - 1)])
    assert kept <= (length + stride) * fps + batch + 2


def resident_bytes() -> int:
    """Bytes of memory that this process has now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_does_not_grow_with_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,500 frames with embeddings of 64 KB, 98 MB would be kept, were more than a window kept."""
    monkeypatch.setattr(sliding_window, "MAX_WHOLE_VIDEO_FRAMES", 100)
    monkeypatch.setattr(sliding_window, "WINDOWS_PER_BATCH", 2)
    path = write_video(tmp_path / "long.mp4", np.zeros((1500, 16, 16, 3), np.uint8), fps=50)
    eye = FrameEncoder(torch.from_numpy, lambda frames: torch.ones(len(frames), 16_384))
    held: list[int] = []
    before = resident_bytes()

    def score(parts: Sequence[WindowFeatures]) -> np.ndarray:
        assert {part.frames for part in parts} == {50}
        held.append(resident_bytes() - before)
        return np.zeros((len(parts), 2))

    seen = score_windows(path, TwoStreamEncoder(video.EVERY_FRAME, eye), score, 1.0, 1.0)
    assert len(seen.scores) == 30
    assert "30 windows" in seen.whole_by
    assert max(held) < 60 * 1e6


def test_pauses_of_the_recording_have_no_scores() -> None:
    """Frames in the first and the last two of ten seconds, as a camera with a motion trigger leaves them."""
    times = np.concatenate([np.arange(0, 2, 0.1), np.arange(8, 10, 0.1)])
    windows, scored = SlidingWindows(1.0, 1.0), sliding_window.WindowScorer(lambda parts: np.ones((len(parts), 1)), 2)
    for part in windows.add(indexed_embeddings(times, 0)):
        scored.add(part)
    for part in windows.finish(10.0, 0.1):
        scored.add(part)
    scored.flush()
    starts, stops = np.array(scored.spans).T
    assert scored.unscored == 6
    bouts = timeline.find_bouts(starts, stops, scored.all(), np.array([0.5]), ("a",), 10.0)
    assert [(bout.start, bout.stop, bout.score) for bout in bouts] == [(0.0, 2.0, 1.0), (8.0, 10.0, 1.0)]
