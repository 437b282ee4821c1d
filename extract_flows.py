"""Optical flow between neighbouring kept frames of every video, drawn as colours: one flow video a video.

    python extract_flows.py                          RAFT with its `things` checkpoint, by ptlflow
    python extract_flows.py --model dis --size 224   OpenCV, no weights, for laptops

Reads dataset/videos/, writes dataset/flows/<stem>.mp4. Safe to stop and run again: videos that are done are skipped."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import UserError, cli

if TYPE_CHECKING:
    from vimoclip.outcomes import Outcomes


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--videos-dir", type=Path, default=None, help="default: videos/ in the data set")
    parser.add_argument("--output-dir", type=Path, default=None, help="default: flows/ in the data set")
    parser.add_argument("--model", default="raft", help="dis, farneback, frame_diff, or any of ptlflow's models")
    parser.add_argument("--ckpt-path", default="things", help="name or file of a ptlflow model's checkpoint")
    parser.add_argument(
        "--size",
        type=cli.none_or(cli.positive_int),
        default=None,
        help="shorter side at which flow is computed and written; default: the source's",
    )
    parser.add_argument(
        "--iters",
        type=cli.none_or(cli.positive_int),
        default=None,
        help="of a model that refines its flow step by step",
    )
    parser.add_argument(
        "--flow-normalization",
        choices=["frame", "linear", "log"],
        default="log",
        help="what has full colour: a frame's largest motion (published), or --flow-max, on a linear or log scale",
    )
    parser.add_argument(
        "--flow-max",
        type=cli.positive_float,
        default=0.05,
        help="fraction of the diagonal per frame step (linear, log)",
    )
    parser.add_argument("--lossless", action="store_true", help="write every value of RGB as it is (larger files)")
    parser.add_argument("--pair-batch-size", type=cli.positive_int, default=8, help="pairs of frames at a time")
    cli.add_sampling(parser)
    cli.add_dataset(parser)
    cli.add_compute(parser)
    cli.add_outcomes(parser)
    cli.add_run_control(parser)
    return parser


def main(argv: list[str] | None = None) -> cli.Report:
    args = build_parser().parse_args(argv)
    from vimoclip import lock, video
    from vimoclip.outcomes import Outcomes

    videos_dir = cli.need_folder(args.videos_dir or args.dataset_dir / "videos", "name it with --videos-dir")
    output_dir = args.output_dir or args.dataset_dir / "flows"
    if output_dir.resolve() == videos_dir.resolve():
        raise UserError(f"{output_dir}: the flow can't go where the videos are; name another folder with --output-dir")
    cli.need_place(output_dir, "--output-dir")
    report = cli.Report()
    sampling = video.Sampling(args.stride, args.fps, args.max_frames)
    settings = flow_settings(args, sampling.as_dict())
    sources = find_videos(args, videos_dir, report)
    if args.dry_run:
        there = there_already(args, sources, output_dir, settings, report)
        print(f"{len(sources) - len(there)} videos to do, {len(there)} done already")
        return report
    with lock.only_process(output_dir):
        there = there_already(args, sources, output_dir, settings, report)
        render = load_model(args, settings) if args.overwrite else None  # before the old flow goes
        if args.overwrite:
            for path in sources.values():
                (output_dir / f"{path.stem}.mp4").unlink(missing_ok=True)
        how = args.overwrite, args.retry_failed, args.strict
        outcomes = Outcomes(output_dir, sources, there.__contains__, report, *how, settings)
        if args.overwrite:
            cli.begun_afresh()
        print(outcomes.plan(), flush=True)
        if outcomes.todo:
            write_flows(args, outcomes, output_dir, sampling, render or load_model(args, settings), settings)
        outcomes.manifest.settle()
    report.outputs.append(output_dir)
    report.print()
    return report


def load_model(args: argparse.Namespace, settings: dict[str, Any]) -> Callable[[Any], Any]:
    """What makes colour frames of frames. Raises UserError."""
    from vimoclip import flow, runs

    checkpoint = args.ckpt_path if settings["checkpoint"] else None
    if download := flow.missing_download(args.model, checkpoint):
        cli.check_reachable(download)
    runs.seed_everything(args.seed)
    device = runs.pick_device(args.device)
    autocast = partial(runs.autocast, device, runs.pick_precision(args.precision, device))
    scale = args.flow_normalization, args.flow_max
    return flow.load(args.model, checkpoint, args.iters, *scale, device, autocast)


def flow_settings(args: argparse.Namespace, sampling: dict[str, Any]) -> dict[str, Any]:
    """What a flow video's comment says of how it was made."""
    from vimoclip import flow

    learned, drawn = args.model not in flow.WITHOUT_WEIGHTS, args.model != "frame_diff"
    return {
        "method": args.model,
        "checkpoint": Path(args.ckpt_path).name if learned else None,
        "iters": args.iters,
        "size": args.size,
        "normalization": args.flow_normalization if drawn else None,
        "flow_max": args.flow_max if drawn and args.flow_normalization != "frame" else None,
        "lossless": args.lossless,
        "sampling": sampling,
    }


def find_videos(args: argparse.Namespace, videos_dir: Path, report: cli.Report) -> dict[str, Path]:
    """Video id -> file. Raises UserError where there is none, or two would share a flow video."""
    from vimoclip import annotations, video

    videos, others = video.find(videos_dir)
    if others:
        print(f"{videos_dir}: not taken for videos: {', '.join(map(repr, others))}")
    if not videos:
        raise UserError(f"{videos_dir}: holds no video; name the folder with --videos-dir")
    stems: dict[str, Path] = {}
    for path in videos:
        try:
            annotations.check_video_id(path.name)
        except ValueError as error:
            report.failed[repr(path.name)] = str(error)
            continue
        if other := stems.get(path.stem):
            raise UserError(f"{videos_dir}: {other.name} and {path.name} would share {path.stem}.mp4; rename one")
        stems[path.stem] = path
    return {path.name: path for path in list(stems.values())[: args.limit]}


def there_already(
    args: argparse.Namespace, sources: dict[str, Path], output_dir: Path, settings: dict[str, Any], report: cli.Report
) -> set[str]:
    """The videos whose flow is there. What is there but isn't that has failed: it leaves `sources`, untouched.

    Raises UserError where flow was made with other settings."""
    from vimoclip import VideoError, video

    there = set()
    for name, path in {} if args.overwrite else dict(sources).items():
        output = output_dir / f"{path.stem}.mp4"
        if not output.exists() and not output.is_symlink():
            continue
        try:
            made = video.probe(output, whole=True).comment
        except VideoError as error:
            report.failed[name] = f"{output} is there already, but {error}; delete it or give --overwrite"
            del sources[name]
            continue
        if not made or "method" not in made:
            report.failed[name] = f"{output} is there already, but not from here; delete it or give --overwrite"
            del sources[name]
            continue
        cli.check_same(settings, made, "this run", str(output), "name another --output-dir or give --overwrite")
        there.add(name)
    return there


def write_flows(
    args: argparse.Namespace,
    outcomes: "Outcomes",
    output_dir: Path,
    sampling: Any,
    render: Callable[[Any], Any],
    settings: dict[str, Any],
) -> None:
    from vimoclip import VideoError, video

    output_dir.mkdir(parents=True, exist_ok=True)
    paths = [outcomes.sources[name] for name in outcomes.todo]

    def read(path: Path) -> Iterator[Any]:
        frames = video.read(path, args.pair_batch_size, sampling, args.size, overlap=1)
        return outcomes.opening(path.name, frames)

    sources = [partial(read, path) for path in paths]
    meter = cli.Meter(len(paths), describe="flow")
    with closing(video.read_ahead(sources, cli.usable_workers(args.num_workers))) as ahead:
        for index, items in groupby(ahead, key=lambda pair: pair[0]):
            path, frames = paths[index], 0
            try:
                frames = write_flow(
                    path, (item for _, item in items), output_dir, render, settings, args.lossless, outcomes
                )
            except VideoError as error:
                outcomes.failed(path.name, str(error))
            meter.add(items=1, frames=frames)
    meter.close()


def write_flow(
    path: Path,
    items: Iterator[Any],
    output_dir: Path,
    render: Callable[[Any], Any],
    settings: dict[str, Any],
    lossless: bool,
    outcomes: "Outcomes",
) -> int:
    """One video's flow from its batches of frames; the number of flow frames. Raises VideoError."""
    from vimoclip import VideoError, video

    comment = dict(settings)
    with video.Writer(output_dir / f"{path.stem}.mp4", video.probe(path).fps, comment, lossless) as writer:
        for item in items:
            if isinstance(item, VideoError):
                raise item
            if isinstance(item, video.End):
                comment |= {"video": path.stem, **video.describe_frames(item)}
                writer.complete()
                if not writer.frames:
                    outcomes.skipped(path.name, "has one kept frame, so there is no flow", item)
                elif not outcomes.came_out(path.name, item):
                    writer.abandon()
            elif len(item) > 1:
                writer.write(render(item))
    return writer.frames


if __name__ == "__main__":
    cli.run(main)
