"""Select the best finished run by the score with which its best epoch was selected.

    python -m TFAM.select_best
Prints the run folder checkpoints/TFAM/<config>/seed<k> whose best_model.pth has the highest map_micro (micro-averaged
average precision): on the model-selection split, or on the evaluation split for runs with data.protocol=published.
Controls (data.motion: none, shuffled), few-shot runs (data.shots) and baselines (zero_shot, probes) are not compared.
The comparison is printed on stderr."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip import cli
from vimoclip.errors import UserError


class ScoredRun(NamedTuple):
    """A finished run and its score on the monitor split, at the epoch that best_model.pth holds."""

    folder: Path
    protocol: str
    score: float  # map_micro
    monitor_hash: str | None  # of the clips that the score is of, if recorded


def build_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoints-dir", type=Path, default=Path("checkpoints"), help="folder that contains TFAM/<config>/seed<k>/"
    )
    cli.add_report_argument(parser)
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Return the best run's folder. Raises UserError if there is none, or if scores are of different clips."""
    args = build_parser().parse_args(argv)
    from vimoclip.annotations.split_protocol import MONITOR_DESCRIPTION

    folders = sorted(path.parent for path in args.checkpoints_dir.glob("TFAM/*/seed*/metrics.json"))
    runs = list(filter(None, map(score_run, folders)))
    if not runs:
        problem = "has only controls, few-shot runs and baselines" if folders else "has no finished run"
        raise UserError(problem, "run TFAM/run_experiments.sh", path=args.checkpoints_dir / "TFAM")
    first = runs[0]
    if other := next((run for run in runs if run.protocol != first.protocol), None):
        raise UserError(
            f"{first.folder} has protocol {first.protocol}, {other.folder} has {other.protocol}: scores on different "
            "clips can't be compared",
            "use one --checkpoints-dir per protocol",
        )
    hashed_runs = [run for run in runs if run.monitor_hash]
    if other := next((run for run in hashed_runs if run.monitor_hash != hashed_runs[0].monitor_hash), None):
        raise UserError(
            f"{hashed_runs[0].folder} and {other.folder} selected their epochs on different clips, so their scores "
            "can't be compared",
            "train them again on the same clips, or use one --checkpoints-dir for each",
        )
    best = max(runs, key=lambda run: run.score)  # the first of equals
    clips = MONITOR_DESCRIPTION[best.protocol]
    print(f"best of {len(runs)} runs: {best.folder}, map_micro {best.score:.4f} on {clips}", file=sys.stderr)
    print(best.folder, flush=True)
    scored = {run.folder for run in runs}
    skipped = {str(folder): "is a control, a few-shot run or a baseline" for folder in folders if folder not in scored}
    cli.RunReport([best.folder], done=len(runs), skipped=skipped, unit="run").write(args.report)
    return best.folder


def score_run(folder: Path) -> ScoredRun | None:
    """Read a run's score; None for a control, a few-shot run or a baseline.

    Raises UserError if files of the run are missing."""
    from TFAM.run_groups import is_probe, read_metrics
    from vimoclip.annotations.split_protocol import HELD_OUT, MONITOR_SPLIT, ZERO_SHOT
    from vimoclip.io import csv
    from vimoclip.io.yaml_json import read_yaml

    hint = "delete the run and train again"
    metrics = read_metrics(folder / "metrics.json")
    config: dict[str, Any] = read_yaml(cli.require_file(folder / "config.yaml", hint))
    data = config.get("data", {})
    is_control_or_few_shot = data.get("motion", "real") != "real" or data.get("shots")
    if (
        is_probe(str(config.get("model", {}).get("fusion")))
        or is_control_or_few_shot
        or metrics["protocol"] == ZERO_SHOT
    ):
        return None
    protocol = metrics["protocol"]
    monitor_hash = metrics.get("inputs_sha256", {}).get("selection" if protocol == HELD_OUT else "rgb_val_h5")
    column = f"{MONITOR_SPLIT.get(protocol)}_map_micro"
    table = cli.require_file(folder / "metrics.csv", hint)
    row = next((row for _, row in csv.read_table(table)[1] if row.get("epoch") == str(metrics.get("epoch"))), {})
    try:
        score = float(row[column])
    except (KeyError, ValueError):
        raise UserError(f"has no {column} of epoch {metrics.get('epoch')}", hint, path=table) from None
    return ScoredRun(folder, protocol, score, monitor_hash if isinstance(monitor_hash, str) else None)


if __name__ == "__main__":
    cli.run(main)
