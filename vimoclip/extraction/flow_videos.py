"""The loop of extract_flows.py: videos in, one video of coloured flow out for each."""

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
from vimoclip.extraction.video_status import Outcomes, settings_digest

Render = Callable[[np.ndarray], np.ndarray]  # (n + 1, H, W, 3) frames -> (n, H, W, 3) colour frames


@dataclass(frozen=True)
class Drawing:
    """Where flow videos come, and how they are made. `settings`: what a flow video's comment says of that."""

    output_dir: Path
    settings: dict[str, Any]
    sampling: video.Sampling
    size: int | None
    pair_batch_size: int

    def output(self, source: Path) -> Path:
        """The flow video of a video."""
        return self.output_dir / f"{source.stem}.mp4"

    def there_already(self, sources: dict[str, Path], report: cli.Report) -> set[str]:
        """The videos whose flow is there. What is there but isn't that has failed: it leaves `sources`, untouched.

        Raises UserError where flow was made with other settings."""
        there, known, digest = set(), manifest.read_all(self.output_dir), settings_digest(self.settings)
        for name, path in dict(sources).items():
            output, entry = self.output(path), known.get(name)
            if not output.exists() and not output.is_symlink():
                continue
            as_left = entry and entry.settings == digest and output.exists()
            if entry and as_left and entry.output_size == output.stat().st_size:
                there.add(name)  # to open 30,000 would take 20 s
            elif problem := self._misfit(output):
                report.failed[name] = f"{output} is there already, but {problem}; delete it or give --overwrite"
                del sources[name]
            else:
                there.add(name)
        return there

    def _misfit(self, output: Path) -> str | None:
        """Why what is there is no flow video of ours. Raises UserError for one with other settings."""
        try:
            made = video.probe(output, whole=True).comment
        except VideoError as error:
            return str(error)
        if not made or "method" not in made:
            return "not from here"
        made = {"preset": flow.DEFAULT_PRESET} | made  # of a time before there were others
        cure = "name another --output-dir or give --overwrite"
        cli.check_same(self.settings, made, "this run", str(output), cure)
        return None


def write_flows(drawing: Drawing, outcomes: Outcomes, render: Render, workers: int) -> None:
    """The flow of this process's videos; `outcomes` hears what became of them. Threads read ahead."""
    drawing.output_dir.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []

    def read(path: Path) -> Iterator[np.ndarray | video.End]:
        frames = video.read(path, drawing.pair_batch_size, drawing.sampling, drawing.size, overlap=1)
        return outcomes.opening(path.name, frames)

    def sources() -> Iterator[Callable[[], Iterator[np.ndarray | video.End]]]:
        for name in outcomes.claimed():
            paths.append(outcomes.sources[name])
            yield partial(read, paths[-1])

    meter = cli.Meter(outcomes.expected(), describe="flow")
    with closing(video.read_ahead(sources(), *outcomes.reading(workers))) as ahead:
        for index, items in groupby(ahead, key=lambda pair: pair[0]):
            path, frames = paths[index], 0
            try:
                frames = write_flow(drawing, path, (item for _, item in items), render, outcomes)
            except VideoError as error:
                outcomes.failed(path.name, str(error))
            meter.add(items=1, frames=frames)
    meter.close()


def write_flow(
    drawing: Drawing,
    path: Path,
    items: Iterator[np.ndarray | video.End | VideoError],
    render: Render,
    outcomes: Outcomes,
) -> int:
    """One video's flow from its batches of frames; the number of flow frames. Raises VideoError."""
    comment = dict(drawing.settings)
    fps, lossless = video.probe(path).fps, drawing.settings["lossless"]
    with video.Writer(drawing.output(path), fps, comment, lossless) as writer:
        for item in items:
            if isinstance(item, VideoError):
                raise item
            if isinstance(item, video.End):
                comment |= {"video": path.stem, **video.describe_frames(item)}
                writer.complete()
                if not writer.frames:
                    outcomes.skipped(path.name, "has one kept frame, so there is no flow", item)
                elif not outcomes.came_out(path.name, item, writer.size()):
                    writer.abandon()
            elif len(item) > 1:
                writer.write(render(item))
    return writer.frames
