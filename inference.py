"""Embed every flow frame of every flow video with a trained student: z_motion, the motion side of TFAM.

    python inference.py --checkpoint-dir checkpoints/20250328-003544

Reads dataset/flows/ and a run folder of train.py, writes dataset/embeddings/flow_embeddings.h5.
Safe to stop and run again: videos that are done are skipped."""

import argparse
from pathlib import Path
from typing import Any

from vimoclip import UserError, cli


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
    cli.add_compute(parser)
    cli.add_outcomes(parser)
    cli.add_run_control(parser)
    return parser


def main(argv: list[str] | None = None) -> cli.Report:
    args = build_parser().parse_args(argv)
    from vimoclip import clip, lock, moclip, runs
    from vimoclip.data import FlowFolder

    flows_dir = cli.need_folder(args.flow_videos_dir or args.dataset_dir / "flows", "run extract_flows.py")
    output = args.output_h5_path or args.dataset_dir / "embeddings" / "flow_embeddings.h5"
    cli.need_place(output.parent, "--output-h5-path")
    report = cli.Report()
    found, report.failed = sort_out(FlowFolder(flows_dir).by_stem())
    paths = dict(sorted(found.items())[: args.limit])
    if not paths:
        raise UserError(f"{flows_dir}: holds no flow video; run extract_flows.py, or name another --flow-videos-dir")
    checkpoint = moclip.find_checkpoint(args.checkpoint_dir)
    if args.dry_run:
        print(f"{len(paths)} flow videos of {flows_dir} through {checkpoint} to {output}")
        return report
    with lock.only_process(output):
        runs.seed_everything(args.seed)
        student, config = moclip.load(checkpoint, args.clip_model_name, args.num_classes)
        flow_settings = check_flows(paths, config["flow"], checkpoint)
        device = runs.pick_device(args.device)
        precision = runs.pick_precision(args.precision, device)
        encoder = clip.ImageEncoder(student.visual_encoder.to(device), config["clip"])
        attributes = root_attributes(args, config, encoder, flow_settings)
        print(f"student {checkpoint} on {device} in {precision}", flush=True)
        with runs.autocast(device, precision):
            embed_flows(args, paths, output, attributes, encoder, report)
    report.print()
    return report


def sort_out(paths: dict[str, Path]) -> tuple[dict[str, Path], dict[str, str]]:
    """(flow videos by stem, reasons why others can't be taken): a name must do in every file of the chain."""
    from vimoclip import annotations

    wrong: dict[str, str] = {}
    for stem in paths:
        try:
            annotations.check_video_id(f"{stem}.mp4")
        except ValueError as error:
            wrong[repr(stem)] = str(error)
    return {stem: path for stem, path in paths.items() if repr(stem) not in wrong}, wrong


def embed_flows(
    args: argparse.Namespace,
    paths: dict[str, Path],
    output: Path,
    attributes: dict[str, Any],
    encoder: Any,
    report: cli.Report,
) -> None:
    """Embed what is not done yet, and put the file together."""
    from vimoclip import store
    from vimoclip.embed import Job, embed_videos
    from vimoclip.outcomes import Outcomes

    writer = store.Writer(output, attributes, args.embedding_dtype, args.overwrite)
    how = args.overwrite, args.retry_failed, args.strict
    outcomes = Outcomes(output, paths, writer.done, report, *how, writer.settings())
    if args.overwrite:
        cli.begun_afresh()
    print(outcomes.plan(), flush=True)
    embed_videos(
        [Job(stem, paths[stem]) for stem in outcomes.todo],
        writer,
        encoder.preprocess,
        encoder.encode,
        outcomes,
        frame_batch_size=args.frame_batch_size,
        workers=cli.usable_workers(args.num_workers),
        videos_ahead=args.batch_size,
        flow_frames=True,
    )
    if written := writer.finish(paths):
        report.outputs.append(written)
    outcomes.manifest.settle()


def check_flows(paths: dict[str, Path], trained_on: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """How the flow was made. Raises UserError where that is not one way, or not the way the student was trained on."""
    from vimoclip import VideoError, video
    from vimoclip.data import settings_of

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
    from vimoclip import clip, runs

    described = ("clip_model", "quick_gelu", "embed_dim", "image_size", "resize")
    return {
        "kind": "motion",
        "dataset_name": args.dataset_name,
        "num_classes": config["num_classes"],
        "student": config,
        **({"sampling": flow["sampling"]} if "sampling" in flow else {}),  # unknown of published flow videos
        "weights_sha256": clip.weights_sha256(encoder.visual),
        "versions": runs.versions(),
        **{key: config["clip"][key] for key in described},
    }


if __name__ == "__main__":
    cli.run(main)
