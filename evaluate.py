"""Evaluate predictions: all metrics with confidence intervals and chance levels, and an HTML report.

    python evaluate.py checkpoints/TFAM/cross_attention/seed49
    python evaluate.py predictions.csv --annotations-dir dataset/annotations
    python evaluate.py predictions.csv --compare others.csv

Reads the annotations and a finished run of TFAM.train_and_eval, or a CSV with a column `video_id` and a column of
scores per class, named by class name or id, in any order. Prints the metrics and writes metrics.json, per_class.csv and
report.html to evaluation/ in the run's folder, or to <name of the CSV>_evaluation/. Intervals are from a bootstrap over
clips, or over their sources (--resample sources). Thresholds are fitted on the model-selection split, never on the
evaluation split. Scores of a run are calibrated by its calibration.json; those of a CSV are not. 6,096 clips of 140
classes take half a minute."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from vimoclip.evaluation import Evaluation
    from vimoclip.evaluation.sources import PredictionSource


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument
    add("predictions", type=Path, metavar="RUN_FOLDER_OR_CSV", help="run folder of TFAM, or CSV of predictions")
    add("--annotations-dir", type=Path, help="annotations; default: those of the run, else dataset/annotations")
    add("--dataset-name", help="prefix in <prefix>_action.csv; needed if there are several")
    add("--split", choices=["val", "test", "train"], help="evaluation split; default: that of the run, else val")
    add("--logits", action="store_true", help="scores of a CSV are logits, not probabilities")
    add(
        "--selection-predictions",
        type=Path,
        metavar="CSV",
        help="predictions of the model-selection split, to fit thresholds; default: those of the run, else none; for a "
        "run, scores before calibration",
    )
    add("--raw", action="store_true", help="do not calibrate the scores of a run by its calibration.json")
    add("--allow-missing", action="store_true", help="exclude clips without predictions, and list them")
    add("--compare", type=Path, metavar="OTHER", help="run or CSV to compare with, of the same clips")
    add("--output-dir", type=Path, help="output folder; default: evaluation/ in the run, or <CSV name>_evaluation/")
    add("--videos-dir", type=Path, help="videos, for the example clips; default: videos/ beside the annotations")
    add(
        "--flow-videos-dir",
        type=Path,
        help="flow videos, for the example clips; default: flows/ beside the annotations",
    )
    add("--resamples", type=cli.positive_int, default=1000, help="number of bootstrap resamples")
    add(
        "--resample",
        choices=["clips", "sources"],
        default="clips",
        help="what the bootstrap draws: single clips, or whole sources with all their clips: the recordings, animals "
        "or sites of sources.csv in the folder of the annotations",
    )
    add("--seed", type=cli.seed, default=0, help="seed of the bootstrap and of the random predictor")
    cli.add_report_argument(parser)
    return parser


def main(argv: list[str] | None = None) -> "Evaluation":
    """Print and write the evaluation, and return it. Raises UserError."""
    args = build_parser().parse_args(argv)
    for path in filter(None, (args.predictions, args.compare, args.selection_predictions)):
        if not path.exists():
            raise UserError("does not exist", "give a run folder of TFAM or a CSV of predictions", path=path)
    from vimoclip import annotations, evaluation, report
    from vimoclip.annotations import few_shot
    from vimoclip.evaluation import output, sources

    source = sources.open_predictions(args.predictions, args.selection_predictions)
    annotations_dir = find_annotations_dir(args, source)
    for folder in filter(None, (args.videos_dir, args.flow_videos_dir)):
        cli.require_folder(folder, "give the folder of the videos, or omit the flag")
    dataset_name = args.dataset_name or annotations.find_dataset_name(annotations_dir)
    args.split = args.split or source.split
    data = annotations.load(annotations_dir, dataset_name, [args.split])
    output_dir = resolve_output_dir(args)
    settings = evaluation.EvaluationSettings(
        args.split, args.logits, args.resamples, args.seed, args.allow_missing, args.raw, args.resample
    )
    other = sources.open_predictions(args.compare) if args.compare else None
    result = evaluation.evaluate(source, data, annotations_dir, settings, other)
    result.metrics["command"] = shlex.join(["python", "evaluate.py", *(sys.argv[1:] if argv is None else argv)])
    print(output.format_table(result), flush=True)
    written = output.write_files(result, output_dir)
    videos_dir = args.videos_dir or annotations_dir.parent / "videos"
    flows_dir = args.flow_videos_dir or annotations_dir.parent / "flows"
    few_shot_file = args.predictions.absolute().parent.parent / few_shot.CURVES_FILE  # beside the configs of a run
    curves = report.read_learning_curves(few_shot_file, source.protocol, result.videos) if source.is_run else []
    page = report.write_report(
        output_dir / "report.html",
        result,
        videos_dir if videos_dir.is_dir() else None,
        flows_dir if flows_dir.is_dir() else None,
        curves,
    )
    print("wrote " + ", ".join(str(path) for path in (*written, page)), flush=True)
    missing = [video for video in data.splits[args.split] if video not in set(result.videos)]
    skipped = {video: source.excluded_videos.get(video, "no predictions") for video in missing}
    cli.RunReport([*written, page], done=len(result.videos), skipped=skipped).write(args.report)
    return result


def find_annotations_dir(args: argparse.Namespace, source: "PredictionSource") -> Path:
    """Return `--annotations-dir`, that of the run's data set, or dataset/annotations. Raises UserError if missing."""
    run_dir = source.dataset_dir / "annotations" if source.dataset_dir else None
    folder = args.annotations_dir or (run_dir if run_dir and run_dir.is_dir() else Path("dataset/annotations"))
    return cli.require_folder(folder, "give the folder of the annotations with --annotations-dir")


def resolve_output_dir(args: argparse.Namespace) -> Path:
    """Return the output folder. Raises UserError for a run folder, whose metrics.json would be overwritten."""
    predictions: Path = args.predictions
    default_dir = (
        predictions / "evaluation" if predictions.is_dir() else predictions.with_name(f"{predictions.stem}_evaluation")
    )
    output_dir: Path = args.output_dir or default_dir
    if (output_dir / "config.yaml").exists() or (output_dir / "args.yaml").exists():
        raise UserError(
            "is a run folder, whose metrics.json would be lost",
            "give another folder with --output-dir",
            path=output_dir,
        )
    cli.require_creatable_folder(output_dir, "--output-dir")
    return output_dir


if __name__ == "__main__":
    cli.run(main)
