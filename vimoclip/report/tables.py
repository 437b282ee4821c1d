"""Text rows of the report's tables, from the content of metrics.json and per_class.csv."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vimoclip.metrics import METRIC_NAMES, descending_order
from vimoclip.report import confusion

MISSING = "–"
MAX_CONFUSIONS = 3  # per class


class MetricRow(NamedTuple):
    """A row of a table of metrics. `scope`: what the metric is computed over, such as a number of classes."""

    name: str
    scope: str
    value: str
    interval: str
    baseline: str
    random: str


def format_number(value: float | None, digits: int = 4, sign: str = "") -> str:
    return MISSING if value is None else f"{value:{sign}.{digits}f}"


def format_interval(bounds: Sequence[float | None] | None, digits: int = 4, sign: str = "") -> str:
    if bounds is None or bounds[0] is None:
        return MISSING
    return " to ".join(format_number(bound, digits, sign) for bound in bounds)


def pluralize(count: Any, singular: str, plural: str) -> str:
    return f"{count:,} {singular if count == 1 else plural}"


def metric_row(name: str, scope: str, entry: Mapping[str, Any]) -> MetricRow:
    baseline, random = (format_number(entry.get(key)) for key in ("baseline", "random"))
    return MetricRow(
        name, scope, format_number(entry.get("value")), format_interval(entry.get("ci95")), baseline, random
    )


def metric_rows(metrics: dict[str, Any]) -> list[MetricRow]:
    """Return one row for each metric of metrics.json that is not null."""
    entries, rows = metrics | metrics["calibration"], []
    for key, (label, description) in METRIC_NAMES.items():
        if entries[key]:
            classes = pluralize(entries[key].get("classes", 0), "class", "classes")
            rows.append(metric_row(label, description.format(classes=classes), entries[key]))
    return rows


def group_rows(groups: Mapping[str, Mapping[str, Any]], macro_scope: str, micro_scope: str) -> list[MetricRow]:
    """Return rows of macro and micro AP of each segment or class of animals. The scopes are format strings."""
    rows = []
    for name, group in groups.items():
        sizes = {key: f"{group[key]:,}" for key in ("classes", "num_videos") if key in group}
        for key, scope in (("map_macro", macro_scope), ("map_micro", micro_scope)):
            with_positives = pluralize(group[key].get("classes", 0), "class", "classes")
            rows.append(metric_row(name, scope.format(classes_with_positives=with_positives, **sizes), group[key]))
    return rows


def class_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of per_class.csv with `name` and `segment`, in descending order of AP, without an AP last."""
    named = [{**row, "name": row["class"], "segment": row["segment"] or row["segment_by_count"] or ""} for row in rows]
    return sorted(named, key=lambda row: (row["ap"] is None, -(row["ap"] or 0), -row["positives"]))


def confused_with(
    class_names: Sequence[str], scores: np.ndarray, targets: np.ndarray
) -> dict[str, tuple[int, list[str]]]:
    """Return class -> (number of clips in which it is predicted correctly, classes that it is most confused with)."""
    counts = confusion.confusion_counts(scores, targets)
    confusions = {}
    for c, name in enumerate(class_names):
        wrong = counts[c].copy()
        wrong[c] = 0
        order = [int(d) for d in descending_order(wrong)[:MAX_CONFUSIONS] if wrong[d]]
        confusions[name] = (int(counts[c, c]), [f"{class_names[d]} ({wrong[d]:,})" for d in order])
    return confusions


def comparison_table(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paired differences of both averages, and of the classes that gained and lost most."""
    averages = [
        (
            METRIC_NAMES[key].label,
            format_number(comparison[key]["difference"], sign="+"),
            format_interval(comparison[key]["ci95"], sign="+"),
        )
        for key in ("map_macro", "map_micro")
    ]

    def class_cells(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
        return [
            (
                row["class"],
                str(row["positives"]),
                format_number(row["ap"], 3),
                format_number(row["other_ap"], 3),
                format_number(row["difference"], 3, "+"),
                format_interval(row["ci95"], 3, "+"),
            )
            for row in rows
        ]

    gained, lost = (class_cells(comparison[key]) for key in ("gained", "lost"))
    sizes = {key: comparison[key] for key in ("num_videos", "classes")}
    return sizes | {"other": comparison["other"], "averages": averages, "gained": gained, "lost": lost}
