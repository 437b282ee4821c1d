"""Recordings with irregular times, order, joins and pictures: the same frames in the same order as plain PyAV."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.error import FFmpegError

from tests.conftest import indexed_frames
from tests.video.plain_decoding import LOSSY, OPTIONS, Clip, decode_plainly, differences
from tests.video_files import overwrite_after

COUNT = 20
MILLISECOND = Fraction(1, 1000)
X265 = OPTIONS["libx265"]["x265-params"]
VPX = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "12", "b": "1M"}
# as cameras and recorders write them
CODECS: dict[str, Clip] = {
    "h264": Clip("libx264", "yuv420p"),
    "h264_open_gop": Clip("libx264", "yuv420p", OPTIONS["libx264"] | {"x264-params": "open-gop=1:b-adapt=0"}),
    "h264_pyramid": Clip("libx264", "yuv420p", {"bf": "16", "b_strategy": "0", "g": "40", "b-pyramid": "normal"}),
    "h264_intra_refresh": Clip("libx264", "yuv420p", {"intra-refresh": "1", "bf": "0", "g": "8"}),
    "hevc": Clip("libx265", "yuv420p"),
    "hevc_open_gop": Clip("libx265", "yuv420p", {"x265-params": f"{X265}:open-gop=1:bframes=4:b-adapt=0"}),
    "mpeg4": Clip("mpeg4", "yuv420p"),
    "mpeg4_b_frames": Clip("mpeg4", "yuv420p", LOSSY | {"bf": "2"}),
    "mpeg2": Clip("mpeg2video", "yuv420p"),
    "mpeg2_open_gop": Clip("mpeg2video", "yuv420p", LOSSY | {"bf": "2"}),
    "vp8": Clip("libvpx", "yuv420p"),
    "vp8_hidden_frames": Clip("libvpx", "yuv420p", VPX),
    "vp9": Clip("libvpx-vp9", "yuv420p"),
    "vp9_hidden_frames": Clip("libvpx-vp9", "yuv420p", VPX),
    "av1": Clip("libsvtav1", "yuv420p"),
    "mjpeg": Clip("mjpeg", "yuvj420p", {"q:v": "2", "b": "3M"}),
    "prores": Clip("prores_ks", "yuv422p10le", {}),
    "ffv1": Clip("ffv1", "yuv420p", {"g": "8"}),
}
MUXERS = {
    ".mp4": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".wmv": "asf",
    ".flv": "flv",
    ".ts": "mpegts",
    ".m2ts": "mpegts",
    ".mpg": "mpeg",
    ".ogv": "ogg",
}
HOLD_TIMES = {".mp4", ".mov", ".mkv", ".webm", ".flv", ".ts", ".m2ts"}  # of each frame
BY_NAME = {  # containers that hold a codec
    "h264": [".mp4", ".mov", ".mkv", ".avi", ".wmv", ".flv", ".ts", ".m2ts", ".mpg"],
    "hevc": [".mp4", ".mov", ".mkv", ".flv", ".ts", ".m2ts"],
    "mpeg4": [".mp4", ".mov", ".mkv", ".avi", ".wmv", ".ts"],
    "mpeg2": [".mp4", ".mov", ".mkv", ".avi", ".ts", ".m2ts", ".mpg"],
    "vp8": [".mkv", ".webm", ".avi", ".ogv"],
    "vp9": [".mp4", ".mkv", ".webm", ".flv"],
    "av1": [".mp4", ".mkv", ".webm", ".flv"],
    "mjpeg": [".mov", ".mkv", ".avi"],
    "prores": [".mov", ".mkv"],
    "ffv1": [".mkv", ".avi"],
}
PAIRS = [(name, suffix) for name in CODECS for suffix in BY_NAME[name.split("_")[0]]]
# in formats in which plain PyAV decodes on beyond a join; it raises at that of .ogv
JOINED = ["h264_open_gop", "hevc_open_gop", "mpeg4_b_frames", "mpeg2_open_gop", "mjpeg", "vp8"]
JOINED_PAIRS = [
    *(p for p in PAIRS if p[0] in JOINED and p[1] in (".ts", ".m2ts", ".mpg", ".flv", ".avi", ".wmv", ".webm")),
    *((codec, ".mkv") for codec in ("h264", "vp9", "av1", "ffv1", "mjpeg")),
]


def write(clip: Clip, path: Path, images: np.ndarray) -> Path:
    mux = {"mpegts_m2ts_mode": "1"} if path.suffix == ".m2ts" else {}
    return replace(clip, mux=mux | (clip.mux or {})).write(path, images, MUXERS[path.suffix])


def check(path: Path, numbers: list[int]) -> None:
    """Compare with plain PyAV, which has to show `numbers`."""
    plain = decode_plainly(path)
    assert plain.numbers == numbers
    assert differences(path, plain) == []


# --- times


def variable_times(count: int) -> list[int]:
    return np.cumsum(np.random.default_rng(0).integers(15, 90, count)).tolist()


def skipping_times(count: int) -> list[int]:
    """25 frames/s; the camera skips frames in two places."""
    return [40 * (t + 5 * (t >= 5) + 30 * (t >= 13)) for t in range(count)]


def late_times(count: int) -> list[int]:
    return [5000 + 40 * t for t in range(count)]


@pytest.mark.parametrize(("codec", "suffix"), PAIRS)
def test_times_as_recorded(tmp_path: Path, codec: str, suffix: str) -> None:
    images = indexed_frames(COUNT)
    check(write(CODECS[codec], tmp_path / f"constant{suffix}", images), list(range(COUNT)))
    if suffix not in HOLD_TIMES or codec in ("h264_pyramid", "h264_intra_refresh"):
        return
    for times in (variable_times(COUNT), skipping_times(COUNT), late_times(COUNT)):
        clip = replace(CODECS[codec], times=times, tick=MILLISECOND)
        if codec.startswith("mpeg2"):  # its encoder takes the tick for the frame rate
            clip = replace(clip, times=[n + time // 40 for n, time in enumerate(times)], tick=Fraction(1, 25))
        path = write(clip, tmp_path / f"times{suffix}", images)
        check(path, list(range(COUNT)))
        path.unlink()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("codec", ["h264", "mpeg4_b_frames", "mpeg2", "vp8", "vp9", "av1", "mjpeg"])
def test_films_of_one_and_two_frames(tmp_path: Path, codec: str, count: int) -> None:
    # not HEVC: x265 gives so few frames random time stamps
    for suffix in BY_NAME[codec.split("_")[0]]:
        if (codec, suffix, count) != ("mpeg2", ".ts", 1):  # FFmpeg takes ten packets of MPEG-TS for a raw stream
            check(write(CODECS[codec], tmp_path / f"a{suffix}", indexed_frames(count)), list(range(count)))


def test_frames_before_an_edit_list_are_not_displayed(tmp_path: Path) -> None:
    for codec in ("h264", "hevc", "mpeg4", "mjpeg"):
        path = write(CODECS[codec], tmp_path / "a.mov", indexed_frames(COUNT))
        start = int.from_bytes(path.read_bytes().split(b"elst", 1)[1][12:16], "big")
        for frames in (3, 10):  # at 12800 ticks/s
            overwrite_after(path, b"elst", (start + frames * 512).to_bytes(4, "big"), after=16)
            check(path, list(range(frames, COUNT)))


# --- joins


@pytest.mark.parametrize("clock", ["restarts", "goes on", "jumps by hours", "jumps back"])
@pytest.mark.parametrize(("codec", "suffix"), JOINED_PAIRS)
def test_recordings_joined_byte_by_byte(tmp_path: Path, codec: str, suffix: str, clock: str) -> None:
    if suffix == ".avi" and "jumps" in clock:  # it stores no times
        return
    images, hours = indexed_frames(2 * COUNT), 25 * 3600 * 3
    starts = {"restarts": (0, 0), "goes on": (0, COUNT), "jumps by hours": (0, hours), "jumps back": (hours, 0)}[clock]
    data = b""
    for part, start in enumerate(starts):
        clip = replace(CODECS[codec], times=range(start, start + COUNT))
        file = write(clip, tmp_path / f"part{suffix}", images[part * COUNT : (part + 1) * COUNT])
        data += file.read_bytes()
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(data)
    assert differences(path, decode_plainly(path), is_joined=True) == []


# --- pictures


@pytest.mark.parametrize(
    ("codec", "clip"),
    {
        "h264_10bit": Clip("libx264", "yuv420p10le"),
        "h264_422": Clip("libx264", "yuv422p"),
        "h264_444": Clip("libx264", "yuv444p"),
        "h264_gray": Clip("libx264", "gray"),
        "hevc_10bit": Clip("libx265", "yuv420p10le"),
        "hevc_444": Clip("libx265", "yuv444p"),
        "vp9_444": Clip("libvpx-vp9", "yuv444p"),
        "vp8_alpha": Clip("libvpx", "yuva420p", VPX | {"auto-alt-ref": "0"}),
        "vp9_alpha": Clip("libvpx-vp9", "yuva420p", VPX | {"auto-alt-ref": "0"}),
        "ffv1_alpha": Clip("ffv1", "yuva420p", {}),
        "ffv1_gray16": Clip("ffv1", "gray16le", {}),
        "png_alpha": Clip("png", "rgba", {}),
        "prores_alpha": Clip("prores_ks", "yuva444p10le", {}),
        "av1_10bit": Clip("libsvtav1", "yuv420p10le"),
    }.items(),
)
def test_pixel_formats(tmp_path: Path, codec: str, clip: Clip) -> None:
    suffix = ".mov" if codec.startswith("png") else ".mkv"
    check(write(clip, tmp_path / f"a{suffix}", indexed_frames(COUNT)), list(range(COUNT)))


@pytest.mark.parametrize("codec", ["h264_gray", *CODECS])
def test_odd_sizes(tmp_path: Path, codec: str) -> None:
    clip = CODECS.get(codec, Clip("libx264", "gray"))
    for suffix in (".mkv", BY_NAME[codec.split("_")[0]][0]):
        try:
            path = write(clip, tmp_path / f"a{suffix}", indexed_frames(6, 67, 81))
        except FFmpegError:  # 4:2:0 of this encoder needs even sizes
            path = write(clip, tmp_path / f"a{suffix}", indexed_frames(6, 66, 82))
        check(path, list(range(6)))


INTERLACED: dict[str, Clip] = {
    "mbaff.ts": Clip("libx264", "yuv420p", OPTIONS["libx264"] | {"flags": "+ilme+ildct"}),
    "mbaff.mp4": Clip("libx264", "yuv420p", OPTIONS["libx264"] | {"x264-params": "bff=1"}),
    "mpeg2.ts": Clip("mpeg2video", "yuv420p", LOSSY | {"flags": "+ilme+ildct", "bf": "2"}),
    "mpeg2.mpg": Clip("mpeg2video", "yuv420p", LOSSY | {"flags": "+ilme+ildct"}),
    "mpeg4.avi": Clip("mpeg4", "yuv420p", LOSSY | {"flags": "+ilme+ildct"}),
    "field_pictures.ts": Clip("libx265", "yuv420p", {"x265-params": f"{X265}:interlace=tff"}),
    "field_pictures.mp4": Clip("libx265", "yuv420p", {"x265-params": f"{X265}:interlace=tff"}),
}


@pytest.mark.parametrize("name", INTERLACED)
def test_interlaced_material(tmp_path: Path, name: str) -> None:
    check(write(INTERLACED[name], tmp_path / name, indexed_frames(COUNT)), list(range(COUNT)))


def pack_b_frames(path: Path) -> Path:
    """Write MPEG-4 in AVI as DivX did: a packet has a P-frame and the B-frame before it, the next one a placeholder."""
    source = replace(CODECS["mpeg4_b_frames"], options=LOSSY | {"bf": "1", "b_strategy": "0"})
    packets = list[bytes]()

    def collect(number: int, data: bytes) -> bytes:
        packets.append(data)
        return data

    replace(source, edit=collect).write(path, indexed_frames(COUNT + 1), "avi")

    def pack(number: int, data: bytes) -> bytes:
        if number == 0:
            header, picture = data[: (start := data.index(b"\0\0\1\xb6"))], data[start:]
            return header + b"\0\0\1\xb2DivX503b1393p" + picture
        # an empty P-frame: its type 01, marker bits around a time of 5 bits, and "not coded"
        return data + packets[number + 1] if number % 2 else b"\0\0\1\xb6" + bytes([0b01_0_1_0000, 0b0_1_0_11111])

    return replace(source, edit=pack).write(path, indexed_frames(COUNT + 1), "avi")


def test_packed_b_frames(tmp_path: Path) -> None:
    plain = decode_plainly(path := pack_b_frames(tmp_path / "a.avi"))
    assert plain.numbers == list(range(COUNT + 1))
    assert differences(path, plain) == []


def repeat_first_field(number: int, data: bytes) -> bytes:
    """Set repeat_first_field in the picture coding extension of every second frame, as in films for television."""
    start = data.index(b"\0\0\1\xb5", data.index(b"\0\0\1\0")) + 4
    changed = bytearray(data)
    changed[start + 3] |= (number % 2) << 1
    return bytes(changed)


@pytest.mark.parametrize("suffix", [".ts", ".mpg", ".mkv"])
def test_fields_that_are_shown_again(tmp_path: Path, suffix: str) -> None:
    clip = replace(CODECS["mpeg2_open_gop"], edit=repeat_first_field)
    check(write(clip, tmp_path / f"a{suffix}", indexed_frames(COUNT)), list(range(COUNT)))
