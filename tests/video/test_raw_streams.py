"""Raw streams are refused with the FFmpeg command that makes a video of them."""

import shlex
from pathlib import Path
from typing import Any

import av
import pytest

from tests.conftest import indexed_frames
from vimoclip import video
from vimoclip.errors import VideoError


def write(path: Path, codec: str, muxer: str, b_frames: int = 0) -> Path:
    with av.open(str(path), "w", format=muxer) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height = 128, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.options = {"bf": str(b_frames)} if codec == "libx264" else {}
        for image in indexed_frames(8, 96, 128):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("extension", "b_frames"), [("h264", 0), ("h264", 2), ("mjpeg", 0), ("mp4", 0)])
def test_raw_streams_are_refused_with_a_command(tmp_path: Path, extension: str, b_frames: int) -> None:
    codec, muxer = ("mjpeg", "mjpeg") if extension == "mjpeg" else ("libx264", "h264")
    path = write(tmp_path / f"film of a mouse.{extension}", codec, muxer, b_frames)
    with pytest.raises(VideoError) as error:
        video.probe(path)
    arguments = shlex.split(str(error.value).partition("ffmpeg ")[2])
    assert str(path) in arguments
    assert str(path.with_suffix(".mkv")) in arguments
    assert ("copy" in arguments) == (b_frames == 0)  # FFmpeg gives B-frames wrong times without decoding
    folder = video.VideoFolder(tmp_path)
    assert ("ffmpeg" in folder.describe_left_out()) == (extension != "mp4")
