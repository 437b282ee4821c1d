"""Several flow videos written at once: the files of one after the other, real overlap, errors, bounded batches."""

import threading
from pathlib import Path
from typing import Any

import pytest

import extract_flows
from tests.conftest import file_size_limit, moving_frames, write_video
from tests.stage_driver import assert_same_files, folder_content
from tests.video_files import corrupt_packet
from vimoclip import cli, video
from vimoclip.runtime import defaults


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 8 to 48 frames: one is damaged, one has a single frame, one is no video."""
    folder = tmp_path_factory.mktemp("videos")
    for number, frames in enumerate((48, 8, 30, 1, 20)):
        write_video(folder / f"{number}.mp4", moving_frames(frames, (2, 1), 64, 80, seed=number), lossless=False)
    corrupt_packet(folder / "2.mp4", 15)
    (folder / "5.mp4").write_bytes(b"no video")
    return folder


def extract(videos: Path, output: Path, at_once: int, *flags: str) -> cli.RunReport:
    command = ["--model", "dis", "--num-workers", "2", "--videos-dir", str(videos), "--output-dir", str(output), *flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(defaults, "videos_written_at_once", lambda device: at_once)
        return extract_flows.main(command)


@pytest.mark.parametrize("flags", [[], ["--strict"]])
def test_files_and_statuses_are_those_of_one_video_at_a_time(videos: Path, tmp_path: Path, flags: list[str]) -> None:
    reports, contents = [], []
    for at_once in (1, 2):
        folder = tmp_path / str(at_once)
        reports.append(extract(videos, folder / "flows", at_once, *flags))
        contents.append(folder_content(folder))
    assert_same_files(contents[1], contents[0])
    one, two = ({**vars(report), "outputs": [], "manifests": []} for report in reports)
    assert one == two
    assert (one["done"], sorted(one["skipped"])) == (3, ["3.mp4"])
    assert sorted(one["failed"]) == (["2.mp4", "5.mp4"] if flags else ["5.mp4"])


@pytest.mark.parametrize("at_once", [1, 2])
def test_two_videos_are_encoded_at_once(
    videos: Path, tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each first batch of a video is encoded only when another encoder has come as far."""
    barrier, encode = threading.Barrier(2), video.VideoWriter._encode
    overlapped: list[bool] = []

    def encode_together(writer: video.VideoWriter, *batch: Any) -> None:
        if not writer.frames and len(overlapped) < 2:
            try:
                barrier.wait(20 if at_once == 2 else 0.5)
                overlapped.append(True)
            except threading.BrokenBarrierError:
                overlapped.append(False)
        encode(writer, *batch)

    monkeypatch.setattr(video.VideoWriter, "_encode", encode_together)
    extract(videos, tmp_path / "flows", at_once)
    assert overlapped[:2] == [at_once == 2] * 2


def test_an_error_discards_the_files_of_all_open_videos(videos: Path, tmp_path: Path) -> None:
    with file_size_limit(2000), pytest.raises(OSError, match="File too large"):
        extract(videos, tmp_path / "flows", 2)
    assert not [path.name for path in (tmp_path / "flows").iterdir() if path.name.startswith(".")]
    extract(videos, tmp_path / "flows", 2)
    assert {path.name for path in (tmp_path / "flows").iterdir()} == {"0.mp4", "1.mp4", "2.mp4", "4.mp4"}


def test_large_frames_come_in_small_batches_with_the_same_flow(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 pairs of 1920x1080 would be 200 MB, of which several are in memory for each video that is read ahead."""
    batch_sizes: list[int] = []
    read: Any = video.VideoReader.__iter__

    def record(reader: video.VideoReader) -> Any:
        for batch in read(reader):
            batch_sizes.append(len(batch.frames))
            yield batch

    extract(videos, tmp_path / "large" / "flows", 1, "--pair-batch-size", "32")
    monkeypatch.setattr(video, "MAX_BATCH_PIXELS", 5 * 64 * 80)
    monkeypatch.setattr(video.VideoReader, "__iter__", record)
    extract(videos, tmp_path / "small" / "flows", 1, "--pair-batch-size", "32")
    assert max(batch_sizes) == 5 + 1  # with the last frame of the batch before
    assert_same_files(folder_content(tmp_path / "small"), folder_content(tmp_path / "large"))
