"""Damaged videos, read in processes that may crash."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import moving_frames, write_video
from tests.untrusted_files import assert_read_or_refused, is_one_line
from vimoclip.errors import VideoError
from vimoclip.video import VideoReader, probe


def read_video(path: Path) -> str:
    try:
        probe(path)
        for batch in list(VideoReader(path, 8)):
            assert batch.frames.dtype == np.uint8
            assert batch.frames.ndim == 4
    except VideoError as error:
        assert is_one_line(str(error))
        return "refused"
    return "read"


def write_with_codec(path: Path, codec: str) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in moving_frames(20, (2, 1)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return path


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_2000_damaged_videos(tmp_path: Path) -> None:
    originals = [write_video(tmp_path / "lossy.mp4", moving_frames(20, (2, 1)), lossless=False)]
    originals += [write_with_codec(tmp_path / "a.mkv", "libx264"), write_with_codec(tmp_path / "a.avi", "mpeg4")]
    originals += [write_with_codec(tmp_path / "a.mov", "mjpeg")]
    assert_read_or_refused(read_video, originals, tmp_path)
