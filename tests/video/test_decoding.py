"""Decoding: frame indices and timestamps, batches, sizes, and files that are refused."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import indexed_frames, read_index, write_video
from tests.video.helpers import AWKWARD_CLIP_SIZES, AWKWARD_CLIPS, decode, decode_all, needs_clips, write_two_sizes
from tests.video_files import encode
from vimoclip import video
from vimoclip.errors import VideoError


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 40, 100])
def test_frame_t_is_row_t_of_the_batches(tmp_path: Path, lossless: bool, batch_size: int) -> None:
    frames = indexed_frames(40)
    batches, summary = decode(write_video(tmp_path / "a.mp4", frames, fps=10, lossless=lossless), batch_size)
    assert [len(b) for b in batches] == [batch_size] * (40 // batch_size) + [40 % batch_size] * (40 % batch_size > 0)
    assert [read_index(frame) for frame in np.concatenate(batches)] == list(range(40))
    assert summary.frame_indices.tolist() == list(range(40))
    assert summary.timestamps == pytest.approx(np.arange(40) / 10)
    assert (summary.original_frames, summary.fps) == (40, 10)


def test_b_frames_are_returned_in_display_order(b_frame_clip: Path) -> None:
    assert [read_index(frame) for frame in decode_all(b_frame_clip)] == list(range(77))


@settings(max_examples=40, deadline=None)
@given(batch_size=st.integers(1, 12), overlap=st.integers(0, 12), kept=st.integers(1, 30))
def test_overlapping_batches_cover_all_frames(indexed_clip: Path, batch_size: int, overlap: int, kept: int) -> None:
    batches, _ = decode(indexed_clip, batch_size, video.Sampling(max_frames=kept), overlap=overlap)
    indices = [[read_index(frame) for frame in batch] for batch in batches]
    joined = indices[0]
    assert len(joined) == min(kept, batch_size + overlap)
    for batch in indices[1:]:
        assert batch[:overlap] == joined[len(joined) - overlap :]
        assert 0 < len(batch) - overlap <= batch_size
        joined = joined + batch[overlap:]
    assert joined == list(range(kept))


@pytest.mark.parametrize(("size", "side", "expected"), [((48, 64), 24, (24, 32)), ((64, 48), 30, (40, 30))])
def test_shorter_side_scales_and_keeps_the_aspect_ratio(
    tmp_path: Path, size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    path = write_video(tmp_path / "a.mp4", indexed_frames(9, *size))
    frames = np.concatenate(decode(path, shorter_side=side)[0])
    assert frames.shape == (9, *expected, 3)
    assert [read_index(frame) for frame in frames] == list(range(9))


def test_frames_after_a_change_of_size_have_the_first_size(tmp_path: Path) -> None:
    frames = decode_all(write_two_sizes(tmp_path / "a.mkv"))
    assert frames.shape[1:] == (48, 64, 3)
    assert [read_index(frame) for frame in frames] == list(range(20))


# --- clips with unusual properties


@needs_clips
@pytest.mark.parametrize("name", AWKWARD_CLIP_SIZES)
def test_awkward_clips_return_all_frames(name: str) -> None:
    count, size = AWKWARD_CLIP_SIZES[name]
    batches, summary = decode(AWKWARD_CLIPS / name)
    assert sum(map(len, batches)) == count == summary.original_frames == len(summary.timestamps)
    assert {batch.shape[1:] for batch in batches} == {(*size, 3)}
    assert (np.diff(summary.timestamps) > 0).all()


@needs_clips
def test_long_video_returns_all_frames() -> None:
    reader = video.VideoReader(AWKWARD_CLIPS / "flies_1500_frames.mp4", 64, video.Sampling(stride=50), (32,))
    assert sum(len(batch.frames) for batch in reader) == 30
    assert reader.summary.original_frames == 1500


@needs_clips
def test_rotated_clip_is_returned_upright() -> None:
    path = AWKWARD_CLIPS / "nasa_13013_rotated.mp4"
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        raw = frame.to_ndarray(format="rgb24")
        sides: Any = frame.side_data
        matrix = next(bytes(side) for side in sides if side.type.name == "DISPLAYMATRIX")
    a, b, _, c, d, *_ = (round(value / 65536) for value in struct.unpack("<9i", matrix))
    y, x = np.indices(raw.shape[:2])
    right, down = a * x + c * y, b * x + d * y  # position of each pixel after the rotation, up to a shift
    expected = np.zeros((np.ptp(down) + 1, np.ptp(right) + 1, 3), np.uint8)
    expected[down - down.min(), right - right.min()] = raw
    upright = decode_all(path)[0]
    assert upright.shape == (480, 270, 3)
    assert np.array_equal(upright, expected)


@needs_clips
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("audio_only.mp4", "no video stream"),
        ("jpeg_renamed.mp4", "picture"),
        ("empty.mp4", "empty"),
        ("missing.mp4", "no such file"),
        (".", "folder"),
    ],
)
def test_files_that_are_not_videos_are_refused_with_the_reason(name: str, words: str) -> None:
    calls: tuple[Callable[[Path], object], ...] = (video.probe, decode, video.RandomAccessReader)
    for call in calls:
        with pytest.raises(VideoError) as caught:
            call(AWKWARD_CLIPS / name)
        assert words in caught.value.problem
        assert "\n" not in str(caught.value)


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    calls: tuple[Callable[[Path], object], ...] = (video.probe, decode, video.RandomAccessReader)
    for call in calls:
        with pytest.raises(VideoError):
            call(path)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
def test_truncated_video_returns_first_frames_or_raises(tmp_path: Path, indexed_clip: Path, fraction: float) -> None:
    path, data = tmp_path / "a.mp4", indexed_clip.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    indices: list[int] = []
    try:
        for batch in video.VideoReader(path, 1):
            indices.append(read_index(batch.frames[0]))
    except VideoError:
        pass
    assert indices == list(range(len(indices)))
    try:
        frames = video.RandomAccessReader(path).read(0, 20)
    except VideoError:
        return
    assert [read_index(frame) for frame in frames] == list(range(20))


def test_timestamps_of_avi_with_b_frames_increase(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv420p", {"bf": "3"}
        for image in indexed_frames(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    _, summary = decode(tmp_path / "a.avi", 16, video.Sampling(fps=25))
    assert summary.frame_indices.tolist() == list(range(60))
    assert np.allclose(summary.timestamps, np.arange(60) / 25)


@pytest.mark.parametrize("suffix", [".wmv", ".mxf"])
def test_b_frames_whose_packets_have_times_of_decoding(tmp_path: Path, suffix: str) -> None:
    batches, summary = decode(encode(tmp_path / f"a{suffix}", indexed_frames(40), "h264"), batch_size=50)
    assert [read_index(frame) for frame in batches[0]] == list(range(40))
    assert np.diff(summary.timestamps) == pytest.approx([0.04] * 39)
    assert (summary.problem, summary.note) == ("", "")


def test_a_file_name_with_a_colon_is_not_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with video.VideoWriter(Path("plain.mp4"), 25, {}) as writer:
        writer.write(indexed_frames(2))
    Path("plain.mp4").rename("a:b.mp4")
    assert video.probe(Path("a:b.mp4")).frames == 2
