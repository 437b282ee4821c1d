"""The demo's table: average precision of every TFAM run, in all and by what tells an action, beside chance.

    python -m demo.report
Reads predictions.csv of the runs in checkpoints/demo/TFAM/<config>/seed<k>/ and the annotations in dataset/demo/;
prints the table and writes it to TFAM/results/demo/table.md and table.csv (a row a run). Chance is the mean over
permutations of the clips' labels."""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from demo import add_dataset
from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.io import atomic

if TYPE_CHECKING:
    import torch

WHAT = {
    "rgb": "RGB alone",
    "motion": "motion alone",
    "concat_time": "concatenation along time",
    "cross_attention": "cross-attention (TFAM)",
    "cross_attention_shuffled": "the same, with another clip's motion",
    "cross_attention_none": "the same, without any motion",
}


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--checkpoints-dir", type=Path, default=Path("checkpoints/demo"), help="holds TFAM/<config>/")
    parser.add_argument("--output-dir", type=Path, default=Path("TFAM/results/demo"), help="gets table.md, table.csv")
    add_dataset(parser)
    parser.add_argument("--rounds", type=cli.positive_int, default=200, help="permutations behind chance")
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the permutations")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """The path of table.md. Raises UserError where no run is finished."""
    args = build_parser().parse_args(argv)
    from vimoclip import annotations
    from vimoclip.annotations.split_protocol import PUBLISHED
    from vimoclip.io import csv

    data = annotations.load(args.dataset_dir / "annotations", args.dataset_name, ["val"])
    rows: list[dict[str, Any]] = []
    clips: dict[frozenset[str], Path] = {}  # each set of clips that a run reports on -> one such run
    protocols, chosen = set(), set()  # how their epochs were
    for path in sorted(args.checkpoints_dir.glob("TFAM/*/seed*/predictions.csv")):
        folder = path.parent
        if not ((folder / "metrics.json").is_file() and folder.name.removeprefix("seed").isdigit()):
            continue
        names, scores, targets = read_predictions(path, data)
        clips.setdefault(frozenset(names), folder)
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        protocols.add(metrics.get("protocol") or PUBLISHED)  # of before there was any: the paper's
        chosen.add(metrics.get("epoch_chosen_by", "another project"))
        found = measure(scores, targets, groups(data.classes), args.rounds, args.seed)
        rows.append({"config": folder.parent.name, "seed": int(folder.name.removeprefix("seed")), **found})
    if not rows:
        raise UserError("holds no finished run", "bash demo.sh makes them", path=args.checkpoints_dir / "TFAM")
    if len(clips) > 1:
        one, other, *_ = clips.values()
        raise UserError(f"{one} and {other}: report on different clips", "delete the runs that are not of these clips")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    csv.write_csv(args.output_dir / "table.csv", list(rows[0]), [list(row.values()) for row in rows])
    head = (
        f"Average precision on {len(next(iter(clips)))} validation clips, protocol {' or '.join(sorted(protocols))}, "
        f"epoch chosen by {' or '.join(sorted(chosen))}"
    )
    text = f"{head}; macro: mean over classes, micro: pooled.\n\n{table(rows, args.rounds)}{differences(rows)}"
    text += single_frames(args.output_dir / "frames.json")
    print(text, end="", flush=True)
    return atomic.write_text(args.output_dir / "table.md", text)


def single_frames(path: Path) -> str:
    """What demo.check_frames found, if it was run."""
    if not path.is_file():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        f"\nsingle frames of {found['clips']} validation clips, macro AP (chance, and 95 % of the permutations):\n"
    ]
    for name, value in found["macro_ap"].items():
        low, high = value["chance_95"]
        verdict = "above chance" if value["value"] > high else "at chance"
        lines.append(f"  {name:11} {value['value']:.3f} ({value['chance']:.3f}, {low:.3f} to {high:.3f}): {verdict}\n")
    return "".join(lines)


def groups(class_names: Sequence[str]) -> dict[str, list[int]]:
    """Which classes a column of the table is over: all, and those of each kind where the actions are the demo's own."""
    from demo.scenes import ACTIONS, Kind

    found = {"all": list(range(len(class_names)))}
    if tuple(class_names) == tuple(ACTIONS):
        found |= {kind: [i for i, name in enumerate(class_names) if ACTIONS[name] == kind] for kind in Kind}
    return found


def read_predictions(path: Path, data: Any) -> tuple[list[str], "torch.Tensor", "torch.Tensor"]:
    """Clips of a predictions.csv, their (N, C) probabilities and multi-hot labels. Raises UserError."""
    import numpy as np
    import torch

    from vimoclip.io import predictions_csv

    found = predictions_csv.read(path)
    if found.classes != list(data.classes) or not set(found.videos) <= data.splits["val"].keys():
        raise UserError(
            "is of other classes or clips than the annotations", "delete the run and make it again", path=path
        )
    targets = torch.tensor(np.stack([data.multi_hot("val", name) for name in found.videos]))
    return found.videos, torch.from_numpy(found.scores).float(), targets


def measure(
    scores: "torch.Tensor", targets: "torch.Tensor", columns: dict[str, list[int]], rounds: int, seed: int
) -> dict[str, float]:
    """`map_macro_<group>`, `map_micro_<group>` and, as `..._chance`, their means over permuted labels."""
    from vimoclip.metrics import permutations

    found = precisions(scores, targets, columns)
    by_chance = [precisions(scores, permuted, columns) for permuted in permutations(targets, rounds, seed)]
    return found | {f"{name}_chance": mean(values[name] for values in by_chance) for name in found}


def precisions(scores: "torch.Tensor", targets: "torch.Tensor", columns: dict[str, list[int]]) -> dict[str, float]:
    from vimoclip.metrics import average_precision_per_class, map_micro

    per_class = average_precision_per_class(scores, targets)
    macro = {f"map_macro_{name}": float(per_class[classes].nanmean()) for name, classes in columns.items()}
    return macro | {
        f"map_micro_{name}": map_micro(scores[:, classes], targets[:, classes]) for name, classes in columns.items()
    }


def table(rows: list[dict[str, Any]], rounds: int) -> str:
    """Markdown: a row a config, mean ± standard deviation over its seeds, and the chance level last."""
    metrics = [name for name in rows[0] if name.startswith("map_") and not name.endswith("_chance")]
    lines = [["", "seeds", *(f"{name.split('_')[1]} {name.split('_', 2)[2]}" for name in metrics)]]
    by_config = defaultdict(list)
    for row in rows:
        by_config[row["config"]].append(row)
    order = [*(config for config in WHAT if config in by_config), *(c for c in by_config if c not in WHAT)]
    for config in order:
        runs = by_config[config]
        cells = [spread([run[name] for run in runs]) for name in metrics]
        lines.append([WHAT.get(config, config), str(len(runs)), *cells])
    chance = [f"{mean(row[f'{name}_chance'] for row in rows):.2f}" for name in metrics]
    lines.append([f"chance ({rounds} permutations)", "", *chance])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |\n" for line in lines)


def spread(values: list[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def differences(rows: list[dict[str, Any]]) -> str:
    """What motion adds to RGB alone, seed by seed, where it matters most."""
    name = "map_macro_motion" if "map_macro_motion" in rows[0] else "map_macro_all"
    value = {(row["config"], row["seed"]): row[name] for row in rows}
    lines = []
    for config in ("cross_attention", "cross_attention_shuffled", "cross_attention_none", "motion", "concat_time"):
        gains = [value[config, s] - value["rgb", s] for c, s in value if c == config and ("rgb", s) in value]
        if gains:
            lines.append(f"  {WHAT[config]}: {', '.join(f'{gain:+.2f}' for gain in gains)}\n")
    what = "macro AP of the actions told by motion" if name.endswith("motion") else "macro AP"
    return f"\n{what}, over RGB alone, seed by seed:\n{''.join(lines)}" if lines else ""


if __name__ == "__main__":
    cli.run(main)
