"""Shared helpers of the tests of `vimoclip.video`."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import SHARED, indexed_frames
from vimoclip import video

AWKWARD_CLIPS = SHARED / "clips" / "awkward"
needs_clips = pytest.mark.skipif(not AWKWARD_CLIPS.is_dir(), reason=f"{AWKWARD_CLIPS} with real clips is missing")

# name: number of decodable frames, (height, width) after rotation
AWKWARD_CLIP_SIZES: dict[str, tuple[int, tuple[int, int]]] = {
    "nasa_13013.mp4": (390, (270, 480)),
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
    geometry: video.Geometry = video.AS_DISPLAYED,
) -> tuple[list[np.ndarray], video.ReadSummary]:
    """Return the frames of all batches, and the summary."""
    reader = video.VideoReader(path, batch_size, sampling, (shorter_side,), overlap, geometry=geometry)
    return [batch.frames for batch in reader], reader.summary


def decode_all(path: Path, shorter_side: int | None = None) -> np.ndarray:
    return np.concatenate(decode(path, shorter_side=shorter_side)[0])


def write_two_sizes(path: Path) -> Path:
    """Write 10 frames of 64x48, then 10 of 32x24, in one MJPEG stream."""
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


def write_in_batches(path: Path, frames: np.ndarray, lossless: bool = False, batch: int = 8) -> Path:
    with video.VideoWriter(path, 25, {"b": 1, "a": 2}, lossless) as writer:
        for start in range(0, len(frames), batch):
            writer.write(frames[start : start + batch])
    return path
