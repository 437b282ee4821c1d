"""Which finished run is the best one: by the clips on which epochs are chosen, never by others.

    python -m TFAM.select_best
Prints the folder of the run with the highest map_micro, at the epoch it keeps, in checkpoints/TFAM/<config>/seed<k>:
on the selection clips for the protocol held_out, on the reported ones for published, whose epochs are chosen on them.
Controls (data.motion: none, shuffled) don't take part. What was compared is said on stderr."""

import csv
import sys
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip import cli
from vimoclip.errors import UserError


class Candidate(NamedTuple):
    """A finished run, its protocol, and its score on the clips on which it chose."""

    folder: Path
    protocol: str
    score: float
    clips: str | None  # a hash of those on which it chose, where it is known


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoints-dir", type=Path, default=Path("checkpoints"), help="holds TFAM/<config>/seed<k>/"
    )
    return parser


def main(argv: list[str] | None = None) -> Path:
    """The best run's folder. Raises UserError where there is none, or runs of two protocols."""
    args = build_parser().parse_args(argv)
    runs = sorted(path.parent for path in args.checkpoints_dir.glob("TFAM/*/seed*/metrics.json"))
    candidates = [found for run in runs if (found := candidate(run))]
    if not candidates:
        raise UserError(
            "holds no finished run", "bash TFAM/run_experiments.sh makes them", path=args.checkpoints_dir / "TFAM"
        )
    first = candidates[0]
    if other := next((run for run in candidates if run.protocol != first.protocol), None):
        raise UserError(
            f"{first.folder} is of the protocol {first.protocol}, {other.folder} of {other.protocol}: their "
            "scores are of other clips",
            "give each protocol a --checkpoints-dir of its own",
        )
    known = [run for run in candidates if run.clips]
    if other := next((run for run in known if run.clips != known[0].clips), None):
        raise UserError(
            f"{known[0].folder} and {other.folder} chose their epochs on other clips, so that their scores "
            "can't be compared",
            "make them anew on the same, or give them a --checkpoints-dir each",
        )
    best = max(candidates, key=lambda run: run.score)  # the first of equals
    from vimoclip.annotations.split_protocol import CHOSEN_ON

    on = CHOSEN_ON[best.protocol]
    print(f"best of {len(candidates)} runs: {best.folder}, map_micro {best.score:.4f} on {on}", file=sys.stderr)
    print(best.folder, flush=True)
    return best.folder


def candidate(run: Path) -> Candidate | None:
    """A run's score; None for a control or a baseline. Raises UserError for what is no finished run."""
    from TFAM.table import read_metrics
    from vimoclip.annotations.split_protocol import HELD_OUT, PUBLISHED, WATCHED, ZERO_SHOT
    from vimoclip.io.yaml_json import read_yaml

    metrics = read_metrics(run / "metrics.json")
    config: dict[str, Any] = read_yaml(cli.need_file(run / "config.yaml", "delete the run and make it again"))
    if config.get("data", {}).get("motion", "real") != "real" or metrics.get("protocol") == ZERO_SHOT:
        return None
    protocol = metrics.get("protocol") or PUBLISHED  # of before there was any: the paper's
    clips = metrics.get("inputs_sha256", {}).get("selection" if protocol == HELD_OUT else "rgb_val_h5")
    column = f"{WATCHED.get(protocol)}_map_micro"
    table = cli.need_file(run / "metrics.csv", "delete the run and make it again")
    with open(table, encoding="utf-8", newline="") as file:
        row = next((row for row in csv.DictReader(file) if row.get("epoch") == str(metrics.get("epoch"))), {})
    try:
        return Candidate(run, protocol, float(row[column]), clips if isinstance(clips, str) else None)
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"has no {column} of epoch {metrics.get('epoch')}", "delete the run and make it again", path=table
        ) from None


if __name__ == "__main__":
    cli.run(main)
