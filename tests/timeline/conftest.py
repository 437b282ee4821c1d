"""A video for the pages."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import moving_frames, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s at 25 frames/s, with a name that a URL must escape."""
    path = tmp_path_factory.mktemp("videos") / "badger 1 #2?.mp4"
    return write_video(path, np.tile(moving_frames(20, (1, 0)), (5, 1, 1, 1)), lossless=False)
