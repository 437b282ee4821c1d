"""The job of extract_embeddings.py and inference.py: embed the frames of many videos into one HDF5 file."""

import argparse
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from vimoclip import cli, clip, store, video
from vimoclip.clip.encoder import LoadedFrames
from vimoclip.errors import VideoError
from vimoclip.extraction.job import ExtractionJob
from vimoclip.extraction.sharding import WorkerContext
from vimoclip.extraction.video_status import VideoTracker
from vimoclip.runtime import cost_estimate, defaults, versions

CHUNK_FRAMES = 32  # frames that are decoded and preprocessed at a time
QUEUED_CHUNKS = 4  # per video, resized
CUDA_QUEUED_CHUNKS = 2  # per video, in the video's size
CUDA_CHUNK_BYTES = 2**32  # of all chunks of a process in the video's size

Reader = TypeVar("Reader")
# (device, precision) -> (frozen encoder, root attributes of the file)
LoadEncoder = Callable[[torch.device, str], tuple[clip.ImageEncoder, dict[str, Any]]]


class EmbeddingJob(ExtractionJob):
    """Embeddings of each kept frame of each video.

    `attributes`: root attributes that are known without the encoder; `labels`: (C,) multi-hot, of all videos that
    belong into the file. `is_flow`: the videos show flow, so indices and timestamps are those of the source frame at
    which each flow frame starts."""

    unit = "frame"

    def __init__(
        self,
        args: argparse.Namespace,
        output: Path,
        sources: dict[str, Path],
        load_encoder: LoadEncoder,
        attributes: Mapping[str, Any],
        *,
        sampling: video.Sampling = video.EVERY_FRAME,
        geometry: video.Geometry = video.AS_DISPLAYED,
        labels: Mapping[str, np.ndarray] | None = None,
        videos_ahead: int = 2,
        is_flow: bool = False,
        **kwargs: Any,
    ):
        super().__init__(args, output, sources, **kwargs)
        self.load_encoder, self.attributes = load_encoder, dict(attributes)
        self.sampling, self.geometry = sampling, geometry
        self.labels, self.videos_ahead, self.is_flow = labels, videos_ahead, is_flow
        self.encoder: clip.ImageEncoder | None = None

    def open(self, videos: dict[str, Path], worker: WorkerContext, report: cli.RunReport, dry_run: bool) -> None:
        overwrite = self.args.overwrite and worker.group.is_main
        open_writer = partial(
            store.EmbeddingWriter,
            self.output,
            dtype=self.args.embedding_dtype,
            overwrite=overwrite,
            read_only=dry_run,
        )
        if dry_run:
            self.writer = open_writer(self.attributes)
            if all(map(self.is_done, videos)) or self.missing_download():
                return
        self.encoder, encoder_attributes = self.load_encoder(self.device, self.precision)
        compute = {"precision": self.precision, "backend": "torch"}
        attributes = self.attributes | encoder_attributes | compute | {"versions": versions.package_versions()}
        self.writer = worker.run_rank0_first(lambda: open_writer(attributes))

    def reopen(self, report: cli.RunReport) -> None:
        self.writer = store.EmbeddingWriter.reopen(self.output, versions.package_versions())

    @property
    def settings(self) -> Mapping[str, Any] | None:
        is_known = self.encoder is not None or not self.args.dry_run
        return self.writer.settings() if is_known else None

    def is_done(self, video: str) -> bool:
        return self.writer.is_done(video)

    def refresh(self) -> None:
        self.writer.refresh()

    def process(self, tracker: VideoTracker) -> None:
        """Embed the videos. Memory use depends neither on the length of a video nor on the number of videos."""
        assert self.encoder is not None
        meter = cli.ProgressMeter(tracker.expected_count(), desc="embedding")
        workers, videos_ahead = tracker.prefetch_limits(self.num_workers, self.videos_ahead)
        batches = self._batch_encoder()
        print(f"{self.label}{batches.batch_size} frames per batch, {workers} reader threads", flush=True)
        limits, unfinished = _reading_limits(self.device, workers, videos_ahead), set[_VideoWithPart]()

        def end_video(source: _VideoWithPart, error: VideoError | None) -> None:
            """Record the status of a video, and publish or discard its part."""
            if error is not None:
                tracker.record_failed(source.key, str(error))
                source.part.discard()
            elif self._complete_part(source, tracker):
                source.part.publish()
            else:
                source.part.discard()
            unfinished.remove(source)
            meter.add(items=1)

        sources = (
            _VideoWithPart(
                key,
                self.writer.open_part(key),
                tracker.sources[key],
                CHUNK_FRAMES,
                self.sampling,
                on_start=partial(tracker.record_start, key),
                max_batch_pixels=limits.chunk_pixels,
                geometry=self.geometry,
            )
            for key in tracker.claim_videos()
        )
        try:
            with video.prefetch_videos(sources, self._load_frames, workers, videos_ahead, limits.depth) as videos:
                for source, chunk in _read_in_turn(videos, limits.at_once):
                    unfinished.add(source)
                    if chunk is None or isinstance(chunk, VideoError):
                        batches.add_callback(partial(end_video, source, chunk))
                    else:
                        batches.add_frames(chunk, source.part.append)
                        meter.add(frames=len(chunk))
            batches.flush()
        finally:
            for source in unfinished:
                source.part.discard()
            meter.close()

    def _batch_encoder(self) -> clip.BatchEncoder:
        assert self.encoder is not None
        requested = defaults.frame_batch_size(self.args.frame_batch_size, self.device, self.precision)
        return clip.BatchEncoder(
            self.encoder.encode_on_device,
            self.encoder.fitting_batch_size(requested),
            may_adjust_size=self.device.type == "cpu",
            prepare=self.encoder.prepare,
            device=self.device,
        )

    def _load_frames(self, batch: video.FrameBatch) -> LoadedFrames:
        assert self.encoder is not None
        return self.encoder.load_frames(batch.frames)

    def _complete_part(self, source: "_VideoWithPart", tracker: VideoTracker) -> bool:
        """Complete the part and record the video's status; return whether the part may be published."""
        summary = source.summary
        frame_indices, timestamps = summary.frame_indices, summary.timestamps
        try:
            if self.is_flow:
                frame_indices, timestamps = _flow_source_frames(source.path, summary)
        except VideoError as error:  # the file was deleted after its last frame was read
            tracker.record_failed(source.key, str(error), summary)
            return False
        if not source.part.is_finite:  # beyond the range of fp16, or a defective GPU
            needed = {"--precision fp32": self.precision, "--embedding-dtype float32": self.args.embedding_dtype}
            hint = " ".join(flag for flag, value in needed.items() if value != flag.split()[1]) or "another encoder"
            tracker.record_failed(source.key, f"its embeddings are not finite; use {hint} --retry-failed", summary)
            return False
        labels = self.labels[source.key] if self.labels is not None else None
        source.part.finalize(frame_indices, timestamps, summary.original_frames, summary.fps, labels)
        return tracker.record_success(source.key, summary)

    def finalize(self) -> Path | None:
        return self.writer.merge(self.sources, self.labels)

    def estimate(self, paths: Sequence[Path]) -> cli.CostEstimate:
        assert self.encoder is not None
        frames = video.estimate_kept_frames(paths, self.sampling)
        itemsize = np.dtype(self.args.embedding_dtype).itemsize
        bytes_per_frame = self.encoder.config["embed_dim"] * itemsize + 16  # with its index and timestamp
        rate = cost_estimate.measure_rate(self._embed_without_output(paths))
        # twice, as part files and output exist together during the merge
        return cost_estimate.estimate_cost(frames, self.unit, rate, 2 * frames * bytes_per_frame)

    def _embed_without_output(self, paths: Sequence[Path]) -> Iterator[float]:
        """Embed videos; yield the number of frames of each step."""
        assert self.encoder is not None
        batches, workers, videos_ahead = self._batch_encoder(), self.num_workers, self.videos_ahead
        limits = _reading_limits(self.device, workers, videos_ahead)
        readers = (
            video.VideoReader(
                path, CHUNK_FRAMES, self.sampling, max_batch_pixels=limits.chunk_pixels, geometry=self.geometry
            )
            for path in paths
        )
        with video.prefetch_videos(readers, self._load_frames, workers, videos_ahead, limits.depth) as videos:
            for _, chunk in _read_in_turn(videos, limits.at_once):
                if chunk is not None and not isinstance(chunk, VideoError):
                    batches.add_frames(chunk, lambda embeddings: None)
                    yield len(chunk)


class _ReadingLimits(NamedTuple):
    """`depth`: queued chunks per video; `at_once`: videos whose chunks are encoded in turn; `chunk_pixels`: of all
    frames in a chunk, at most."""

    depth: int
    at_once: int
    chunk_pixels: int


def _reading_limits(device: torch.device, workers: int, videos_ahead: int) -> _ReadingLimits:
    """Return limits by which the memory of chunks does not grow with the number of threads.

    With a GPU, threads only decode, and queues hold frames in the video's size: 200 MB for 32 of 1920x1080."""
    if device.type != "cuda":
        return _ReadingLimits(QUEUED_CHUNKS, 1, video.MAX_BATCH_PIXELS)
    at_once = max(1, workers)
    chunks = video.batches_in_memory(workers, videos_ahead, CUDA_QUEUED_CHUNKS, at_once)
    chunk_pixels = CUDA_CHUNK_BYTES // 3 // chunks
    return _ReadingLimits(CUDA_QUEUED_CHUNKS, at_once, min(video.MAX_BATCH_PIXELS, chunk_pixels))


def _read_in_turn(
    videos: Iterable[tuple[Reader, video.BatchIterator[LoadedFrames]]], at_once: int
) -> Iterator[tuple[Reader, LoadedFrames | VideoError | None]]:
    """Yield the next chunk of each of `at_once` videos in turn; after the last one its error, or None.

    A GPU encodes faster than a thread reads one video."""
    waiting = iter(videos)
    running = deque(islice(waiting, at_once))
    while running:
        source, chunks = running[0]
        running.rotate(-1)
        chunk: LoadedFrames | VideoError | None
        try:
            chunk = next(chunks, None)
        except VideoError as error:
            chunk = error
        if chunk is None or isinstance(chunk, VideoError):
            running.pop()
            chunks.close()
            running.extend(islice(waiting, 1))
        yield source, chunk


class _VideoWithPart(video.VideoReader):
    """Reader of a video, with its key and the part file that its embeddings go to."""

    def __init__(self, key: str, part: store.PartWriter, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.key, self.part = key, part


def _flow_source_frames(path: Path, summary: video.ReadSummary) -> tuple[np.ndarray, np.ndarray]:
    """Return indices and timestamps (s) of the source frames at which the flow frames start."""
    comment = video.probe(path).comment
    indices, timestamps = video.frame_indices_from_comment(comment), video.timestamps_from_comment(comment, summary.fps)
    if indices is None or timestamps is None or len(indices) != len(summary.frame_indices) + 1:
        return summary.frame_indices, summary.timestamps  # a published flow video, or a truncated one
    return indices[:-1], timestamps[:-1]
