"""Embed every kept frame of every annotated video with a CLIP image encoder, a file a split.

    python extract_embeddings.py
    python extract_embeddings.py --split train --clip-model-name ViT-B/16

Reads dataset/videos/ and dataset/annotations/, writes dataset/embeddings/ak_train_clip_embeddings.h5 and its like.
Safe to stop and run again: videos that are done are skipped."""

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import UserError, cli

if TYPE_CHECKING:
    from vimoclip.annotations import Annotations
    from vimoclip.outcomes import Outcomes
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
    cli.add_compute(parser)
    cli.add_outcomes(parser)
    cli.add_run_control(parser, "only the first N videos of each split")
    return parser


def main(argv: list[str] | None = None) -> cli.Report:
    args = build_parser().parse_args(argv)
    from vimoclip import annotations, clip, lock, runs

    data = annotations.load(args.dataset_dir / "annotations", args.dataset_name, args.split)
    videos_dir = cli.need_folder(args.videos_dir or args.dataset_dir / "videos", "name it with --videos-dir")
    cli.need_place(args.output_dir or args.dataset_dir / "embeddings", "--output-dir")
    for split in (split for split in data.splits if not data.splits[split]):
        if args.split and split in args.split:
            raise UserError(f"{args.dataset_dir}/annotations/{split}_multi.txt: names no video; add a line a video")
        print(f"{split}: {split}_multi.txt names no video")
    splits = args.split or [split for split in data.splits if data.splits[split]]
    if download := clip.missing_download(args.clip_model_name, args.clip_pretrained):
        cli.check_reachable(download)
    report = cli.Report()
    if args.dry_run:
        for split in splits:
            print(f"{split}: {len(list(data.splits[split])[: args.limit])} videos to {output_path(args, split)}")
        return report
    with ExitStack() as locks:
        for split in splits:
            locks.enter_context(lock.only_process(output_path(args, split)))
        runs.seed_everything(args.seed)
        device = runs.pick_device(args.device)
        precision = runs.pick_precision(args.precision, device)
        encoder = clip.load(args.clip_model_name, args.clip_pretrained, args.resize)
        encoder.visual.to(device)
        print(f"encoder {encoder.config['clip_model']} on {device} in {precision}", flush=True)
        # all before the first is embedded: what doesn't fit is said now, not in days
        opened = {split: open_split(args, data, split, videos_dir, encoder.config, report) for split in splits}
        if args.overwrite:
            cli.begun_afresh()
        for split, (writer, outcomes) in opened.items():
            with runs.autocast(device, precision):
                extract_split(args, data, split, writer, outcomes, encoder)
    report.print()
    return report


def output_path(args: argparse.Namespace, split: str) -> Path:
    from vimoclip import store

    return store.rgb_path(args.output_dir or args.dataset_dir / "embeddings", args.dataset_name, split)


def open_split(
    args: argparse.Namespace,
    data: "Annotations",
    split: str,
    videos_dir: Path,
    config: dict[str, Any],
    report: cli.Report,
) -> tuple["Writer", "Outcomes"]:
    """A split's output and what is to be done for it. Raises UserError where what is there doesn't fit."""
    from vimoclip import runs, store
    from vimoclip.outcomes import Outcomes

    described = ("clip_model", "quick_gelu", "embed_dim", "image_size", "resize", "weights_sha256")
    attributes = {
        "kind": "rgb",
        "dataset_name": args.dataset_name,
        "type": split,
        "num_classes": len(data.classes),
        "class_names": list(data.classes),
        "clip_pretrained": config["clip_pretrained"] or "",
        "sampling": sampling(args).as_dict(),
        "versions": runs.versions(),
        **{key: config[key] for key in described},
    }
    output = output_path(args, split)
    writer = store.Writer(output, attributes, args.embedding_dtype, args.overwrite)
    sources = {key: videos_dir / key for key in list(data.splits[split])[: args.limit]}
    how = args.overwrite, args.retry_failed, args.strict
    outcomes = Outcomes(output, sources, writer.done, report, *how, writer.settings())
    print(f"{split}: {outcomes.plan()}", flush=True)
    return writer, outcomes


def sampling(args: argparse.Namespace) -> "Sampling":
    from vimoclip import video

    return video.Sampling(args.stride, args.fps, args.max_frames)


def extract_split(
    args: argparse.Namespace, data: "Annotations", split: str, writer: "Writer", outcomes: "Outcomes", encoder: Any
) -> None:
    """Embed what is not done yet of one split, and put its file together."""
    from vimoclip.embed import Job, embed_videos

    embed_videos(
        [Job(key, outcomes.sources[key], data.multi_hot(split, key)) for key in outcomes.todo],
        writer,
        encoder.preprocess,
        encoder.encode,
        outcomes,
        sampling(args),
        args.frame_batch_size,
        cli.usable_workers(args.num_workers),
    )
    if written := writer.finish(outcomes.sources, {key: data.multi_hot(split, key) for key in data.splits[split]}):
        outcomes.report.outputs.append(written)
    outcomes.manifest.settle()


if __name__ == "__main__":
    cli.run(main)
