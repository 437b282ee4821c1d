"""Embed every kept frame of every annotated video with a CLIP image encoder, a file a split.

    python extract_embeddings.py
    python extract_embeddings.py --split train --clip-model-name ViT-B/16

Reads dataset/videos/ and dataset/annotations/, writes dataset/embeddings/ak_train_clip_embeddings.h5 and its like.
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
    from vimoclip.extraction.sharding import Crew
    from vimoclip.extraction.video_status import Outcomes
    from vimoclip.runtime.distributed import Group
    from vimoclip.store import Writer
    from vimoclip.video import Sampling


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--split", nargs="+", default=None, help="train, val, test; default: all that are annotated")
    parser.add_argument("--videos-dir", type=Path, default=None, help="default: videos/ in the data set")
    parser.add_argument("--output-dir", type=Path, default=None, help="default: embeddings/ in the data set")
    parser.add_argument(
        "--resize",
        choices=["model", "center-crop", "squash", "pad"],
        default="model",
        help="how frames become square: as the model's own transform does, or else",
    )
    cli.add_embedding(parser)
    cli.add_clip(parser)
    cli.add_sampling(parser)
    cli.add_dataset(parser)
    cli.add_compute(parser, int8=True)
    cli.add_outcomes(parser)
    cli.add_sharing(parser)
    cli.add_run_control(parser, "only the first N videos of each split")
    return parser


@dataclass(frozen=True)
class Task:
    """A split: where its file comes, and its videos."""

    split: str
    output: Path
    sources: dict[str, Path]


def main(argv: list[str] | None = None) -> cli.Report:
    args = build_parser().parse_args(argv)
    cli.check_sharing(args)
    from vimoclip import clip
    from vimoclip.runtime import distributed

    data, tasks = plan(args)
    report = cli.Report()
    if (args.merge or args.dry_run) and not cli.first_process():
        return report
    if args.merge and not args.dry_run:
        for task in tasks:
            report.add(merge(args.strict, data, task))
        report.print()
        return report
    if download := clip.missing_download(args.clip_model_name, args.clip_pretrained):
        cli.check_reachable(download)
    if args.dry_run:
        for task in tasks:
            say_what_to_do(args, task, known=not download)
        return report
    with distributed.join() as group:
        run(args, data, tasks, group, report)
        report.print()
    return report


def say_what_to_do(args: argparse.Namespace, task: Task, known: bool) -> None:
    """What --dry-run prints. `known`: the weights are here, so that it can be tried how long it takes."""
    from vimoclip import clip, store
    from vimoclip.extraction import dry_run, video_status
    from vimoclip.extraction.sharding import Crew
    from vimoclip.runtime.device import autocast, pick_device, pick_precision

    mine = Crew(shard=args.shard).share(task.sources)
    todo = list(mine)
    if not args.overwrite:
        todo = video_status.to_do(task.output, mine, store.done(task.output), args.retry_failed)
    print(f"{task.split}: {len(todo)} videos to do, {len(mine) - len(todo)} done or given up before")
    if not known:
        print("how long it takes can be told once the weights are here")
    if not (todo and known):
        return
    device = pick_device(args.device)
    encoder = clip.load(args.clip_model_name, args.clip_pretrained, args.resize)
    encoder.visual.to(device)
    precision = pick_precision(args.precision, device)
    encoder.compute_with(args.backend, precision)
    bytes_each = encoder.config["embed_dim"] * (2 if args.embedding_dtype == "float16" else 4) + 16
    with autocast(device, precision):
        workers = cli.usable_workers(args.num_workers)
        paths = [task.sources[key] for key in todo]
        print(dry_run.describe_embedding(paths, encoder, sampling(args), args.frame_batch_size, workers, bytes_each))


def plan(args: argparse.Namespace) -> tuple["Annotations", list[Task]]:
    """The annotations and what is to be made. Raises UserError."""
    from vimoclip import annotations, store

    data = annotations.load(args.dataset_dir / "annotations", args.dataset_name, args.split)
    videos_dir = cli.need_folder(args.videos_dir or args.dataset_dir / "videos", "name it with --videos-dir")
    output_dir = cli.need_place(args.output_dir or args.dataset_dir / "embeddings", "--output-dir")
    for split in (split for split in data.splits if not data.splits[split]):
        if args.split and split in args.split:
            raise UserError(f"{args.dataset_dir}/annotations/{split}_multi.txt: names no video", "add a line a video")
        print(f"{split}: {split}_multi.txt names no video")
    splits = args.split or [split for split in data.splits if data.splits[split]]
    sources = {split: {key: videos_dir / key for key in list(data.splits[split])[: args.limit]} for split in splits}
    return data, [Task(s, store.rgb_path(output_dir, args.dataset_name, s), sources[s]) for s in splits]


def run(args: argparse.Namespace, data: "Annotations", tasks: list[Task], group: "Group", report: cli.Report) -> None:
    """Embed what is not done yet of every split, and put their files together."""
    from vimoclip import clip
    from vimoclip.extraction.sharding import Crew
    from vimoclip.runtime import seeding
    from vimoclip.runtime.device import autocast, pick_device, pick_precision

    crew = Crew(group, args.shard)
    with ExitStack() as held:
        locks = [held.enter_context(ExitStack()) for _ in tasks]
        for task, task_lock in zip(tasks, locks, strict=True):
            task_lock.enter_context(crew.lock(task.output))
            crew.check_shares(task.output, task.sources)
        seeding.seed_everything(args.seed)
        device = pick_device(args.device, group.local_rank)
        precision = pick_precision(args.precision, device)
        encoder = clip.load(args.clip_model_name, args.clip_pretrained, args.resize)
        encoder.visual.to(device)
        encoder.compute_with(args.backend, precision)
        print(f"encoder {encoder.config['clip_model']} on {device} in {precision} by {args.backend}", flush=True)
        # all before the first is embedded: what doesn't fit is said now, not in days
        config = encoder.config | {"precision": precision, "backend": args.backend}
        opened = [open_task(args, data, task, config, crew, report) for task in tasks]
        if args.overwrite:
            cli.begun_afresh()
        for task, (writer, outcomes), task_lock in zip(tasks, opened, locks, strict=True):
            with autocast(device, precision):
                extract(args, data, task, writer, outcomes, encoder)
            outcomes.gather()
            if crew.whole:
                finish(data, task, writer, outcomes)
            task_lock.close()  # before the next split: another shard may be the last of this one
            writer.look_again()
            if crew.shard and group.main and outcomes.is_last(task.sources, writer.done):
                report.add(crew.merge_as_last(partial(merge, args.strict, data, task)))


def open_task(
    args: argparse.Namespace,
    data: "Annotations",
    task: Task,
    config: dict[str, Any],
    crew: "Crew",
    report: cli.Report,
) -> tuple["Writer", "Outcomes"]:
    """A split's output and what is to be done for it. Raises UserError where what is there doesn't fit."""
    from vimoclip import store
    from vimoclip.extraction.video_status import Outcomes
    from vimoclip.runtime import versions

    described = ("clip_model", "quick_gelu", "embed_dim", "image_size", "resize", "weights_sha256")
    computed = ("precision", "backend")
    attributes = {
        "kind": "rgb",
        "dataset_name": args.dataset_name,
        "type": task.split,
        "num_classes": len(data.classes),
        "class_names": list(data.classes),
        "clip_pretrained": config["clip_pretrained"] or "",
        "sampling": sampling(args).as_dict(),
        "versions": versions.versions(),
        **{key: config[key] for key in described + computed},
    }
    overwrite = args.overwrite and crew.group.main
    writer = crew.first(lambda: store.Writer(task.output, attributes, args.embedding_dtype, overwrite))
    how = args.overwrite, args.retry_failed, args.strict
    outcomes = Outcomes(task.output, crew.share(task.sources), writer.done, report, *how, writer.settings(), crew)
    print(f"{task.split}: {outcomes.plan()}", flush=True)
    return writer, outcomes


def sampling(args: argparse.Namespace) -> "Sampling":
    from vimoclip import video

    return video.Sampling(args.stride, args.fps, args.max_frames)


def extract(
    args: argparse.Namespace, data: "Annotations", task: Task, writer: "Writer", outcomes: "Outcomes", encoder: Any
) -> None:
    """Embed this process's videos of one split."""
    from vimoclip.extraction.embeddings import Job, embed_videos

    embed_videos(
        (Job(key, task.sources[key], data.multi_hot(task.split, key)) for key in outcomes.claimed()),
        writer,
        encoder.preprocess,
        encoder.encode,
        outcomes,
        sampling(args),
        args.frame_batch_size,
        cli.usable_workers(args.num_workers),
    )


def finish(data: "Annotations", task: Task, writer: "Writer", outcomes: "Outcomes") -> None:
    """Put a split's file together."""
    labels = {key: data.multi_hot(task.split, key) for key in data.splits[task.split]}
    if written := writer.finish(task.sources, labels):
        outcomes.report.outputs.append(written)
    outcomes.manifest.settle()


def merge(strict: bool, data: "Annotations", task: Task) -> cli.Report:
    """Put together what shards have done. Raises UserError where there is something left to do."""
    from vimoclip import store
    from vimoclip.extraction.sharding import ALONE
    from vimoclip.extraction.video_status import Outcomes
    from vimoclip.io import lock
    from vimoclip.runtime import versions

    with lock.only_process(task.output, wait=60):  # for shards that are about to end
        writer = store.Writer.reopen(task.output, versions.versions())
        how = False, False, strict
        outcomes = Outcomes(task.output, task.sources, writer.done, cli.Report(), *how, writer.settings())
        outcomes.check_nothing_left()
        finish(data, task, writer, outcomes)
        ALONE.check_shares(task.output, task.sources)
    return outcomes.report


if __name__ == "__main__":
    cli.run(main)
