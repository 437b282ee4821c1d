"""Predict the actions in videos and when they occur, in one pass, without files in between.

    python predict.py video.mp4 --student checkpoints/<run> --tfam checkpoints/TFAM/<config>/seed49 -o predictions/
    python predict.py my_videos/ --labels drinking running        CLIP alone, without training

Takes videos, folders of videos, and lists (.txt, one path per line). For each video it writes predictions/<stem>.html
(the video and its timeline, for a browser), <stem>.csv (bouts: action, start, stop), <stem>_windows.csv (scores of all
windows), <stem>.boris.tsv (for BORIS) and <stem>.json (all of these). Frames are sampled, preprocessed and encoded as
in the training of the checkpoints. An interrupted run can be started again: it skips videos that are done.

A score belongs to a window of --window seconds and holds around its middle. A bout lasts as long as the score is at
least the threshold of its class: the one that the run fitted on its model-selection split, or 0.5. See
docs/numbers.md."""

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
    parser.add_argument("videos", type=Path, nargs="+", help="videos, folders of videos, or lists of videos (.txt)")
    parser.add_argument("--tfam", type=Path, default=None, help="run folder or checkpoint of TFAM")
    parser.add_argument(
        "--student", type=Path, default=None, help="run folder of the student that --tfam was trained with"
    )
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("predictions"), help="folder for all files")
    add_zero_shot_arguments(parser)
    add_timeline_arguments(parser)
    cli.add_clip_arguments(parser, None)
    parser.add_argument(
        "--ckpt-path",
        default=None,
        help="checkpoint file of the flow model, if not ptlflow's own",
    )
    parser.add_argument("--frame-batch-size", type=cli.positive_int, default=16, help="frames per encoder batch")
    cli.add_compute_arguments(parser, workers=1, int8=True)
    cli.add_run_arguments(parser)
    cli.add_report_argument(parser)
    return parser


def add_zero_shot_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("without training (instead of --tfam)")
    group.add_argument("--labels", nargs="+", default=None, metavar="LABEL", help="possible actions, as words")
    group.add_argument(
        "--template", nargs="+", default=None, metavar="TEXT", help="prompts with {} for the label; default: built in"
    )
    group.add_argument(
        "--fps", type=cli.positive_float, default=None, help=f"sampled frames per second; default: {ZERO_SHOT_FPS:g}"
    )


def add_timeline_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("timeline")
    group.add_argument("--window", type=cli.positive_float, default=6.0, help="length of a window, in seconds")
    group.add_argument(
        "--stride-seconds", type=cli.positive_float, default=1.0, help="stride of the windows, in seconds"
    )
    group.add_argument(
        "--threshold",
        type=cli.non_negative_float,
        default=None,
        help="of all classes; default: fitted per class",
    )
    group.add_argument(
        "--min-length",
        type=cli.non_negative_float,
        default=1.0,
        help="shortest bout, in seconds",
    )
    group.add_argument("--max-gap", type=cli.non_negative_float, default=1.0, help="longest gap in a bout, in seconds")


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
    pending = videos if args.overwrite else runner.select_pending(videos, args.output_dir, model, report)
    print(f"{len(pending)} videos to do, {report.already_done} done already, into {args.output_dir}", flush=True)
    if args.dry_run:
        report.pending = len(pending)
        report.write(args.report)
        return report
    runner.predict_videos(
        pending, args.output_dir, model, report, args.frame_batch_size, cli.limit_workers(args.num_workers)
    )
    if len(videos) > 1:
        runner.write_whole_videos(args.output_dir, videos, model)
    report.outputs.append(args.output_dir)
    report.print()
    report.write(args.report)
    return report


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError for flags that exclude each other, and for missing files."""
    if bool(args.tfam) == bool(args.labels):
        raise UserError("exactly one of --tfam and --labels is needed", "give --tfam (and --student) or --labels")
    for flag in ("student", "ckpt_path"):
        if args.labels and getattr(args, flag):
            raise UserError(f"--{flag.replace('_', '-')} belongs to --tfam", "leave it out: --labels uses no motion")
    for flag in ("template", "fps"):
        if args.tfam and getattr(args, flag):
            raise UserError(f"--{flag} belongs to --labels", "leave it out: --tfam uses the settings of its training")
    if args.student and not args.student.exists():
        raise UserError("there is no such student", "name a run folder of train.py: --student", path=args.student)
    if args.tfam and not args.tfam.exists():
        raise UserError("there is no such run", "name checkpoints/TFAM/<config>/seed<k>: --tfam", path=args.tfam)


def find_input_videos(args: argparse.Namespace) -> dict[str, Path]:
    """Return stem -> video. Raises UserError if there is none, or if two would write the same files."""
    from vimoclip import video
    from vimoclip.prediction.runner import WHOLE_VIDEOS_FILE

    paths: list[Path] = []
    for path in args.videos:
        if path.is_dir():
            videos, others = video.find_videos(path)
            paths += videos
            if others:
                print(f"{path}: no videos, ignored: {', '.join(map(repr, others))}", flush=True)
        elif path.suffix.lower() == ".txt":
            paths += read_video_list(path)
        else:
            paths.append(cli.require_file(path, "name a video, a folder of videos or a list of them (.txt)"))
    if not paths:
        raise UserError("holds no video", "name videos or a folder of videos", path=args.videos[0])
    stems: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        for stem in (path.stem, f"{path.stem}_windows", path.stem.removesuffix("_windows")):
            if other := stems.get(stem):
                raise UserError(f"would write the same files as {other}", "give each its own folder: -o", path=path)
        if f"{path.stem}.csv" == WHOLE_VIDEOS_FILE:
            raise UserError(f"would write {WHOLE_VIDEOS_FILE}, the table of all videos", "rename the video", path=path)
        stems[path.stem] = path
    return dict(list(stems.items())[: args.limit])


def read_video_list(path: Path) -> list[Path]:
    """Return the videos of a list, one path per line, relative to the list's folder."""
    try:
        text = cli.require_file(path, "name a list of videos, one path per line").read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", "save it as UTF-8, one path per line", path=path) from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return [cli.require_file(path.parent / line, f"correct line {number} of {path}") for number, line in lines]


def load_fusion_model(args: argparse.Namespace) -> "PredictionModel":
    """Load a trained TFAM, its student and its teacher. Raises UserError if they don't belong together."""
    import numpy as np

    from TFAM.predictor import FusionPredictor
    from vimoclip.prediction.load_pipeline import load_two_stream_encoder
    from vimoclip.prediction.runner import PredictionModel

    compute = compute_options(args)
    predictor = FusionPredictor(args.tfam, compute.device, compute.precision)
    weights = {key: getattr(args, key) for key in ("clip_model_name", "clip_pretrained", "ckpt_path")}
    encoder = load_two_stream_encoder(predictor.inputs, predictor.path, args.student, weights, compute)
    classes = predictor.classes
    thresholds = predictor.thresholds() if args.threshold is None else np.full(len(classes), args.threshold)
    metadata = predictor.metadata() | {"precision": compute.precision}
    print(f"{predictor.path} on {compute.device} in {compute.precision}", flush=True)
    return PredictionModel(encoder, predictor, classes, thresholds, timeline_options(args), metadata)


def load_zero_shot_model(args: argparse.Namespace) -> "PredictionModel":
    """Load a CLIP that scores the --labels by its text encoder. Raises UserError."""
    import numpy as np

    from vimoclip import clip, video
    from vimoclip.prediction import TwoStreamEncoder
    from vimoclip.prediction.load_pipeline import load_zero_shot_classifier, make_frame_encoder
    from vimoclip.prediction.runner import PredictionModel

    compute, labels = compute_options(args), tuple(dict.fromkeys(args.labels))
    name, pretrained = args.clip_model_name or "ViT-B/32", args.clip_pretrained
    pretrained = pretrained or (None if ":" in name else "openai")
    image_encoder, classifier = load_zero_shot_classifier(name, pretrained, labels, args.template)
    sampling = video.Sampling(fps=args.fps or ZERO_SHOT_FPS)
    encoder = TwoStreamEncoder(sampling, make_frame_encoder(image_encoder, compute))

    def score(windows: "Sequence[WindowFeatures]") -> np.ndarray:
        return np.stack([classifier.score(window.rgb).double().numpy() for window in windows if window.rgb is not None])

    thresholds = np.full(len(labels), 0.5 if args.threshold is None else args.threshold)
    metadata = {
        "zero_shot": True,
        "clip_model": image_encoder.config["clip_model"],
        "clip_weights_sha256": image_encoder.config["weights_sha256"],
        "templates": list(args.template or clip.PROMPT_TEMPLATES),
        "sampling": sampling.as_dict(),
        "precision": compute.precision,
    }
    print(f"{name} on {compute.device} in {compute.precision}, zero-shot", flush=True)
    return PredictionModel(encoder, score, labels, thresholds, timeline_options(args), metadata)


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
