"""Compute colour-coded optical flow between successive sampled frames, one flow video per video.

    python extract_flows.py                          RAFT with weights trained on FlyingThings (`things`), from ptlflow
    python extract_flows.py --model dis --size 224   OpenCV, no weights, for laptops

Reads dataset/videos/, writes dataset/flows/<video name>.mp4. Safe to stop and run again: videos that are done are
skipped."""

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from vimoclip.extraction.flow_videos import FlowVideoJob


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--videos-dir",
        type=Path,
        default=None,
        help="folder of videos, also in folders below it; default: videos/ in --dataset-dir",
    )
    parser.add_argument("--output-dir", type=Path, default=None, help="output folder; default: flows/ in --dataset-dir")
    parser.add_argument(
        "--model", default="raft", help="flow method: dis, farneback, frame_diff, or a model of ptlflow"
    )
    parser.add_argument(
        "--ckpt-path",
        default="things",
        help="weights of a ptlflow model: a name in ptlflow (things: FlyingThings) or a file",
    )
    parser.add_argument(
        "--size",
        type=cli.none_or(cli.positive_int),
        default=None,
        help="shorter side in pixels at which flow is computed and written; default: that of the video",
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
        help="colour scale; frame: relative to the largest motion in the frame, as in the paper; linear, log: relative "
        "to --flow-max",
    )
    parser.add_argument(
        "--flow-max",
        type=cli.positive_float,
        default=0.05,
        help="motion between two frames that has full colour, as a fraction of the diagonal; for linear and log",
    )
    parser.add_argument("--lossless", action="store_true", help="lossless RGB video (larger files)")
    cli.add_pair_batch_argument(parser)
    cli.add_sampling_arguments(parser)
    cli.add_dataset_arguments(parser)
    cli.add_compute_arguments(parser)
    cli.add_failure_arguments(parser)
    cli.add_sharding_arguments(parser)
    cli.add_run_arguments(parser)
    cli.add_report_argument(parser)
    return parser


def main(argv: list[str] | None = None) -> cli.RunReport:
    args = build_parser().parse_args(argv)
    cli.check_sharding_arguments(args)
    from vimoclip.extraction.job import run_extraction

    return run_extraction([make_job(args)], args)


def make_job(args: argparse.Namespace) -> "FlowVideoJob":
    """Return the job that writes the flow videos. Raises UserError."""
    from vimoclip import flow, video
    from vimoclip.extraction.flow_videos import FlowVideoJob, find_source_videos

    videos_dir = cli.require_folder(args.videos_dir or args.dataset_dir / "videos", "name it with --videos-dir")
    output_dir = cli.require_creatable_folder(args.output_dir or args.dataset_dir / "flows", "--output-dir")
    if output_dir.resolve() == videos_dir.resolve():
        problem = "is the folder of the videos, which flow would overwrite"
        raise UserError(problem, "name another folder with --output-dir", path=output_dir)
    sampling, geometry = video.Sampling(args.stride, args.fps, args.max_frames), video.Geometry(args.deinterlace)
    sources, rejected = find_source_videos(videos_dir, output_dir, args.limit)
    checkpoint = args.ckpt_path if args.model not in flow.METHODS_WITHOUT_WEIGHTS else None
    return FlowVideoJob(
        args,
        output_dir,
        sources,
        functools.partial(
            flow.load_renderer,
            args.model,
            checkpoint,
            args.iters,
            args.flow_normalization,
            args.flow_max,
            preset=args.dis_preset,
        ),
        flow_settings(args, sampling.as_dict()) | {"geometry": geometry.as_dict()},
        sampling=sampling,
        geometry=geometry,
        size=args.size,
        rejected=rejected,
        missing_download=functools.partial(flow.missing_download, args.model, checkpoint),
    )


def flow_settings(args: argparse.Namespace, sampling: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a flow video's comment stores."""
    from vimoclip import flow

    method_settings = {"preset": args.dis_preset or flow.DEFAULT_DIS_PRESET} if args.model == "dis" else {}
    has_weights, has_colors = args.model not in flow.METHODS_WITHOUT_WEIGHTS, args.model != "frame_diff"
    if has_weights:
        method_settings = {"precision": args.precision}
    return {
        "method": args.model,
        "checkpoint": Path(args.ckpt_path).name if has_weights else None,
        "iters": args.iters,
        "size": args.size,
        "normalization": args.flow_normalization if has_colors else None,
        "flow_max": args.flow_max if has_colors and args.flow_normalization != "frame" else None,
        "lossless": args.lossless,
        "sampling": sampling,
    } | method_settings


if __name__ == "__main__":
    cli.run(main)
