"""Cost estimates for --dry-run, from a few seconds of extraction on the pending videos, without any output."""

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

SAMPLED_VIDEOS = 200  # whose headers are read for the number of frames, which takes 0.1 s
CHUNK_FRAMES = 32  # frames decoded at a time
PROBED_FLOW_FRAMES = 64  # per video, enough to measure the bytes per flow frame


def count_kept_frames(paths: Sequence[Path], sampling: video.Sampling) -> float:
    """Return the number of kept frames in all videos, extrapolated from the headers of evenly spaced ones."""
    sample = paths[:: max(1, len(paths) // SAMPLED_VIDEOS)]
    counts = [count for path in sample if (count := _kept_frames(path, sampling))]
    return sum(counts) / len(counts) * len(paths) if counts else 0.0


def _kept_frames(path: Path, sampling: video.Sampling) -> float:
    try:
        info = video.probe(path)
    except VideoError:
        return 0.0
    kept = info.frames / sampling.stride
    if sampling.fps is not None:
        kept = min(kept, info.frames / float(info.fps) * sampling.fps)
    return min(kept, sampling.max_frames or kept)


def estimate_embedding(
    paths: Sequence[Path],
    encoder: clip.ImageEncoder,
    sampling: video.Sampling,
    frame_batch_size: int,
    workers: int,
    bytes_per_frame: int,
) -> str:
    """Return a line with time, disk space and memory. `bytes_per_frame`: of an embedded frame in the file."""
    rate = cost_estimate.measure_rate(_embed_frames(paths, encoder, sampling, frame_batch_size, workers))
    frames = count_kept_frames(paths, sampling)
    # twice, as part files and output exist together during the merge
    return str(cost_estimate.estimate_cost(frames, "frame", rate, 2 * frames * bytes_per_frame))


def _embed_frames(
    paths: Sequence[Path], encoder: clip.ImageEncoder, sampling: video.Sampling, batch_size: int, workers: int
) -> Iterator[float]:
    def preprocessed_chunks(path: Path) -> Iterator[torch.Tensor]:
        for item in video.read_batches(path, CHUNK_FRAMES, sampling):
            if isinstance(item, np.ndarray):
                yield encoder.preprocess(item)

    with closing(video.prefetch_videos((partial(preprocessed_chunks, path) for path in paths), workers)) as prefetched:
        for _, item in clip.encode_stream(prefetched, encoder.encode, batch_size):
            if isinstance(item, torch.Tensor):
                yield len(item)


def estimate_flow(
    paths: Sequence[Path],
    render: Callable[[np.ndarray], np.ndarray],
    sampling: video.Sampling,
    size: int | None,
    pair_batch_size: int,
    lossless: bool,
) -> str:
    """Return a line with time, disk space and memory for flow videos. `render`: see `flow_videos.RenderFlow`."""
    written: list[tuple[int, int]] = []  # (frames, bytes) of the probed flow videos
    max_frames = min(PROBED_FLOW_FRAMES, sampling.max_frames or PROBED_FLOW_FRAMES)
    probe_sampling = video.Sampling(sampling.stride, sampling.fps, max_frames)

    def write_probes(folder: Path) -> Iterator[float]:
        for path in paths:
            try:
                with video.VideoWriter(folder / "probe.mp4", video.probe(path).fps, {}, lossless) as writer:
                    for item in video.read_batches(path, pair_batch_size, probe_sampling, size, overlap=1):
                        if isinstance(item, np.ndarray) and len(item) > 1:
                            writer.write(render(item))
                            yield len(item) - 1
                    writer.finalize()
                    written.append((writer.frames, writer.size() if writer.frames else 0))
            except VideoError:
                continue

    with tempfile.TemporaryDirectory() as folder:
        rate = cost_estimate.measure_rate(write_probes(Path(folder)))
    pairs = max(0.0, count_kept_frames(paths, sampling) - len(paths))
    frames, size_in_bytes = (sum(numbers) for numbers in zip(*written, strict=True)) if written else (0, 0)
    disk = pairs * size_in_bytes / frames if frames else sum(path.stat().st_size for path in paths if path.is_file())
    return str(cost_estimate.estimate_cost(pairs, "pair", rate, disk))
