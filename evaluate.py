"""Every number of one set of predictions, with its interval, beside what knowing nothing is worth; and a report.

    python evaluate.py checkpoints/TFAM/cross_attention/seed49
    python evaluate.py predictions.csv --annotations-dir dataset/annotations
    python evaluate.py predictions.csv --compare others.csv

Reads a finished run of TFAM, or any CSV with a column `video_id` and one of scores per class, headed by the names or
the ids of the classes, in any order; and the annotations of the clips. Prints and writes metrics.json, per_class.csv
and report.html, to evaluation/ in the run's folder, or to <name of the CSV>_evaluation/. Intervals are of a bootstrap
over clips; thresholds are fitted on selection clips, never on those reported. A quarter of a minute for 6,096 clips of
140 classes."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip import cli
from vimoclip.errors import UserError

if TYPE_CHECKING:
    from vimoclip.evaluation import Evaluation
    from vimoclip.evaluation.sources import Source


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument
    add("predictions", type=Path, metavar="RUN_OR_PREDICTIONS.csv", help="a run folder of TFAM, or a CSV")
    add(
        "--annotations-dir", type=Path, default=None, help="default: that of a run's data set, else dataset/annotations"
    )
    add("--dataset-name", default=None, help="of <name>_action.csv; default: the one that is there")
    add(
        "--split",
        choices=["val", "test", "train"],
        default=None,
        help="the clips that are reported; default: a run's, val",
    )
    add("--logits", action="store_true", help="scores of a CSV are logits, not probabilities")
    add(
        "--selection-predictions",
        type=Path,
        default=None,
        metavar="CSV",
        help="of the selection clips, which thresholds are fitted on; default: a run's own",
    )
    add(
        "--allow-missing",
        action="store_true",
        help="evaluate without the clips that have no predictions, and say which",
    )
    add("--compare", type=Path, default=None, metavar="OTHER", help="another run or CSV of the same clips")
    add("--output-dir", type=Path, default=None, help="default: beside the predictions, see above")
    add(
        "--videos-dir",
        type=Path,
        default=None,
        help="of the report's pictures; default: videos/ beside the annotations",
    )
    add("--flow-videos-dir", type=Path, default=None, help="the same; default: flows/ beside the annotations")
    add("--resamples", type=cli.positive_int, default=1000, help="of the clips, behind each interval")
    add("--seed", type=cli.seed, default=0, help="of the resamples, and of the random predictor")
    return parser


def main(argv: list[str] | None = None) -> "Evaluation":
    """What was found. Raises UserError."""
    args = build_parser().parse_args(argv)
    for path in filter(None, (args.predictions, args.compare, args.selection_predictions)):
        if not path.exists():
            raise UserError("there is no such file or folder", "name a run of TFAM, or a CSV of predictions", path=path)
    from vimoclip import annotations, evaluation, report
    from vimoclip.evaluation import output, sources

    source = sources.open_source(args.predictions, args.selection_predictions)
    notes = annotations_of(args, source)
    for folder in filter(None, (args.videos_dir, args.flow_videos_dir)):
        cli.need_folder(folder, "name the folder of the videos, or leave the flag out")
    name = args.dataset_name or annotations.name_in(notes)
    args.split = args.split or source.split
    data = annotations.load(notes, name, [args.split])
    folder = output_of(args)
    settings = evaluation.Settings(args.split, args.logits, args.resamples, args.seed, args.allow_missing)
    other = sources.open_source(args.compare) if args.compare else None
    found = evaluation.evaluate(source, data, notes, settings, other)
    found.metrics["command"] = shlex.join(["python", "evaluate.py", *(sys.argv[1:] if argv is None else argv)])
    print(output.table(found), flush=True)
    written = output.write(found, folder)
    places = [
        given or notes.parent / there for given, there in ((args.videos_dir, "videos"), (args.flow_videos_dir, "flows"))
    ]
    page = report.write(folder / "report.html", found, *(place if place.is_dir() else None for place in places))
    print("wrote " + ", ".join(str(path) for path in (*written, page)), flush=True)
    return found


def annotations_of(args: argparse.Namespace, source: "Source") -> Path:
    """The folder of the annotations. Raises UserError where there is none."""
    own = source.dataset / "annotations" if source.dataset else None
    there = args.annotations_dir or (own if own and own.is_dir() else Path("dataset/annotations"))
    return cli.need_folder(there, "name the folder of the annotations with --annotations-dir")


def output_of(args: argparse.Namespace) -> Path:
    """Where the files go. Raises UserError for a run folder itself, whose metrics.json is the run's."""
    given: Path = args.predictions
    default = given / "evaluation" if given.is_dir() else given.with_name(f"{given.stem}_evaluation")
    folder = args.output_dir or default
    if (folder / "config.yaml").exists() or (folder / "args.yaml").exists():
        raise UserError(
            "is a run folder, whose metrics.json would be lost", "name another with --output-dir", path=folder
        )
    cli.need_place(folder, "--output-dir")
    return folder


if __name__ == "__main__":
    cli.run(main)
