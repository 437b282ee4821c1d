"""Colour-coded optical flow between neighbouring kept frames, one flow video per video.

    python extract_flows.py                          RAFT with its `things` checkpoint, by ptlflow
    python extract_flows.py --model dis --size 224   OpenCV, no weights, for laptops

Reads dataset/videos/, writes dataset/flows/<stem>.mp4. Safe to stop and run again: videos that are done are skipped."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from vimoclip.extraction.flow_videos import FlowVideoConfig
    from vimoclip.runtime.distributed import ProcessGroup


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
        help="refinement steps of an iterative model",
    )
    parser.add_argument(
        "--dis-preset",
        choices=["medium", "fast", "ultrafast"],
        default=None,
        help="for --model dis; faster presets give coarser flow; default: medium",
    )
    parser.add_argument(
        "--flow-normalization",
        choices=["frame", "linear", "log"],
        default="log",
        help="motion with full colour: a frame's largest (frame, as published), or --flow-max on a linear or log scale",
    )
    parser.add_argument(
        "--flow-max",
        type=cli.positive_float,
        default=0.05,
        help="motion with full colour, as a fraction of the diagonal per frame (linear, log)",
    )
    parser.add_argument("--lossless", action="store_true", help="lossless RGB video (larger files)")
    parser.add_argument("--pair-batch-size", type=cli.positive_int, default=8, help="pairs of frames per batch")
    cli.add_sampling_arguments(parser)
    cli.add_dataset_arguments(parser)
    cli.add_compute_arguments(parser)
    cli.add_failure_arguments(parser)
    cli.add_sharding_arguments(parser)
    cli.add_run_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> cli.RunReport:
    args = build_parser().parse_args(argv)
    cli.check_sharding_arguments(args)
    from vimoclip.runtime import distributed

    videos_dir = cli.require_folder(args.videos_dir or args.dataset_dir / "videos", "name it with --videos-dir")
    report = cli.RunReport()
    config = flow_video_config(args, videos_dir)
    sources = find_videos(args, videos_dir, report)
    if (args.merge or args.dry_run) and not cli.is_main_process():
        return report
    if args.dry_run:
        print_dry_run(args, config, sources, report)
        return report
    report.outputs.append(config.output_dir)
    if args.merge:
        report.merge(merge_shards(args.strict, config, sources))
        report.print()
        return report
    with distributed.init_process_group() as group:
        run_extraction(args, config, sources, group, report)
        report.print()
    return report


def flow_video_config(args: argparse.Namespace, videos_dir: Path) -> "FlowVideoConfig":
    """Return the output folder and settings of the flow videos. Raises UserError."""
    from vimoclip import video
    from vimoclip.extraction.flow_videos import FlowVideoConfig

    output_dir = args.output_dir or args.dataset_dir / "flows"
    if output_dir.resolve() == videos_dir.resolve():
        raise UserError(
            "the flow can't go where the videos are", "name another folder with --output-dir", path=output_dir
        )
    cli.require_creatable_folder(output_dir, "--output-dir")
    sampling = video.Sampling(args.stride, args.fps, args.max_frames)
    return FlowVideoConfig(
        output_dir, flow_settings(args, sampling.as_dict()), sampling, args.size, args.pair_batch_size
    )


def print_dry_run(
    args: argparse.Namespace, config: "FlowVideoConfig", sources: dict[str, Path], report: cli.RunReport
) -> None:
    """Print what --dry-run shows."""
    from vimoclip import flow
    from vimoclip.extraction import dry_run, video_status
    from vimoclip.extraction.sharding import WorkerContext
    from vimoclip.runtime.distributed import ProcessGroup

    assigned = WorkerContext(shard=args.shard).assigned_videos(sources)
    pending = list(assigned)
    if not args.overwrite:
        existing = config.find_existing(assigned, report)
        pending = video_status.pending_videos(config.output_dir, assigned, existing.__contains__, args.retry_failed)
    print(f"{len(pending)} videos to do, {len(assigned) - len(pending)} done or given up before")
    if flow.missing_download(args.model, args.ckpt_path if config.settings["checkpoint"] else None):
        print("the time it takes can be estimated once the checkpoint is here")
    elif pending:
        render = load_renderer(args, config, ProcessGroup())
        paths, sampling = [sources[name] for name in pending], config.sampling
        print(dry_run.estimate_flow(paths, render, sampling, args.size, args.pair_batch_size, args.lossless))


def run_extraction(
    args: argparse.Namespace,
    config: "FlowVideoConfig",
    sources: dict[str, Path],
    group: "ProcessGroup",
    report: cli.RunReport,
) -> None:
    """Write the pending flow videos."""
    from vimoclip.extraction.flow_videos import write_flow_videos
    from vimoclip.extraction.sharding import WorkerContext
    from vimoclip.extraction.video_status import VideoTracker

    worker = WorkerContext(group, args.shard)
    assigned = worker.assigned_videos(sources)
    with worker.lock(config.output_dir):
        worker.check_shard_inputs(config.output_dir, sources)
        existing = config.find_existing(assigned, report) if group.is_main and not args.overwrite else set[str]()
        render = load_renderer(args, config, group) if args.overwrite else None  # before old flow is deleted
        if args.overwrite and group.is_main:
            for path in assigned.values():
                config.output_path(path).unlink(missing_ok=True)
        tracker = VideoTracker(
            config.output_dir,
            assigned,
            existing.__contains__,
            report,
            overwrite=args.overwrite,
            retry_failed=args.retry_failed,
            strict=args.strict,
            settings=config.settings,
            worker=worker,
        )
        if args.overwrite:
            cli.mark_overwritten()
        print(tracker.format_plan(), flush=True)
        if tracker.pending:
            render = render or load_renderer(args, config, group)
            write_flow_videos(config, tracker, render, cli.limit_workers(args.num_workers))
        tracker.gather_reports()
        if group.is_main:
            tracker.manifest.compact()
    if not worker.shard or not group.is_main:
        return
    if tracker.all_shards_done(sources, lambda name: config.output_path(sources[name]).exists()):
        report.merge(worker.merge_if_last(partial(merge_shards, args.strict, config, sources)))


def merge_shards(strict: bool, config: "FlowVideoConfig", sources: dict[str, Path]) -> cli.RunReport:
    """Merge the shards' manifests. Raises UserError if videos are pending."""
    from vimoclip.extraction.sharding import SINGLE_PROCESS
    from vimoclip.extraction.video_status import VideoTracker
    from vimoclip.io import lock

    with lock.exclusive_lock(config.output_dir, timeout=60):  # a shard may be about to end
        report = cli.RunReport()
        is_done = config.find_existing(sources, report).__contains__
        tracker = VideoTracker(config.output_dir, sources, is_done, report, strict=strict, settings=config.settings)
        tracker.check_complete()
        tracker.manifest.compact()
        SINGLE_PROCESS.check_shard_inputs(config.output_dir, sources)
    return report


def load_renderer(args: argparse.Namespace, config: "FlowVideoConfig", group: "ProcessGroup") -> Callable[[Any], Any]:
    """Return a function from n + 1 frames to n colour-coded flow frames. Raises UserError."""
    from vimoclip import flow
    from vimoclip.runtime import seeding
    from vimoclip.runtime.device import autocast, select_device, select_precision

    checkpoint = args.ckpt_path if config.settings["checkpoint"] else None
    if download := flow.missing_download(args.model, checkpoint):
        cli.check_downloadable(download)
    seeding.seed_everything(args.seed)
    device = select_device(args.device, group.local_rank)
    autocast = partial(autocast, device, select_precision(args.precision, device))
    normalization, flow_max = args.flow_normalization, args.flow_max
    return flow.load_renderer(
        args.model, checkpoint, args.iters, normalization, flow_max, device, autocast, args.dis_preset
    )


def flow_settings(args: argparse.Namespace, sampling: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a flow video's comment stores."""
    from vimoclip import flow

    presets = {"preset": args.dis_preset or flow.DEFAULT_DIS_PRESET} if args.model == "dis" else {}
    has_weights, has_colors = args.model not in flow.METHODS_WITHOUT_WEIGHTS, args.model != "frame_diff"
    return {
        "method": args.model,
        "checkpoint": Path(args.ckpt_path).name if has_weights else None,
        "iters": args.iters,
        "size": args.size,
        "normalization": args.flow_normalization if has_colors else None,
        "flow_max": args.flow_max if has_colors and args.flow_normalization != "frame" else None,
        "lossless": args.lossless,
        "sampling": sampling,
    } | presets


def find_videos(args: argparse.Namespace, videos_dir: Path, report: cli.RunReport) -> dict[str, Path]:
    """Return the source videos by id. Raises UserError if there is none, or two have the same flow video."""
    from vimoclip import annotations, video

    videos, others = video.find_videos(videos_dir)
    if others:
        print(f"{videos_dir}: no videos, ignored: {', '.join(map(repr, others))}")
    if not videos:
        raise UserError("holds no video", "name the folder with --videos-dir", path=videos_dir)
    stems: dict[str, Path] = {}
    for path in videos:
        try:
            annotations.check_video_id(path.name)
        except UserError as error:
            report.failed[repr(path.name)] = str(error)
            continue
        if other := stems.get(path.stem):
            raise UserError(f"{other.name} and {path.name} would share {path.stem}.mp4", "rename one", path=videos_dir)
        stems[path.stem] = path
    return {path.name: path for path in list(stems.values())[: args.limit]}


if __name__ == "__main__":
    cli.run(main)
