"""Correct the predictions of drawn films in a BORIS project, in place of a person, for docs/correction-loop.md.

    python -m demo.correct_predictions predictions/predictions.boris new_films/project.boris --films film09 film10
Replaces the events of each film's observation by those that were drawn, which the second project has, and sets the
independent variable `reviewed` to yes. With films of your own, BORIS is the program for this."""

import argparse
import json
from pathlib import Path
from typing import Any

from vimoclip import cli
from vimoclip.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("predictions", type=Path, help="BORIS project that predict.py has written; it is changed")
    parser.add_argument("truth", type=Path, help="BORIS project of the films, written by demo.make_films")
    parser.add_argument(
        "--films", nargs="+", metavar="NAME", help="observations to correct; default: all that both projects have"
    )
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Correct the observations and return the path of the project. Raises UserError for a film that is missing."""
    args = build_parser().parse_args(argv)
    from vimoclip.boris import review_mark
    from vimoclip.boris.project import OBSERVATIONS_KEY
    from vimoclip.io import atomic, yaml_json

    project, truth = yaml_json.read_json(args.predictions, "run predict.py"), yaml_json.read_json(args.truth)
    predicted, true = project[OBSERVATIONS_KEY], truth[OBSERVATIONS_KEY]
    films = args.films or [name for name in predicted if name in true]
    for path, observations in ((args.predictions, predicted), (args.truth, true)):
        if missing := [name for name in films if name not in observations]:
            raise UserError(f"has no observation {missing[0]!r}", "name other --films", path=path)
    for name in films:
        predicted[name]["events"] = true[name]["events"]
        predicted[name][review_mark.VARIABLES_KEY][review_mark.REVIEWED_VARIABLE] = review_mark.REVIEWED
    add_behaviors(project, truth)
    atomic.write_text(args.predictions, json.dumps(project, indent=1) + "\n")
    print(
        f"{args.predictions}: {len(films)} of {len(predicted)} observations corrected: {', '.join(films)}", flush=True
    )
    return args.predictions


def add_behaviors(project: dict[str, Any], truth: dict[str, Any]) -> None:
    """Add the behaviours to the ethogram that the model does not know, so that their events can be coded."""
    from vimoclip.boris.project import ETHOGRAM_KEY

    ethogram = project[ETHOGRAM_KEY]
    known = {row["code"] for row in ethogram.values()}
    for row in truth[ETHOGRAM_KEY].values():
        if row["code"] not in known:
            ethogram[str(max(map(int, ethogram), default=-1) + 1)] = row


if __name__ == "__main__":
    cli.run(main)
