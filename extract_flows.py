"""Optical flow between neighbouring kept frames of every video, drawn as colours: one flow video a video.

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
    from vimoclip.extraction.flow_videos import Drawing
    from vimoclip.runtime.distributed import Group


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
        "--dis-preset",
        choices=["medium", "fast", "ultrafast"],
        default=None,
        help="of --model dis: less time for coarser flow; default: medium",
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
    cli.add_sharing(parser)
    cli.add_run_control(parser)
    return parser


def main(argv: list[str] | None = None) -> cli.Report:
    args = build_parser().parse_args(argv)
    cli.check_sharing(args)
    from vimoclip.runtime import distributed

    videos_dir = cli.need_folder(args.videos_dir or args.dataset_dir / "videos", "name it with --videos-dir")
    report = cli.Report()
    drawing = plan(args, videos_dir)
    sources = find_videos(args, videos_dir, report)
    if (args.merge or args.dry_run) and not cli.first_process():
        return report
    if args.dry_run:
        say_what_to_do(args, drawing, sources, report)
        return report
    report.outputs.append(drawing.output_dir)
    if args.merge:
        report.add(merge(args.strict, drawing, sources))
        report.print()
        return report
    with distributed.join() as group:
        run(args, drawing, sources, group, report)
        report.print()
    return report


def plan(args: argparse.Namespace, videos_dir: Path) -> "Drawing":
    """Where flow videos come, and how they are made. Raises UserError."""
    from vimoclip import video
    from vimoclip.extraction.flow_videos import Drawing

    output_dir = args.output_dir or args.dataset_dir / "flows"
    if output_dir.resolve() == videos_dir.resolve():
        raise UserError(
            "the flow can't go where the videos are", "name another folder with --output-dir", path=output_dir
        )
    cli.need_place(output_dir, "--output-dir")
    sampling = video.Sampling(args.stride, args.fps, args.max_frames)
    return Drawing(output_dir, flow_settings(args, sampling.as_dict()), sampling, args.size, args.pair_batch_size)


def say_what_to_do(args: argparse.Namespace, drawing: "Drawing", sources: dict[str, Path], report: cli.Report) -> None:
    """What --dry-run prints."""
    from vimoclip import flow
    from vimoclip.extraction import dry_run, video_status
    from vimoclip.extraction.sharding import Crew
    from vimoclip.runtime.distributed import Group

    mine = Crew(shard=args.shard).share(sources)
    todo = list(mine)
    if not args.overwrite:
        there = drawing.there_already(mine, report)
        todo = video_status.to_do(drawing.output_dir, mine, there.__contains__, args.retry_failed)
    print(f"{len(todo)} videos to do, {len(mine) - len(todo)} done or given up before")
    if flow.missing_download(args.model, args.ckpt_path if drawing.settings["checkpoint"] else None):
        print("how long it takes can be told once the checkpoint is here")
    elif todo:
        render = load_model(args, drawing, Group())
        how = drawing.sampling, args.size, args.pair_batch_size, args.lossless
        print(dry_run.describe_flow([sources[name] for name in todo], render, *how))


def run(
    args: argparse.Namespace, drawing: "Drawing", sources: dict[str, Path], group: "Group", report: cli.Report
) -> None:
    """Draw the flow of what is not done yet."""
    from vimoclip.extraction.flow_videos import write_flows
    from vimoclip.extraction.sharding import Crew
    from vimoclip.extraction.video_status import Outcomes

    crew = Crew(group, args.shard)
    mine = crew.share(sources)
    with crew.lock(drawing.output_dir):
        crew.check_shares(drawing.output_dir, sources)
        there = drawing.there_already(mine, report) if group.main and not args.overwrite else set[str]()
        render = load_model(args, drawing, group) if args.overwrite else None  # before the old flow goes
        if args.overwrite and group.main:
            for path in mine.values():
                drawing.output(path).unlink(missing_ok=True)
        how = args.overwrite, args.retry_failed, args.strict
        outcomes = Outcomes(drawing.output_dir, mine, there.__contains__, report, *how, drawing.settings, crew)
        if args.overwrite:
            cli.begun_afresh()
        print(outcomes.plan(), flush=True)
        if outcomes.todo:
            render = render or load_model(args, drawing, group)
            write_flows(drawing, outcomes, render, cli.usable_workers(args.num_workers))
        outcomes.gather()
        if group.main:
            outcomes.manifest.settle()
    done = [name for name, path in sources.items() if drawing.output(path).exists()] if crew.shard else []
    if crew.shard and group.main and outcomes.is_last(sources, set(done).__contains__):
        report.add(crew.merge_as_last(partial(merge, args.strict, drawing, sources)))


def merge(strict: bool, drawing: "Drawing", sources: dict[str, Path]) -> cli.Report:
    """Put the shards' manifests together. Raises UserError where there is something left to do."""
    from vimoclip.extraction.sharding import ALONE
    from vimoclip.extraction.video_status import Outcomes
    from vimoclip.io import lock

    with lock.only_process(drawing.output_dir, wait=60):  # for shards that are about to end
        report = cli.Report()
        there = drawing.there_already(sources, report)
        how = False, False, strict
        outcomes = Outcomes(drawing.output_dir, sources, there.__contains__, report, *how, drawing.settings)
        outcomes.check_nothing_left()
        outcomes.manifest.settle()
        ALONE.check_shares(drawing.output_dir, sources)
    return report


def load_model(args: argparse.Namespace, drawing: "Drawing", group: "Group") -> Callable[[Any], Any]:
    """What makes colour frames of frames. Raises UserError."""
    from vimoclip import flow
    from vimoclip.runtime import seeding
    from vimoclip.runtime.device import autocast, pick_device, pick_precision

    checkpoint = args.ckpt_path if drawing.settings["checkpoint"] else None
    if download := flow.missing_download(args.model, checkpoint):
        cli.check_reachable(download)
    seeding.seed_everything(args.seed)
    device = pick_device(args.device, group.local_rank)
    autocast = partial(autocast, device, pick_precision(args.precision, device))
    scale = args.flow_normalization, args.flow_max
    return flow.load(args.model, checkpoint, args.iters, *scale, device, autocast, args.dis_preset)


def flow_settings(args: argparse.Namespace, sampling: dict[str, Any]) -> dict[str, Any]:
    """What a flow video's comment says of how it was made."""
    from vimoclip import flow

    presets = {"preset": args.dis_preset or flow.DEFAULT_PRESET} if args.model == "dis" else {}
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
    } | presets


def find_videos(args: argparse.Namespace, videos_dir: Path, report: cli.Report) -> dict[str, Path]:
    """Video id -> file. Raises UserError where there is none, or two would share a flow video."""
    from vimoclip import annotations, video

    videos, others = video.find(videos_dir)
    if others:
        print(f"{videos_dir}: not taken for videos: {', '.join(map(repr, others))}")
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
