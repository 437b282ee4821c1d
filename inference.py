"""Embed every flow frame of every flow video with a trained student: z_motion, the motion side of TFAM.

    python inference.py --checkpoint-dir checkpoints/20250328-003544

Reads dataset/flows/ and a run folder of train.py, writes dataset/embeddings/flow_embeddings.h5.
Safe to stop and run again: videos that are done are skipped."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from vimoclip.extraction.sharding import Crew
    from vimoclip.extraction.video_status import Outcomes
    from vimoclip.runtime.distributed import Group
    from vimoclip.store import Writer


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoint-dir", type=Path, required=True, help="a run folder of train.py, or a student's file"
    )
    parser.add_argument("--flow-videos-dir", type=Path, default=None, help="default: flows/ in the data set")
    parser.add_argument(
        "--output-h5-path", type=Path, default=None, help="default: embeddings/flow_embeddings.h5 in the data set"
    )
    parser.add_argument("--clip-model-name", default=None, help="of a student that doesn't say it; else it must agree")
    parser.add_argument("--num-classes", type=cli.positive_int, default=None, help="must be what the student has")
    parser.add_argument("--batch-size", type=cli.positive_int, default=2, help="videos that are read ahead")
    cli.add_embedding(parser)
    cli.add_dataset(parser)
    cli.add_compute(parser, int8=True)
    cli.add_outcomes(parser)
    cli.add_sharing(parser)
    cli.add_run_control(parser)
    return parser


def main(argv: list[str] | None = None) -> cli.Report:
    args = build_parser().parse_args(argv)
    cli.check_sharing(args)
    from vimoclip import moclip
    from vimoclip.flow.flow_lookup import FlowFolder
    from vimoclip.runtime import distributed

    flows_dir = cli.need_folder(args.flow_videos_dir or args.dataset_dir / "flows", "run extract_flows.py")
    output = args.output_h5_path or args.dataset_dir / "embeddings" / "flow_embeddings.h5"
    cli.need_place(output.parent, "--output-h5-path")
    report = cli.Report()
    found, report.failed = sort_out(FlowFolder(flows_dir).by_stem())
    paths = dict(sorted(found.items())[: args.limit])
    if not paths:
        raise UserError(
            "holds no flow video", "run extract_flows.py, or name another --flow-videos-dir", path=flows_dir
        )
    if (args.merge or args.dry_run) and not cli.first_process():
        return report
    if args.merge and not args.dry_run:
        report.add(merge(args.strict, paths, output))
        report.print()
        return report
    checkpoint = moclip.find_checkpoint(args.checkpoint_dir)
    if args.dry_run:
        say_what_to_do(args, paths, output, checkpoint)
        return report
    with distributed.join() as group:
        run(args, paths, output, checkpoint, group, report)
        report.print()
    return report


def say_what_to_do(args: argparse.Namespace, paths: dict[str, Path], output: Path, checkpoint: Path) -> None:
    """What --dry-run prints."""
    from vimoclip import clip, moclip, store, video
    from vimoclip.extraction import dry_run, video_status
    from vimoclip.extraction.sharding import Crew
    from vimoclip.runtime.device import autocast, pick_device, pick_precision

    mine = Crew(shard=args.shard).share(paths)
    todo = list(mine) if args.overwrite else video_status.to_do(output, mine, store.done(output), args.retry_failed)
    print(f"{len(todo)} flow videos to do, {len(mine) - len(todo)} done or given up before, into {output}")
    if not todo:
        return
    student, config = moclip.load(checkpoint, args.clip_model_name, args.num_classes)
    device = pick_device(args.device)
    encoder = clip.ImageEncoder(student.visual_encoder.to(device), config["clip"])
    precision = pick_precision(args.precision, device)
    encoder.compute_with(args.backend, precision)
    bytes_each = config["clip"]["embed_dim"] * (2 if args.embedding_dtype == "float16" else 4) + 16
    with autocast(device, precision):
        workers, batch = cli.usable_workers(args.num_workers), args.frame_batch_size
        files = [paths[stem] for stem in todo]
        print(dry_run.describe_embedding(files, encoder, video.EVERY_FRAME, batch, workers, bytes_each))


def run(
    args: argparse.Namespace,
    paths: dict[str, Path],
    output: Path,
    checkpoint: Path,
    group: "Group",
    report: cli.Report,
) -> None:
    """Embed what is not done yet, and put the file together."""
    from vimoclip import clip, moclip
    from vimoclip.extraction.sharding import Crew
    from vimoclip.runtime import seeding
    from vimoclip.runtime.device import autocast, pick_device, pick_precision

    crew = Crew(group, args.shard)
    with crew.lock(output):
        crew.check_shares(output, paths)
        seeding.seed_everything(args.seed)
        student, config = moclip.load(checkpoint, args.clip_model_name, args.num_classes)
        flow_settings = check_flows(paths, config["flow"], checkpoint)
        device = pick_device(args.device, group.local_rank)
        precision = pick_precision(args.precision, device)
        encoder = clip.ImageEncoder(student.visual_encoder.to(device), config["clip"])
        encoder.compute_with(args.backend, precision)
        attributes = root_attributes(args, config, encoder, flow_settings)
        attributes |= {"precision": precision, "backend": args.backend}
        print(f"student {checkpoint} on {device} in {precision} by {args.backend}", flush=True)
        writer, outcomes = open_output(args, paths, output, attributes, crew, report)
        with autocast(device, precision):
            embed_flows(args, writer, outcomes, encoder)
        outcomes.gather()
        if crew.whole:
            finish(writer, outcomes)
    if crew.shard and group.main:
        writer.look_again()
        if outcomes.is_last(paths, writer.done):
            report.add(crew.merge_as_last(partial(merge, args.strict, paths, output)))


def sort_out(paths: dict[str, Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """(flow videos by stem, reasons why others can't be taken): a name must do in every file of the chain."""
    from vimoclip import annotations

    wrong: dict[str, str] = {}
    for stem in paths:
        try:
            annotations.check_video_id(f"{stem}.mp4")
        except UserError as error:
            wrong[repr(stem)] = str(error)
    return {stem: path for stem, path in paths.items() if repr(stem) not in wrong}, wrong


def open_output(
    args: argparse.Namespace,
    paths: dict[str, Path],
    output: Path,
    attributes: dict[str, Any],
    crew: "Crew",
    report: cli.Report,
) -> tuple["Writer", "Outcomes"]:
    """The file and what is to be done for it. Raises UserError where what is there doesn't fit."""
    from vimoclip import store
    from vimoclip.extraction.video_status import Outcomes

    overwrite = args.overwrite and crew.group.main
    writer = crew.first(lambda: store.Writer(output, attributes, args.embedding_dtype, overwrite))
    how = args.overwrite, args.retry_failed, args.strict
    outcomes = Outcomes(output, crew.share(paths), writer.done, report, *how, writer.settings(), crew)
    if args.overwrite:
        cli.begun_afresh()
    print(outcomes.plan(), flush=True)
    return writer, outcomes


def embed_flows(args: argparse.Namespace, writer: "Writer", outcomes: "Outcomes", encoder: Any) -> None:
    """Embed this process's flow videos."""
    from vimoclip.extraction.embeddings import Job, embed_videos

    embed_videos(
        (Job(stem, outcomes.sources[stem]) for stem in outcomes.claimed()),
        writer,
        encoder.preprocess,
        encoder.encode,
        outcomes,
        frame_batch_size=args.frame_batch_size,
        workers=cli.usable_workers(args.num_workers),
        videos_ahead=args.batch_size,
        flow_frames=True,
    )


def finish(writer: "Writer", outcomes: "Outcomes") -> None:
    """Put the file together."""
    if written := writer.finish(outcomes.sources):
        outcomes.report.outputs.append(written)
    outcomes.manifest.settle()


def merge(strict: bool, paths: dict[str, Path], output: Path) -> cli.Report:
    """Put together what shards have done. Raises UserError where there is something left to do."""
    from vimoclip import store
    from vimoclip.extraction.sharding import ALONE
    from vimoclip.extraction.video_status import Outcomes
    from vimoclip.io import lock
    from vimoclip.runtime import versions

    with lock.only_process(output, wait=60):  # for shards that are about to end
        writer = store.Writer.reopen(output, versions.versions())
        outcomes = Outcomes(output, paths, writer.done, cli.Report(), False, False, strict, writer.settings())
        outcomes.check_nothing_left()
        finish(writer, outcomes)
        ALONE.check_shares(output, paths)
    return outcomes.report


def check_flows(paths: dict[str, Path], trained_on: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """How the flow was made. Raises UserError where that is not one way, or not the way the student was trained on."""
    from vimoclip import video
    from vimoclip.errors import VideoError
    from vimoclip.flow.flow_lookup import settings_of

    found: dict[str, Any] = {}
    for path in paths.values():
        try:
            made = settings_of(video.probe(path).comment)
        except VideoError:
            continue  # becomes a line of the summary when it is read
        cli.check_same(trained_on, made, str(checkpoint), str(path), "use the flow that the student was trained on")
        if found:
            cli.check_same(found, made, "the flow videos before it", str(path), "make the flow with one set of flags")
        found = found or made
    if not trained_on and found.get("normalization") not in (None, "frame"):
        print(
            f"warning: {checkpoint} does not say which flow it was trained on, as published students don't; those were "
            f"trained on --flow-normalization frame, and these videos are made with {found['normalization']}",
            flush=True,
        )
    return found


def root_attributes(
    args: argparse.Namespace, config: dict[str, Any], encoder: Any, flow: dict[str, Any]
) -> dict[str, Any]:
    from vimoclip import clip
    from vimoclip.runtime import versions

    described = ("clip_model", "quick_gelu", "embed_dim", "image_size", "resize")
    return {
        "kind": "motion",
        "dataset_name": args.dataset_name,
        "num_classes": config["num_classes"],
        "student": config,
        **({"sampling": flow["sampling"]} if "sampling" in flow else {}),  # unknown of published flow videos
        "weights_sha256": clip.weights_sha256(encoder.visual),
        "versions": versions.versions(),
        **{key: config["clip"][key] for key in described},
    }


if __name__ == "__main__":
    cli.run(main)
