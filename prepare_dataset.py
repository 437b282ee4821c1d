"""Import a data set into the folders that the other scripts read, set aside clips for model selection, or check it.

    python prepare_dataset.py folder my_videos
    python prepare_dataset.py csv my_table.csv --group-by animal
    python prepare_dataset.py boris my_project.boris --window 6
    python prepare_dataset.py mammalnet MammalNet
    python prepare_dataset.py animal-kingdom --metadata AR_metadata.xlsx --actions df_action.xlsx
    python prepare_dataset.py selection
    python prepare_dataset.py check

For the flags of a command: python prepare_dataset.py COMMAND --help. The importers write dataset/annotations/ and
dataset/videos/ (hard links if the file system has them, else copies), print a summary and plot it as class_counts.html.

Clips of one source (a recording, an animal or a site) belong in one split, otherwise the metrics are too high; see
--group-by. All importers but mammalnet also draw a model-selection split: a tenth of the training clips, stratified by
their labels, on which the best epoch and the thresholds are selected."""

import argparse
import contextlib
import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.io import atomic
from vimoclip.io.names import normalize_name

if TYPE_CHECKING:
    from vimoclip.prepare.grouped_split import SplitRule

SEED, VAL_SHARE = 49, 1 / 3


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add, run in (
        ("folder", add_folder, prepare_folder),
        ("csv", add_csv, prepare_csv),
        ("boris", add_boris, prepare_boris),
        ("mammalnet", add_mammalnet, prepare_mammalnet),
        ("animal-kingdom", add_animal_kingdom, prepare_animal_kingdom),
        ("selection", add_selection, draw_selection),
        ("check", add_check, check_dataset),
    ):
        description = inspect.cleandoc(run.__doc__ or "")
        command = commands.add_parser(name, help=description.partition(".\n")[0], description=description)
        add(command)
        cli.add_dataset_arguments(command)
        cli.add_report_argument(command)
        command.set_defaults(run=run)
    return parser


def main(argv: list[str] | None = None) -> cli.RunReport:
    """Run a command. Its first output is the folder of annotations, the selection file or the JSON of the check."""
    args = build_parser().parse_args(argv)
    report: cli.RunReport = args.run(args)
    report.write(args.report)
    return report


def add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder with one folder of videos per action")
    add_split(parser)
    parser.add_argument(
        "--group-by",
        type=cli.regex,
        metavar="PATTERN",
        help="regular expression for <action>/<file name>; clips with the same match stay in one split",
    )


def prepare_folder(args: argparse.Namespace) -> cli.RunReport:
    """Import a folder with one folder of videos per action.

    my_videos/<action>/<name>.mp4 becomes dataset/videos/<action>__<name>.mp4, and <action>/<folder>/<name>.mp4 becomes
    <action>__<folder>__<name>.mp4. Each action is split at random into training and validation clips. --group-by keeps
    the clips of one source (a recording, an animal, a site) in one split. The match of PATTERN in
    <action>/.../<file name>, or its first capture group, is the source. Example: "^[^/]+/([^_]+)_" matches the part of
    the file name before the first _."""
    from vimoclip.prepare.folder import prepare

    root = cli.require_folder(args.folder, "name a folder with one folder of videos per action")
    return prepare(root, args.dataset_dir, args.dataset_name, split_rule(args), args.seed, args.group_by)


def add_csv(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, help="table with columns video,labels, or video and a 0/1 column per class")
    parser.add_argument("--videos-dir", type=Path, help="folder of the videos; default: that of the table")
    parser.add_argument(
        "--classes",
        nargs="+",
        type=normalize_name,
        metavar="NAME",
        help="class names, in the order of their ids from 0; default: those in the table",
    )
    parser.add_argument(
        "--time-format",
        choices=["seconds", "timecode"],
        default="seconds",
        help="format of start and end: seconds or h:mm:ss; or hh:mm:ss:ff (hh:mm:ss;ff with drop frame), by the frame "
        "rate of each video, from 00:00:00:00 at its first frame",
    )
    cli.add_deinterlace_argument(parser)
    add_split(parser)
    parser.add_argument(
        "--group-by",
        type=normalize_name,
        metavar="COLUMN",
        help="column; videos with the same value in it stay in one split",
    )


def prepare_csv(args: argparse.Namespace) -> cli.RunReport:
    """Import a table of videos and labels.

    The table has the columns video,labels or video and a 0/1 column per class. `labels` holds class names, or ids with
    --classes, separated by ;. With the columns start,end, in seconds, clips are cut from the videos, exact to the
    frame. Videos are looked up in --videos-dir and beside the table, also in folders below. A column split (train, val,
    test) defines the splits; without it they are random, stratified by all labels. --group-by names a column, like the
    recording, animal or site: videos with the same value stay in one split."""
    from vimoclip import video
    from vimoclip.prepare import csv_table, table_checks

    path = cli.require_file(args.table, "name a table of videos and labels")
    table = csv_table.read_table(path, args.classes, args.group_by, args.time_format == "timecode")
    table_checks.check_table(table)
    videos_dir = cli.require_folder(args.videos_dir or args.table.parent, "name it with --videos-dir")
    geometry = video.Geometry(args.deinterlace)
    return csv_table.prepare(
        table, videos_dir, args.dataset_dir, args.dataset_name, split_rule(args), args.seed, geometry
    )


def add_boris(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("events", type=Path, help="BORIS project (.boris, .boris.gz), or aggregated events (CSV, TSV)")
    parser.add_argument(
        "--videos-dir", type=Path, help="folder to search for media files before that of the events file"
    )
    parser.add_argument("--window", type=cli.positive_float, default=6.0, help="length of a window, in seconds")
    parser.add_argument("--stride-seconds", type=cli.positive_float, default=3.0, help="stride of windows, in seconds")
    parser.add_argument(
        "--min-overlap",
        type=cli.fraction_or_one,
        default=0.5,
        help="smallest overlap with a behaviour that labels a window, as a fraction of the shorter of the two",
    )
    parser.add_argument(
        "--point-margin", type=cli.non_negative_float, default=1.0, help="seconds before and after a point event"
    )
    parser.add_argument(
        "--subjects",
        nargs="+",
        type=normalize_name,
        metavar="NAME",
        help="subjects whose events are used; default: all",
    )
    parser.add_argument(
        "--exclude",
        nargs="+",
        type=normalize_name,
        default=[],
        metavar="BEHAVIOUR",
        help="behaviours to ignore; they become no class",
    )
    parser.add_argument(
        "--merge-case",
        action="store_true",
        help="make one class of behaviours whose codes differ only in case or spaces; default: they are an error",
    )
    parser.add_argument(
        "--include-unreviewed",
        action="store_true",
        help="of a project that predict.py wrote, also use the observations whose independent variable `reviewed` is "
        "not yes, so that predictions become labels; default: they are left out",
    )
    parser.add_argument("--drop-unlabelled", action="store_true", help="skip windows without a behaviour")
    parser.add_argument(
        "--group-by",
        choices=["media", "observation"],
        default="media",
        help="keep all windows of one media file, or of one observation, in one split",
    )
    cli.add_deinterlace_argument(parser)
    add_split(parser)


def prepare_boris(args: argparse.Namespace) -> cli.RunReport:
    """Import events that were coded in BORIS.

    Each media file is cut into overlapping windows, and each window becomes a clip. A window has the label of a
    behaviour if they overlap by at least --min-overlap of the shorter of the two. A point event extends by
    --point-margin seconds to both sides. Media files are looked up by path in --videos-dir and beside the events; if
    one is not there, the file below these folders is taken whose path ends like that in BORIS. If there is only one
    recording, it is divided into blocks of time, each of which is in one split; a warning is printed.

    Of predictions that predict.py wrote as a BORIS project, only observations are used whose independent variable
    `reviewed` is yes. Their clips are added to an existing data set, for training, and replace those of an earlier
    import of the same film."""
    from vimoclip import video
    from vimoclip.prepare import boris
    from vimoclip.prepare.coded_film import WindowLabeler
    from vimoclip.timeline.bouts import WindowGrid

    path = cli.require_file(args.events, "name a .boris project, or aggregated events")
    if args.videos_dir:
        cli.require_folder(args.videos_dir, "name the folder of the media files, or omit the flag")
    grid = WindowGrid(args.window, args.stride_seconds)
    labeler = WindowLabeler(grid, args.min_overlap, args.point_margin, not args.drop_unlabelled)
    return boris.prepare(
        path,
        args.videos_dir,
        args.dataset_dir,
        args.dataset_name,
        labeler,
        split_rule(args),
        args.seed,
        subjects=args.subjects,
        exclude=args.exclude,
        group_by=args.group_by,
        merge_case=args.merge_case,
        include_unreviewed=args.include_unreviewed,
        geometry=video.Geometry(args.deinterlace),
    )


def add_mammalnet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder with annotation/ and trimmed_videos/")


def prepare_mammalnet(args: argparse.Namespace) -> cli.RunReport:
    """Import MammalNet as its authors release it.

    First unpack annotation.tar and trimmed_videos.tar.gz into one folder. The authors' splits are kept: the best epoch
    is selected on val, and metrics are reported on test."""
    from vimoclip.prepare import mammalnet

    root = cli.require_folder(args.folder, "name the folder with MammalNet's files")
    return mammalnet.prepare(root, args.dataset_dir, args.dataset_name)


def add_animal_kingdom(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metadata", type=Path, required=True, help="AR_metadata.xlsx of the authors")
    parser.add_argument("--actions", type=Path, required=True, help="df_action.xlsx of the authors")
    parser.add_argument("--output-dir", type=Path, help="output folder; default: annotations/ in --dataset-dir")
    parser.add_argument(
        "--protocol",
        choices=["published", "unseen-animals", "by-source"],
        default="published",
        help="splits: those of the authors; six actions, trained on some animals and evaluated on others; or those of "
        "the authors' sizes without a common source, as inferred from the clips' names",
    )
    parser.add_argument(
        "--species",
        action="store_true",
        help="also write animals.csv: animals of each clip; always written with --protocol unseen-animals",
    )


def prepare_animal_kingdom(args: argparse.Namespace) -> cli.RunReport:
    """Import Animal Kingdom's annotations from its authors' workbooks.

    If the workbooks disagree on the id of a class, the id that fits the descriptions of the clips is used, and a
    message names the class. Videos are not imported: put them into dataset/videos/.

    --protocol unseen-animals: clips whose one label is moving, eating, attending, swimming, sensing or keeping still.
    Birds, fish, frogs and snakes are in train; lizards, primates, spiders, crickets and water birds in val.
    --protocol by-source: all clips in new splits. It takes the last three letters of a clip's name for its source,
    which the authors do not say. Both write sources.csv."""
    from vimoclip.prepare import animal_kingdom

    annotations_dir = cli.require_creatable_folder(args.output_dir or args.dataset_dir / "annotations", "--output-dir")
    return animal_kingdom.prepare(
        args.metadata, args.actions, annotations_dir, args.dataset_name, args.species, args.protocol
    )


def add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--val-share", type=cli.fraction, help=f"fraction of clips for validation; default: {VAL_SHARE:.3f}"
    )
    parser.add_argument("--test-share", type=cli.fraction, help="fraction of clips for testing; default: no test split")
    parser.add_argument(
        "--fold",
        type=cli.fold,
        metavar="K/N",
        help="cross-validation, for few clips: of N folds of the clips, K is the val split and all others are train; "
        "run it for K from 1 to N, each with its own --dataset-dir",
    )
    parser.add_argument(
        "--seed", type=cli.seed, default=SEED, help="seed of all splits, and of the division into folds"
    )


def split_rule(args: argparse.Namespace) -> "SplitRule":
    """Return the fold, or the fractions of val and test. Raises UserError if nothing remains for training."""
    if args.fold:
        from vimoclip.prepare.grouped_split import Fold

        if args.val_share or args.test_share:
            hint = "omit --val-share and --test-share: each of the N folds is the val split once"
            raise UserError("--fold defines the splits", hint)
        return Fold(*args.fold)
    fractions = {"val": args.val_share or VAL_SHARE} | ({"test": args.test_share} if args.test_share else {})
    if sum(fractions.values()) >= 1:
        problem = f"--val-share and --test-share add up to {sum(fractions.values()):g}"
        raise UserError(problem, "choose less than 1 in all, so that training clips remain")
    return fractions


def add_selection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--share", type=cli.fraction, default=0.1, help="fraction of training clips to draw")
    parser.add_argument("--seed", type=cli.seed, default=SEED, help="seed of the random choice")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing selection")


def draw_selection(args: argparse.Namespace) -> cli.RunReport:
    """Set aside training clips for model selection: the choice of the best epoch and of thresholds.

    The clips are stratified by their labels, listed in selection.txt, and excluded from training. So the val split is
    used for evaluation only."""
    from vimoclip.prepare import write_dataset

    annotations_dir = args.dataset_dir / "annotations"
    return write_dataset.draw_selection(annotations_dir, args.dataset_name, args.share, args.seed, args.overwrite)


def add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--decode", action="store_true", help="decode all videos, to find damaged frames; slow")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the problems as JSON; - is standard output")
    help_text = "number of processes"
    parser.add_argument("--num-workers", type=cli.non_negative_int, default=cli.num_processors(), help=help_text)
    for flag, content, name in (
        ("--videos-dir", "videos", "videos"),
        ("--flow-videos-dir", "flow videos", "flows"),
        ("--embeddings-dir", "embeddings", "embeddings"),
    ):
        parser.add_argument(flag, type=Path, help=f"folder of the {content}; default: {name}/ in --dataset-dir")
    parser.add_argument(
        "--motion-h5-path",
        type=Path,
        help="motion embeddings, the output of inference.py; default: flow_embeddings.h5 in the folder of embeddings",
    )


def check_dataset(args: argparse.Namespace) -> cli.RunReport:
    """Find missing, out-of-date, damaged or inconsistent files of a data set.

    Compares annotations, videos, embeddings of frames (RGB) and of flow (motion), and flow videos. Prints a table and a
    line per problem, and changes nothing. Outputs of stages that have not been run are not reported. The exit code is 1
    if there is a problem. Takes a few ms per video, ten times as long for videos that no stage has read yet."""
    from vimoclip.check.checker import CheckError, run_checks
    from vimoclip.check.dataset_scan import DatasetPaths

    data, hint = args.dataset_dir, "name the data set with --dataset-dir and --dataset-name"
    annotations_dir = cli.require_folder(data / "annotations", hint)
    cli.require_file(annotations_dir / f"{args.dataset_name}_action.csv", hint)
    for flag in ("videos_dir", "flow_videos_dir", "embeddings_dir"):
        if folder := getattr(args, flag):
            cli.require_folder(folder, f"name an existing folder with --{flag.replace('_', '-')}, or omit the flag")
    if args.motion_h5_path:
        cli.require_file(args.motion_h5_path, "name an existing file with --motion-h5-path, or omit the flag")
    if args.json and args.json.is_dir():
        raise UserError("is a folder", "name a file with --json, or - for standard output", path=args.json)
    embeddings = args.embeddings_dir or data / "embeddings"
    paths = DatasetPaths(
        args.dataset_name,
        annotations_dir,
        args.videos_dir or data / "videos",
        embeddings,
        args.flow_videos_dir or data / "flows",
        args.motion_h5_path or embeddings / "flow_embeddings.h5",
    )
    stdout, to_stdout = sys.stdout, args.json == Path("-")
    with contextlib.redirect_stdout(sys.stderr if to_stdout else stdout):
        checked = run_checks(paths, args.decode, cli.limit_workers(args.num_workers))
        print("\n".join(checked.format_lines()), flush=True)
        report, text = checked.run_report(), json.dumps(checked.as_dict(), indent=1)
        if to_stdout:
            print(text, file=stdout, flush=True)
        elif args.json:
            report.outputs.append(atomic.write_text(args.json, f"{text}\n"))
            print(f"wrote {args.json}")
        if not checked.fine:
            report.write(args.report)
            raise CheckError(checked.summary(), "see the problems above", path=data)
        print(f"{data}: no problems")
    return report


if __name__ == "__main__":
    cli.run(main)
