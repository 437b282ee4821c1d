"""The loop that extract_embeddings.py and inference.py share: videos in, one HDF5 file of embeddings out."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vimoclip import clip, store, video
from vimoclip.cli import Meter
from vimoclip.errors import VideoError
from vimoclip.extraction.video_status import Outcomes

CHUNK = 32  # frames decoded and prepared at a time


@dataclass(frozen=True)
class Job:
    """One video to embed, under its key in the file."""

    key: str
    path: Path
    labels: np.ndarray | None = None


def embed_videos(
    jobs: Iterable[Job],
    writer: store.Writer,
    preprocess: Callable[[np.ndarray], torch.Tensor],
    encode: Callable[[torch.Tensor], torch.Tensor],
    outcomes: Outcomes,
    sampling: video.Sampling = video.EVERY_FRAME,
    frame_batch_size: int = 16,
    workers: int = 2,
    videos_ahead: int = 2,
    flow_frames: bool = False,
) -> None:
    """Embed each kept frame of each video; `outcomes` hears what became of it. Jobs are taken one by one, as needed.

    `flow_frames`: the videos show flow; indices and timestamps are of the frames that each flow starts from.

    Threads decode and prepare ahead while the encoder works; memory grows neither with a video's length nor with
    the number of videos."""
    torch.get_num_threads()  # asked now, this thread keeps its own, whatever those that read ahead set
    taken: list[Job] = []

    def sources() -> Iterator[Callable[[], Iterator[torch.Tensor | video.End]]]:
        for job in jobs:
            taken.append(job)
            yield partial(_prepared, job, preprocess, sampling, outcomes)

    meter, part = Meter(outcomes.expected(), describe="embedding"), None
    try:
        with closing(video.read_ahead(sources(), *outcomes.reading(workers, videos_ahead))) as ahead:
            items = ((taken[i], item) for i, item in ahead)
            for job, item in clip.encode_stream(items, encode, frame_batch_size):
                if isinstance(item, torch.Tensor):
                    part = part or writer.part(job.key)
                    part.append(item.numpy())
                    meter.add(frames=len(item))
                    continue
                if isinstance(item, VideoError):
                    outcomes.failed(job.key, str(item))
                elif part is not None and _complete(part, job, item, flow_frames, outcomes):
                    part.publish()
                    part = None
                if part is not None:
                    part.abandon()
                part = None
                meter.add(items=1)
    finally:
        if part is not None:
            part.abandon()
        meter.close()


def _complete(part: store.Part, job: Job, end: video.End, flow_frames: bool, outcomes: Outcomes) -> bool:
    """Whether the part is whole and may be published."""
    try:
        origin = _flow_origin(job.path, end) if flow_frames else (end.frame_indices, end.timestamps)
    except VideoError as error:  # the file vanished since its last frame was read
        outcomes.failed(job.key, str(error), end)
        return False
    part.complete(*origin, end.original_frames, end.fps, job.labels)
    return outcomes.came_out(job.key, end)


def _prepared(
    job: Job, preprocess: Callable[[np.ndarray], torch.Tensor], sampling: video.Sampling, outcomes: Outcomes
) -> Iterator[torch.Tensor | video.End]:
    if threading.current_thread() is not threading.main_thread():
        torch.set_num_threads(1)  # of this thread: several prepare beside each other, 1.07 times as fast so
    for item in outcomes.opening(job.key, video.read(job.path, CHUNK, sampling)):
        yield item if isinstance(item, video.End) else preprocess(item)


def _flow_origin(path: Path, end: video.End) -> tuple[np.ndarray, np.ndarray]:
    """Index and seconds, in the source video, of the frame that each flow starts from."""
    comment = video.probe(path).comment
    indices, timestamps = video.described_indices(comment), video.described_timestamps(comment, end.fps)
    if indices is None or timestamps is None or len(indices) != len(end.frame_indices) + 1:
        return end.frame_indices, end.timestamps  # a published flow video, or one that was cut short
    return indices[:-1], timestamps[:-1]
