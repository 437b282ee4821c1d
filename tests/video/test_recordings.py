"""Recordings as cameras write them: joined without encoding, with gaps, previews, and damaged indexes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import indexed_frames, read_index
from tests.video.helpers import decode
from tests.video_files import drop_packet_12, encode, overwrite_bytes
from vimoclip import video


def read(path: Path) -> tuple[list[int], video.ReadSummary]:
    """Return the numbers in the pictures of all frames, and the summary."""
    batches, summary = decode(path)
    return [read_index(frame) for batch in batches for frame in batch], summary


def join(folder: Path, suffix: str, codec: str, starts: Sequence[float], frames: int = 20) -> Path:
    """Join recordings of `frames` frames byte by byte, as cat does; their clocks begin at `starts` seconds."""
    images, data = indexed_frames(frames * len(starts)), b""
    for number, start in enumerate(starts):
        times = [round(25 * start) + t for t in range(frames)]
        part = images[number * frames : (number + 1) * frames]
        data += encode(folder / f"{number}{suffix}", part, codec, times=times, ticks=25).read_bytes()
    (folder / f"joined{suffix}").write_bytes(data)
    return folder / f"joined{suffix}"


def check_joined(path: Path, frames: int, jumps: bool = True) -> None:
    indices, summary = read(path)
    assert indices == list(range(frames)) == summary.frame_indices.tolist()
    assert (summary.problem, summary.expected_frames) == ("", frames)
    assert summary.timestamps - summary.timestamps[0] == pytest.approx(np.arange(frames) / 25, abs=0.002)
    assert bool(summary.note) == jumps


@pytest.mark.parametrize("codec", ["h264", "mpeg2", "hevc"])
@pytest.mark.parametrize("starts", [(0, 0, 0), (0, 3600), (7200, 0, 100)])
def test_joined_transport_streams_are_read_whole_and_their_times_go_on(
    tmp_path: Path, codec: str, starts: Sequence[float]
) -> None:
    check_joined(join(tmp_path, ".ts", codec, starts), 20 * len(starts))


def test_a_recording_that_is_split_and_joined_has_no_damage(tmp_path: Path) -> None:
    check_joined(join(tmp_path, ".m2ts", "h264", (1, 1.8, 2.6)), 60, jumps=False)


@pytest.mark.parametrize(("suffix", "codec"), [(".mpg", "mpeg2"), (".mkv", "h264"), (".webm", "vp9")])
def test_other_containers_that_can_be_joined(tmp_path: Path, suffix: str, codec: str) -> None:
    check_joined(join(tmp_path, suffix, codec, (0, 0)), 40)


def test_an_mp4_behind_an_mp4_is_named(tmp_path: Path) -> None:
    indices, summary = read(join(tmp_path, ".mp4", "h264", (0, 0)))
    assert indices == list(range(20))
    assert str((tmp_path / "0.mp4").stat().st_size) in summary.note


def test_lost_transport_packets_within_a_recording_are_damage(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.ts", indexed_frames(40, 96, 128), "h264")
    with av.open(str(path)) as container:
        start = [packet.pos for packet in container.demux(video=0) if packet.size][20] or 0  # a keyframe
    data = path.read_bytes()
    path.write_bytes(data[: start + 188] + data[start + 376 :])
    indices, summary = read(path)
    assert {*range(17), *range(30, 40)} <= set(indices) <= {*range(20), *range(30, 40)}
    assert summary.problem


@pytest.mark.parametrize(("suffix", "codec"), [(".webm", "vp8"), (".mkv", "h264"), (".ts", "h264"), (".mp4", "h264")])
@pytest.mark.parametrize("skipped", [1, 60])
def test_frames_that_a_camera_skipped_are_a_gap_and_no_damage(
    tmp_path: Path, suffix: str, codec: str, skipped: int
) -> None:
    times = [40 * (t + skipped * (t >= 25)) for t in range(40)]
    indices, summary = read(encode(tmp_path / f"a{suffix}", indexed_frames(40), codec, times=times))
    assert indices == list(range(40)) == summary.frame_indices.tolist()
    assert summary.timestamps - summary.timestamps[0] == pytest.approx(np.array(times) / 1000, abs=0.002)
    assert summary.problem == ""
    assert f"{(skipped + 1) * 0.04:.3g} s" in summary.note


def test_a_variable_frame_rate_has_no_gaps(tmp_path: Path) -> None:
    times = np.cumsum([33] * 20 + [100] * 10 + [33] * 20).tolist()
    assert read(encode(tmp_path / "a.mp4", indexed_frames(50), "h264", times=times))[1].note == ""


def test_a_packet_that_is_lost_in_matroska_is_a_gap(tmp_path: Path) -> None:
    drop_packet_12(encode(tmp_path / "a.mkv", indexed_frames(40), "mjpeg"))
    indices, summary = read(tmp_path / "a.mkv")
    assert indices == [*range(12), *range(13, 40)]
    assert (summary.frame_indices.tolist(), summary.problem) == (list(range(39)), "")
    assert "0.08 s" in summary.note


def garble_all(offsets: list[int]) -> list[int]:
    return [offset ^ 0x5A5A5A for offset in offsets]


def garble_first(offsets: list[int]) -> list[int]:
    return [12345, 0, 2**31, *offsets[3:]]


@pytest.mark.parametrize("change", [garble_all, garble_first])
def test_an_avi_with_a_damaged_index_is_read_whole(tmp_path: Path, change: Callable[[list[int]], list[int]]) -> None:
    path = encode(tmp_path / "a.avi", indexed_frames(40), "mjpeg")
    first = path.read_bytes().rindex(b"idx1") + 8
    places = [first + 16 * entry + 8 for entry in range(40)]
    offsets = [int.from_bytes(path.read_bytes()[place : place + 4], "little") for place in places]
    for place, offset in zip(places, change(offsets), strict=True):
        overwrite_bytes(path, place, offset.to_bytes(4, "little"))
    indices, summary = read(path)
    assert indices == list(range(40)) == summary.frame_indices.tolist()
    assert summary.timestamps == pytest.approx(np.arange(40) / 25)
    assert (summary.problem, summary.expected_frames) == ("", 40)


def test_the_film_is_read_and_not_its_preview(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    film, preview = indexed_frames(20), np.zeros((1, 24, 32, 3), np.uint8)
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream(codec, rate=25) for codec in ("mjpeg", "libx264")]
        streams[0].pix_fmt = "yuvj420p"
        for stream, images in zip(streams, (preview, film), strict=True):
            stream.height, stream.width = images.shape[1:3]
        for stream, images in zip(streams, (preview, film), strict=True):
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
            container.mux(stream.encode(None))
    indices, summary = read(path)
    assert indices == list(range(20))
    assert (video.probe(path).width, video.probe(path).codec) == (64, "h264")
    assert "32x24" in summary.note


def test_time_stamps_out_of_order_do_not_lengthen_the_film(tmp_path: Path) -> None:
    """As of recorders that exchange the times of two frames, again and again."""
    encode(tmp_path / "a.mkv", indexed_frames(40), "mjpeg")
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            exchanged = number ^ 1 if 10 <= number < 30 else number
            packet.pts, packet.dts, packet.stream = 40 * exchanged + 40, 40 * number, stream
            target.mux(packet)
    indices, summary = read(tmp_path / "b.mkv")
    assert indices == list(range(40)) == summary.frame_indices.tolist()
    assert (np.diff(summary.timestamps) >= 0).all()
    assert summary.timestamps[-1] - summary.timestamps[0] == pytest.approx(39 / 25, abs=0.05)
