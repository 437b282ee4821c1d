"""Evenly spaced frames: those of the whole video, found by seeking in a long one."""

from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import indexed_frames, read_index
from tests.video_files import corrupt_packet, encode, overwrite_bytes, truncate_at_packet
from vimoclip import video

LONG = 1100  # frames; more than are decoded without seeking
SPACED = [0, 274, 549, 824, 1099]


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("films") / "long.mp4", indexed_frames(LONG, 16, 32), "h264")


def remux(source: Path, path: Path) -> Path:
    with av.open(str(source)) as film, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(film.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    return path


def strip(path: Path, count: int = 5) -> list[int]:
    return [read_index(frame) for frame in video.read_evenly_spaced(path, count)]


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "flv"])
def test_long_film_in_any_container(long_film: Path, tmp_path: Path, container: str) -> None:
    assert strip(remux(long_film, tmp_path / f"a.{container}")) == [index % 256 for index in SPACED]


def test_damage_between_the_frames_is_not_decoded(long_film: Path, tmp_path: Path) -> None:
    path = remux(long_film, tmp_path / "a.mp4")
    for packet in (100, 400, 700):
        corrupt_packet(path, packet)
    assert strip(path) == [index % 256 for index in SPACED]


def test_joined_films_are_read_to_the_end(long_film: Path, tmp_path: Path) -> None:
    data = remux(long_film, tmp_path / "a.ts").read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(data + data)
    assert strip(path, 3)[1] in (LONG % 256 - 1, 0)  # where the second film begins


def test_frames_before_and_after_an_edit_are_not_shown(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", indexed_frames(60), "h264")
    data = path.read_bytes()
    edit = data.index(b"elst") + 12
    start = int.from_bytes(data[edit + 4 : edit + 8], "big") + 25 * 512  # ticks: time 0 and 25 frames
    overwrite_bytes(path, edit, (13 * 40).to_bytes(4, "big") + start.to_bytes(4, "big"))
    assert strip(path, 4) == [25, 29, 33, 37]
    assert video.probe(path).frames == 13
    reader = video.VideoReader(path, 16)
    assert [read_index(frame) for batch in reader for frame in batch.frames] == list(range(25, 38))
    assert not reader.summary.problem
    assert read_index(video.RandomAccessReader(path).read(12, 13)[0]) == 37


def test_films_whose_header_has_another_number_of_frames(tmp_path: Path) -> None:
    parts = [encode(tmp_path / "part.avi", frames, "mjpeg").read_bytes() for frames in np.split(indexed_frames(80), 2)]
    (tmp_path / "joined.avi").write_bytes(b"".join(parts))
    assert video.probe(tmp_path / "joined.avi").frames == 40
    assert strip(tmp_path / "joined.avi", 3) == [0, 39, 79]
    cut = truncate_at_packet(encode(tmp_path / "cut.mp4", indexed_frames(40), movflags="+faststart"), 17)
    assert strip(cut, 5) == [0, 4, 8, 12, 16]
