"""Main loop of extract_embeddings.py and inference.py: embed the frames of many videos into one HDF5 file."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vimoclip import clip, store, video
from vimoclip.cli import ProgressMeter
from vimoclip.errors import VideoError
from vimoclip.extraction.video_status import VideoTracker

CHUNK_FRAMES = 32  # frames that are decoded and preprocessed at a time


@dataclass(frozen=True)
class VideoInput:
    """Video to embed, with its key in the file."""

    key: str
    path: Path
    labels: np.ndarray | None = None


def embed_videos(
    videos: Iterable[VideoInput],
    writer: store.EmbeddingWriter,
    preprocess: Callable[[np.ndarray], torch.Tensor],
    encode: Callable[[torch.Tensor], torch.Tensor],
    tracker: VideoTracker,
    sampling: video.Sampling = video.EVERY_FRAME,
    frame_batch_size: int = 16,
    workers: int = 2,
    videos_ahead: int = 2,
    flow_frames: bool = False,
) -> None:
    """Embed each kept frame of each video and record the video's status in `tracker`.

    `videos` is consumed lazily. `flow_frames`: the videos show flow, so indices and timestamps are those of the source
    frame at which each flow frame starts.

    Threads decode and preprocess while the encoder runs. Memory use depends neither on the length of a video nor on
    the number of videos."""
    torch.get_num_threads()  # fixes the count of this thread before prefetch threads call set_num_threads(1)
    started: list[VideoInput] = []

    def sources() -> Iterator[Callable[[], Iterator[torch.Tensor | video.ReadSummary]]]:
        for source in videos:
            started.append(source)
            yield partial(_preprocessed_chunks, source, preprocess, sampling, tracker)

    meter, part = ProgressMeter(tracker.expected_count(), desc="embedding"), None
    threads, videos_ahead = tracker.prefetch_limits(workers, videos_ahead)
    try:
        with closing(video.prefetch_videos(sources(), threads, videos_ahead)) as prefetched:
            items = ((started[i], item) for i, item in prefetched)
            for source, item in clip.encode_stream(items, encode, frame_batch_size):
                if isinstance(item, torch.Tensor):
                    part = part or writer.open_part(source.key)
                    part.append(item.numpy())
                    meter.add(frames=len(item))
                    continue
                if isinstance(item, VideoError):
                    tracker.record_failed(source.key, str(item))
                elif part is not None and _complete_part(part, source, item, flow_frames, tracker):
                    part.publish()
                    part = None
                if part is not None:
                    part.discard()
                part = None
                meter.add(items=1)
    finally:
        if part is not None:
            part.discard()
        meter.close()


def _complete_part(
    part: store.PartWriter, source: VideoInput, summary: video.ReadSummary, flow_frames: bool, tracker: VideoTracker
) -> bool:
    """Complete the part and record the video's status; return whether the part may be published."""
    try:
        frame_indices, timestamps = summary.frame_indices, summary.timestamps
        if flow_frames:
            frame_indices, timestamps = _flow_source_frames(source.path, summary)
    except VideoError as error:  # the file was deleted after its last frame was read
        tracker.record_failed(source.key, str(error), summary)
        return False
    part.finalize(frame_indices, timestamps, summary.original_frames, summary.fps, source.labels)
    return tracker.record_success(source.key, summary)


def _preprocessed_chunks(
    source: VideoInput,
    preprocess: Callable[[np.ndarray], torch.Tensor],
    sampling: video.Sampling,
    tracker: VideoTracker,
) -> Iterator[torch.Tensor | video.ReadSummary]:
    if threading.current_thread() is not threading.main_thread():
        torch.set_num_threads(1)  # per prefetch thread; 1.07 times as fast with several of them
    for item in tracker.start_on_read(source.key, video.read_batches(source.path, CHUNK_FRAMES, sampling)):
        yield item if isinstance(item, video.ReadSummary) else preprocess(item)


def _flow_source_frames(path: Path, summary: video.ReadSummary) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and timestamps (s) of the source frames at which the flow frames start."""
    comment = video.probe(path).comment
    indices, timestamps = video.frame_indices_from_comment(comment), video.timestamps_from_comment(comment, summary.fps)
    if indices is None or timestamps is None or len(indices) != len(summary.frame_indices) + 1:
        return summary.frame_indices, summary.timestamps  # a published flow video, or a truncated one
    return indices[:-1], timestamps[:-1]
