"""The order in which chunks of several videos are encoded, and the memory of chunks that are read ahead."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import file_size_limit
from tests.stage_driver import H5_OUTPUTS, stage_command
from vimoclip import cli, video
from vimoclip.errors import VideoError
from vimoclip.extraction import embeddings
from vimoclip.extraction.embeddings import CHUNK_FRAMES, CUDA_CHUNK_BYTES, _read_in_turn, _reading_limits


def chunks(name: str, count: int, error: VideoError | None = None) -> Iterator[Any]:
    yield from (f"{name}{number}" for number in range(count))
    if error:
        raise error


@pytest.mark.parametrize(
    ("at_once", "expected"),
    [
        (1, ["a0", "a1", "a end", "b0", "b failed", "c0", "c1", "c2", "c end"]),
        (2, ["a0", "b0", "a1", "b failed", "a end", "c0", "c1", "c2", "c end"]),
        (9, ["a0", "b0", "c0", "a1", "b failed", "c1", "a end", "c2", "c end"]),
    ],
)
def test_each_video_ends_after_its_last_chunk(at_once: int, expected: list[str]) -> None:
    videos: Any = [("a", chunks("a", 2)), ("b", chunks("b", 1, VideoError("is cut"))), ("c", chunks("c", 3))]
    found = []
    for source, chunk in _read_in_turn(iter(videos), at_once):
        ending = "end" if chunk is None else "failed" if isinstance(chunk, VideoError) else None
        found.append(f"{source} {ending}" if ending else str(chunk))
    assert found == expected


@pytest.mark.parametrize("workers", [0, 1, 2, 14, 62, 254])
def test_memory_of_chunks_does_not_grow_with_the_threads(workers: int) -> None:
    """254 threads with chunks of 32 frames of 1920x1080 would take 200 GB of pinned memory."""
    limits = _reading_limits(torch.device("cuda:0"), workers, 2)
    chunks = video.batches_in_memory(workers, 2, limits.depth, limits.at_once)
    assert chunks * limits.chunk_pixels * 3 <= CUDA_CHUNK_BYTES
    assert limits.chunk_pixels >= (1920 * 1080 if workers < 100 else 640 * 360)
    if workers <= 14:
        assert limits.chunk_pixels >= CHUNK_FRAMES * 640 * 360


def run_in_turn(stage: str, small_inputs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> Path:
    """Run a stage with chunks of three frames, as many videos in turn; return its file."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    limits = embeddings._ReadingLimits(2, at_once, 3 * 64 * 96)
    monkeypatch.setattr(cli.input_checks, "num_processors", lambda: at_once)  # each video needs a thread
    monkeypatch.setattr(embeddings, "_reading_limits", lambda *_: limits)
    _, *flags = stage_command(small_inputs, stage, "--num-workers", str(at_once))
    import_module(stage).main(flags)
    return folder / H5_OUTPUTS[stage]


@pytest.mark.parametrize("stage", H5_OUTPUTS)
def test_the_file_is_that_of_one_video_after_the_other(
    stage: str, small_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a run that a full disk has ended while all videos were open."""
    one, several = (tmp_path / str(at_once) for at_once in (1, 9))
    expected = run_in_turn(stage, small_inputs, one, monkeypatch, 1).read_bytes()
    threads = threading.active_count()
    with file_size_limit(1000), suppress(OSError):
        run_in_turn(stage, small_inputs, several, monkeypatch, 9)
    assert threading.active_count() == threads
    assert not (several / H5_OUTPUTS[stage]).exists()
    assert run_in_turn(stage, small_inputs, several, monkeypatch, 9).read_bytes() == expected
