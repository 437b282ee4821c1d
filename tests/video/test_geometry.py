"""Frames are as a player shows them: orientation, square pixels, size, deinterlacing."""

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import indexed_frames, read_index
from tests.video.helpers import decode, decode_all
from tests.video_files import DISPLAY_MATRICES, corrupt_packet, encode, write_display_matrix
from vimoclip import store, video
from vimoclip.errors import UserError, VideoError
from vimoclip.extraction.video_status import settings_digest
from vimoclip.prepare.place_videos import TrimSpan, trim_video
from vimoclip.video.container import MAX_PIXELS
from vimoclip.video.geometry import changed_geometry

# by name of the matrix: where the corners of the stored picture, numbered by rows, are shown
CORNERS = {
    "as_stored": [[0, 1], [2, 3]],
    "turned_90": [[2, 0], [3, 1]],
    "turned_180": [[3, 2], [1, 0]],
    "turned_270": [[1, 3], [0, 2]],
    "mirrored": [[1, 0], [3, 2]],
    "upside_down": [[2, 3], [0, 1]],
    "transposed": [[0, 2], [1, 3]],
    "anti_transposed": [[3, 1], [2, 0]],
}
AUTO = video.Geometry("auto")


def corner_picture() -> np.ndarray:
    """Return one frame (1, 48, 64, 3) whose quarters have the grey values 0, 60, 120, 180, by rows."""
    values = 60 * np.arange(4, dtype=np.uint8).reshape(2, 2)
    return values.repeat(24, axis=0).repeat(32, axis=1)[None, ..., None].repeat(3, axis=-1)


def shown_corners(path: Path) -> list[list[int]]:
    return (decode_all(path)[0][[0, -1]][:, [0, -1], 0] // 60).tolist()


@pytest.mark.parametrize("name", DISPLAY_MATRICES)
def test_each_display_matrix_is_applied(tmp_path: Path, name: str) -> None:
    path = write_display_matrix(encode(tmp_path / "a.mp4", corner_picture()), DISPLAY_MATRICES[name])
    assert shown_corners(path) == CORNERS[name]
    assert decode_all(path).shape[1:] == ((64, 48, 3) if DISPLAY_MATRICES[name][0] == 0 else (48, 64, 3))
    assert np.array_equal(video.RandomAccessReader(path).read(0, 1), decode_all(path))


@pytest.mark.parametrize(
    ("matrix", "nearest"),
    [
        ((0, 0, 0, 0), "as_stored"),
        ((0.1, 0.99, -0.99, 0.1), "turned_90"),
        ((-2, 0, 0, 2), "mirrored"),
    ],
)
def test_other_display_matrices_count_as_the_nearest(tmp_path: Path, matrix: tuple[float, ...], nearest: str) -> None:
    assert shown_corners(write_display_matrix(encode(tmp_path / "a.mp4", corner_picture()), matrix)) == CORNERS[nearest]


def disc(width: int, height: int, aspect: float) -> np.ndarray:
    """Return one frame of a white disc that is round, with a diameter of half the height, when it is played."""
    y, x = np.indices((height, width))
    inside = np.hypot((x - width / 2 + 0.5) * aspect, y - height / 2 + 0.5) < height / 4
    return (255 * inside).astype(np.uint8)[None, ..., None].repeat(3, axis=-1)


def disc_size(frame: np.ndarray) -> tuple[int, int]:
    """Return the (height, width) of the disc."""
    white = frame[..., 0] > 127
    return int(white.any(axis=1).sum()), int(white.any(axis=0).sum())


@pytest.mark.parametrize("aspect", [Fraction(16, 15), Fraction(64, 45), Fraction(4, 3), Fraction(10, 11)])
@pytest.mark.parametrize("shorter_side", [None, 60, 240])
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, shorter_side: int | None) -> None:
    path = encode(tmp_path / "a.mkv", disc(144, 120, float(aspect)), aspect=aspect)
    frame = decode_all(path, shorter_side=shorter_side)[0]
    scale = (shorter_side or min(120, round(144 * aspect))) / min(120, round(144 * aspect))
    assert frame.shape[:2] == (round(120 * scale), round(round(144 * aspect) * scale))
    height, width = disc_size(frame)
    assert height == pytest.approx(width, abs=2)


@pytest.mark.parametrize("aspect", [Fraction(100), Fraction(1, 100), Fraction(224, 225)])
def test_absurd_and_rounded_pixel_aspects_are_ignored(tmp_path: Path, aspect: Fraction) -> None:
    frames = indexed_frames(2)
    assert np.array_equal(decode_all(encode(tmp_path / "a.mkv", frames, aspect=aspect)), frames)


def test_pixel_aspect_is_applied_before_the_rotation_and_kept_in_clips(tmp_path: Path) -> None:
    aspect, span = Fraction(4, 3), TrimSpan(tmp_path / "clip.mp4", 0.0, 0.04)
    path = encode(tmp_path / "a.mp4", disc(144, 108, 4 / 3), aspect=aspect)
    write_display_matrix(path, DISPLAY_MATRICES["turned_90"])
    trim_video(path, [span])
    for file in (path, span.target):
        frame = decode_all(file)[0]
        assert frame.shape == (192, 144 * 3 // 4, 3)
        assert disc_size(frame) == pytest.approx((54, 54), abs=1)


def test_stretched_frames_are_limited(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", indexed_frames(1), aspect=Fraction(4))
    with pytest.raises(VideoError):
        decode_all(path, shorter_side=MAX_PIXELS // 1000)


def combed_frames(count: int) -> np.ndarray:
    """Return interlaced frames (n, 48, 64, 3) of a bar that moves by 2 pixels from field to field, top field first."""
    frames = np.full((count, 48, 64, 3), 40, np.uint8)
    for number, frame in enumerate(frames):
        for line in (0, 1):
            left = 2 + 2 * (2 * number + line)
            frame[line::2, left : left + 10] = 200
    return frames


def combing(frames: np.ndarray) -> float:
    """Return how much a line differs from the mean of its neighbours."""
    lines = frames.astype(float)
    return float(np.abs(lines[:, 1:-1] - (lines[:, :-2] + lines[:, 2:]) / 2).mean())


def test_interlaced_frames_are_named_and_deinterlaced_on_request(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.ts", combed_frames(12), "h264_interlaced")
    (off, summary), (auto, deinterlaced) = decode(path), decode(path, geometry=AUTO)
    assert [len(batch) for batch in auto] == [len(batch) for batch in off]
    assert combing(np.concatenate(auto)) < 0.3 * combing(np.concatenate(off))
    assert summary.frame_indices.tolist() == deinterlaced.frame_indices.tolist() == list(range(12))
    assert np.array_equal(summary.timestamps, deinterlaced.timestamps)
    assert "12 of 12" in summary.note
    assert "12 of 12" in deinterlaced.note


def test_progressive_frames_stay_as_they_are(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", indexed_frames(5))
    off, auto = decode(path), decode(path, geometry=AUTO)
    assert np.array_equal(np.concatenate(off[0]), np.concatenate(auto[0]))
    assert (off[1].note, auto[1].note) == ("", "")


def test_frames_too_small_for_bwdif_stay_as_they_are(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", indexed_frames(2)[:, :4, :4], "h264_interlaced")
    off, auto = decode(path), decode(path, geometry=AUTO)
    assert np.array_equal(np.concatenate(off[0]), np.concatenate(auto[0]))


@pytest.mark.parametrize("name", ["turned_90", "mirrored"])
def test_deinterlaced_frames_keep_their_display_matrix(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / "a.mp4", corner_picture().repeat(3, axis=0), "h264_interlaced")
    off, auto = decode(path)[0], decode(write_display_matrix(path, DISPLAY_MATRICES[name]), geometry=AUTO)[0]
    corners = np.concatenate(off)[0][[0, -1]][:, [0, -1], 0].ravel()[CORNERS[name]]
    for frame in np.concatenate(auto):
        assert np.abs(frame[[0, -1]][:, [0, -1], 0].astype(int) - corners).max() < 5


def test_deinterlaced_frames_keep_their_index_in_a_damaged_file(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", indexed_frames(30), "h264_interlaced")
    corrupt_packet(path, 14)
    (off, summary), (auto, deinterlaced) = decode(path), decode(path, geometry=AUTO)
    indices = summary.frame_indices.tolist()
    assert 10 < len(indices) < 30
    assert deinterlaced.frame_indices.tolist() == indices
    assert [read_index(frame) for frame in np.concatenate(off)] == indices
    assert [read_index(frame) for frame in np.concatenate(auto)] == indices


def test_deinterlacing_goes_on_after_a_change_of_size(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    parts = [encode(tmp_path / f"{n}.ts", indexed_frames(6)[:, :n], "h264_interlaced") for n in (48, 32)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    (off, summary), (auto, deinterlaced) = decode(path), decode(path, geometry=AUTO)
    assert np.concatenate(auto).shape == np.concatenate(off).shape
    assert len(deinterlaced.frame_indices) == 12
    assert np.array_equal(summary.timestamps, deinterlaced.timestamps)


def test_embeddings_and_records_of_earlier_versions_are_accepted_unless_deinterlaced(tmp_path: Path) -> None:
    earlier = {"kind": "rgb", "sampling": video.EVERY_FRAME.as_dict()}
    store.EmbeddingWriter(tmp_path / "a.h5", earlier)
    resumed = store.EmbeddingWriter(tmp_path / "a.h5", earlier | {"geometry": video.AS_DISPLAYED.as_dict()})
    assert resumed.attributes["geometry"] == {"deinterlace": "off"}  # as a part was made by an earlier version
    with pytest.raises(UserError):
        store.EmbeddingWriter(tmp_path / "a.h5", earlier | {"geometry": AUTO.as_dict()})
    assert settings_digest(resumed.settings()) == settings_digest(earlier | {"dtype": "float32"})
    assert settings_digest(resumed.settings() | {"geometry": AUTO.as_dict()}) != settings_digest(resumed.settings())


def test_videos_that_earlier_versions_showed_otherwise_are_known(tmp_path: Path) -> None:
    plain, mirrored = (encode(tmp_path / f"{name}.mp4", indexed_frames(1)) for name in "ab")
    write_display_matrix(mirrored, DISPLAY_MATRICES["mirrored"])
    assert changed_geometry(plain) == ""
    assert changed_geometry(mirrored)
    assert changed_geometry(write_display_matrix(plain, DISPLAY_MATRICES["turned_90"])) == ""
    assert changed_geometry(encode(tmp_path / "c.mkv", indexed_frames(1), aspect=Fraction(4, 3)))


def test_no_frame_waits_for_a_garbage_collection(tmp_path: Path) -> None:
    """A collection in a forked process would wait for threads that are not there."""
    path = write_display_matrix(encode(tmp_path / "a.mp4", corner_picture()), DISPLAY_MATRICES["mirrored"])
    gc.collect()
    gc.disable()
    try:
        decode(path)
        decode(path, geometry=AUTO)
        video.RandomAccessReader(path).read(0, 1)
        video.read_evenly_spaced(path, 1)
        assert not [item for item in gc.get_objects() if isinstance(item, av.VideoFrame)]
    finally:
        gc.enable()
