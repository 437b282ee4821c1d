"""Embed every kept frame of every annotated video with a CLIP image encoder, one file per split.

    python extract_embeddings.py
    python extract_embeddings.py --split train --clip-model-name ViT-B/16

Reads dataset/videos/ and dataset/annotations/, writes dataset/embeddings/ak_train_clip_embeddings.h5 and so on.
Safe to stop and run again: videos that are done are skipped."""

import argparse
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from vimoclip.annotations import Annotations
    from vimoclip.extraction.sharding import WorkerContext
    from vimoclip.extraction.video_status import VideoTracker
    from vimoclip.runtime.distributed import ProcessGroup
    from vimoclip.store import EmbeddingWriter
    from vimoclip.video import Sampling


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--split", nargs="+", default=None, help="train, val, test; default: all annotated splits")
    parser.add_argument("--videos-dir", type=Path, default=None, help="default: videos/ in the data set")
    parser.add_argument("--output-dir", type=Path, default=None, help="default: embeddings/ in the data set")
    parser.add_argument(
        "--resize",
        choices=["model", "center-crop", "squash", "pad"],
        default="model",
        help="how frames become square; model: as in the model's own transform",
    )
    cli.add_embedding_arguments(parser)
    cli.add_clip_arguments(parser)
    cli.add_sampling_arguments(parser)
    cli.add_dataset_arguments(parser)
    cli.add_compute_arguments(parser, int8=True)
    cli.add_failure_arguments(parser)
    cli.add_sharding_arguments(parser)
    cli.add_run_arguments(parser, "only the first N videos of each split")
    return parser


@dataclass(frozen=True)
class SplitTask:
    """Output file and videos of one split."""

    split: str
    output: Path
    sources: dict[str, Path]


def main(argv: list[str] | None = None) -> cli.RunReport:
    args = build_parser().parse_args(argv)
    cli.check_sharding_arguments(args)
    from vimoclip import clip
    from vimoclip.runtime import distributed

    data, tasks = plan_tasks(args)
    report = cli.RunReport()
    if (args.merge or args.dry_run) and not cli.is_main_process():
        return report
    if args.merge and not args.dry_run:
        for task in tasks:
            report.merge(merge_shards(args.strict, data, task))
        report.print()
        return report
    if download := clip.missing_download(args.clip_model_name, args.clip_pretrained):
        cli.check_downloadable(download)
    if args.dry_run:
        for task in tasks:
            print_dry_run(args, task, has_weights=not download)
        return report
    with distributed.init_process_group() as group:
        run_extraction(args, data, tasks, group, report)
        report.print()
    return report


def print_dry_run(args: argparse.Namespace, task: SplitTask, has_weights: bool) -> None:
    """Print what --dry-run shows; with `has_weights`, also an estimate of the cost."""
    from vimoclip import clip, store
    from vimoclip.extraction import dry_run, video_status
    from vimoclip.extraction.sharding import WorkerContext
    from vimoclip.runtime.device import autocast, select_device, select_precision

    assigned = WorkerContext(shard=args.shard).assigned_videos(task.sources)
    pending = list(assigned)
    if not args.overwrite:
        is_done = store.is_done_predicate(task.output)
        pending = video_status.pending_videos(task.output, assigned, is_done, args.retry_failed)
    print(f"{task.split}: {len(pending)} videos to do, {len(assigned) - len(pending)} done or given up before")
    if not has_weights:
        print("the time it takes can be estimated once the weights are here")
    if not (pending and has_weights):
        return
    device = select_device(args.device)
    encoder = clip.load_encoder(args.clip_model_name, args.clip_pretrained, args.resize)
    encoder.visual.to(device)
    precision = select_precision(args.precision, device)
    encoder.set_backend(args.backend, precision)
    bytes_per_frame = encoder.config["embed_dim"] * (2 if args.embedding_dtype == "float16" else 4) + 16
    with autocast(device, precision):
        workers = cli.limit_workers(args.num_workers)
        paths, batch_size = [task.sources[key] for key in pending], args.frame_batch_size
        print(dry_run.estimate_embedding(paths, encoder, sampling_from(args), batch_size, workers, bytes_per_frame))


def plan_tasks(args: argparse.Namespace) -> tuple["Annotations", list[SplitTask]]:
    """Return the annotations and a task per split. Raises UserError."""
    from vimoclip import annotations, store

    data = annotations.load(args.dataset_dir / "annotations", args.dataset_name, args.split)
    videos_dir = cli.require_folder(args.videos_dir or args.dataset_dir / "videos", "name it with --videos-dir")
    output_dir = cli.require_creatable_folder(args.output_dir or args.dataset_dir / "embeddings", "--output-dir")
    for split in (split for split in data.splits if not data.splits[split]):
        if args.split and split in args.split:
            path = args.dataset_dir / "annotations" / f"{split}_multi.txt"
            raise UserError("names no video", "add a line a video", path=path)
        print(f"{split}: {split}_multi.txt names no video")
    splits = args.split or [split for split in data.splits if data.splits[split]]
    tasks = []
    for split in splits:
        sources = {key: videos_dir / key for key in list(data.splits[split])[: args.limit]}
        tasks.append(SplitTask(split, store.rgb_embeddings_path(output_dir, args.dataset_name, split), sources))
    return data, tasks


def run_extraction(
    args: argparse.Namespace, data: "Annotations", tasks: list[SplitTask], group: "ProcessGroup", report: cli.RunReport
) -> None:
    """Embed the pending videos of every split and write their files."""
    from vimoclip import clip
    from vimoclip.extraction.sharding import WorkerContext
    from vimoclip.runtime import seeding
    from vimoclip.runtime.device import autocast, select_device, select_precision

    worker = WorkerContext(group, args.shard)
    with ExitStack() as stack:
        locks = [stack.enter_context(ExitStack()) for _ in tasks]
        for task, task_lock in zip(tasks, locks, strict=True):
            task_lock.enter_context(worker.lock(task.output))
            worker.check_shard_inputs(task.output, task.sources)
        seeding.seed_everything(args.seed)
        device = select_device(args.device, group.local_rank)
        precision = select_precision(args.precision, device)
        encoder = clip.load_encoder(args.clip_model_name, args.clip_pretrained, args.resize)
        encoder.visual.to(device)
        encoder.set_backend(args.backend, precision)
        print(f"encoder {encoder.config['clip_model']} on {device} in {precision} by {args.backend}", flush=True)
        # Open all outputs before the first video to report a mismatch at once.
        config = encoder.config | {"precision": precision, "backend": args.backend}
        outputs = [open_split(args, data, task, config, worker, report) for task in tasks]
        if args.overwrite:
            cli.mark_overwritten()
        for task, (writer, tracker), task_lock in zip(tasks, outputs, locks, strict=True):
            with autocast(device, precision):
                embed_split(args, data, task, writer, tracker, encoder)
            tracker.gather_reports()
            if worker.merges_output:
                finalize_split(data, task, writer, tracker)
            task_lock.close()  # before the next split: another shard may be the last of this one
            writer.refresh()
            if worker.shard and group.is_main and tracker.all_shards_done(task.sources, writer.is_done):
                report.merge(worker.merge_if_last(partial(merge_shards, args.strict, data, task)))


def open_split(
    args: argparse.Namespace,
    data: "Annotations",
    task: SplitTask,
    config: dict[str, Any],
    worker: "WorkerContext",
    report: cli.RunReport,
) -> tuple["EmbeddingWriter", "VideoTracker"]:
    """Open a split's writer and tracker. Raises UserError if existing output has other settings."""
    from vimoclip import store
    from vimoclip.extraction.video_status import VideoTracker
    from vimoclip.runtime import versions

    encoder_keys = ("clip_model", "quick_gelu", "embed_dim", "image_size", "resize", "weights_sha256")
    compute_keys = ("precision", "backend")
    attributes = {
        "kind": "rgb",
        "dataset_name": args.dataset_name,
        "type": task.split,
        "num_classes": len(data.classes),
        "class_names": list(data.classes),
        "clip_pretrained": config["clip_pretrained"] or "",
        "sampling": sampling_from(args).as_dict(),
        "versions": versions.package_versions(),
        **{key: config[key] for key in encoder_keys + compute_keys},
    }
    overwrite = args.overwrite and worker.group.is_main
    writer = worker.run_rank0_first(
        lambda: store.EmbeddingWriter(task.output, attributes, args.embedding_dtype, overwrite)
    )
    tracker = VideoTracker(
        task.output,
        worker.assigned_videos(task.sources),
        writer.is_done,
        report,
        overwrite=args.overwrite,
        retry_failed=args.retry_failed,
        strict=args.strict,
        settings=writer.settings(),
        worker=worker,
    )
    print(f"{task.split}: {tracker.format_plan()}", flush=True)
    return writer, tracker


def sampling_from(args: argparse.Namespace) -> "Sampling":
    """Return the sampling that the arguments select."""
    from vimoclip import video

    return video.Sampling(args.stride, args.fps, args.max_frames)


def embed_split(
    args: argparse.Namespace,
    data: "Annotations",
    task: SplitTask,
    writer: "EmbeddingWriter",
    tracker: "VideoTracker",
    encoder: Any,
) -> None:
    """Embed this process's videos of one split."""
    from vimoclip.extraction.embeddings import VideoInput, embed_videos

    embed_videos(
        (VideoInput(key, task.sources[key], data.multi_hot(task.split, key)) for key in tracker.claim_videos()),
        writer,
        encoder.preprocess,
        encoder.encode,
        tracker,
        sampling_from(args),
        args.frame_batch_size,
        cli.limit_workers(args.num_workers),
    )


def finalize_split(data: "Annotations", task: SplitTask, writer: "EmbeddingWriter", tracker: "VideoTracker") -> None:
    """Write a split's file and compact its manifest."""
    labels = {key: data.multi_hot(task.split, key) for key in data.splits[task.split]}
    if output := writer.merge(task.sources, labels):
        tracker.report.outputs.append(output)
    tracker.manifest.compact()


def merge_shards(strict: bool, data: "Annotations", task: SplitTask) -> cli.RunReport:
    """Merge the shards of a split. Raises UserError if videos are pending."""
    from vimoclip import store
    from vimoclip.extraction.sharding import SINGLE_PROCESS
    from vimoclip.extraction.video_status import VideoTracker
    from vimoclip.io import lock
    from vimoclip.runtime import versions

    with lock.exclusive_lock(task.output, timeout=60):  # a shard may be about to end
        writer = store.EmbeddingWriter.reopen(task.output, versions.package_versions())
        report, settings = cli.RunReport(), writer.settings()
        tracker = VideoTracker(task.output, task.sources, writer.is_done, report, strict=strict, settings=settings)
        tracker.check_complete()
        finalize_split(data, task, writer, tracker)
        SINGLE_PROCESS.check_shard_inputs(task.output, task.sources)
    return tracker.report


if __name__ == "__main__":
    cli.run(main)
