"""Compute motion embeddings: embed every frame of every flow video with the student, the encoder trained by train.py.

    python inference.py --checkpoint-dir checkpoints/20250328-003544
    python inference.py --checkpoint-dir my_model

Reads dataset/flows/ and a run folder of train.py, or the student in a model folder of export_model.py. Writes
dataset/embeddings/flow_embeddings.h5.
Safe to stop and run again: videos that are done are skipped."""

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    import torch

    from vimoclip.clip import ImageEncoder
    from vimoclip.extraction.embeddings import EmbeddingJob


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoint-dir",
        type=Path,
        required=True,
        help="run folder of train.py, a checkpoint file in it, or a model folder of export_model.py",
    )
    parser.add_argument(
        "--flow-videos-dir", type=Path, default=None, help="folder of flow videos; default: flows/ in --dataset-dir"
    )
    parser.add_argument(
        "--output-h5-path",
        type=Path,
        default=None,
        help="output file; default: embeddings/flow_embeddings.h5 in --dataset-dir",
    )
    parser.add_argument(
        "--clip-model-name",
        default=None,
        help="CLIP model of the student; needed only for a checkpoint of the paper's code, which does not record it",
    )
    parser.add_argument(
        "--num-classes", type=cli.positive_int, default=None, help="expected number of classes; default: the student's"
    )
    parser.add_argument(
        "--batch-size", type=cli.positive_int, default=2, help="videos to load in advance; not the batch of the encoder"
    )
    cli.add_embedding_arguments(parser)
    cli.add_dataset_arguments(parser)
    cli.add_compute_arguments(parser, int8=True)
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


def make_job(args: argparse.Namespace) -> "EmbeddingJob":
    """Return the job that embeds the flow videos. Raises UserError."""
    from vimoclip import annotations, moclip
    from vimoclip.extraction.embeddings import EmbeddingJob
    from vimoclip.flow.flow_folder import FlowFolder

    flows_dir = cli.require_folder(args.flow_videos_dir or args.dataset_dir / "flows", "run extract_flows.py")
    output = args.output_h5_path or args.dataset_dir / "embeddings" / "flow_embeddings.h5"
    cli.require_creatable_folder(output.parent, "--output-h5-path")
    paths = FlowFolder(flows_dir).by_stem()
    invalid = annotations.invalid_video_ids(f"{stem}.mp4" for stem in paths)
    stems = sorted(stem for stem in paths if f"{stem}.mp4" not in invalid)
    sources = {stem: paths[stem] for stem in stems[: args.limit]}
    if not sources:
        hint = "run extract_flows.py, or name another --flow-videos-dir"
        raise UserError("holds no flow video", hint, path=flows_dir)
    is_merge = args.merge and not args.dry_run  # reads no checkpoint
    checkpoint = args.checkpoint_dir if is_merge else moclip.find_checkpoint(args.checkpoint_dir)
    return EmbeddingJob(
        args,
        output,
        sources,
        functools.partial(load_student, args, checkpoint, list(sources.values())),
        {"kind": "motion", "dataset_name": args.dataset_name},
        videos_ahead=args.batch_size,
        is_flow=True,
        rejected={repr(annotations.stem(video)): reason for video, reason in invalid.items()},
    )


def load_student(
    args: argparse.Namespace, checkpoint: Path, flow_paths: list[Path], device: "torch.device", precision: str
) -> "tuple[ImageEncoder, dict[str, Any]]":
    """Return the student's encoder, and the root attributes that describe it. Raises UserError."""
    from vimoclip import clip, moclip
    from vimoclip.flow.flow_folder import common_settings
    from vimoclip.io.checkpoint_loading import weights_sha256
    from vimoclip.runtime.device import describe_precision

    student, config = moclip.load(checkpoint, args.clip_model_name, args.num_classes)
    flow_settings = common_settings(flow_paths, config["flow"], checkpoint)
    encoder = clip.ImageEncoder(student.visual_encoder, config["clip"]).freeze(device, precision)
    print(f"student {checkpoint} on {device} in {describe_precision(precision, device)}", flush=True)
    keys = ("clip_model", "quick_gelu", "embed_dim", "image_size", "resize")
    # published flow videos do not store it
    source: dict[str, Any] = {key: flow_settings[key] for key in ("sampling", "geometry") if key in flow_settings}
    return encoder, {
        "num_classes": config["num_classes"],
        "student": config,
        "weights_sha256": weights_sha256(encoder.visual),
        **source,
        **{key: config["clip"][key] for key in keys},
    }


if __name__ == "__main__":
    cli.run(main)
