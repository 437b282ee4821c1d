"""Terminal table of an evaluation, and the files metrics.json and per_class.csv."""

from pathlib import Path
from typing import Any

from vimoclip.evaluation.evaluator import Evaluation
from vimoclip.io import csv, yaml_json
from vimoclip.metrics import METRIC_NAMES, format_fraction

MAX_CLASSES = 5  # printed in each of two lists: the largest increases and decreases of AP


def format_table(evaluation: Evaluation) -> str:
    """Return one line per metric, then the notes and the comparison."""
    metrics = evaluation.metrics
    lines = [
        f"{evaluation.title}: {metrics['num_videos']} clips of {metrics['split']}, {metrics['num_classes']} classes, "
        f"of which {metrics['classes_with_a_positive']} have a positive",
        f"protocol: {metrics['protocol'] or 'unknown'}; epoch selected by: {metrics['epoch_chosen_on'] or 'unknown'}",
        f"intervals: bootstrap over {metrics['bootstrap']['units']:,} {metrics['bootstrap']['over']}",
        "",
        f"{'':46} {'value':>7}  {'95 % interval':18} {'constant':>8} {'random':>8}",
    ]
    entries_by_name = metrics | metrics["calibration"]
    raw_entries = metrics["calibration"]["raw"] or {}
    for key, name in METRIC_NAMES.items():
        if (entry := entries_by_name[key]) and entry["value"] is not None:
            lines.append(_format_row(name.label, entry))
            if raw_entries.get(key, entry) != entry:
                lines.append(_format_row("  before calibration", raw_entries[key]))
    for partition, segments in metrics["segments"].items():
        for segment, entries in segments.items():
            lines += _format_map_rows(f"{segment} ({partition}, {entries['map_macro']['classes']} classes)", entries)
    for animal_class, entries in metrics["animal_classes"].items():
        lines += _format_map_rows(f"{animal_class} ({entries['num_videos']} clips)", entries)
    lines += ["", *(f"note: {note}" for note in metrics["notes"])]
    if metrics["classes_with_a_positive"] < metrics["num_classes"]:
        macro = metrics["torchmetrics_macro"]
        lines.append(f"note: {format_fraction(macro['value'])} is {macro['note']}.")
    return "\n".join([*lines, *_format_comparison(metrics["comparison"])])


def _format_map_rows(name: str, entries: dict[str, Any]) -> list[str]:
    return [_format_row(f"  {average}, {name}", entries[f"map_{average}"]) for average in ("macro", "micro")]


def _format_row(label: str, entry: dict[str, Any]) -> str:
    interval = " to ".join(map(format_fraction, entry["ci95"])) if entry["ci95"] else ""
    cells = [format_fraction(entry[key]) if entry[key] is not None else "" for key in ("value", "baseline", "random")]
    return f"{label:46} {cells[0]:>7}  {interval:18} {cells[1]:>8} {cells[2]:>8}"


def _format_comparison(comparison: dict[str, Any] | None) -> list[str]:
    if comparison is None:
        return []
    lines = ["", f"difference to {comparison['other']}, on the same {comparison['num_videos']} clips:"]
    for name in ("map_macro", "map_micro"):
        lines.append(f"  {METRIC_NAMES[name].label:34} {_format_difference(comparison[name])}")
    for direction in ("gained", "lost"):
        for row in comparison[direction][:MAX_CLASSES]:
            name = f"{row['class']} ({row['positives']} clips)"
            change = " -> ".join(format_fraction(row[key]) for key in ("other_ap", "ap"))
            lines.append(f"  {direction} {name}: {change}, {_format_difference(row)}")
    if comparison["gained"] or comparison["lost"]:
        lines.append(f"  (extremes of {comparison['classes']} classes: some of these intervals exclude 0 by chance)")
    return lines


def _format_difference(entry: dict[str, Any]) -> str:
    interval = f" ({entry['ci95'][0]:+.4f} to {entry['ci95'][1]:+.4f})" if entry["ci95"] else ""
    return "no class has a positive" if entry["difference"] is None else f"{entry['difference']:+.4f}{interval}"


def write_files(evaluation: Evaluation, output_dir: Path) -> tuple[Path, Path]:
    """Write metrics.json and per_class.csv, each atomically. Raises OSError."""
    output_dir.mkdir(parents=True, exist_ok=True)
    rows = evaluation.per_class
    cells = [["" if value is None else _format_cell(value) for value in row.values()] for row in rows]
    return (
        yaml_json.write_json(output_dir / "metrics.json", evaluation.metrics),
        csv.write_csv(output_dir / "per_class.csv", list(rows[0]), cells),
    )


def _format_cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
