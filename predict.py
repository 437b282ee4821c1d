"""Predict the actions in videos and when they occur, in one pass, without intermediate files.

    python predict.py video.mp4 --student checkpoints/<run> --tfam checkpoints/TFAM/<config>/seed49 -o predictions/
    python predict.py video.mp4 --model my_model                  an exported model, see export_model.py
    python predict.py my_videos/ --labels drinking running        CLIP alone, without training

Accepts videos, folders of videos, also in folders below them, and lists (.txt, one path per line). For each video it
writes predictions/<name>.html (the video and its timeline, for a browser), <name>.csv (bouts: action, start, stop),
<name>_windows.csv (scores of all windows), <name>.boris.tsv (for BORIS) and <name>.json (all of these). Frames are
sampled, preprocessed and encoded as in the training of the checkpoints. Names of videos that share one begin with their
folders: day1__GOPR0001.csv. After an interruption, the same command skips finished videos.

About all videos of the folder it writes ethogram.csv (time budgets), transitions.csv, review_order.csv (what to correct
first), index.html and predictions.boris, a BORIS project in which predictions are reviewed and corrected; see
docs/correction-loop.md. Tables, pages and observations that somebody has edited are never overwritten.

Each score is that of a window of --window seconds. A bout is a period in which the score of an action is at least its
threshold; gaps up to --max-gap are closed. A run of --tfam that had a model-selection split has fitted a calibration of
its scores and thresholds on it (a run of an earlier version: thresholds alone); without the split, scores are raw and
thresholds 0.5. It is printed on how many positive clips of the split the calibration and the threshold of each action
rest; actions with fewer than ten are marked, in the page too. Of several runs, --tfam RUN RUN RUN, the scores and the
thresholds are the means, the numbers of clips are those of the run with the fewest, and <name>_windows.csv has the
standard deviation of each score. See docs/numbers.md."""

import argparse
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip import cli
from vimoclip.errors import UserError, escape_line

if TYPE_CHECKING:
    from vimoclip.prediction.load_pipeline import ComputeOptions
    from vimoclip.prediction.runner import PredictionModel, TimelineOptions

ZERO_SHOT_FPS = 4.0
PRINTED_WIDTH = 110  # characters in a line of the list of actions
NO_BREAK_SPACE = "\xa0"


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="*", help="videos, folders of videos, or lists of videos (.txt)")
    parser.add_argument(
        "--tfam",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="trained TFAM: a run folder of TFAM.train_and_eval, or a checkpoint; of several, the scores and the "
        "thresholds are the means",
    )
    parser.add_argument(
        "--model",
        metavar="FOLDER",
        help="exported model instead of --tfam and --student: a folder of export_model.py, or hf-hub:OWNER/NAME, which "
        "is downloaded from the Hugging Face Hub",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="scores as TFAM gives them, without the calibration of the runs or the model, and thresholds for these",
    )
    parser.add_argument(
        "--student", type=Path, help="trained motion encoder: the run folder of train.py that --tfam was trained with"
    )
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("predictions"), help="folder for all files")
    group = parser.add_argument_group("without training (instead of --tfam)")
    group.add_argument("--labels", nargs="+", metavar="LABEL", help="possible actions, as words")
    group.add_argument("--template", nargs="+", metavar="TEXT", help="prompts, in which {} is replaced by the label")
    group.add_argument("--fps", type=cli.positive_float, help=f"sampled frames per second; default: {ZERO_SHOT_FPS:g}")
    cli.add_deinterlace_argument(group, None)
    group = parser.add_argument_group("timeline")
    cli.add_window_arguments(group, "that of --model")
    group.add_argument(
        "--threshold",
        type=cli.non_negative_float,
        help="one threshold for all actions; default: those of the run or model, else 0.5",
    )
    group.add_argument("--min-length", type=cli.non_negative_float, default=1.0, help="shortest bout, in seconds")
    group.add_argument("--max-gap", type=cli.non_negative_float, default=1.0, help="longest gap in a bout, in seconds")
    group.add_argument(
        "--time-bin",
        type=cli.positive_float,
        metavar="SECONDS",
        help="also write time_bins.csv: the time budget of each video in bins of this length",
    )
    group.add_argument(
        "--frames",
        action="store_true",
        help="also write <name>_frames.csv: scores and bouts of every frame; decodes each video once more",
    )
    cli.add_clip_arguments(parser, None)
    parser.add_argument("--ckpt-path", help="weights of the flow model; default: those of ptlflow")
    cli.add_frame_batch_argument(parser)
    cli.add_pair_batch_argument(parser)
    cli.add_compute_arguments(parser, int8=True)
    cli.add_run_arguments(parser)
    cli.add_report_argument(parser)
    return parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse a command line. Videos may also follow the run: --tfam RUN VIDEO."""
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)
    if args.tfam and not args.videos:
        is_run = [path.suffix == ".pth" or (path / "best_model.pth").is_file() for path in args.tfam[1:]]
        num_runs = 1 + (is_run.index(False) if False in is_run else len(is_run))
        args.tfam, args.videos = args.tfam[:num_runs], args.tfam[num_runs:]
    if not args.videos:
        parser.error("the following arguments are required: videos")
    return args


def main(argv: list[str] | None = None) -> cli.RunReport:
    args = parse_arguments(argv)
    check_arguments(args)
    if args.model:
        use_model_folder(args)
    from vimoclip.ethogram import folder_files
    from vimoclip.io.written_files import WrittenFiles
    from vimoclip.prediction import input_videos, runner
    from vimoclip.runtime import defaults, seeding

    report = cli.RunReport()
    videos = input_videos.find_input_videos(args.videos, args.output_dir, args.limit, report)
    cli.require_creatable_folder(args.output_dir, "--output-dir")
    written = WrittenFiles(args.output_dir)
    folder_files.check_names(args.output_dir, written)
    seeding.seed_everything(args.seed)
    compute = resolve_compute_options(args)
    model = load_model(args, compute)
    pending = videos if args.overwrite else runner.select_pending(videos, args.output_dir, model, report)
    print(f"{len(pending)} videos to process, {report.already_done} already done, in {args.output_dir}", flush=True)
    if args.dry_run:
        report.pending = len(pending)
        report.write(args.report)
        return report
    workers = defaults.num_workers(args.num_workers, compute.device)
    print(f"{compute.batch_size} frames per batch, {workers} reader threads", flush=True)
    runner.predict_videos(pending, args.output_dir, model, report, compute.batch_size, workers, written)
    if args.frames:
        runner.write_frames(videos, args.output_dir, model, written, report)
    runner.write_folder_files(args.output_dir, videos, model, args.time_bin, written)
    for path in written.kept:
        again = "remove it" if path.name in folder_files.NAMES else "remove it and use --overwrite"
        print(f"{escape_line(str(path))} has been edited and is kept; {again} to have it written again", flush=True)
    report.outputs.append(args.output_dir)
    report.print()
    report.write(args.report)
    return report


def check_arguments(args: argparse.Namespace) -> None:
    """Raise UserError for flags that exclude each other, and for missing files."""
    if sum(map(bool, (args.tfam, args.model, args.labels))) != 1:
        hint = "give --tfam (and --student), --model, or --labels"
        raise UserError("exactly one of --tfam, --model and --labels is needed", hint)
    if args.model and args.student:
        raise UserError("--model and --student exclude each other", "omit --student: the model contains it")
    for flags, other, hint in (
        (("student",), "tfam", "--labels uses no motion"),
        (("ckpt_path",), "tfam or --model", "--labels uses no motion"),
        (("raw",), "tfam or --model", "scores of --labels are not calibrated"),
        (("template", "fps", "deinterlace"), "labels", "a trained model uses the settings of its training"),
    ):
        for flag in flags:
            if getattr(args, flag) and bool(args.labels) != (other == "labels"):
                raise UserError(f"--{flag.replace('_', '-')} needs --{other}", f"omit it: {hint}")
    for flag, paths, example in (
        ("student", [args.student] if args.student else [], "checkpoints/<run>"),
        ("tfam", args.tfam or [], "checkpoints/TFAM/<config>/seed<k>"),
    ):
        for path in paths:
            if not path.exists():
                raise UserError("there is no such run", f"name a run folder such as {example}: --{flag}", path=path)


def use_model_folder(args: argparse.Namespace) -> None:
    """Set the flags --tfam, --student, --clip-model-name and the window to what --model contains. Raises UserError."""
    from vimoclip import model_folder

    path = model_folder.find_folder(args.model)
    folder = model_folder.open_folder(path)
    args.tfam = [path]
    args.student = path if model_folder.STUDENT in folder.parts else None
    if model_folder.ENCODER in folder.parts:
        if args.clip_model_name or args.clip_pretrained:
            raise UserError("contains its encoder", "omit --clip-model-name and --clip-pretrained", path=path)
        args.clip_model_name = f"local-dir:{path}"
    window, stride = folder.window()
    args.window, args.stride_seconds = args.window or window, args.stride_seconds or stride


def resolve_compute_options(args: argparse.Namespace) -> "ComputeOptions":
    """Return where and how to compute. Raises UserError if the device is not available."""
    from vimoclip.prediction.load_pipeline import ComputeOptions
    from vimoclip.runtime import defaults
    from vimoclip.runtime.device import select_device, select_precision

    device = select_device(args.device)
    precision = select_precision(args.precision, device)
    return ComputeOptions(
        device,
        precision,
        defaults.frame_batch_size(args.frame_batch_size, device, precision),
        defaults.pair_batch_size(args.pair_batch_size, device),
        None if args.precision in ("auto", "int8") else args.precision,
    )


def load_model(args: argparse.Namespace, compute: "ComputeOptions") -> "PredictionModel":
    """Load trained TFAMs with their student and teacher, or a CLIP that scores --labels by its text encoder.

    Raises UserError for a student or teacher that TFAM was not trained with, and for runs that do not fit together."""
    import numpy as np

    from vimoclip import video
    from vimoclip.prediction.load_pipeline import load_zero_shot_encoder
    from vimoclip.prediction.runner import PredictionModel, TimelineOptions

    options = TimelineOptions(
        args.window or cli.WINDOW_SECONDS, args.stride_seconds or cli.STRIDE_SECONDS, args.min_length, args.max_gap
    )
    if args.tfam:
        return load_trained_model(args, compute, options)
    classes = tuple(dict.fromkeys(args.labels))
    name = args.clip_model_name or "ViT-B/32"
    pretrained = args.clip_pretrained or (None if ":" in name else "openai")
    sampling = video.Sampling(fps=args.fps or ZERO_SHOT_FPS)
    geometry = video.Geometry(args.deinterlace or "off")
    encoder, score, metadata = load_zero_shot_encoder(
        name, pretrained, classes, args.template, sampling, geometry, compute
    )
    print(f"{name} {describe_compute(compute)}, zero-shot", flush=True)
    thresholds = np.full(len(classes), 0.5 if args.threshold is None else args.threshold)
    metadata |= {"precision": compute.precision}
    return PredictionModel(encoder, score, classes, thresholds, options, metadata)


def load_trained_model(
    args: argparse.Namespace, compute: "ComputeOptions", options: "TimelineOptions"
) -> "PredictionModel":
    """Load the runs of --tfam with their student and teacher, and print what they are. Raises UserError."""
    import numpy as np

    from TFAM.ensemble import FusionEnsemble
    from TFAM.predictor import FusionPredictor
    from vimoclip.prediction.load_pipeline import load_two_stream_encoder
    from vimoclip.prediction.runner import PredictionModel

    runs = [FusionPredictor(path, compute.device, compute.precision, args.raw) for path in args.tfam]
    ensemble = FusionEnsemble(runs)
    weights = {key: getattr(args, key) for key in ("clip_model_name", "clip_pretrained", "ckpt_path")}
    encoder = load_two_stream_encoder(ensemble.inputs, ensemble.paths, args.student, weights, compute)
    classes, positives = ensemble.classes, ensemble.positives()
    thresholds = ensemble.thresholds() if args.threshold is None else np.full(len(classes), args.threshold)
    metadata = ensemble.metadata() | {"flow_precision": encoder.flow_precision, "precision": compute.precision}
    for run in runs:
        if run.calibration:
            scores = f"calibration: {run.calibration.method}"
        else:
            scores = "raw scores" if args.raw else "scores are not calibrated"
        print(f"{run.path} {describe_compute(compute)}, {scores}", flush=True)
    if positives:
        print(describe_positives(positives, args.threshold is None), flush=True)
    score_streams = ensemble.score_streams if ensemble.has_two_streams else None
    return PredictionModel(encoder, ensemble, classes, thresholds, options, metadata, score_streams, positives)


def describe_compute(compute: "ComputeOptions") -> str:
    from vimoclip.runtime.device import describe_precision

    return f"on {compute.device} in {describe_precision(compute.precision, compute.device)}"


def describe_positives(positives: Mapping[str, int], has_fitted_thresholds: bool) -> str:
    """Return lines that say how many clips the calibration of each action rests on, the fewest first."""
    from vimoclip.metrics.score_calibration import MIN_POSITIVES

    fitted = "calibration and threshold" if has_fitted_thresholds else "calibration"
    title = (
        f"positive clips of the model-selection split for the {fitted} of each action, * if fewer than {MIN_POSITIVES}:"
    )
    items = [
        f"{escape_line(name)} {count}{'*' * (count < MIN_POSITIVES)}".replace(" ", NO_BREAK_SPACE)  # stays in one line
        for name, count in sorted(positives.items(), key=lambda item: item[1])
    ]
    lines = textwrap.wrap(", ".join(items), PRINTED_WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n  ".join([title, *lines]).replace(NO_BREAK_SPACE, " ")


if __name__ == "__main__":
    cli.run(main)
