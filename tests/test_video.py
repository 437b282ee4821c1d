"""Video: which frame is which, what is refused, what is written, and reading ahead."""

import math
import multiprocessing
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SHARED, indexed_frames, moving_frames, read_index, write_video
from vimoclip import video
from vimoclip.errors import VideoError

AWKWARD = SHARED / "clips" / "awkward"
needs_clips = pytest.mark.skipif(not AWKWARD.is_dir(), reason=f"{AWKWARD} with real clips is not there")

# name: frames that can be decoded, (height, width) upright
CLIPS: dict[str, tuple[int, tuple[int, int]]] = {
    "nasa_13013.mp4": (325, (180, 320)),
    "nasa_13013_rotated.mp4": (17, (480, 270)),
    "h264_10bits.mp4": (30, (200, 200)),
    "h265_video.mp4": (10, (128, 128)),
    "av1_video.mkv": (125, (360, 640)),
    "testsrc2_odd_height_and_width_vp9.mp4": (25, (241, 321)),
    "testsrc2_mpeg4.avi": (30, (720, 1280)),
    "animated.gif": (4, (48, 64)),
    "test_non_zero_start.mp4": (12, (112, 200)),
    "discard_first_keyframe.mp4": (25, (64, 64)),
}


def decode(
    path: Path,
    batch_size: int = 16,
    sampling: video.Sampling = video.EVERY_FRAME,
    shorter_side: int | None = None,
    overlap: int = 0,
) -> tuple[list[np.ndarray], video.End]:
    """All batches, and the end, of which there is one and behind which there is nothing."""
    items = list(video.read(path, batch_size, sampling, shorter_side, overlap))
    batches, end = items[:-1], items[-1]
    assert isinstance(end, video.End)
    arrays = [batch for batch in batches if isinstance(batch, np.ndarray)]
    assert len(arrays) == len(batches)
    return arrays, end


def whole(path: Path) -> np.ndarray:
    return np.concatenate(decode(path)[0])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """77 frames that carry their index, at 10 frames/s: more than two keyframes' worth."""
    return write_video(tmp_path_factory.mktemp("clips") / "indexed.mp4", indexed_frames(77), fps=10)


@pytest.fixture(scope="module")
def b_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames as another encoder would write them: B-frames, and keyframes 25 apart."""
    path = tmp_path_factory.mktemp("clips") / "b_frames.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "g": "25", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in indexed_frames(77):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


# --- which frame is which


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 40, 100])
def test_row_t_is_frame_t(tmp_path: Path, lossless: bool, batch_size: int) -> None:
    frames = indexed_frames(40)
    batches, end = decode(write_video(tmp_path / "a.mp4", frames, fps=10, lossless=lossless), batch_size)
    assert [len(b) for b in batches] == [batch_size] * (40 // batch_size) + [40 % batch_size] * (40 % batch_size > 0)
    assert [read_index(frame) for frame in np.concatenate(batches)] == list(range(40))
    assert end.frame_indices.tolist() == list(range(40))
    assert end.timestamps == pytest.approx(np.arange(40) / 10)
    assert (end.original_frames, end.fps) == (40, 10)


def test_frames_reordered_by_the_encoder_come_in_order_of_display(b_frames: Path) -> None:
    assert [read_index(frame) for frame in whole(b_frames)] == list(range(77))


@settings(max_examples=40, deadline=None)
@given(batch_size=st.integers(1, 12), overlap=st.integers(0, 12), kept=st.integers(1, 30))
def test_overlapping_batches_join_up_without_loss(clip: Path, batch_size: int, overlap: int, kept: int) -> None:
    batches, _ = decode(clip, batch_size, video.Sampling(max_frames=kept), overlap=overlap)
    indices = [[read_index(frame) for frame in batch] for batch in batches]
    joined = indices[0]
    assert len(joined) == min(kept, batch_size + overlap)
    for batch in indices[1:]:
        assert batch[:overlap] == joined[len(joined) - overlap :]
        assert 0 < len(batch) - overlap <= batch_size
        joined = joined + batch[overlap:]
    assert joined == list(range(kept))


def picked(sampling: video.Sampling, count: int, fps: int) -> list[int]:
    """The definition, in whole numbers: frame i, of time i / fps, opens a window of 1 / sampling.fps seconds or not."""
    kept: list[int] = []
    for index in range(0, count, sampling.stride):
        window = math.floor(Fraction(index, fps) * Fraction(sampling.fps)) if sampling.fps is not None else index
        before = math.floor(Fraction(kept[-1], fps) * Fraction(sampling.fps or fps)) if kept else -1
        if sampling.fps is None or window > before:
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
def test_sampling_keeps_the_frames_of_its_definition(clip: Path, sampling: video.Sampling) -> None:
    batches, end = decode(clip, 16, sampling)
    expected = picked(sampling, count=77, fps=10)
    assert [read_index(frame) for frame in np.concatenate(batches)] == expected
    assert end.frame_indices.tolist() == expected
    assert end.timestamps == pytest.approx(np.array(expected) / 10)
    assert end.original_frames == 77


def test_sampling_by_time_counts_from_the_first_timestamp() -> None:
    keep = video.Sampling(fps=2).picker()
    times = [8.333, 8.5, 8.7, 8.84, 9.2, 9.34, 11.0, 11.2, 11.34]
    assert [i for i, time in enumerate(times) if keep(i, time)] == [0, 3, 5, 6, 8]


@pytest.mark.parametrize(("size", "side", "expected"), [((48, 64), 24, (24, 32)), ((64, 48), 30, (40, 30))])
def test_shorter_side_scales_and_keeps_the_proportions(
    tmp_path: Path, size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    path = write_video(tmp_path / "a.mp4", indexed_frames(9, *size))
    frames = np.concatenate(decode(path, shorter_side=side)[0])
    assert frames.shape == (9, *expected, 3)
    assert [read_index(frame) for frame in frames] == list(range(9))


# --- spans


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(0, 76), st.integers(1, 77)).filter(lambda span: span[0] < span[1]))
def test_span_is_a_slice_of_the_whole_video(clip: Path, span: tuple[int, int]) -> None:
    frames = video.SpanReader(clip).read(*span)
    assert np.array_equal(frames, indexed_frames(77)[slice(*span)])  # the clip is lossless


@pytest.mark.parametrize("lossless", [True, False])
def test_random_spans_of_one_reader_are_slices_of_the_whole_video(tmp_path: Path, lossless: bool) -> None:
    path = write_video(tmp_path / "a.mp4", moving_frames(70, (1, 1)), fps=100 / 13, lossless=lossless)
    check_spans(path, spans=12)


def check_spans(path: Path, spans: int) -> None:
    frames, reader, rng = whole(path), video.SpanReader(path), np.random.default_rng(0)
    for _ in range(spans):
        start = int(rng.integers(0, len(frames)))
        stop = int(rng.integers(start + 1, min(len(frames), start + 20) + 1))
        assert np.array_equal(reader.read(start, stop), frames[start:stop])
    assert np.array_equal(reader.read(len(frames) - 1, len(frames)), frames[-1:])
    with pytest.raises(VideoError, match=f"has no frames 0..{len(frames)}"):
        reader.read(0, len(frames) + 1)


def test_spans_of_a_video_with_b_frames_are_slices_of_it(b_frames: Path) -> None:
    check_spans(b_frames, spans=10)


@needs_clips
@pytest.mark.parametrize("name", [name for name in CLIPS if name not in ("testsrc2_mpeg4.avi", "av1_video.mkv")])
def test_spans_of_real_clips_are_slices_of_them(name: str) -> None:
    check_spans(AWKWARD / name, spans=5)


def two_sizes(path: Path) -> Path:
    """10 frames of 64x48, then 10 of 32x24, in one stream of JPEGs."""
    small = np.ascontiguousarray(indexed_frames(20)[10:, ::2, ::2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        other = av.CodecContext.create("mjpeg", "w")
        other.width, other.height, other.pix_fmt = 32, 24, "yuvj420p"  # type: ignore[attr-defined]
        other.framerate, other.time_base = Fraction(25), Fraction(1, 25)  # type: ignore[attr-defined]
        for start, encoder, frames in ((0, stream.codec_context, indexed_frames(10)), (10, other, small)):
            images: list[av.VideoFrame | None] = []
            for t, image in enumerate(frames):
                images.append(av.VideoFrame.from_ndarray(image, format="rgb24"))
                images[-1].pts, images[-1].time_base = start + t, Fraction(1, 25)  # type: ignore[union-attr]
            for frame in [*images, None]:
                for packet in encoder.encode(frame):  # type: ignore[union-attr]
                    packet.stream = stream
                    container.mux(packet)
    return path


def test_video_that_changes_its_size_comes_in_the_first_frames_size(tmp_path: Path) -> None:
    frames = whole(two_sizes(tmp_path / "a.mkv"))
    assert frames.shape[1:] == (48, 64, 3)
    assert [read_index(frame) for frame in frames] == list(range(20))


def test_span_over_a_change_of_size_is_a_slice_of_the_whole_video(tmp_path: Path) -> None:
    path = two_sizes(tmp_path / "a.mkv")
    frames, reader = whole(path), video.SpanReader(path)
    for start, stop in ((8, 12), (12, 15)):
        assert np.array_equal(reader.read(start, stop), frames[start:stop])


# --- clips that break naive readers


@needs_clips
@pytest.mark.parametrize("name", CLIPS)
def test_awkward_clip_gives_all_its_frames(name: str) -> None:
    count, size = CLIPS[name]
    batches, end = decode(AWKWARD / name)
    assert sum(map(len, batches)) == count == end.original_frames == len(end.timestamps)
    assert {batch.shape[1:] for batch in batches} == {(*size, 3)}
    assert (np.diff(end.timestamps) > 0).all()


@needs_clips
def test_long_video_gives_all_its_frames() -> None:
    batches, end = 0, None
    for item in video.read(AWKWARD / "flies_1500_frames.mp4", 64, video.Sampling(stride=50), shorter_side=32):
        if isinstance(item, video.End):
            end = item
        else:
            batches += len(item)
    assert batches == 30
    assert end is not None
    assert end.original_frames == 1500


@needs_clips
def test_rotated_clip_comes_upright_as_its_display_matrix_says() -> None:
    path = AWKWARD / "nasa_13013_rotated.mp4"
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        raw = frame.to_ndarray(format="rgb24")
        sides: Any = frame.side_data
        matrix = next(bytes(side) for side in sides if side.type.name == "DISPLAYMATRIX")
    a, b, _, c, d, *_ = (round(value / 65536) for value in struct.unpack("<9i", matrix))
    y, x = np.indices(raw.shape[:2])
    right, down = a * x + c * y, b * x + d * y  # where the matrix puts each pixel, up to a shift
    expected = np.zeros((np.ptp(down) + 1, np.ptp(right) + 1, 3), np.uint8)
    expected[down - down.min(), right - right.min()] = raw
    upright = whole(path)[0]
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
def test_what_is_no_video_is_refused_in_its_own_words(name: str, words: str) -> None:
    calls: tuple[Callable[[Path], object], ...] = (video.probe, decode, video.SpanReader)
    for call in calls:
        with pytest.raises(VideoError, match=words) as caught:
            call(AWKWARD / name)
        assert "\n" not in str(caught.value)


def test_bytes_that_are_no_video_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    calls: tuple[Callable[[Path], object], ...] = (video.probe, decode, video.SpanReader)
    for call in calls:
        with pytest.raises(VideoError, match="not a video"):
            call(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_video_gives_its_first_frames_or_a_video_error(tmp_path: Path, clip: Path, share: float) -> None:
    path, data = tmp_path / "a.mp4", clip.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    indices: list[int] = []
    try:
        for item in video.read(path, 1):
            if isinstance(item, np.ndarray):
                indices.append(read_index(item[0]))
    except VideoError:
        pass
    assert indices == list(range(len(indices)))
    try:
        span = video.SpanReader(path).read(0, 20)
    except VideoError:
        return
    assert [read_index(frame) for frame in span] == list(range(20))


def test_find_lists_videos_sorted_and_names_the_others(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.avi", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert video.find(tmp_path) == ([tmp_path / "a.avi", tmp_path / "b.MP4"], ["notes.txt"])


# --- writing


def write(path: Path, frames: np.ndarray, lossless: bool = False, batch: int = 8) -> Path:
    with video.Writer(path, 25, {"b": 1, "a": 2}, lossless) as writer:
        for start in range(0, len(frames), batch):
            writer.write(frames[start : start + batch])
    return path


@pytest.mark.parametrize("lossless", [True, False])
def test_same_frames_give_the_same_bytes(tmp_path: Path, lossless: bool) -> None:
    frames = moving_frames(20, (2, 1))
    first = write(tmp_path / "a.mp4", frames, lossless).read_bytes()
    assert write(tmp_path / "other" / "b.mp4", frames, lossless, batch=3).read_bytes() == first


def test_order_of_the_comments_keys_does_not_show(tmp_path: Path) -> None:
    for name, comment in (("a", {"x": 1, "y": 2}), ("b", {"y": 2, "x": 1})):
        with video.Writer(tmp_path / name, 25, comment) as writer:
            writer.write(indexed_frames(2))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def write_on(processors: set[int], path: Path) -> None:
    os.sched_setaffinity(0, processors)
    write(path, moving_frames(20, (2, 1), 256, 320))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors can't be chosen on this system")
def test_bytes_do_not_depend_on_the_number_of_processors(tmp_path: Path) -> None:
    there = os.sched_getaffinity(0)
    for name, processors in (("one", {min(there)}), ("all", there)):
        process = multiprocessing.get_context("spawn").Process(target=write_on, args=(processors, tmp_path / name))
        process.start()
        process.join()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "all").read_bytes()


def write_macroblocks(path: Path) -> None:
    write(path, moving_frames(20, (2, 1), 192, 176))  # 12 rows of 11: x264's AVX-512 code takes them by eight


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc fills memory on demand")
def test_bytes_do_not_depend_on_what_lay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("0", "1"):  # 1: fresh memory is 0xFE throughout, as motion 9 macroblocks up and to the left
        monkeypatch.setenv("MALLOC_PERTURB_", name)
        process = multiprocessing.get_context("spawn").Process(target=write_macroblocks, args=(tmp_path / name,))
        process.start()
        process.join()
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


@pytest.mark.parametrize("lossless", [True, False])
def test_bytes_do_not_depend_on_the_instructions_that_x264_picks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lossless: bool
) -> None:
    frames, start = moving_frames(20, (2, 1), 192, 176), video.Writer._start

    def plainly(writer: video.Writer, width: int, height: int) -> None:
        start(writer, width, height)
        options = dict(writer._stream.options)
        writer._stream.options = options | {"x264-params": f"asm=0:{options.get('x264-params', '')}".rstrip(":")}

    as_it_is = write(tmp_path / "a.mp4", frames, lossless).read_bytes()
    monkeypatch.setattr(video.Writer, "_start", plainly)
    assert write(tmp_path / "b.mp4", frames, lossless).read_bytes() == as_it_is


def test_lossless_keeps_every_value_and_lossy_is_close(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    assert np.array_equal(whole(write(tmp_path / "a.mp4", noise, lossless=True)), noise)
    grey = moving_frames(5, (1, 0))[..., :1].repeat(3, axis=-1)
    assert np.abs(whole(write(tmp_path / "b.mp4", grey)).astype(int) - grey).mean() < 3


def test_lossy_keeps_colours(tmp_path: Path) -> None:
    wheel = np.array([[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255], [255] * 3])
    blocks = wheel.astype(np.uint8).repeat(16, axis=0)[None, None].repeat(32, axis=1).repeat(3, axis=0)
    back = whole(write(tmp_path / "a.mp4", blocks))
    assert np.abs(back.astype(int) - blocks)[:, 8:24, 8::16].max() <= 6


def test_comment_comes_back_as_it_was(tmp_path: Path) -> None:
    comment: dict[str, Any] = {
        "method": "raft",
        "size": [1, 2],
        "indices": list(range(3000)),
        "who": "Löwe 獅子 \"=;#\\ '",
        "none": None,
    }
    with video.Writer(tmp_path / "a.mp4", 25, comment) as writer:
        writer.write(indexed_frames(3))
        comment["frames"] = 3  # what is known only at the end counts as well
    info = video.probe(tmp_path / "a.mp4")
    assert info.comment == comment
    assert (info.width, info.height, info.frames, info.codec) == (64, 48, 3, "h264")


def test_comment_of_another_is_none(tmp_path: Path) -> None:
    for index, text in enumerate(["made by hand", "[1]", ""]):
        path = tmp_path / f"{index}.mp4"
        with av.open(str(path), "w") as container:
            container.metadata["comment"] = text
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height = 64, 48
            container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
            container.mux(stream.encode(None))
        assert video.probe(path).comment is None


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64), (1, 1)])
def test_odd_sizes_are_made_even_by_repeating_the_last_row_and_column(
    tmp_path: Path, lossless: bool, size: tuple[int, int]
) -> None:
    frames = moving_frames(3, (1, 0))[:, : size[0], : size[1], :1].repeat(3, axis=-1)
    padded = np.pad(frames, ((0, 0), (0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
    back = whole(write(tmp_path / "a.mp4", frames, lossless))
    assert back.shape == padded.shape
    assert np.array_equal(back, padded) if lossless else np.abs(back.astype(int) - padded).mean() < 3


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(100, 13), Fraction(30000, 1001), Fraction(1, 2), Fraction(240)])
def test_frame_rate_is_kept(tmp_path: Path, fps: Fraction) -> None:
    for index, rate in enumerate((fps, float(fps))):
        path = write_video(tmp_path / f"{index}.mp4", indexed_frames(12), fps=rate)  # type: ignore[arg-type]
        assert video.probe(path).fps == fps
        _, end = decode(path)
        assert end.fps == pytest.approx(float(fps))
        assert end.timestamps == pytest.approx(np.arange(12) / float(fps))


@pytest.mark.parametrize("written", [0, 1, 40])
def test_exception_in_the_block_leaves_nothing(tmp_path: Path, written: int) -> None:
    with pytest.raises(KeyError), video.Writer(tmp_path / "a.mp4", 25, {}) as writer:
        if written:
            writer.write(indexed_frames(written))
        raise KeyError("stop")
    assert list(tmp_path.iterdir()) == []


def test_exception_while_finishing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), video.Writer(tmp_path / "a.mp4", 25, {"not JSON": object()}) as writer:
        writer.write(indexed_frames(3))
    assert list(tmp_path.iterdir()) == []


def test_video_appears_under_its_name_only_when_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with video.Writer(path, 25, {}, lossless=True) as writer:
        writer.write(indexed_frames(40))
        assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert len(whole(path)) == 40


@pytest.mark.parametrize("indices", [[0, 1, 2, 3], [0, 5, 10], [7], [3, 5], [0, 1, 3, 4], [0, 2, 5, 6, 90]])
def test_described_indices_are_those_that_were_described(tmp_path: Path, indices: list[int]) -> None:
    end = video.End(np.array(indices), np.array(indices) / 10 + 8.25, 100, 10.0)
    comment = video.describe_frames(end)
    with video.Writer(tmp_path / "a.mp4", 10, comment) as writer:
        writer.write(indexed_frames(2))
    read = video.probe(tmp_path / "a.mp4").comment
    described = video.described_indices(read)
    assert described is not None
    assert described.dtype == np.int64
    assert described.tolist() == indices
    assert read is not None
    assert read["kept_frames"] == len(indices)
    timestamps = video.described_timestamps(read, 10.0)
    assert timestamps is not None
    assert np.allclose(timestamps, end.timestamps, atol=1e-6)


def test_uneven_timestamps_are_described_in_full() -> None:
    uneven = np.array([0.0, 0.03, 0.07, 0.1, 0.13])
    comment = video.describe_frames(video.End(np.arange(5), uneven, 5, 100 / 3))
    assert np.allclose(video.described_timestamps(comment, 100 / 3), uneven)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [30, 24, 50])
def test_a_rate_as_high_as_the_sources_keeps_every_frame_though_timestamps_are_rounded(
    tmp_path: Path, rate: int
) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:  # Matroska rounds to milliseconds
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in indexed_frames(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    for fps, expected in ((rate, range(60)), (rate / 2, range(0, 60, 2))):
        *_, end = video.read(tmp_path / "a.mkv", 16, video.Sampling(fps=fps))
        assert isinstance(end, video.End)
        assert end.frame_indices.tolist() == list(expected)


def test_avi_with_b_frames_has_rising_timestamps(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv420p", {"bf": "3"}
        for image in indexed_frames(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    *_, end = video.read(tmp_path / "a.avi", 16, video.Sampling(fps=25))
    assert isinstance(end, video.End)
    assert end.frame_indices.tolist() == list(range(60))
    assert np.allclose(end.timestamps, np.arange(60) / 25)


def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with video.Writer(Path("plain.mp4"), 25, {}) as writer:
        writer.write(indexed_frames(2))
    Path("plain.mp4").rename("a:b.mp4")
    assert video.probe(Path("a:b.mp4")).frames == 2


def test_regular_indices_are_described_in_a_few_bytes() -> None:
    end = video.End(np.arange(0, 300_000, 3), np.arange(0, 300_000, 3) / 25, 300_000, 25.0)
    assert len(str(video.describe_frames(end))) < 200


def test_comment_that_says_nothing_of_frames_describes_none() -> None:
    assert video.described_indices(None) is None
    assert video.described_indices({}) is None
    assert video.described_indices({"method": "raft"}) is None


# --- reading ahead

Source = Callable[[], Iterator[int]]


def numbers(*values: int, error: Exception | None = None, delay: float = 0) -> Source:
    def source() -> Iterator[int]:
        for value in values:
            time.sleep(delay)
            yield value
        if error is not None:
            raise error

    return source


def collect(sources: Sequence[Source], workers: int) -> list[tuple[int, int | str]]:
    return [
        (index, str(item) if isinstance(item, VideoError) else item)
        for index, item in video.read_ahead(sources, workers)
    ]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_sources_come_in_order_and_whole_for_any_number_of_workers(workers: int) -> None:
    rng = np.random.default_rng(0)
    sources = [numbers(*range(10 * i, 10 * i + i % 7), delay=rng.random() / 300) for i in range(12)]
    expected = [(i, value) for i in range(12) for value in range(10 * i, 10 * i + i % 7)]
    assert collect(sources, workers) == expected


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_bad_video_is_the_last_item_of_its_source_and_the_others_go_on(workers: int) -> None:
    sources = [
        numbers(1, 2),
        numbers(3, error=VideoError("is torn")),
        numbers(error=VideoError("is empty")),
        numbers(4),
    ]
    assert collect(sources, workers) == [(0, 1), (0, 2), (1, 3), (1, "is torn"), (2, "is empty"), (3, 4)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_bug_in_a_source_is_raised_after_the_items_before_it(workers: int) -> None:
    seen = []
    with pytest.raises(ZeroDivisionError):
        for index, item in video.read_ahead([numbers(1), numbers(2, error=ZeroDivisionError()), numbers(3)], workers):
            seen.append((index, item))
    assert seen == [(0, 1), (1, 2)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_no_sources_give_nothing(workers: int) -> None:
    assert collect([], workers) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_closing_early_ends_the_threads_soon(workers: int) -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    before = threading.active_count()
    items = video.read_ahead([endless] * 5, workers)
    assert next(items) == (0, 1)
    start = time.monotonic()
    items.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 2
    assert threading.active_count() == before


def test_no_more_than_the_depth_of_each_source_waits() -> None:
    made = [0, 0, 0]

    def counted(index: int) -> Source:
        def source() -> Iterator[int]:
            for value in range(50):
                made[index] += 1
                yield value

        return source

    items = video.read_ahead([counted(i) for i in range(3)], workers=3, sources_ahead=2, depth=4)
    next(items)
    time.sleep(0.3)
    assert all(number <= 4 + 2 for number in made)
    assert made[1] > 0
    items.close()  # type: ignore[attr-defined]


def test_videos_read_ahead_are_those_read_one_after_the_other(clip: Path, b_frames: Path, tmp_path: Path) -> None:
    def source(path: Path) -> Callable[[], Iterator[np.ndarray | video.End]]:
        return lambda: video.read(path, 10)

    sources = [source(path) for path in (clip, tmp_path / "missing.mp4", b_frames)]
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for index, item in video.read_ahead(sources, workers=2):
        if isinstance(item, np.ndarray):
            seen[index] += [read_index(frame) for frame in item]
    assert seen == {0: list(range(77)), 1: [], 2: list(range(77))}
