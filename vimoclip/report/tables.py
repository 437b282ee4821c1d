"""Rows of the report's tables, as text, from what metrics.json and per_class.csv hold."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vimoclip.report import confusion

UNKNOWN = "–"
COMMONEST = 3  # confusions named of each class
# key of metrics.json -> what it is called, and what it is
METRICS = {
    "map_macro": (
        "Mean average precision, macro",
        "mean of the average precision of the {classes} that have a positive",
    ),
    "map_micro": ("Mean average precision, micro", "average precision over all pairs of clip and class, pooled"),
    "f1_macro_at_0.5": ("F1, macro, at 0.5", "mean over classes; predicted is what scores 0.5 or more"),
    "f1_micro_at_0.5": ("F1, micro, at 0.5", "over all pairs, pooled"),
    "f1_macro_at_fitted_thresholds": ("F1, macro, fitted", "at a threshold a class, fitted on the selection clips"),
    "f1_micro_at_fitted_thresholds": ("F1, micro, fitted", "at the same thresholds, pooled"),
    "hit_at_1": ("Hit at 1", "share of clips whose highest score is one of their labels"),
    "precision_at_3": ("Precision at 3", "share of labels among a clip's 3 highest scores"),
    "precision_at_5": ("Precision at 5", "share of labels among a clip's 5 highest scores"),
    "top1": ("Top-1 accuracy", "share of clips whose highest score is their label"),
    "mean_per_class_top1": ("Top-1 accuracy, mean over classes", "each class counts alike"),
}


class Row(NamedTuple):
    """One line of a table of numbers. `of`: what it is the number of, such as a count of classes or clips."""

    name: str
    of: str
    value: str
    interval: str
    baseline: str
    random: str


def number(value: Any) -> float | None:
    """A number that may be one in text, or missing: None, "" or NaN."""
    found = float(value) if value not in (None, "") else math.nan
    return found if math.isfinite(found) else None


def shown(value: Any, digits: int = 4) -> str:
    found = number(value)
    return UNKNOWN if found is None else f"{found:.{digits}f}"


def interval(bounds: Any, digits: int = 4, sign: str = "") -> str:
    low, high = (number(bound) for bound in bounds or (None, None))
    return UNKNOWN if low is None or high is None else f"{low:{sign}.{digits}f} to {high:{sign}.{digits}f}"


def entry(name: str, of: str, found: dict[str, Any]) -> Row:
    baseline, random = (shown(found.get(key)) for key in ("baseline", "random"))
    return Row(name, of, shown(found.get("value")), interval(found.get("ci95")), baseline, random)


def plural(count: Any, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def metrics(found: Mapping[str, Any]) -> list[Row]:
    """All that metrics.json has a value for, the calibration last."""
    rows = []
    for key, (name, text) in METRICS.items():
        if found.get(key):
            classes = plural(found[key].get("classes", 0), "class", "classes")
            rows.append(entry(name, text.format(classes=classes), found[key]))
    if ece := (found.get("calibration") or {}).get("ece"):
        text = "how far scores are from the share of positives, on average; less is better"
        rows.append(entry("Expected calibration error", text, ece))
    return rows


def groups(found: dict[str, dict[str, Any]], macro: str, micro: str) -> list[Row]:
    """Macro and micro of each segment, or of each class of animals. `macro`, `micro`: what they are of, in words."""
    rows = []
    for name, group in found.items():
        size = {key: f"{group[key]:,}" for key in ("classes", "num_videos") if key in group}
        for key, text in (("map_macro", macro), ("map_micro", micro)):
            if group.get(key):
                known = plural(group[key].get("classes", 0), "class", "classes")
                rows.append(entry(name, text.format(known=known, **size), group[key]))
    return rows


def classes(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of per_class.csv with numbers for numbers; the highest average precision first, classes without one last."""
    found = []
    for row in rows:
        numbers = {key: number(row.get(key)) for key in ("ap", "ap_low", "ap_high", "ap_baseline", "ap_random")}
        segment = row.get("segment") or row.get("segment_by_count") or ""
        positives = int(number(row.get("positives")) or 0)
        found.append({"name": row["class"], "segment": segment, "positives": positives, **numbers})
    return sorted(found, key=lambda row: (row["ap"] is None, -(row["ap"] or 0), -row["positives"]))


def commonest(names: Sequence[str], scores: np.ndarray, targets: np.ndarray) -> dict[str, tuple[int, list[str]]]:
    """Class -> the clips that are taken for it as they should be, and what others are most often taken for."""
    counts = confusion.confusions(scores, targets)
    found = {}
    for c, name in enumerate(names):
        wrong = counts[c].copy()
        wrong[c] = 0
        order = [int(d) for d in np.argsort(-wrong, kind="stable")[:COMMONEST] if wrong[d]]
        found[name] = (int(counts[c, c]), [f"{names[d]} ({wrong[d]:,})" for d in order])
    return found


def comparison(found: dict[str, Any]) -> dict[str, Any]:
    """The paired differences in all, and those of the classes that gained and lost most."""
    total = []
    for key in ("map_macro", "map_micro"):
        if found.get(key):
            total.append((METRICS[key][0], signed(found[key]["difference"]), interval(found[key].get("ci95"), 4, "+")))

    def changed(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
        return [
            (
                r["class"],
                str(r.get("positives", "")),
                shown(r.get("ap"), 3),
                shown(r.get("other_ap"), 3),
                signed(r.get("difference"), 3),
                interval(r.get("ci95"), 3, "+"),
            )
            for r in rows
        ]

    gained, lost = changed(found.get("gained") or []), changed(found.get("lost") or [])
    size = {key: found[key] for key in ("num_videos", "classes")}
    return size | {"other": found.get("other"), "total": total, "gained": gained, "lost": lost}


def signed(value: Any, digits: int = 4) -> str:
    found = number(value)
    return UNKNOWN if found is None else f"{found:+.{digits}f}"
