"""Import a data set into the layout of the chain, draw its selection clips, or check it.

    python prepare_dataset.py folder my_videos
    python prepare_dataset.py csv my_table.csv --group-by animal
    python prepare_dataset.py boris my_project.boris --window 6
    python prepare_dataset.py mammalnet MammalNet
    python prepare_dataset.py animal-kingdom --metadata AR_metadata.xlsx --actions df_action.xlsx
    python prepare_dataset.py selection
    python prepare_dataset.py check

folder: a folder with one folder of videos per action, my_videos/<action>/*.mp4, becomes dataset/annotations/ and
dataset/videos/<action>__<name>.mp4 (hard links if the file system has them, else copies). Each action is split at
random into clips to train on and to validate with.

csv: a table with the columns video,labels (names, or ids with --classes; several joined by ;) or video and a column of
0/1 per class. With the columns start,end, in seconds, clips are trimmed from the videos, exact to the frame. A column
split (train, val, test) is followed; without one, splits are drawn, stratified by all labels.

Clips of one recording, animal or site belong in one split, or the numbers are too good. --group-by keeps them together:
for csv it names a column, for folder it is a regular expression that finds the source in a clip's path below the
folder: --group-by "^[^/]+/([^_]+)_" takes the part of the file's name before the first _.

boris: a project of BORIS, or its aggregated events as CSV or TSV. Windows slide over each media file. A behaviour is a
label of a window if it overlaps it by --min-overlap of the window, or of the behaviour if that is shorter. A point
event extends by --point-margin seconds to both sides. Media files are looked up by their path, beside the file of
events, and in --videos-dir. A single recording is split into blocks of time, with a warning.

mammalnet: MammalNet as released, annotation.tar and trimmed_videos.tar.gz unpacked in one folder. Its three splits are
kept: epochs are chosen on val, and test is reported.

animal-kingdom: the two workbooks of Animal Kingdom's authors become dataset/annotations/. If they disagree on the id of
a class, the clips' descriptions decide, and every such class is printed.

selection: draws selection.txt, a tenth of the training clips, stratified by their labels: epochs and thresholds are
chosen on these clips, and not on those that are reported. All importers but mammalnet draw it too.

Each importer prints a summary (clips, classes, durations, labels, what was left out and why) and writes
class_counts.html.

check: finds what is missing, stale, broken or inconsistent among annotations, videos, embeddings, flows and motion.
Prints a table and a line per problem; --json writes all of it as JSON. Changes nothing. Exit code 1 if there is a
problem; files that have not been created yet are none. Takes a few ms a video, ten times that if an extraction has not
read it before."""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.io import atomic

if TYPE_CHECKING:
    from vimoclip.check.dataset_scan import DatasetPaths

SEED = 49
HELP = {
    "folder": "one folder of videos per action",
    "csv": "a table of videos and labels",
    "boris": "events that were coded in BORIS",
    "mammalnet": "MammalNet, as its authors give it out",
    "animal-kingdom": "Animal Kingdom's annotations, from its authors' workbooks",
    "selection": "draw the training clips on which epochs are chosen",
    "check": "what is missing, stale, broken or does not fit",
}


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="WHAT")
    for name, add, run in (
        ("folder", add_folder, prepare_folder),
        ("csv", add_csv, prepare_csv),
        ("boris", add_boris, prepare_boris),
        ("mammalnet", add_mammalnet, prepare_mammalnet),
        ("animal-kingdom", add_animal_kingdom, prepare_animal_kingdom),
        ("selection", add_selection, prepare_selection),
        ("check", add_check, check_dataset),
    ):
        command = commands.add_parser(name, help=HELP[name], description=__doc__)
        add(command)
        cli.add_dataset_arguments(command)
        cli.add_report_argument(command)
        command.set_defaults(run=run)
    return parser


def add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="holds a folder of videos per action")
    add_split(parser)
    parser.add_argument(
        "--group-by", type=cli.regex, default=None, metavar="PATTERN", help="finds a clip's source in <action>/<name>"
    )


def add_csv(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, help="with columns video,labels, or video and a column of 0/1 per class")
    parser.add_argument("--videos-dir", type=Path, default=None, help="where the videos are; default: beside the table")
    parser.add_argument(
        "--classes",
        nargs="+",
        default=None,
        metavar="NAME",
        help="names of the ids 0, 1, ...; default: as in the table",
    )
    add_split(parser)
    parser.add_argument("--group-by", default=None, metavar="COLUMN", help="says where a video comes from")


def add_boris(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("events", type=Path, help="a .boris project, or aggregated events as CSV or TSV")
    parser.add_argument("--videos-dir", type=Path, default=None, help="where the media files are now")
    parser.add_argument("--window", type=cli.positive_float, default=6.0, help="seconds of a clip")
    parser.add_argument("--stride-seconds", type=cli.positive_float, default=3.0, help="from one window to the next")
    parser.add_argument(
        "--min-overlap", type=cli.fraction_or_one, default=0.5, help="share from which on a behaviour is a label"
    )
    parser.add_argument("--point-margin", type=cli.non_negative_float, default=1.0, help="seconds around a point event")
    parser.add_argument("--subjects", nargs="+", default=None, metavar="NAME", help="only these; default: all")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="BEHAVIOUR", help="these are no classes")
    parser.add_argument("--drop-unlabelled", action="store_true", help="no clips in which nothing was coded")
    parser.add_argument("--group-by", choices=["media", "observation"], default="media", help="stays on one side")
    add_split(parser)


def add_mammalnet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="holds annotation/ and trimmed_videos/")


def add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--val-share", type=cli.fraction, default=1 / 3, help="of the clips, to validate with")
    parser.add_argument(
        "--test-share", type=cli.fraction, default=None, help="of the clips, to test with; default: none"
    )
    parser.add_argument("--seed", type=cli.seed, default=SEED, help="of the split, and of the selection clips")


def add_animal_kingdom(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metadata", type=Path, required=True, help="the authors' AR_metadata.xlsx")
    parser.add_argument("--actions", type=Path, required=True, help="the authors' df_action.xlsx")
    parser.add_argument("--output-dir", type=Path, default=None, help="default: annotations/ in the data set")
    parser.add_argument(
        "--species", action="store_true", help="also write animals.csv: each clip's animals, their class"
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--share", type=cli.fraction, default=0.1, help="of the training clips")
    parser.add_argument("--seed", type=cli.seed, default=SEED, help="of the draw")
    parser.add_argument("--overwrite", action="store_true", help="in the place of a selection that is there")


def add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--decode", action="store_true", help="decode every video and flow video from end to end")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write all of it there; - is stdout")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--num-workers", type=cli.non_negative_int, default=processors, help="processes")
    parser.add_argument("--videos-dir", type=Path, default=None, help="default: videos/ in the data set")
    parser.add_argument("--flow-videos-dir", type=Path, default=None, help="default: flows/ in the data set")
    parser.add_argument("--embeddings-dir", type=Path, default=None, help="default: embeddings/ in the data set")
    parser.add_argument(
        "--motion-h5-path", type=Path, default=None, help="default: flow_embeddings.h5 among the embeddings"
    )


def split_fractions(args: argparse.Namespace) -> dict[str, float]:
    """Return the fractions of val and test. Raises UserError if nothing is left to train on."""
    fractions = {"val": args.val_share} | ({"test": args.test_share} if args.test_share else {})
    if sum(fractions.values()) >= 1:
        raise UserError(
            f"--val-share and --test-share are {sum(fractions.values()):g} of the clips", "leave some to train on"
        )
    return fractions


def main(argv: list[str] | None = None) -> cli.RunReport:
    """Run a command. Its first output is the folder of annotations, the selection file or the JSON of the check."""
    args = build_parser().parse_args(argv)
    report: cli.RunReport = args.run(args)
    report.write(args.report)
    return report


def check_dataset(args: argparse.Namespace) -> cli.RunReport:
    """Print the report of a check. Raises UserError, with exit code 1 if there is a problem."""
    from vimoclip.check.checker import CheckError, run_checks

    paths = dataset_paths(args)
    to_stdout = args.json == Path("-")
    with contextlib.redirect_stdout(sys.stderr) if to_stdout else contextlib.nullcontext():
        checked = run_checks(paths, args.decode, cli.limit_workers(args.num_workers))
        print("\n".join(checked.format_lines()), flush=True)
    report = checked.run_report()
    text = json.dumps(checked.as_dict(), indent=1) + "\n"
    if to_stdout:
        sys.stdout.write(text)
        sys.stdout.flush()
    elif args.json:
        report.outputs.append(atomic.write_text(args.json, text))
        print(f"wrote {args.json}")
    if not checked.fine:
        report.write(args.report)
        raise CheckError(checked.summary(), "see above what to do", path=args.dataset_dir)
    print(f"{args.dataset_dir}: nothing is wrong", file=sys.stderr if to_stdout else None)
    return report


def dataset_paths(args: argparse.Namespace) -> "DatasetPaths":
    """Return the paths of the data set. Raises UserError if a path given on the command line does not exist."""
    from vimoclip.check.dataset_scan import DatasetPaths

    data, hint = args.dataset_dir, "name the data set with --dataset-dir and --dataset-name"
    annotations_dir = cli.require_folder(data / "annotations", hint)
    cli.require_file(annotations_dir / f"{args.dataset_name}_action.csv", hint)
    for flag in ("videos_dir", "flow_videos_dir", "embeddings_dir"):
        if folder := getattr(args, flag):
            cli.require_folder(folder, f"name another with --{flag.replace('_', '-')}, or leave it out")
    if args.motion_h5_path:
        cli.require_file(args.motion_h5_path, "name another with --motion-h5-path, or leave it out")
    if args.json and args.json.is_dir():
        raise UserError("is a folder", "name a file with --json, or - for stdout", path=args.json)
    embeddings = args.embeddings_dir or data / "embeddings"
    return DatasetPaths(
        args.dataset_name,
        annotations_dir,
        args.videos_dir or data / "videos",
        embeddings,
        args.flow_videos_dir or data / "flows",
        args.motion_h5_path or embeddings / "flow_embeddings.h5",
    )


def prepare_folder(args: argparse.Namespace) -> cli.RunReport:
    from vimoclip.prepare.folder import prepare

    root = cli.require_folder(args.folder, "name one that holds a folder of videos per action")
    return prepare(root, args.dataset_dir, args.dataset_name, split_fractions(args), args.seed, args.group_by)


def prepare_csv(args: argparse.Namespace) -> cli.RunReport:
    from vimoclip.prepare import csv_table

    path = cli.require_file(args.table, "name a table of videos and labels")
    table = csv_table.read_table(path, args.classes, args.group_by)
    videos_dir = cli.require_folder(args.videos_dir or args.table.parent, "name it with --videos-dir")
    return csv_table.prepare(table, videos_dir, args.dataset_dir, args.dataset_name, split_fractions(args), args.seed)


def prepare_boris(args: argparse.Namespace) -> cli.RunReport:
    from vimoclip.prepare import boris
    from vimoclip.timeline.windows import WindowGrid

    path = cli.require_file(args.events, "name a .boris project, or aggregated events")
    if args.videos_dir:
        cli.require_folder(args.videos_dir, "name the folder of the media files, or leave it out")
    labeler = boris.WindowLabeler(
        grid=WindowGrid(args.window, args.stride_seconds),
        min_overlap=args.min_overlap,
        point_margin=args.point_margin,
        keep_unlabelled=not args.drop_unlabelled,
    )
    return boris.prepare(
        path,
        args.videos_dir,
        args.dataset_dir,
        args.dataset_name,
        labeler,
        split_fractions(args),
        args.seed,
        subjects=args.subjects,
        exclude=args.exclude,
        group_by=args.group_by,
    )


def prepare_mammalnet(args: argparse.Namespace) -> cli.RunReport:
    from vimoclip.prepare import mammalnet

    root = cli.require_folder(args.folder, "name the folder that MammalNet was unpacked in")
    return mammalnet.prepare(root, args.dataset_dir, args.dataset_name)


def prepare_animal_kingdom(args: argparse.Namespace) -> cli.RunReport:
    from vimoclip.prepare import animal_kingdom

    annotations_dir = cli.require_creatable_folder(args.output_dir or args.dataset_dir / "annotations", "--output-dir")
    return animal_kingdom.prepare(args.metadata, args.actions, annotations_dir, args.dataset_name, args.species)


def prepare_selection(args: argparse.Namespace) -> cli.RunReport:
    from vimoclip.prepare import write_dataset

    annotations_dir = args.dataset_dir / "annotations"
    return write_dataset.draw_selection(annotations_dir, args.dataset_name, args.share, args.seed, args.overwrite)


if __name__ == "__main__":
    cli.run(main)
