"""What the animals in videos do, and when: from the file to a timeline, in one pass, without files in between.

    python predict.py video.mp4 --student checkpoints/<run> --tfam checkpoints/TFAM/<config>/seed49 -o predictions/
    python predict.py my_videos/ --labels drinking running        by CLIP alone, without any training

Takes videos, folders of videos, and lists (.txt, a path a line). Writes for each predictions/<stem>.html (the video
over its timeline, to look at in a browser), <stem>.csv (when which action is seen), <stem>_windows.csv (the scores of
all windows), <stem>.boris.tsv (for BORIS) and <stem>.json (all of it). How frames are chosen, prepared and embedded is
as the checkpoints learnt it. Safe to stop and run again: videos that are done are skipped.

A score is that of a window of --window seconds around its middle. An action is there as long as its score is at least
its class's threshold: that which the run fitted on its selection clips, or 0.5. See docs/numbers.md."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from vimoclip.prediction import WindowFeatures
    from vimoclip.prediction.runner import PredictionModel, TimelineOptions

ZERO_SHOT_FPS = 4.0


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+", help="videos, folders of them, lists of them (.txt)")
    parser.add_argument("--tfam", type=Path, default=None, help="a run folder of TFAM, or a checkpoint in one")
    parser.add_argument("--student", type=Path, default=None, help="the run folder of train.py that --tfam learnt from")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("predictions"), help="gets all files")
    add_zero_shot_arguments(parser)
    add_timeline_arguments(parser)
    cli.add_clip_arguments(parser, None)
    parser.add_argument("--ckpt-path", default=None, help="the flow's checkpoint, where the student learnt from a file")
    parser.add_argument("--frame-batch-size", type=cli.positive_int, default=16, help="of the encoders, in frames")
    cli.add_compute_arguments(parser, workers=1, int8=True)
    cli.add_run_arguments(parser)
    return parser


def add_zero_shot_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("without training (in the place of --tfam)")
    group.add_argument("--labels", nargs="+", default=None, metavar="LABEL", help="what may be seen, in words")
    group.add_argument(
        "--template", nargs="+", default=None, metavar="TEXT", help="prompts, with {} for the label; default: some"
    )
    group.add_argument(
        "--fps", type=cli.positive_float, default=None, help=f"frames a second to look at; default: {ZERO_SHOT_FPS:g}"
    )


def add_timeline_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("timeline")
    group.add_argument("--window", type=cli.positive_float, default=6.0, help="seconds that are scored together")
    group.add_argument("--stride-seconds", type=cli.positive_float, default=1.0, help="from one window to the next")
    group.add_argument(
        "--threshold", type=cli.non_negative_float, default=None, help="of all classes; default: each one's own"
    )
    group.add_argument("--min-length", type=cli.non_negative_float, default=1.0, help="seconds; shorter bouts go")
    group.add_argument("--max-gap", type=cli.non_negative_float, default=1.0, help="seconds; shorter gaps are closed")


def main(argv: list[str] | None = None) -> cli.RunReport:
    args = build_parser().parse_args(argv)
    check_arguments(args)
    from vimoclip.prediction import runner
    from vimoclip.runtime import seeding

    videos = find_input_videos(args)
    cli.require_creatable_folder(args.output_dir, "--output-dir")
    seeding.seed_everything(args.seed)
    model = load_zero_shot_model(args) if args.labels else load_fusion_model(args)
    report = cli.RunReport()
    todo = videos if args.overwrite else runner.select_pending(videos, args.output_dir, model, report)
    print(f"{len(todo)} videos to do, {report.already_done} done already, into {args.output_dir}", flush=True)
    if args.dry_run:
        return report
    runner.predict_videos(
        todo, args.output_dir, model, report, args.frame_batch_size, cli.limit_workers(args.num_workers)
    )
    if len(videos) > 1:
        runner.write_whole_videos(args.output_dir, videos, model)
    report.outputs.append(args.output_dir)
    report.print()
    return report


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError for flags that don't go together."""
    if bool(args.tfam) == bool(args.labels):
        raise UserError("give either --tfam (and --student), a trained model, or --labels, words for CLIP alone")
    for flag in ("student", "ckpt_path"):
        if args.labels and getattr(args, flag):
            raise UserError(f"--{flag.replace('_', '-')} belongs to --tfam", "with --labels there is no motion")
    for flag in ("template", "fps"):
        if args.tfam and getattr(args, flag):
            raise UserError(f"--{flag} belongs to --labels", "with --tfam it is as the checkpoints learnt it")
    if args.student and not args.student.exists():
        raise UserError(f"{args.student}: there is no such student", "name a run folder of train.py with --student")
    if args.tfam and not args.tfam.exists():
        raise UserError(
            f"{args.tfam}: there is no such run", "name a folder checkpoints/TFAM/<config>/seed<k> with --tfam"
        )


def find_input_videos(args: argparse.Namespace) -> dict[str, Path]:
    """Stem -> video, of all that was named. Raises UserError where there is none, or two would share their files."""
    from vimoclip import video
    from vimoclip.prediction.runner import WHOLE_VIDEOS_FILE

    paths: list[Path] = []
    for place in args.videos:
        if place.is_dir():
            found, others = video.find_videos(place)
            paths += found
            if others:
                print(f"{place}: not taken for videos: {', '.join(map(repr, others))}", flush=True)
        elif place.suffix.lower() == ".txt":
            paths += read_video_list(place)
        else:
            paths.append(cli.require_file(place, "name a video, a folder of videos or a list of them (.txt)"))
    if not paths:
        raise UserError(f"{args.videos[0]}: holds no video", "name videos or a folder of them")
    stems: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        for taken in (path.stem, f"{path.stem}_windows", path.stem.removesuffix("_windows")):
            if other := stems.get(taken):
                raise UserError(
                    f"{path} and {other} would write the same files", "give them folders of their own with -o"
                )
        if f"{path.stem}.csv" == WHOLE_VIDEOS_FILE:
            raise UserError(f"would be written to {WHOLE_VIDEOS_FILE}, which is of all videos", "rename it", path=path)
        stems[path.stem] = path
    return dict(list(stems.items())[: args.limit])


def read_video_list(path: Path) -> list[Path]:
    """The videos that a list names, a path a line; relative ones start where the list is."""
    try:
        text = cli.require_file(path, "name a list of videos, a path a line").read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", "save it as UTF-8, a path a line", path=path) from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return [cli.require_file(path.parent / line, f"mend line {number} of {path}") for number, line in lines]


def load_fusion_model(args: argparse.Namespace) -> "PredictionModel":
    """A trained TFAM with its student and teacher. Raises UserError where they don't fit."""
    import numpy as np

    from TFAM.predictor import FusionPredictor
    from vimoclip.prediction.load_pipeline import load_two_stream_encoder
    from vimoclip.prediction.runner import PredictionModel

    machine = compute_options(args)
    fused = FusionPredictor(args.tfam, machine.device, machine.precision)
    weights = {key: getattr(args, key) for key in ("clip_model_name", "clip_pretrained", "ckpt_path")}
    eyes = load_two_stream_encoder(fused.inputs, fused.path, args.student, weights, machine)
    own = fused.thresholds() if args.threshold is None else np.full(len(fused.classes), args.threshold)
    print(f"{fused.path} on {machine.device} in {machine.precision}", flush=True)
    return PredictionModel(
        eyes, fused, fused.classes, own, timeline_options(args), fused.metadata() | {"precision": machine.precision}
    )


def load_zero_shot_model(args: argparse.Namespace) -> "PredictionModel":
    """CLIP alone, by words. Raises UserError."""
    import numpy as np

    from vimoclip import clip, video
    from vimoclip.prediction import TwoStreamEncoder
    from vimoclip.prediction.load_pipeline import load_zero_shot_classifier, make_frame_encoder
    from vimoclip.prediction.runner import PredictionModel

    machine, labels = compute_options(args), tuple(dict.fromkeys(args.labels))
    name, pretrained = args.clip_model_name or "ViT-B/32", args.clip_pretrained
    pretrained = pretrained or (None if ":" in name else "openai")
    encoder, words = load_zero_shot_classifier(name, pretrained, labels, args.template)
    eyes = TwoStreamEncoder(video.Sampling(fps=args.fps or ZERO_SHOT_FPS), make_frame_encoder(encoder, machine))

    def score(parts: "Sequence[WindowFeatures]") -> np.ndarray:
        return np.stack([words.score(part.rgb).double().numpy() for part in parts if part.rgb is not None])

    own = np.full(len(labels), 0.5 if args.threshold is None else args.threshold)
    described = {
        "zero_shot": True,
        "clip_model": encoder.config["clip_model"],
        "clip_weights_sha256": encoder.config["weights_sha256"],
        "templates": list(args.template or clip.PROMPT_TEMPLATES),
        "sampling": eyes.sampling.as_dict(),
    }
    print(f"{name} on {machine.device} in {machine.precision}, by words alone", flush=True)
    return PredictionModel(
        eyes, score, labels, own, timeline_options(args), described | {"precision": machine.precision}
    )


def timeline_options(args: argparse.Namespace) -> "TimelineOptions":
    from vimoclip.prediction.runner import TimelineOptions

    return TimelineOptions(args.window, args.stride_seconds, args.min_length, args.max_gap)


def compute_options(args: argparse.Namespace) -> Any:
    from vimoclip.prediction.load_pipeline import ComputeOptions
    from vimoclip.runtime.device import select_device, select_precision

    device = select_device(args.device)
    return ComputeOptions(device, select_precision(args.precision, device), args.frame_batch_size)


if __name__ == "__main__":
    cli.run(main)
