"""What --dry-run measures: a few seconds of a stage's own work on the videos that are to do, leaving nothing behind."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vimoclip import clip, video
from vimoclip.errors import VideoError
from vimoclip.runtime import cost_estimate

SAMPLE = 200  # videos whose headers are asked for their number of frames: a tenth of a second
CHUNK = 32  # frames decoded at a time
FLOW_FRAMES = 64  # of each video: enough to learn how many bytes a frame of flow takes


def frames_to_do(paths: Sequence[Path], sampling: video.Sampling) -> float:
    """Kept frames of all these videos, as far as the headers of an even choice of them say."""
    counts = [count for path in paths[:: max(1, len(paths) // SAMPLE)] if (count := _kept(path, sampling))]
    return sum(counts) / len(counts) * len(paths) if counts else 0.0


def _kept(path: Path, sampling: video.Sampling) -> float:
    try:
        info = video.probe(path)
    except VideoError:
        return 0.0
    kept = info.frames / sampling.stride
    if sampling.fps is not None:
        kept = min(kept, info.frames / float(info.fps) * sampling.fps)
    return min(kept, sampling.max_frames or kept)


def describe_embedding(
    paths: Sequence[Path],
    encoder: clip.ImageEncoder,
    sampling: video.Sampling,
    frame_batch_size: int,
    workers: int,
    bytes_each: int,
) -> str:
    """How long embedding takes, and what it needs. `bytes_each`: of an embedded frame in the file."""
    rate = cost_estimate.rate(_embedding(paths, encoder, sampling, frame_batch_size, workers))
    frames = frames_to_do(paths, sampling)
    # twice, as parts and file are there together before the parts go
    return cost_estimate.describe(frames, "frame", rate, 2 * frames * bytes_each, cost_estimate.memory())


def _embedding(
    paths: Sequence[Path], encoder: clip.ImageEncoder, sampling: video.Sampling, batch: int, workers: int
) -> Iterator[float]:
    def prepared(path: Path) -> Iterator[torch.Tensor]:
        for item in video.read(path, CHUNK, sampling):
            if isinstance(item, np.ndarray):
                yield encoder.preprocess(item)

    with closing(video.read_ahead((partial(prepared, path) for path in paths), workers)) as ahead:
        for _, item in clip.encode_stream(ahead, encoder.encode, batch):
            if isinstance(item, torch.Tensor):
                yield len(item)


def describe_flow(
    paths: Sequence[Path],
    render: Callable[[np.ndarray], np.ndarray],
    sampling: video.Sampling,
    size: int | None,
    pair_batch_size: int,
    lossless: bool,
) -> str:
    """How long drawing the flow takes, and what it needs."""
    written: list[tuple[int, int]] = []  # (frames, bytes) of videos
    few = video.Sampling(sampling.stride, sampling.fps, min(FLOW_FRAMES, sampling.max_frames or FLOW_FRAMES))

    def work(folder: Path) -> Iterator[float]:
        for path in paths:
            try:
                with video.Writer(folder / "probe.mp4", video.probe(path).fps, {}, lossless) as writer:
                    for item in video.read(path, pair_batch_size, few, size, overlap=1):
                        if isinstance(item, np.ndarray) and len(item) > 1:
                            writer.write(render(item))
                            yield len(item) - 1
                    writer.complete()
                    written.append((writer.frames, writer.size() if writer.frames else 0))
            except VideoError:
                continue

    with tempfile.TemporaryDirectory() as folder:
        rate = cost_estimate.rate(work(Path(folder)))
    pairs = max(0.0, frames_to_do(paths, sampling) - len(paths))
    frames, size_of_all = (sum(numbers) for numbers in zip(*written, strict=True)) if written else (0, 0)
    disk = pairs * size_of_all / frames if frames else sum(path.stat().st_size for path in paths if path.is_file())
    return cost_estimate.describe(pairs, "pair", rate, disk, cost_estimate.memory())
