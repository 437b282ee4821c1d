"""Agreement of two codings of the same films: of a person and a model, or of two people.

    python agreement.py coded.boris predictions/
    python agreement.py observer_1.boris observer_2.boris -o agreement/
    python agreement.py all.boris all.boris --observations anna ben

A coding is a project of BORIS (.boris, .boris.gz), BORIS' table of aggregated events (CSV, TSV), a table of bouts of
predict.py (<name>.csv), or the folder of predict.py. The first coding counts as the truth. Films are matched by file
name, actions by name. What only one coding has, and what else differs, is listed.

For each action and overall it prints and writes: Cohen's kappa and percent agreement of samples in time; precision,
recall and F1 by time and by bouts; how many seconds matched bouts start and stop too early or too late; and what is
coded instead of what. Intervals (95 %) are from a bootstrap over films, or over blocks of time of a single film. It
writes agreement.json, agreement.csv, confusions.csv and agreement.html, where a click on a difference seeks the video.
See docs/numbers.md."""

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from vimoclip import cli
from vimoclip.errors import UserError

SPANS = ("film", "events")
ANY = re.compile(".")  # of --observations


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    what = "BORIS project or aggregated events, or table or folder of predict.py"
    parser.add_argument("coded", type=Path, help=f"coding that counts as the truth: {what}")
    parser.add_argument("predicted", type=Path, help="coding to compare with it: the same")
    parser.add_argument("-o", "--output-dir", type=Path, default=Path("agreement"), help="folder for the results")
    group = parser.add_argument_group("what is compared")
    group.add_argument(
        "--span",
        choices=SPANS,
        default="film",
        help="film: all that both codings cover; events: from the first to the last event of either, as in BORIS",
    )
    group.add_argument(
        "--map",
        nargs="+",
        action="extend",
        default=[],
        metavar="A=B",
        help="names of actions: A of either coding counts as B; several may become one",
    )
    group.add_argument("--actions", nargs="+", metavar="ACTION", default=[], help="compare only these actions")
    group.add_argument(
        "--observations",
        nargs=2,
        type=cli.regex,
        default=(ANY, ANY),
        metavar=("CODED", "PREDICTED"),
        help="regular expressions for the ids of BORIS' observations to read, for each coding; . is any, and all that "
        "predict.py's results take",
    )
    group.add_argument(
        "--subjects",
        nargs="+",
        default=[],
        metavar="SUBJECT",
        help="compare only the events of these subjects in BORIS; default: an action counts if any subject shows it",
    )
    group.add_argument(
        "--merge-case",
        action="store_true",
        help="behaviours of one coding that differ only in case, spaces or Unicode's form are one",
    )
    group = parser.add_argument_group("measures")
    group.add_argument("--step", type=cli.positive_float, default=0.1, help="time between two samples, in seconds")
    group.add_argument(
        "--overlap",
        type=cli.fraction_or_one,
        default=0.5,
        help="bouts match if their intersection is at least this part of their union",
    )
    group.add_argument("--resamples", type=cli.positive_int, default=1000, help="number of bootstrap resamples")
    group.add_argument("--seed", type=cli.seed, default=0, help="seed of the bootstrap")
    cli.add_report_argument(parser)
    return parser


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Print and write the agreement; return the content of agreement.json. Raises UserError."""
    args = build_parser().parse_args(argv)
    renamed = parse_renamed(args.map)
    patterns = [None if pattern == ANY else pattern for pattern in args.observations]
    for path in (args.coded, args.predicted):
        if not path.exists():
            raise UserError("does not exist", "give two codings; see --help", path=path)
    if args.coded.samefile(args.predicted) and patterns[0] == patterns[1]:
        hint = "give another file, or choose the observations of each coding with --observations"
        raise UserError("is given twice, so both codings would be the same", hint, path=args.coded)
    cli.require_creatable_folder(args.output_dir, "--output-dir")
    from vimoclip.agreement import measures, output
    from vimoclip.agreement.pairing import pair_codings
    from vimoclip.agreement.read_coding import read_coding

    coded, predicted = (
        read_coding(path, pattern, args.subjects, args.merge_case)
        for path, pattern in zip((args.coded, args.predicted), patterns, strict=True)
    )
    pair = pair_codings(coded, predicted, renamed, args.actions, args.span)
    settings = measures.MeasureSettings(args.step, args.overlap, args.resamples, args.seed)
    command = shlex.join(["python", "agreement.py", *(sys.argv[1:] if argv is None else argv)])
    document = output.describe(coded, predicted, pair, measures.measure(pair, settings), args.span, command)
    print(output.format_table(document), flush=True)
    written = output.write_files(args.output_dir, pair, document)
    print("wrote " + ", ".join(map(str, written)), flush=True)
    cli.RunReport(written, done=len(pair.films), unit="film").write(args.report)
    return document


def parse_renamed(texts: list[str]) -> dict[str, str]:
    """Return {A: B} of the texts A=B. Raises UserError."""
    renamed: dict[str, str] = {}
    for text in texts:
        old, equals, new = (part.strip() for part in text.partition("="))
        if not (old and equals and new):
            raise UserError("names no two actions", 'write A=B, like --map "walks=walking"', path=f"--map {text}")
        if renamed.setdefault(old, new) != new:
            raise UserError(f"{old} can't be both {renamed[old]} and {new}", "omit one", path=f"--map {text}")
    return renamed


if __name__ == "__main__":
    cli.run(main)
