"""Write videos in any codec and container, and damage them."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

# name: codec, pixel format, options; a keyframe every ten frames
X265 = "keyint=10:min-keyint=10:scenecut=0:log-level=none:pools=none:frame-threads=1"
SVT = {"g": "10", "preset": "12", "svtav1-params": "lp=1"}
CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "lossless": ("libx264rgb", "rgb24", {"crf": "0", "g": "10", "bf": "0", "sc_threshold": "0"}),
    "h264": ("libx264", "yuv420p", {"bf": "3", "g": "10", "sc_threshold": "0"}),
    "h264_interlaced": ("libx264", "yuv420p", {"crf": "1", "g": "10", "flags": "+ildct+ilme", "x264-params": "tff=1"}),
    "h264_10bit": ("libx264", "yuv420p10le", {"crf": "1"}),
    "h264_444": ("libx264", "yuv444p", {"crf": "1"}),
    "h264_gray": ("libx264", "gray", {"crf": "1", "color_range": "pc"}),
    "hevc": ("libx265", "yuv420p", {"x265-params": X265}),
    "hevc_10bit": ("libx265", "yuv420p10le", {"x265-params": X265, "crf": "1"}),
    "mpeg2": ("mpeg2video", "yuv420p", {"g": "10", "bf": "2"}),
    "vp8": ("libvpx", "yuv420p", {"g": "100", "deadline": "realtime", "cpu-used": "8"}),
    "vp9": ("libvpx-vp9", "yuv420p", {"g": "10", "deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", "yuv420p", SVT),
    "mpeg4": ("mpeg4", "yuv420p", {"g": "10", "qscale": "3"}),
    "mjpeg": ("mjpeg", "yuvj420p", {"qscale": "3"}),
    "gif": ("gif", "rgb8", {}),
    "ffv1": ("ffv1", "bgr0", {"g": "10"}),
    "raw": ("rawvideo", "bgr24", {}),
    "png": ("png", "rgba", {}),
    "png_gray": ("png", "gray", {}),
}


def encode(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "lossless",
    times: Sequence[int] | None = None,
    ticks: int = 1000,
    metadata: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    **mux: str,
) -> Path:
    """Encode RGB or RGBA frames at 25 frames/s, or at `times` in 1 / `ticks` s. `mux`: options of the container.

    `aspect`: the width of a pixel relative to its height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name, pix_fmt, options = CODECS[codec]
    tick = Fraction(1, 25 if times is None else ticks)
    container_format = mux.pop("format", None)
    with av.open(str(path), "w", format=container_format, options=mux) as container:
        container.metadata.update(metadata or {})
        stream: Any = None
        for number, image in enumerate(frames):
            if stream is None:
                stream = container.add_stream(name, rate=25)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt, stream.options = pix_fmt, dict(options)
                stream.codec_context.thread_count = 1
                stream.codec_context.time_base = tick
                if aspect is not None:
                    stream.codec_context.sample_aspect_ratio = aspect
            pixel_format = "rgba" if image.shape[2] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=pixel_format)
            frame.pts, frame.time_base = number if times is None else times[number], tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packet_positions(path: Path) -> list[tuple[int, int]]:
    """Return (byte offset, size) of the data of each video packet, in decoding order."""
    data, positions = path.read_bytes(), list[tuple[int, int]]()
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                positions.append((data.index(bytes(packet), packet.pos), packet.size))
    return positions


def overwrite_bytes(path: Path, offset: int, new: bytes) -> Path:
    """Overwrite the bytes at an offset."""
    data = bytearray(path.read_bytes())
    data[offset : offset + len(new)] = new
    path.write_bytes(data)
    return path


def corrupt_packet(path: Path, packet: int, byte: int = 0xFF) -> Path:
    """Overwrite the data of one packet."""
    offset, size = packet_positions(path)[packet]
    return overwrite_bytes(path, offset, bytes([byte]) * size)


def overwrite_after(path: Path, mark: bytes, new: bytes, after: int = 0) -> Path:
    """Overwrite the bytes `after` bytes behind the first occurrence of a mark."""
    return overwrite_bytes(path, path.read_bytes().index(mark) + after, new)


# name: a, b, c, d of the eight display matrices; a pixel (x, y) is shown at (a x + c y, b x + d y), up to a shift
DISPLAY_MATRICES = {
    "as_stored": (1, 0, 0, 1),
    "turned_90": (0, 1, -1, 0),  # clockwise
    "turned_180": (-1, 0, 0, -1),
    "turned_270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside_down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "anti_transposed": (0, -1, -1, 0),
}


def write_display_matrix(path: Path, matrix: Sequence[float]) -> Path:
    """Write a, b, c, d of a display matrix into the header of an MP4."""
    a, b, c, d = (round(value * 65536) for value in matrix)
    numbers = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    return overwrite_after(path, b"tkhd", b"".join(n.to_bytes(4, "big", signed=True) for n in numbers), after=44)


def truncate_at_packet(path: Path, packet: int) -> Path:
    """Truncate the file in the middle of a packet."""
    offset, size = packet_positions(path)[packet]
    path.write_bytes(path.read_bytes()[: offset + size // 2])
    return path


def corrupt_half_packet(path: Path) -> None:
    """Overwrite the second half of packet 25: FFmpeg would conceal the error."""
    offset, size = packet_positions(path)[25]
    overwrite_bytes(path, offset + size // 2, b"\x55" * (size - size // 2))


def replace_last_packet_by_filler(path: Path) -> None:
    """Overwrite the last packet with H.264 filler data, which is valid but gives no frame."""
    offset, size = packet_positions(path)[39]
    overwrite_bytes(path, offset, (size - 4).to_bytes(4, "big") + b"\x0c" + b"\xff" * (size - 5))


def drop_packet_12(path: Path) -> None:
    """Write the stream again without a packet."""
    original = path.rename(path.with_suffix(".original.mkv"))
    with av.open(str(original)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.dts is not None and number != 12:
                packet.stream = stream
                target.mux(packet)
    original.unlink()
