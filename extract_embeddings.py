"""Compute a CLIP embedding of every sampled frame of every annotated video, one file per split.

    python extract_embeddings.py
    python extract_embeddings.py --split train --clip-model-name ViT-B/16
    python extract_embeddings.py --clip-model-name local-dir:my_model
The third command uses the encoder in a model folder of export_model.py.

Reads dataset/videos/ and dataset/annotations/, writes dataset/embeddings/ak_train_clip_embeddings.h5 and so on.
Safe to stop and run again: videos that are done are skipped."""

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError, VideoError

if TYPE_CHECKING:
    import torch

    from vimoclip.clip import ImageEncoder
    from vimoclip.extraction.embeddings import EmbeddingJob


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--split", nargs="+", default=None, help="train, val, test; default: all annotated splits")
    parser.add_argument(
        "--videos-dir",
        type=Path,
        default=None,
        help="folder of videos, also in folders below it; default: videos/ in --dataset-dir",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=None, help="output folder; default: embeddings/ in --dataset-dir"
    )
    parser.add_argument(
        "--resize",
        choices=["model", "center-crop", "squash", "pad"],
        default="model",
        help="how frames are made square; model: as the CLIP model's preprocessing does; center-crop: edges are cut "
        "off; squash: stretched; pad: borders are added",
    )
    cli.add_embedding_arguments(parser)
    cli.add_clip_arguments(parser)
    cli.add_sampling_arguments(parser)
    cli.add_dataset_arguments(parser)
    cli.add_compute_arguments(parser, int8=True)
    cli.add_failure_arguments(parser)
    cli.add_sharding_arguments(parser)
    cli.add_run_arguments(parser, "only the first N videos of each split")
    cli.add_report_argument(parser)
    return parser


def main(argv: list[str] | None = None) -> cli.RunReport:
    args = build_parser().parse_args(argv)
    cli.check_sharding_arguments(args)
    from vimoclip.extraction.job import run_extraction

    return run_extraction(make_jobs(args), args)


def make_jobs(args: argparse.Namespace) -> "list[EmbeddingJob]":
    """Return a job per split; all splits share one encoder. Raises UserError."""
    from vimoclip import annotations, clip, store, video
    from vimoclip.annotations import split_checks
    from vimoclip.extraction.embeddings import EmbeddingJob

    annotations_dir = args.dataset_dir / "annotations"
    data = annotations.load(annotations_dir, args.dataset_name, args.split)
    if "train" in (args.split or data.splits):
        for gap in split_checks.describe_gaps(data, annotations.read_sources(annotations_dir)):
            print(gap, flush=True)
    videos_dir = cli.require_folder(args.videos_dir or args.dataset_dir / "videos", "name it with --videos-dir")
    output_dir = cli.require_creatable_folder(args.output_dir or args.dataset_dir / "embeddings", "--output-dir")
    load_encoder = functools.cache(functools.partial(load_frozen_encoder, args))
    missing_download = functools.cache(
        functools.partial(clip.missing_download, args.clip_model_name, args.clip_pretrained)
    )
    folder = video.VideoFolder(videos_dir)
    sampling, jobs = video.Sampling(args.stride, args.fps, args.max_frames), list[EmbeddingJob]()
    geometry = video.Geometry(args.deinterlace)
    for split in args.split or data.splits:
        if not data.splits[split]:
            path = annotations_dir / f"{split}_multi.txt"
            if args.split:
                raise UserError("names no video", "add one line per video", path=path)
            print(f"{split}: {path.name} names no video")
            continue
        sources, rejected = dict[str, Path](), dict[str, str]()
        for key in list(data.splits[split])[: args.limit]:
            try:
                sources[key] = folder.locate(key)
            except VideoError as error:
                rejected[key] = str(error)
        job = EmbeddingJob(
            args,
            store.rgb_embeddings_path(output_dir, args.dataset_name, split),
            sources,
            load_encoder,
            {
                "kind": "rgb",
                "dataset_name": args.dataset_name,
                "type": split,
                "num_classes": len(data.classes),
                "class_names": list(data.classes),
                "sampling": sampling.as_dict(),
                "geometry": geometry.as_dict(),
            },
            sampling=sampling,
            geometry=geometry,
            labels={key: data.multi_hot(split, key) for key in data.splits[split]},
            label=f"{split}: ",
            rejected=rejected,
            missing_download=missing_download,
        )
        jobs.append(job)
    return jobs


def load_frozen_encoder(
    args: argparse.Namespace, device: "torch.device", precision: str
) -> "tuple[ImageEncoder, dict[str, Any]]":
    """Return the encoder, and the root attributes that describe it. Raises UserError."""
    from vimoclip import clip
    from vimoclip.check.compatibility import ENCODER_ATTRIBUTES
    from vimoclip.runtime.device import describe_precision

    cli.check_downloadable(clip.missing_download(args.clip_model_name, args.clip_pretrained))
    encoder = clip.load_encoder(args.clip_model_name, args.clip_pretrained, args.resize)
    encoder.freeze(device, precision)
    print(f"encoder {encoder.config['clip_model']} on {device} in {describe_precision(precision, device)}", flush=True)
    keys = ("embed_dim", "image_size", *ENCODER_ATTRIBUTES)
    attributes = {key: encoder.config[key] for key in keys}
    return encoder, attributes | {"clip_pretrained": encoder.config["clip_pretrained"] or ""}


if __name__ == "__main__":
    cli.run(main)
