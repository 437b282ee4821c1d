"""Table of the demo's TFAM runs: average precision of all actions and of each group, and the chance level.

    python -m demo.report
Reads predictions.csv of the runs in checkpoints/demo/TFAM/<config>/seed<k>/ and the annotations in dataset/demo/.
Prints the table and writes it to TFAM/results/demo/table.md and table.csv (one row per run). The chance level is the
mean over permutations of the labels. Below it: calibration error and log loss of raw and of calibrated scores."""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from demo import add_dataset_arguments
from vimoclip import cli
from vimoclip.errors import UserError
from vimoclip.io import atomic

if TYPE_CHECKING:
    import torch

CONFIG_TITLES = {
    "rgb": "RGB alone",
    "motion": "motion alone",
    "concat_time": "concatenation along time",
    "cross_attention": "cross-attention (TFAM)",
    "cross_attention_shuffled": "cross-attention with another clip's motion",
    "cross_attention_none": "cross-attention without any motion",
    "probe_rgb": "probe: logistic regression, RGB",
    "probe_motion": "probe: logistic regression, motion",
    "probe_both": "probe: logistic regression, both",
    "probe_attentive": "probe: one attention query, both",
}


def build_parser() -> argparse.ArgumentParser:
    parser = cli.Parser(description=__doc__)
    parser.add_argument(
        "--checkpoints-dir", type=Path, default=Path("checkpoints/demo"), help="folder that has TFAM/<config>/"
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("TFAM/results/demo"), help="folder for table.md and table.csv"
    )
    add_dataset_arguments(parser)
    parser.add_argument(
        "--rounds", type=cli.positive_int, default=200, help="permutations of the labels for the chance level"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, help="seed of the permutations")
    return parser


def main(argv: list[str] | None = None) -> Path:
    """Print and write the table; return the path of table.md. Raises UserError if no run is finished."""
    args = build_parser().parse_args(argv)
    from vimoclip import annotations
    from vimoclip.io import csv, yaml_json

    data = annotations.load(args.dataset_dir / "annotations", args.dataset_name, ["val"])
    rows: list[dict[str, Any]] = []
    runs_by_clips: dict[frozenset[str], Path] = {}  # evaluated clips -> one run
    protocols, epoch_criteria = set(), set()
    for path in sorted(args.checkpoints_dir.glob("TFAM/*/seed*/predictions.csv")):
        folder = path.parent
        if not ((folder / "metrics.json").is_file() and folder.name.removeprefix("seed").isdigit()):
            continue
        names, scores, targets = read_predictions(path, data)
        runs_by_clips.setdefault(frozenset(names), folder)
        metrics = yaml_json.read_json(folder / "metrics.json", "delete the run and create it again")
        protocols.add(metrics["protocol"])
        epoch_criteria.add(metrics["epoch_chosen_by"])
        maps, permuted_maps = permuted_group_maps(scores, targets, class_groups(data.classes), args.rounds, args.seed)
        chance = {f"{name}_chance": mean(values[name] for values in permuted_maps) for name in maps}
        run = {"config": folder.parent.name, "seed": int(folder.name.removeprefix("seed"))}
        rows.append({**run, **maps, **chance, **calibration_metrics(folder, data.classes, scores, targets)})
    if not rows:
        raise UserError("no finished run", "run demo.sh", path=args.checkpoints_dir / "TFAM")
    if len(runs_by_clips) > 1:
        first, second, *_ = runs_by_clips.values()
        raise UserError(f"{first} and {second} were evaluated on different clips", "delete the runs on other clips")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))  # runs of earlier versions have no calibration
    csv.write_csv(args.output_dir / "table.csv", columns, [[row.get(key, "") for key in columns] for row in rows])
    num_clips = len(next(iter(runs_by_clips)))
    text = (
        f"Average precision on {num_clips} evaluation clips, protocol {' or '.join(sorted(protocols))}, "
        f"epoch chosen by {' or '.join(sorted(epoch_criteria))}; macro: mean over classes, micro: pooled.\n\n"
    )
    text += format_table(rows, args.rounds) + format_motion_gains(rows)
    text += format_probe_comparison(args.checkpoints_dir) + format_calibration(rows)
    text += format_single_frames(args.output_dir / "frames.json")
    print(text, end="", flush=True)
    return atomic.write_text(args.output_dir / "table.md", text)


def format_single_frames(path: Path) -> str:
    """Return the results of demo.check_frames as text; empty if it was not run."""
    if not path.is_file():
        return ""
    from vimoclip.io import yaml_json

    results = yaml_json.read_json(path)
    lines = [
        f"\nsingle frames of {results['clips']} evaluation clips, macro AP (chance, and 95 % of the permutations):\n"
    ]
    for name, value in results["macro_ap"].items():
        low, high = value["chance_95"]
        verdict = "above chance" if value["value"] > high else "at chance"
        lines.append(f"  {name:11} {value['value']:.3f} ({value['chance']:.3f}, {low:.3f} to {high:.3f}): {verdict}\n")
    return "".join(lines)


def class_groups(class_names: Sequence[str]) -> dict[str, list[int]]:
    """Return group -> class ids: "all", and for the demo's actions one group per cue."""
    from demo.scenes import ACTIONS, ActionCue

    groups = {"all": list(range(len(class_names)))}
    if tuple(class_names) == tuple(ACTIONS):
        groups |= {cue: [i for i, name in enumerate(class_names) if ACTIONS[name] == cue] for cue in ActionCue}
    return groups


def read_predictions(path: Path, data: Any) -> tuple[list[str], "torch.Tensor", "torch.Tensor"]:
    """Return (clips, (N, C) probabilities, multi-hot labels) of a predictions.csv. Raises UserError."""
    import numpy as np
    import torch

    from vimoclip.io import predictions_csv

    table = predictions_csv.read(path)
    if table.classes != list(data.classes) or not set(table.videos) <= data.splits["val"].keys():
        raise UserError("has other classes or clips than the annotations", "delete the run and train again", path=path)
    targets = torch.tensor(np.stack([data.multi_hot("val", name) for name in table.videos]))
    return table.videos, torch.from_numpy(table.scores).float(), targets


def permuted_group_maps(
    scores: "torch.Tensor", targets: "torch.Tensor", groups: dict[str, list[int]], rounds: int, seed: int
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Return the results of `group_map`, and those for each permutation of the labels."""
    from vimoclip.metrics import permute_targets

    permuted_maps = [group_map(scores, permuted, groups) for permuted in permute_targets(targets, rounds, seed)]
    return group_map(scores, targets, groups), permuted_maps


def group_map(scores: "torch.Tensor", targets: "torch.Tensor", groups: dict[str, list[int]]) -> dict[str, float]:
    """Return `map_macro_<group>` and `map_micro_<group>`."""
    from vimoclip.metrics import average_precision_per_class, macro_average, map_micro

    per_class = average_precision_per_class(scores, targets)
    macro = {f"map_macro_{name}": float(macro_average(per_class[classes])) for name, classes in groups.items()}
    return macro | {
        f"map_micro_{name}": map_micro(scores[:, classes], targets[:, classes]) for name, classes in groups.items()
    }


def calibration_metrics(
    folder: Path, classes: Sequence[str], scores: "torch.Tensor", targets: "torch.Tensor"
) -> dict[str, float]:
    """Return `<metric>_raw` and `<metric>_calibrated` of a run's (N, C) scores; {} without a calibration.json.

    The metrics are `ece`, the expected calibration error, and `log_loss`, in nats, of all pairs of clip and class."""
    import numpy as np

    from vimoclip.evaluation import calibration_file
    from vimoclip.metrics import ece
    from vimoclip.metrics.score_calibration import log_losses

    calibration = calibration_file.read(folder, classes)
    if calibration is None:
        return {}
    raw, labels = scores.double().numpy(), targets.numpy() > 0
    values = {}
    for name, probabilities in (("raw", raw), ("calibrated", calibration.scores(raw))):
        values[f"ece_{name}"] = float(ece(probabilities, labels, np.ones((1, len(labels))))[0])
        values[f"log_loss_{name}"] = float(log_losses(probabilities, labels).mean())
    return values


def format_calibration(rows: list[dict[str, Any]]) -> str:
    """Return calibration error and log loss of each config before and after calibration, seed by seed."""
    lines = []
    for config, title in CONFIG_TITLES.items():
        runs = [row for row in rows if row["config"] == config and "ece_raw" in row]
        changes = [
            f"{label} " + ", ".join(f"{run[f'{key}_raw']:.3f} -> {run[f'{key}_calibrated']:.3f}" for run in runs)
            for key, label in (("ece", "calibration error"), ("log_loss", "log loss"))
        ]
        lines += [f"  {title}: {'; '.join(changes)}\n"] if runs else []
    return f"\nbefore and after calibration, seed by seed:\n{''.join(lines)}" if lines else ""


def format_probe_comparison(checkpoints_dir: Path) -> str:
    """Return the difference in macro AP of each config to the best probe, with intervals, as in TFAM.table.

    Few-shot runs are not shown."""
    from TFAM.run_bootstrap import RunBootstrap
    from TFAM.run_differences import VERDICTS, compare_to_probes
    from TFAM.run_groups import group_runs, read_metrics

    groups = group_runs(read_metrics(path) for path in sorted(checkpoints_dir.glob("TFAM/*/seed*/metrics.json")))
    groups = {group: runs for group, runs in groups.items() if "data.shots" not in runs[0]["settings"]}
    comparisons, _ = compare_to_probes(groups, RunBootstrap(resamples=1000, seed=0))
    lines = []
    for group, comparison in comparisons.items():
        difference = comparison.difference
        interval = "" if difference.low is None else f" ({difference.low:+.2f} to {difference.high:+.2f})"
        verdict = f": {text}" if (text := VERDICTS[comparison.is_better]) else ""
        title, probe = (CONFIG_TITLES.get(config, config) for config in (group.config, comparison.probe))
        lines.append(f"  {title}: {difference.value:+.2f}{interval} over {probe}{verdict}\n")
    return f"\nmacro AP over the best probe (95 % interval):\n{''.join(lines)}" if lines else ""


def format_table(rows: list[dict[str, Any]], rounds: int) -> str:
    """Return Markdown: one row per config, mean ± standard deviation over its seeds; the chance level last."""
    metrics = [name for name in rows[0] if name.startswith("map_") and not name.endswith("_chance")]
    lines = [["", "seeds", *(f"{name.split('_')[1]} {name.split('_', 2)[2]}" for name in metrics)]]
    by_config = defaultdict(list)
    for row in rows:
        by_config[row["config"]].append(row)
    order = [
        *(config for config in CONFIG_TITLES if config in by_config),
        *(c for c in by_config if c not in CONFIG_TITLES),
    ]
    for config in order:
        runs = by_config[config]
        cells = [format_mean_std([run[name] for run in runs]) for name in metrics]
        lines.append([CONFIG_TITLES.get(config, config), str(len(runs)), *cells])
    chance = [f"{mean(row[f'{name}_chance'] for row in rows):.2f}" for name in metrics]
    lines.append([f"chance ({rounds} permutations)", "", *chance])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |\n" for line in lines)


def format_mean_std(values: list[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def format_motion_gains(rows: list[dict[str, Any]]) -> str:
    """Return the gains of each config over RGB alone by seed, for the actions that are defined by motion."""
    column = "map_macro_motion" if "map_macro_motion" in rows[0] else "map_macro_all"
    value = {(row["config"], row["seed"]): row[column] for row in rows}
    lines = []
    for config in ("cross_attention", "cross_attention_shuffled", "cross_attention_none", "motion", "concat_time"):
        gains = [value[config, s] - value["rgb", s] for c, s in value if c == config and ("rgb", s) in value]
        if gains:
            lines.append(f"  {CONFIG_TITLES[config]}: {', '.join(f'{gain:+.2f}' for gain in gains)}\n")
    metric = "macro AP of the actions defined by motion" if column.endswith("motion") else "macro AP"
    return f"\n{metric}, over RGB alone, seed by seed:\n{''.join(lines)}" if lines else ""


if __name__ == "__main__":
    cli.run(main)
