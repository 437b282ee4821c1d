"""Text rows of the report's tables, from the content of metrics.json and per_class.csv."""

import math
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


def parse_number(value: Any) -> float | None:
    """Parse a number or its text; return None for None, "", NaN and infinities."""
    number = float(value) if value not in (None, "") else math.nan
    return number if math.isfinite(number) else None


def format_number(value: Any, digits: int = 4) -> str:
    number = parse_number(value)
    return MISSING if number is None else f"{number:.{digits}f}"


def format_signed(value: Any, digits: int = 4) -> str:
    number = parse_number(value)
    return MISSING if number is None else f"{number:+.{digits}f}"


def format_interval(bounds: Any, digits: int = 4, sign: str = "") -> str:
    low, high = (parse_number(bound) for bound in bounds or (None, None))
    return MISSING if low is None or high is None else f"{low:{sign}.{digits}f} to {high:{sign}.{digits}f}"


def pluralize(count: Any, singular: str, plural: str) -> str:
    return f"{count:,} {singular if count == 1 else plural}"


def metric_row(name: str, scope: str, entry: Mapping[str, Any]) -> MetricRow:
    baseline, random = (format_number(entry.get(key)) for key in ("baseline", "random"))
    return MetricRow(
        name, scope, format_number(entry.get("value")), format_interval(entry.get("ci95")), baseline, random
    )


def metric_rows(metrics: Mapping[str, Any]) -> list[MetricRow]:
    """Return one row for each metric that metrics.json has."""
    entries, rows = {**metrics, **(metrics.get("calibration") or {})}, []
    for key, (label, description) in METRIC_NAMES.items():
        if entries.get(key):
            classes = pluralize(entries[key].get("classes", 0), "class", "classes")
            rows.append(metric_row(label, description.format(classes=classes), entries[key]))
    return rows


def group_rows(groups: Mapping[str, Mapping[str, Any]], macro_scope: str, micro_scope: str) -> list[MetricRow]:
    """Return rows of macro and micro AP of each segment or class of animals. The scopes are format strings."""
    rows = []
    for name, group in groups.items():
        sizes = {key: f"{group[key]:,}" for key in ("classes", "num_videos") if key in group}
        for key, scope in (("map_macro", macro_scope), ("map_micro", micro_scope)):
            if group.get(key):
                with_positives = pluralize(group[key].get("classes", 0), "class", "classes")
                scope_text = scope.format(classes_with_positives=with_positives, **sizes)
                rows.append(metric_row(name, scope_text, group[key]))
    return rows


def class_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of per_class.csv with parsed numbers in descending order of AP, classes without an AP last."""
    parsed = []
    for row in rows:
        numbers = {key: parse_number(row.get(key)) for key in ("ap", "ap_low", "ap_high", "ap_baseline", "ap_random")}
        segment = row.get("segment") or row.get("segment_by_count") or ""
        positives = int(parse_number(row.get("positives")) or 0)
        parsed.append({"name": row["class"], "segment": segment, "positives": positives, **numbers})
    return sorted(parsed, key=lambda row: (row["ap"] is None, -(row["ap"] or 0), -row["positives"]))


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
            format_signed(comparison[key]["difference"]),
            format_interval(comparison[key].get("ci95"), sign="+"),
        )
        for key in ("map_macro", "map_micro")
        if comparison.get(key)
    ]

    def class_cells(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
        return [
            (
                row["class"],
                str(row.get("positives", "")),
                format_number(row.get("ap"), 3),
                format_number(row.get("other_ap"), 3),
                format_signed(row.get("difference"), 3),
                format_interval(row.get("ci95"), 3, "+"),
            )
            for row in rows
        ]

    gained, lost = (class_cells(comparison.get(key) or []) for key in ("gained", "lost"))
    sizes = {key: comparison[key] for key in ("num_videos", "classes")}
    return sizes | {"other": comparison.get("other"), "averages": averages, "gained": gained, "lost": lost}
