"""Clips for the tests of `vimoclip.video`."""

from pathlib import Path

import av
import pytest

from tests.conftest import indexed_frames, write_video


@pytest.fixture(scope="module")
def indexed_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """77 frames that show their index, 10 frames/s, more than two groups of pictures."""
    return write_video(tmp_path_factory.mktemp("clips") / "indexed.mp4", indexed_frames(77), fps=10)


@pytest.fixture(scope="module")
def b_frame_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames with B-frames, and a keyframe every 25."""
    path = tmp_path_factory.mktemp("clips") / "b_frame_clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "g": "25", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in indexed_frames(77):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path
