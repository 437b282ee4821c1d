"""What an evaluation says: rows of per_class.csv, notes of what to be wary of, the table on the terminal, the files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vimoclip import metrics
from vimoclip.annotations import PARTITIONS, Annotations
from vimoclip.annotations.split_protocol import HELD_OUT, PUBLISHED, THREE_SPLITS, ZERO_SHOT
from vimoclip.evaluation.metrics_with_ci import LEAST, Clips, class_bounds, number
from vimoclip.evaluation.sources import Source
from vimoclip.io import csv, yaml_json
from vimoclip.io.predictions_csv import some

if TYPE_CHECKING:
    from vimoclip.evaluation.evaluator import Evaluation

FEW = 10  # positives, below which a class's AP hangs on single clips
SHOWN = {
    "map_macro": "mAP, macro: mean over classes",
    "map_micro": "AP, micro: all pairs pooled",
    "f1_macro_at_0.5": "F1, macro, at 0.5",
    "f1_micro_at_0.5": "F1, micro, at 0.5",
    "f1_macro_at_fitted_thresholds": "F1, macro, fitted thresholds",
    "f1_micro_at_fitted_thresholds": "F1, micro, fitted thresholds",
    "hit_at_1": "hit@1",
    "precision_at_3": "precision@3",
    "precision_at_5": "precision@5",
    "top1": "top-1",
    "mean_per_class_top1": "top-1, mean over classes",
}


def class_rows(
    data: Annotations,
    clips: Clips,
    per_class: np.ndarray,
    training: tuple[np.ndarray, int] | None,
    thresholds: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Of per_class.csv, in the order of the ids; None where there is no such number."""
    count, positives = len(clips.targets), clips.targets.sum(0)
    at_half = metrics.f1(clips.scores >= 0.5, clips.targets).per_class
    at_fitted = None if thresholds is None else metrics.f1(clips.scores >= thresholds, clips.targets).per_class
    rows = []
    for c, name in enumerate(data.classes):
        low, high = class_bounds(per_class[:, c], positives[c]) or (None, None)
        rows.append(
            {
                "class": name,
                "id": c,
                **{
                    partition: data.partitions[partition][c] if partition in data.partitions else None
                    for partition in PARTITIONS
                },
                "positives": int(positives[c]),
                "prevalence": float(positives[c] / count),
                "train_positives": int(training[0][c]) if training else None,
                "train_prevalence": float(training[0][c] / training[1]) if training else None,
                "ap": number(per_class[0, c]),
                "ap_low": low,
                "ap_high": high,
                "ap_baseline": float(positives[c] / count) if positives[c] else None,  # all clips tie
                "ap_random": number(metrics.random_precision(int(positives[c]), count)),
                "threshold": None if thresholds is None else float(thresholds[c]),
                "f1_at_threshold": None if at_fitted is None else number(at_fitted[c]),
                "f1_at_0.5": number(at_half[c]),
            }
        )
    return rows


def notes(
    source: Source, clips: Clips, rows: Sequence[dict[str, Any]], videos: Sequence[str], wanted: Sequence[str]
) -> list[str]:
    """What a reader of the numbers must know, in sentences."""
    found = []
    if source.protocol == PUBLISHED:
        found.append(
            "Protocol published: the epoch was chosen on the clips that are reported, so these numbers are too high."
        )
    if source.protocol == ZERO_SHOT:
        found.append("Zero-shot: CLIP alone, by the actions' words. Nothing was learnt, and no epoch chosen.")
    if source.student:
        found.append(source.student)
    if source.protocol is None:
        found.append("It is not known on which clips the epoch and the settings of these predictions were chosen.")
    there = set(videos)
    if missing := [video for video in wanted if video not in there]:
        found.append(
            f"Clips without predictions are left out, so that these numbers are of the others: {len(missing)} "
            f"({some(missing)})."
        )
    if bare := int((~clips.targets.any(1)).sum()):
        found.append(f"Clips without a label: {bare}; hit@1 and precision@k are over the other {len(videos) - bare}.")
    if (clips.scores == clips.scores[0]).all() and len(videos) > 1:
        found.append("All clips have the same scores: nothing of the clips is in these predictions.")
    else:
        flat = [row["class"] for row in rows if np.ptp(clips.scores[:, row["id"]]) == 0]
        if flat and len(videos) > 1:
            found.append(f"The same score for all clips: {len(flat)} of the classes ({some(flat)}).")
    if perfect := [row["class"] for row in rows if row["ap"] == 1 and row["positives"] < len(videos)]:
        found.append(
            f"An AP of exactly 1 is too good not to be looked at; of {len(perfect)} of the classes: {some(perfect)}."
        )
    if few := [row["class"] for row in rows if 0 < row["positives"] < FEW]:
        found.append(
            f"Fewer than {FEW} positive clips: {len(few)} of the classes, whose AP hangs on single clips more than its "
            f"interval can show; below {LEAST} none is given."
        )
    if none := [row["class"] for row in rows if not row["positives"]]:
        found.append(
            f"No positive clip, so no AP and no part in macro averages: {len(none)} of the classes ({some(none)})."
        )
    return found


def wary(
    source: Source, other: Source | None, of_video: Sequence[Sequence[str]], fitted: bool, read_as_logits: bool
) -> list[str]:
    """What to know of a comparison, of the split by classes of animals (`of_video`: those of each clip), of thresholds.

    `fitted`: thresholds were; `read_as_logits`: scores that were said to be logits all lie in 0 to 1."""
    found = []
    if fitted and source.protocol not in (HELD_OUT, THREE_SPLITS):
        found.append("Thresholds are fitted on selection clips that these predictions' model may have been trained on.")
    if read_as_logits:
        found.append("All scores lie from 0 to 1, like probabilities, but --logits has them read as logits.")
    if other and other.protocol != source.protocol:
        ours, theirs = (s.protocol or "not known" for s in (source, other))
        found.append(
            f"The two that are compared chose their epochs by different protocols (here {ours}, there {theirs}), so "
            "their difference is not of the models alone."
        )
    if both := sum(len(set(animals)) > 1 for animals in of_video):
        found.append(f"Clips that show animals of several classes of animals count in each: {both}.")
    return found


def table(evaluation: "Evaluation") -> str:
    """For a terminal: a metric a line."""
    found = evaluation.metrics
    chosen = found["epoch_chosen_on"] or "not known"
    lines = [
        f"{evaluation.title}: {found['num_videos']} clips of {found['split']}, {found['num_classes']} classes, of "
        f"which {found['classes_with_a_positive']} have a positive",
        f"protocol: {found['protocol'] or 'not known'}; epoch chosen by: {chosen}",
        "",
        f"{'':46} {'value':>7}  {'95 % interval':16} {'constant':>8} {'random':>8}",
    ]
    lines += [
        line(label, found[name]) for name, label in SHOWN.items() if found[name] and found[name]["value"] is not None
    ]
    lines.append(line("calibration error (ECE), lower: better", found["calibration"]["ece"]))
    for partition, segments in found["segments"].items():
        for segment, values in segments.items():
            name = f"{segment} ({partition}, {values['map_macro']['classes']} classes)"
            lines += [line(f"  macro, {name}", values["map_macro"]), line(f"  micro, {name}", values["map_micro"])]
    for animal, values in found["animal_classes"].items():
        name = f"{animal} ({values['num_videos']} clips)"
        lines += [line(f"  macro, {name}", values["map_macro"]), line(f"  micro, {name}", values["map_micro"])]
    lines += ["", *(f"note: {note}" for note in found["notes"])]
    if empty := found["num_classes"] - found["classes_with_a_positive"]:
        footnote = found["torchmetrics_macro"]["value"]
        lines.append(
            f"note: torchmetrics' average='macro' would say {footnote:.4f}: it counts as 0 each class without a "
            f"positive, here {empty}."
        )
    return "\n".join([*lines, *compared(found["comparison"])])


def line(label: str, values: dict[str, Any]) -> str:
    interval = f"{values['ci95'][0]:.4f} to {values['ci95'][1]:.4f}" if values["ci95"] else ""
    cells = [f"{values[key]:.4f}" if values[key] is not None else "" for key in ("value", "baseline", "random")]
    return f"{label:46} {cells[0]:>7}  {interval:16} {cells[1]:>8} {cells[2]:>8}"


def compared(comparison: dict[str, Any] | None) -> list[str]:
    """Lines of a comparison."""
    if comparison is None:
        return []
    lines = ["", f"difference to {comparison['other']}, on the same {comparison['num_videos']} clips:"]
    for name in ("map_macro", "map_micro"):
        lines.append(f"  {SHOWN[name]:34} {difference(comparison[name])}")
    for what in ("gained", "lost"):
        for row in comparison[what][:5]:
            name = f"{row['class']} ({row['positives']} clips)"
            lines.append(f"  {what} {name}: {row['other_ap']:.4f} -> {row['ap']:.4f}, {difference(row)}")
    if comparison["gained"] or comparison["lost"]:
        lines.append(f"  (the extremes of {comparison['classes']} classes: of so many some exclude 0 by chance)")
    return lines


def difference(values: dict[str, Any]) -> str:
    interval = f" ({values['ci95'][0]:+.4f} to {values['ci95'][1]:+.4f})" if values["ci95"] else ""
    return "no class has a positive" if values["difference"] is None else f"{values['difference']:+.4f}{interval}"


def write(evaluation: "Evaluation", folder: Path) -> tuple[Path, Path]:
    """metrics.json and per_class.csv, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = evaluation.per_class
    cells = [["" if value is None else _text(value) for value in row.values()] for row in rows]
    return (
        yaml_json.write_json(folder / "metrics.json", evaluation.metrics),
        csv.write_csv(folder / "per_class.csv", list(rows[0]), cells),
    )


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
