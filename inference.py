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
    from vimoclip.extraction.sharding import WorkerContext
    from vimoclip.extraction.video_status import VideoTracker
    from vimoclip.runtime.distributed import ProcessGroup
    from vimoclip.store import EmbeddingWriter


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoint-dir", type=Path, required=True, help="a run folder of train.py, or a checkpoint of a student"
    )
    parser.add_argument("--flow-videos-dir", type=Path, default=None, help="default: flows/ in the data set")
    parser.add_argument(
        "--output-h5-path", type=Path, default=None, help="default: embeddings/flow_embeddings.h5 in the data set"
    )
    parser.add_argument(
        "--clip-model-name", default=None, help="for a checkpoint without that name; else it must agree"
    )
    parser.add_argument("--num-classes", type=cli.positive_int, default=None, help="must agree with the student")
    parser.add_argument("--batch-size", type=cli.positive_int, default=2, help="videos to prefetch")
    cli.add_embedding_arguments(parser)
    cli.add_dataset_arguments(parser)
    cli.add_compute_arguments(parser, int8=True)
    cli.add_failure_arguments(parser)
    cli.add_sharding_arguments(parser)
    cli.add_run_arguments(parser)
    return parser


def main(argv: list[str] | None = None) -> cli.RunReport:
    args = build_parser().parse_args(argv)
    cli.check_sharding_arguments(args)
    from vimoclip import moclip
    from vimoclip.flow.flow_folder import FlowFolder
    from vimoclip.runtime import distributed

    flows_dir = cli.require_folder(args.flow_videos_dir or args.dataset_dir / "flows", "run extract_flows.py")
    output = args.output_h5_path or args.dataset_dir / "embeddings" / "flow_embeddings.h5"
    cli.require_creatable_folder(output.parent, "--output-h5-path")
    report = cli.RunReport()
    valid, report.failed = split_by_valid_name(FlowFolder(flows_dir).by_stem())
    paths = dict(sorted(valid.items())[: args.limit])
    if not paths:
        raise UserError(
            "holds no flow video", "run extract_flows.py, or name another --flow-videos-dir", path=flows_dir
        )
    if (args.merge or args.dry_run) and not cli.is_main_process():
        return report
    if args.merge and not args.dry_run:
        report.merge(merge_shards(args.strict, paths, output))
        report.print()
        return report
    checkpoint = moclip.find_checkpoint(args.checkpoint_dir)
    if args.dry_run:
        print_dry_run(args, paths, output, checkpoint)
        return report
    with distributed.init_process_group() as group:
        run_extraction(args, paths, output, checkpoint, group, report)
        report.print()
    return report


def print_dry_run(args: argparse.Namespace, paths: dict[str, Path], output: Path, checkpoint: Path) -> None:
    """Print what --dry-run shows."""
    from vimoclip import clip, moclip, store, video
    from vimoclip.extraction import dry_run, video_status
    from vimoclip.extraction.sharding import WorkerContext
    from vimoclip.runtime.device import autocast, select_device, select_precision

    assigned = WorkerContext(shard=args.shard).assigned_videos(paths)
    pending = list(assigned)
    if not args.overwrite:
        pending = video_status.pending_videos(output, assigned, store.is_done_predicate(output), args.retry_failed)
    print(f"{len(pending)} flow videos to do, {len(assigned) - len(pending)} done or given up before, into {output}")
    if not pending:
        return
    student, config = moclip.load(checkpoint, args.clip_model_name, args.num_classes)
    device = select_device(args.device)
    encoder = clip.ImageEncoder(student.visual_encoder.to(device), config["clip"])
    precision = select_precision(args.precision, device)
    encoder.set_backend(args.backend, precision)
    bytes_per_frame = config["clip"]["embed_dim"] * (2 if args.embedding_dtype == "float16" else 4) + 16
    with autocast(device, precision):
        workers, batch_size = cli.limit_workers(args.num_workers), args.frame_batch_size
        files = [paths[stem] for stem in pending]
        print(dry_run.estimate_embedding(files, encoder, video.EVERY_FRAME, batch_size, workers, bytes_per_frame))


def run_extraction(
    args: argparse.Namespace,
    paths: dict[str, Path],
    output: Path,
    checkpoint: Path,
    group: "ProcessGroup",
    report: cli.RunReport,
) -> None:
    """Embed the pending flow videos and write the file."""
    from vimoclip import clip, moclip
    from vimoclip.extraction.sharding import WorkerContext
    from vimoclip.runtime import seeding
    from vimoclip.runtime.device import autocast, select_device, select_precision

    worker = WorkerContext(group, args.shard)
    with worker.lock(output):
        worker.check_shard_inputs(output, paths)
        seeding.seed_everything(args.seed)
        student, config = moclip.load(checkpoint, args.clip_model_name, args.num_classes)
        flow_settings = check_flow_settings(paths, config["flow"], checkpoint)
        device = select_device(args.device, group.local_rank)
        precision = select_precision(args.precision, device)
        encoder = clip.ImageEncoder(student.visual_encoder.to(device), config["clip"])
        encoder.set_backend(args.backend, precision)
        attributes = root_attributes(args, config, encoder, flow_settings)
        attributes |= {"precision": precision, "backend": args.backend}
        print(f"student {checkpoint} on {device} in {precision} by {args.backend}", flush=True)
        writer, tracker = open_output(args, paths, output, attributes, worker, report)
        with autocast(device, precision):
            embed_flows(args, writer, tracker, encoder)
        tracker.gather_reports()
        if worker.merges_output:
            finalize_output(writer, tracker)
    if worker.shard and group.is_main:
        writer.refresh()
        if tracker.all_shards_done(paths, writer.is_done):
            report.merge(worker.merge_if_last(partial(merge_shards, args.strict, paths, output)))


def split_by_valid_name(paths: dict[str, Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return (flow videos with a valid video id, by stem; the reasons why the others are invalid)."""
    from vimoclip import annotations

    invalid: dict[str, str] = {}
    for stem in paths:
        try:
            annotations.check_video_id(f"{stem}.mp4")
        except UserError as error:
            invalid[repr(stem)] = str(error)
    return {stem: path for stem, path in paths.items() if repr(stem) not in invalid}, invalid


def open_output(
    args: argparse.Namespace,
    paths: dict[str, Path],
    output: Path,
    attributes: dict[str, Any],
    worker: "WorkerContext",
    report: cli.RunReport,
) -> tuple["EmbeddingWriter", "VideoTracker"]:
    """Open the writer and tracker of the output. Raises UserError if existing output has other settings."""
    from vimoclip import store
    from vimoclip.extraction.video_status import VideoTracker

    overwrite = args.overwrite and worker.group.is_main
    writer = worker.run_rank0_first(lambda: store.EmbeddingWriter(output, attributes, args.embedding_dtype, overwrite))
    tracker = VideoTracker(
        output,
        worker.assigned_videos(paths),
        writer.is_done,
        report,
        overwrite=args.overwrite,
        retry_failed=args.retry_failed,
        strict=args.strict,
        settings=writer.settings(),
        worker=worker,
    )
    if args.overwrite:
        cli.mark_overwritten()
    print(tracker.format_plan(), flush=True)
    return writer, tracker


def embed_flows(args: argparse.Namespace, writer: "EmbeddingWriter", tracker: "VideoTracker", encoder: Any) -> None:
    """Embed this process's flow videos."""
    from vimoclip.extraction.embeddings import VideoInput, embed_videos

    embed_videos(
        (VideoInput(stem, tracker.sources[stem]) for stem in tracker.claim_videos()),
        writer,
        encoder.preprocess,
        encoder.encode,
        tracker,
        frame_batch_size=args.frame_batch_size,
        workers=cli.limit_workers(args.num_workers),
        videos_ahead=args.batch_size,
        flow_frames=True,
    )


def finalize_output(writer: "EmbeddingWriter", tracker: "VideoTracker") -> None:
    """Write the file and compact its manifest."""
    if output := writer.merge(tracker.sources):
        tracker.report.outputs.append(output)
    tracker.manifest.compact()


def merge_shards(strict: bool, paths: dict[str, Path], output: Path) -> cli.RunReport:
    """Merge the shards. Raises UserError if videos are pending."""
    from vimoclip import store
    from vimoclip.extraction.sharding import SINGLE_PROCESS
    from vimoclip.extraction.video_status import VideoTracker
    from vimoclip.io import lock
    from vimoclip.runtime import versions

    with lock.exclusive_lock(output, timeout=60):  # a shard may be about to end
        writer = store.EmbeddingWriter.reopen(output, versions.package_versions())
        report, settings = cli.RunReport(), writer.settings()
        tracker = VideoTracker(output, paths, writer.is_done, report, strict=strict, settings=settings)
        tracker.check_complete()
        finalize_output(writer, tracker)
        SINGLE_PROCESS.check_shard_inputs(output, paths)
    return tracker.report


def check_flow_settings(paths: dict[str, Path], training_settings: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Return the settings of the flow videos. Raises UserError if they differ from each other or from training."""
    from vimoclip import video
    from vimoclip.errors import VideoError
    from vimoclip.flow.flow_folder import settings_from_comment

    common_settings: dict[str, Any] = {}
    for path in paths.values():
        try:
            settings = settings_from_comment(video.probe(path).comment)
        except VideoError:
            continue  # is recorded as failed when its frames are read
        cli.check_settings_match(
            training_settings, settings, str(checkpoint), str(path), "use the flow that the student was trained on"
        )
        if common_settings:
            hint = "extract all flow with one set of flags"
            cli.check_settings_match(common_settings, settings, "the flow videos before it", str(path), hint)
        common_settings = common_settings or settings
    if not training_settings and common_settings.get("normalization") not in (None, "frame"):
        print(
            f"warning: {checkpoint} does not say which flow it was trained on, as published students don't; those were "
            f"trained on --flow-normalization frame, and these videos are made with {common_settings['normalization']}",
            flush=True,
        )
    return common_settings


def root_attributes(
    args: argparse.Namespace, config: dict[str, Any], encoder: Any, flow_settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the root attributes of the file, except precision and backend."""
    from vimoclip import clip
    from vimoclip.runtime import versions

    encoder_keys = ("clip_model", "quick_gelu", "embed_dim", "image_size", "resize")
    # published flow videos do not store it
    sampling = {"sampling": flow_settings["sampling"]} if "sampling" in flow_settings else {}
    return {
        "kind": "motion",
        "dataset_name": args.dataset_name,
        "num_classes": config["num_classes"],
        "student": config,
        **sampling,
        "weights_sha256": clip.weights_sha256(encoder.visual),
        "versions": versions.package_versions(),
        **{key: config["clip"][key] for key in encoder_keys},
    }


if __name__ == "__main__":
    cli.run(main)
