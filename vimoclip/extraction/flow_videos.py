"""The job of extract_flows.py: write one video of colour-coded optical flow per source video."""

import argparse
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vimoclip import annotations, cli, video
from vimoclip.errors import UserError, VideoError
from vimoclip.extraction import manifest
from vimoclip.extraction.job import ExtractionJob
from vimoclip.extraction.sharding import WorkerContext
from vimoclip.extraction.video_status import VideoTracker, settings_digest
from vimoclip.flow.factory import FlowRenderer
from vimoclip.flow.flow_folder import common_settings
from vimoclip.io.names import list_some, normalize_name
from vimoclip.runtime import cost_estimate, defaults

PROBED_FLOW_FRAMES = 64  # per video, enough to measure the bytes per flow frame
QUEUED_BATCHES, GPU_QUEUED_BATCHES = 4, 2  # per video
MAX_GPU_BATCH_PIXELS = 2**24  # 8 frames of 1920x1080, 2 of 3840x2160; such batches use a GPU as well as larger ones
MAX_GPU_BATCHES_BYTES = 2**32  # of all batches of a process, if its many reader threads have that many


class FlowVideoJob(ExtractionJob):
    """Flow videos in the folder `output`.

    `load_renderer`: from device and precision to the function that computes the flow images; called when a video is
    pending. `settings`: stored in each flow video's comment; `precision` in it may be auto. `size`: shorter side in
    pixels, None for the source's."""

    unit = "pair"

    def __init__(
        self,
        args: argparse.Namespace,
        output: Path,
        sources: dict[str, Path],
        load_renderer: Callable[[torch.device, str], FlowRenderer],
        settings: Mapping[str, Any],
        *,
        sampling: video.Sampling,
        geometry: video.Geometry = video.AS_DISPLAYED,
        size: int | None,
        **kwargs: Any,
    ):
        super().__init__(args, output, sources, **kwargs)
        self.load_renderer, self.sampling, self.geometry = load_renderer, sampling, geometry
        self.size = size
        self._settings, self._done = dict(settings), set[str]()
        self._render: FlowRenderer | None = None

    @property
    def settings(self) -> Mapping[str, Any] | None:
        known = self._known_settings()
        return known if known.keys() == self._settings.keys() else None

    def _known_settings(self) -> dict[str, Any]:
        """Return the settings; to check or merge, without a precision that depends on the GPU of another machine."""
        settings = dict(self._settings)
        if settings.get("precision") == "auto":
            settings["precision"] = self.precision
            if self.args.dry_run or self.args.merge:
                del settings["precision"]
        return settings

    def output_path(self, source: Path) -> Path:
        """Return the path of a source video's flow video."""
        return self.output / f"{source.stem}.mp4"

    def open(self, videos: dict[str, Path], worker: WorkerContext, report: cli.RunReport, dry_run: bool) -> None:
        report.outputs.append(self.output)
        if not worker.group.is_main:
            return
        if not self.args.overwrite:
            self._done = self._find_existing(videos, report)
        elif not dry_run:
            self._get_renderer()  # before old flow is deleted
            for path in videos.values():
                self.output_path(path).unlink(missing_ok=True)

    def reopen(self, report: cli.RunReport) -> None:
        report.outputs.append(self.output)
        self._done = self._find_existing(self.sources, report)
        if "precision" in self._settings:  # that of the shards is not known here, but must be one
            common_settings([self.output_path(self.sources[name]) for name in sorted(self._done)], {})

    def is_done(self, video: str) -> bool:
        return video in self._done

    def refresh(self) -> None:
        self._done = {name for name, path in self.sources.items() if self.output_path(path).exists()}

    def finalize(self) -> Path | None:
        return None  # `open` has reported the folder

    def process(self, tracker: VideoTracker) -> None:
        if not tracker.pending:
            return
        render = self._get_renderer()
        self.output.mkdir(parents=True, exist_ok=True)
        meter = cli.ProgressMeter(tracker.expected_count(), desc="flow")
        workers, videos_ahead = tracker.prefetch_limits(self.num_workers)
        print(f"at most {self._pair_batch_size} pairs per batch, {workers} reader threads", flush=True)
        # one where ranks share few videos; each needs a thread that reads it
        at_once = min(defaults.videos_written_at_once(self.device), max(1, workers)) if videos_ahead else 1
        depth, batch_pixels = QUEUED_BATCHES, video.MAX_BATCH_PIXELS
        if self.device.type == "cuda":
            depth = GPU_QUEUED_BATCHES
            batches = video.batches_in_memory(workers, videos_ahead, depth, at_once)
            batch_pixels = min(MAX_GPU_BATCH_PIXELS, MAX_GPU_BATCHES_BYTES // 3 // batches)
        readers = (
            self._reader(tracker.sources[name], self.sampling, batch_pixels, partial(tracker.record_start, name))
            for name in tracker.claim_videos()
        )
        with video.prefetch_videos(readers, lambda batch: batch.frames, workers, videos_ahead, depth) as videos:
            writing = (self._write_flow_video(reader, batches, render, tracker, meter) for reader, batches in videos)
            _take_turns(writing, at_once)
        meter.close()

    def _write_flow_video(
        self,
        reader: video.VideoReader,
        batches: video.BatchIterator[np.ndarray],
        render: FlowRenderer,
        tracker: VideoTracker,
        meter: cli.ProgressMeter,
    ) -> Generator[None, None, None]:
        """Write one flow video from batches of frames, and record its status; yield while a thread encodes it."""
        path, comment, frames = reader.path, self._known_settings(), 0
        try:
            with (
                closing(batches),
                video.VideoWriter(
                    self.output_path(path), video.probe(path).fps, comment, comment["lossless"]
                ) as writer,
            ):
                for images in render.render_batches(batches):
                    writer.write(images)
                    yield
                summary = reader.summary
                comment |= {"video": path.stem, **video.frames_to_comment(summary)}
                writer.start_finalizing()
                yield
                writer.finalize()
                if not writer.frames:
                    tracker.record_skipped(path.name, "has one kept frame, so there is no flow", summary)
                elif not tracker.record_success(path.name, summary, writer.size()):
                    writer.discard()
            frames = writer.frames
        except VideoError as error:
            tracker.record_failed(path.name, str(error))
        meter.add(items=1, frames=frames)

    def estimate(self, paths: Sequence[Path]) -> cli.CostEstimate:
        pairs = max(0.0, video.estimate_kept_frames(paths, self.sampling) - len(paths))
        written: list[tuple[int, int]] = []  # (frames, bytes) of the probed flow videos
        with tempfile.TemporaryDirectory() as folder:
            rate = cost_estimate.measure_rate(self._write_probes(paths, Path(folder), written))
        frames, size_in_bytes = (sum(numbers) for numbers in zip(*written, strict=True)) if written else (0, 0)
        disk = pairs * size_in_bytes / frames if frames else sum(p.stat().st_size for p in paths if p.is_file())
        return cost_estimate.estimate_cost(pairs, self.unit, rate, disk)

    def _write_probes(self, paths: Sequence[Path], folder: Path, written: list[tuple[int, int]]) -> Iterator[float]:
        """Write the first flow frames of each video to a temporary file; yield the number of pairs of each step."""
        render = self._get_renderer()
        max_frames = min(PROBED_FLOW_FRAMES, self.sampling.max_frames or PROBED_FLOW_FRAMES)
        sampling = replace(self.sampling, max_frames=max_frames)
        batch_pixels = MAX_GPU_BATCH_PIXELS if self.device.type == "cuda" else video.MAX_BATCH_PIXELS
        for path in paths:
            try:
                lossless = self._settings["lossless"]
                with video.VideoWriter(folder / "probe.mp4", video.probe(path).fps, {}, lossless) as writer:
                    for batch in self._reader(path, sampling, batch_pixels):
                        if len(batch.frames) > 1:
                            writer.write(render(batch.frames))
                            yield len(batch.frames) - 1
                    writer.finalize()
                    written.append((writer.frames, writer.size() if writer.frames else 0))
            except VideoError:
                continue

    def _reader(
        self, path: Path, sampling: video.Sampling, batch_pixels: int, on_start: Callable[[], None] = lambda: None
    ) -> video.VideoReader:
        return video.VideoReader(
            path,
            self._pair_batch_size,
            sampling,
            (self.size,),
            overlap=1,
            on_start=on_start,
            max_batch_pixels=batch_pixels,
            geometry=self.geometry,
        )

    @property
    def _pair_batch_size(self) -> int:
        return defaults.pair_batch_size(self.args.pair_batch_size, self.device)

    def _get_renderer(self) -> FlowRenderer:
        if self._render is None:
            cli.check_downloadable(self.missing_download())
            self._render = self.load_renderer(self.device, self.precision)
        return self._render

    def _find_existing(self, videos: dict[str, Path], report: cli.RunReport) -> set[str]:
        """Return the videos that have a flow video. Raises UserError for a flow video with other settings.

        A video whose flow video is another or a damaged file is moved from `videos` to `report.failed`."""
        existing, digest = set[str](), settings_digest(self._known_settings())
        entries = manifest.read_with_worker_manifests(self.output)
        for name, path in dict(videos).items():
            output, entry = self.output_path(path), entries.get(name)
            if not output.exists() and not output.is_symlink():
                continue
            is_recorded = entry and entry.settings == digest and output.exists()
            if entry and is_recorded and entry.output_size == output.stat().st_size:
                existing.add(name)  # without opening it, which takes 20 s for 30,000 videos
            elif problem := self._check_existing(output):
                report.failed[name] = f"{output} exists already, but {problem}; delete it or give --overwrite"
                del videos[name]
            else:
                existing.add(name)
        return existing

    def _check_existing(self, output: Path) -> str | None:
        """Return why a file is no complete flow video of this project, or None. Raises UserError for other settings."""
        try:
            comment = video.probe(output, check_complete=True).comment
        except VideoError as error:
            return str(error)
        if not comment or "method" not in comment:
            return "is not a flow video of this project"
        hint = "use the same flags, name another --output-dir, or give --overwrite"
        existing = comment | {"geometry": video.recorded_geometry(comment)}
        cli.check_settings_match(self._known_settings(), existing, "this run", str(output), hint)
        return None


def _take_turns(tasks: Iterable[Generator[None, None, None]], count: int) -> None:
    """Run `count` generators at a time, each up to its next yield in turn. After an error, close them and raise it."""
    waiting, running = iter(tasks), deque[Generator[None, None, None]]()
    try:
        running.extend(islice(waiting, count))
        while running:
            has_ended = next(running[0], True)
            running.rotate(-1)
            if has_ended:
                running.pop()
                running.extend(islice(waiting, 1))
    finally:
        with ExitStack() as stack:  # closes the others even if closing one fails
            for task in running:
                stack.enter_context(closing(task))


def find_source_videos(videos_dir: Path, output_dir: Path, limit: int | None) -> tuple[dict[str, Path], dict[str, str]]:
    """Return (the first `limit` source videos by id, the reasons why others are rejected).

    Raises UserError if there is none, or if two would have the same flow video."""
    folder = video.VideoFolder(videos_dir, exclude=[output_dir])
    if left_out := folder.describe_left_out():
        print(left_out, flush=True)
    if not folder.videos:
        raise UserError("holds no video", "name the folder with --videos-dir", path=videos_dir)
    invalid = annotations.invalid_video_ids(path.name for path in folder.videos)
    rejected = {repr(name): reason for name, reason in invalid.items()}
    stems, not_used = dict[str, Path](), list[Path]()
    for path in (path for path in folder.videos if path.name not in invalid):
        try:
            located = folder.locate(path.name)
        except VideoError as error:
            rejected[path.name] = str(error)
            continue
        if located != path:
            not_used.append(path)
        elif (other := stems.setdefault(normalize_name(path.stem), path)) != path:
            raise UserError(f"{other.name} and {path.name} would share {path.stem}.mp4", "rename one", path=videos_dir)
    if not_used:
        names = list_some(not_used)
        print(f"{len(not_used)} videos have the name of one directly in {videos_dir} and are left out: {names}")
    return {path.name: path for path in list(stems.values())[:limit]}, rejected
