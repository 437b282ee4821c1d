"""Main loop of extract_flows.py: write one video of colour-coded optical flow per source video."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from vimoclip import cli, flow, video
from vimoclip.errors import VideoError
from vimoclip.extraction import manifest
from vimoclip.extraction.video_status import VideoTracker, settings_digest

RenderFlow = Callable[[np.ndarray], np.ndarray]  # (n + 1, H, W, 3) frames -> (n, H, W, 3) colour frames


@dataclass(frozen=True)
class FlowVideoConfig:
    """Output folder and parameters of flow videos. `settings` is stored in each flow video's comment."""

    output_dir: Path
    settings: dict[str, Any]
    sampling: video.Sampling
    size: int | None
    pair_batch_size: int

    def output_path(self, source: Path) -> Path:
        """Return the path of a source video's flow video."""
        return self.output_dir / f"{source.stem}.mp4"

    def find_existing(self, sources: dict[str, Path], report: cli.RunReport) -> set[str]:
        """Return the videos that have a flow video. Raises UserError for a flow video with other settings.

        A video whose flow video is another or a damaged file is recorded as failed and removed from `sources`."""
        existing, digest = set[str](), settings_digest(self.settings)
        entries = manifest.read_with_worker_manifests(self.output_dir)
        for name, path in dict(sources).items():
            output, entry = self.output_path(path), entries.get(name)
            if not output.exists() and not output.is_symlink():
                continue
            is_recorded = entry and entry.settings == digest and output.exists()
            if entry and is_recorded and entry.output_size == output.stat().st_size:
                existing.add(name)  # without opening it, which takes 20 s for 30,000 videos
            elif problem := self._check_existing(output):
                report.failed[name] = f"{output} is there already, but {problem}; delete it or give --overwrite"
                del sources[name]
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
            return "not from here"
        stored = {"preset": flow.DEFAULT_DIS_PRESET} | comment  # older files don't store the preset
        hint = "name another --output-dir or give --overwrite"
        cli.check_settings_match(self.settings, stored, "this run", str(output), hint)
        return None


def write_flow_videos(config: FlowVideoConfig, tracker: VideoTracker, render: RenderFlow, workers: int) -> None:
    """Write the flow videos of this process and record their status in `tracker`. `workers` threads prefetch frames."""
    config.output_dir.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []

    def read(path: Path) -> Iterator[np.ndarray | video.ReadSummary]:
        frames = video.read_batches(path, config.pair_batch_size, config.sampling, config.size, overlap=1)
        return tracker.start_on_read(path.name, frames)

    def sources() -> Iterator[Callable[[], Iterator[np.ndarray | video.ReadSummary]]]:
        for name in tracker.claim_videos():
            paths.append(tracker.sources[name])
            yield partial(read, paths[-1])

    meter = cli.ProgressMeter(tracker.expected_count(), desc="flow")
    threads, videos_ahead = tracker.prefetch_limits(workers)
    with closing(video.prefetch_videos(sources(), threads, videos_ahead)) as prefetched:
        for index, pairs in groupby(prefetched, key=lambda pair: pair[0]):
            path, frames = paths[index], 0
            try:
                frames = write_flow_video(config, path, (item for _, item in pairs), render, tracker)
            except VideoError as error:
                tracker.record_failed(path.name, str(error))
            meter.add(items=1, frames=frames)
    meter.close()


def write_flow_video(
    config: FlowVideoConfig,
    path: Path,
    items: Iterator[np.ndarray | video.ReadSummary | VideoError],
    render: RenderFlow,
    tracker: VideoTracker,
) -> int:
    """Write one flow video from batches of frames; return the number of flow frames. Raises VideoError."""
    comment = dict(config.settings)
    fps, lossless = video.probe(path).fps, config.settings["lossless"]
    with video.VideoWriter(config.output_path(path), fps, comment, lossless) as writer:
        for item in items:
            if isinstance(item, VideoError):
                raise item
            if isinstance(item, video.ReadSummary):
                comment |= {"video": path.stem, **video.frames_to_comment(item)}
                writer.finalize()
                if not writer.frames:
                    tracker.record_skipped(path.name, "has one kept frame, so there is no flow", item)
                elif not tracker.record_success(path.name, item, writer.size()):
                    writer.discard()
            elif len(item) > 1:
                writer.write(render(item))
    return writer.frames
