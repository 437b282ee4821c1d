"""Makes videos of any codec and container, and damages them."""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

LOSSLESS = {"crf": "0", "g": "10", "bf": "0", "preset": "ultrafast", "sc_threshold": "0"}


def encode(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "libx264rgb",
    options: dict[str, str] | None = None,
    pix_fmt: str = "rgb24",
    source: str = "rgb24",
    times: Sequence[int] | None = None,
    kind: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Frames, in the pixel format `source`, to a file, at 25 frames/s or at `times` (ms)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tick = Fraction(1, 25) if times is None else Fraction(1, 1000)
    with av.open(str(path), "w", format=kind) as container:
        container.metadata.update(metadata or {})
        stream: Any = None
        for number, image in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=25)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt, stream.options = pix_fmt, dict(LOSSLESS if options is None else options)
                stream.codec_context.thread_count = 1
                stream.codec_context.time_base = tick
            frame = av.VideoFrame.from_ndarray(image, format=source)
            frame.pts, frame.time_base = number if times is None else times[number], tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[tuple[int, int, bool]]:
    """(place in the file, size, whether it is a keyframe) of each video packet, in decoding order."""
    with av.open(str(path)) as container:
        return [(p.pos or 0, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]


def overwrite(path: Path, at: int, new: bytes) -> Path:
    """Put bytes in the place of others."""
    data = bytearray(path.read_bytes())
    data[at : at + len(new)] = new
    path.write_bytes(data)
    return path


def corrupt(path: Path, packet: int, share: tuple[float, float] = (0, 1), byte: int = 0xFF) -> Path:
    """Overwrite one packet, or part of it."""
    at, size, _ = packets(path)[packet]
    start, stop = int(share[0] * size), int(share[1] * size)
    return overwrite(path, at + start, bytes([byte]) * (stop - start))


def replace(path: Path, old: bytes, new: bytes, which: Sequence[int] | None = None) -> Path:
    """Replace bytes by as many others, wherever they are or at the given occurrences."""
    assert len(old) == len(new)
    data, at, number = bytearray(path.read_bytes()), -1, -1
    while (at := data.find(old, at + 1)) >= 0:
        number += 1
        if which is None or number in which:
            data[at : at + len(old)] = new
    assert number >= 0
    path.write_bytes(data)
    return path
