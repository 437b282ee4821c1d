"""VideoWriter: reproducible bytes, quality, comments, sizes, atomic publication."""

import multiprocessing
import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import indexed_frames, moving_frames, write_video
from tests.video.helpers import decode, decode_all, write_in_batches
from vimoclip import video
from vimoclip.errors import VideoError


@pytest.mark.parametrize("lossless", [False, True])
def test_keyframes_begin_every_segment_of_thirty_frames(lossless: bool, tmp_path: Path) -> None:
    """No additional keyframe at a change of scene."""
    frames = np.concatenate([moving_frames(45, (1, 0), seed=0), moving_frames(45, (0, 1), seed=1)])
    with video.VideoWriter(tmp_path / "a.mp4", 25, {}, lossless) as writer:
        writer.write(frames)
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 29, 58, 87]


def test_encoder_error_is_raised_to_the_caller(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="can't be encoded"), video.VideoWriter(tmp_path / "a.mp4", 25, {}) as writer:
        writer.write(np.zeros((1, 2, 40_000, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lossless", [True, False])
def test_same_frames_give_the_same_bytes(tmp_path: Path, lossless: bool) -> None:
    frames = moving_frames(20, (2, 1))
    first = write_in_batches(tmp_path / "a.mp4", frames, lossless).read_bytes()
    assert write_in_batches(tmp_path / "other" / "b.mp4", frames, lossless, batch=3).read_bytes() == first


def test_bytes_do_not_depend_on_the_order_of_comment_keys(tmp_path: Path) -> None:
    for name, comment in (("a", {"x": 1, "y": 2}), ("b", {"y": 2, "x": 1})):
        with video.VideoWriter(tmp_path / name, 25, comment) as writer:
            writer.write(indexed_frames(2))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def write_on_processors(processors: set[int], path: Path) -> None:
    os.sched_setaffinity(0, processors)
    write_in_batches(path, moving_frames(20, (2, 1), 256, 320))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors can't be chosen on this system")
def test_bytes_do_not_depend_on_the_number_of_processors(tmp_path: Path) -> None:
    all_processors = os.sched_getaffinity(0)
    for name, processors in (("one", {min(all_processors)}), ("all", all_processors)):
        process = multiprocessing.get_context("spawn").Process(
            target=write_on_processors, args=(processors, tmp_path / name)
        )
        process.start()
        process.join()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "all").read_bytes()


def write_macroblocks(path: Path) -> None:
    # 12 rows of 11 macroblocks: x264's AVX-512 code processes eight at a time
    write_in_batches(path, moving_frames(20, (2, 1), 192, 176))


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc fills memory on demand")
def test_bytes_do_not_depend_on_uninitialized_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("0", "1"):  # 1: new memory is filled with 0xFE, read as motion of 9 macroblocks up and left
        monkeypatch.setenv("MALLOC_PERTURB_", name)
        process = multiprocessing.get_context("spawn").Process(target=write_macroblocks, args=(tmp_path / name,))
        process.start()
        process.join()
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


@pytest.mark.parametrize("lossless", [True, False])
def test_bytes_do_not_depend_on_the_cpu_instructions_of_x264(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lossless: bool
) -> None:
    frames, open_stream = moving_frames(20, (2, 1), 192, 176), video.VideoWriter._open_stream

    def open_stream_without_simd(writer: video.VideoWriter, width: int, height: int) -> None:
        open_stream(writer, width, height)
        options = dict(writer._stream.options)
        writer._stream.options = options | {"x264-params": f"asm=0:{options.get('x264-params', '')}".rstrip(":")}

    expected = write_in_batches(tmp_path / "a.mp4", frames, lossless).read_bytes()
    monkeypatch.setattr(video.VideoWriter, "_open_stream", open_stream_without_simd)
    assert write_in_batches(tmp_path / "b.mp4", frames, lossless).read_bytes() == expected


def test_lossless_keeps_every_value_and_lossy_is_close(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    assert np.array_equal(decode_all(write_in_batches(tmp_path / "a.mp4", noise, lossless=True)), noise)
    grey = moving_frames(5, (1, 0))[..., :1].repeat(3, axis=-1)
    assert np.abs(decode_all(write_in_batches(tmp_path / "b.mp4", grey)).astype(int) - grey).mean() < 3


def test_lossy_keeps_colors(tmp_path: Path) -> None:
    wheel = np.array([[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255], [255] * 3])
    blocks = wheel.astype(np.uint8).repeat(16, axis=0)[None, None].repeat(32, axis=1).repeat(3, axis=0)
    back = decode_all(write_in_batches(tmp_path / "a.mp4", blocks))
    assert np.abs(back.astype(int) - blocks)[:, 8:24, 8::16].max() <= 6


def test_comment_round_trips(tmp_path: Path) -> None:
    comment: dict[str, Any] = {
        "method": "raft",
        "size": [1, 2],
        "indices": list(range(3000)),
        "who": "Löwe 獅子 \"=;#\\ '",
        "none": None,
    }
    with video.VideoWriter(tmp_path / "a.mp4", 25, comment) as writer:
        writer.write(indexed_frames(3))
        comment["frames"] = 3  # entries that are known only at the end are written too
    info = video.probe(tmp_path / "a.mp4")
    assert info.comment == comment
    assert (info.width, info.height, info.frames, info.codec) == (64, 48, 3, "h264")


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64), (1, 1)])
def test_odd_sizes_are_padded_by_repeating_the_last_row_and_column(
    tmp_path: Path, lossless: bool, size: tuple[int, int]
) -> None:
    frames = moving_frames(3, (1, 0))[:, : size[0], : size[1], :1].repeat(3, axis=-1)
    padded = np.pad(frames, ((0, 0), (0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
    back = decode_all(write_in_batches(tmp_path / "a.mp4", frames, lossless))
    assert back.shape == padded.shape
    assert np.array_equal(back, padded) if lossless else np.abs(back.astype(int) - padded).mean() < 3


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(100, 13), Fraction(30000, 1001), Fraction(1, 2), Fraction(240)])
def test_frame_rate_is_kept(tmp_path: Path, fps: Fraction) -> None:
    for index, rate in enumerate((fps, float(fps))):
        path = write_video(tmp_path / f"{index}.mp4", indexed_frames(12), fps=rate)  # type: ignore[arg-type]
        assert video.probe(path).fps == fps
        _, summary = decode(path)
        assert summary.fps == pytest.approx(float(fps))
        assert summary.timestamps == pytest.approx(np.arange(12) / float(fps))


@pytest.mark.parametrize("written", [0, 40])
def test_exceptions_leave_no_file(tmp_path: Path, written: int) -> None:
    with pytest.raises(KeyError), video.VideoWriter(tmp_path / "a.mp4", 25, {}) as writer:
        if written:
            writer.write(indexed_frames(written))
        raise KeyError("stop")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError), video.VideoWriter(tmp_path / "a.mp4", 25, {"not JSON": object()}) as writer:
        writer.write(indexed_frames(3))
    assert list(tmp_path.iterdir()) == []


def test_file_is_published_at_the_end_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with video.VideoWriter(path, 25, {}, lossless=True) as writer:
        writer.write(indexed_frames(40))
        assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert len(decode_all(path)) == 40


def test_a_file_that_is_finalized_in_the_background_has_the_same_bytes_and_errors(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        with video.VideoWriter(tmp_path / name, 25, {}) as writer:
            writer.write(indexed_frames(40))
            if name == "b.mp4":
                writer.start_finalizing()
            writer.finalize()
            assert (writer.frames, writer.size()) == (40, (tmp_path / f".{name}.partial").stat().st_size)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with pytest.raises(VideoError, match="can't be encoded"), video.VideoWriter(tmp_path / "c.mp4", 25, {}) as writer:
        writer.write(np.zeros((1, 2, 40_000, 3), np.uint8))
        writer.start_finalizing()
        writer.finalize()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]
