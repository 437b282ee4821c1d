"""Plots as plotly.js figures: dicts of traces and layout, with what they show. User-provided names are escaped.

In confusions, the k highest scores of a clip with k labels count as predicted. With one label per clip this gives the
usual confusion matrix. With several, a label that is not predicted is missed, and each wrong class that is predicted
counts as confused with it. This needs no threshold, which the scores of rare classes hardly ever reach."""

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vimoclip import metrics
from vimoclip.io.palette import COLORS

if TYPE_CHECKING:
    from vimoclip.evaluation import Evaluation

Figure = dict[str, Any]
GREY = "#666666"
BLUES = [[0, "#ffffff"], [0.02, "#e3eef9"], [0.1, "#b5d4e9"], [0.3, "#6baed6"], [0.6, "#2171b5"], [1, "#08306b"]]
BARS_PER_PLOT = 44  # fit on a printed page below a heading
MAX_LABEL_LENGTH = 26  # characters
MAX_CONFUSIONS = 3  # listed per class
MAX_POINTS = 101  # of a plotted curve
UNIT_AXIS: Figure = {"range": [0, 1.02], "zeroline": False, "tickvals": [0, 0.2, 0.4, 0.6, 0.8, 1]}


def escape_label(name: str, max_length: int | None = None) -> str:
    """Escape HTML, since plotly renders tags such as <b> and <a>; shorten the name to `max_length` characters."""
    if max_length and len(name) > max_length:
        name = name[: max_length - 1] + "…"
    return html.escape(name, quote=False)


def axis_labels(names: Sequence[str]) -> dict[str, str]:
    """Return name -> short axis label. A category axis requires unique labels: duplicates get the class id."""
    short = [escape_label(name, MAX_LABEL_LENGTH) for name in names]
    duplicates = {name for name in short if short.count(name) > 1}
    unique = [f"{label} ({i})" if label in duplicates else label for i, label in enumerate(short)]
    return dict(zip(names, unique, strict=True))


def per_class_bars(rows: list[dict[str, Any]], labels: dict[str, str], colors: dict[str, str]) -> list[Figure]:
    """Return bar charts of AP in the order of `rows`, of at most BARS_PER_PLOT bars each.

    `rows`: of per_class.csv, of the classes with an AP; `labels`: from axis_labels."""
    per_plot = -(-len(rows) // max(1, -(-len(rows) // BARS_PER_PLOT)))
    return [_bar_chart(rows[start : start + per_plot], labels, colors) for start in range(0, len(rows), per_plot or 1)]


def _bar_chart(rows: list[dict[str, Any]], labels: dict[str, str], colors: dict[str, str]) -> Figure:
    ticks = [f"{labels[row['name']]} · {row['positives']}" for row in rows]
    intervals = [(row["ap"], row["ap"]) if row["ap_low"] is None else (row["ap_low"], row["ap_high"]) for row in rows]
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": "classes",
        "x": [row["ap"] for row in rows],
        "y": ticks,
        "marker": {"color": [colors.get(row["segment"], COLORS[0]) for row in rows]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [high - row["ap"] for row, (_, high) in zip(rows, intervals, strict=True)],
            "arrayminus": [row["ap"] - low for row, (low, _) in zip(rows, intervals, strict=True)],
            "color": "#444444",
            "thickness": 1,
            "width": 2,
        },
        "text": [_hover_text(row) for row in rows],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }
    constant = {
        "type": "scatter",
        "mode": "markers",
        "name": "constant predictor",
        "x": [row["ap_baseline"] for row in rows],
        "y": ticks,
        "hoverinfo": "skip",
        "marker": {"symbol": "line-ns", "size": 9, "line": {"width": 2, "color": "#000000"}},
    }
    return {
        "data": [bars, constant],
        "layout": {
            "height": 60 + 18 * len(rows),
            "showlegend": False,
            "bargap": 0.25,
            "barmode": "overlay",
            "hovermode": "closest",
            "margin": {"l": 20, "r": 12, "t": 4, "b": 50},
            "xaxis": {"title": {"text": "average precision", "standoff": 6}, **UNIT_AXIS},
            "yaxis": {
                "type": "category",
                "automargin": True,
                "dtick": 1,
                "tickfont": {"size": 11},
                "ticks": "",
                "categoryorder": "array",
                "categoryarray": ticks,
                "range": [len(rows) - 0.4, -0.6],
            },
        },
    }


def _hover_text(row: dict[str, Any]) -> str:
    lines = [f"<b>{escape_label(row['name'])}</b>", f"{row['positives']} clips", f"average precision {row['ap']:.3f}"]
    if row["ap_low"] is not None:
        lines.append(f"95 % interval {row['ap_low']:.3f} to {row['ap_high']:.3f}")
    lines.append(f"constant predictor {row['ap_baseline']:.3f}")
    return "<br>".join(lines + ([f"segment {row['segment']}"] if row["segment"] else []))


class PrecisionRecallCurve(NamedTuple):
    """Ascending recall and the precision at each recall, both (n,) float64."""

    recall: np.ndarray
    precision: np.ndarray


def precision_recall_curve(scores: np.ndarray, targets: np.ndarray) -> PrecisionRecallCurve:
    """Return one point for each threshold at which recall increases; tied scores are one threshold.

    scores (N,) float, targets (N,) bool. The area of the steps is scikit-learn's AP. Empty without a positive."""
    _, predicted, true_positives = metrics.score_steps(scores, targets)
    increases = np.diff(true_positives, prepend=0) > 0
    recall = true_positives[increases] / max(int(targets.sum()), 1)
    return PrecisionRecallCurve(recall, true_positives[increases] / predicted[increases])


def precision_at_recall(curve: PrecisionRecallCurve, recall: np.ndarray) -> np.ndarray:
    """Return (n,) precision at the highest threshold that reaches each recall. `curve` must not be empty."""
    return curve.precision[np.searchsorted(curve.recall, recall - 1e-12).clip(max=len(curve.recall) - 1)]


def thin_curve(curve: PrecisionRecallCurve, points: int = MAX_POINTS) -> PrecisionRecallCurve:
    """Return the curve, sampled at `points` evenly spaced recalls if it has more points."""
    if len(curve.recall) <= points:
        return curve
    recall = np.linspace(0, 1, points)
    return PrecisionRecallCurve(recall, precision_at_recall(curve, recall))


def micro_curve(scores: np.ndarray, targets: np.ndarray) -> PrecisionRecallCurve:
    """Return the curve of all (clip, class) pairs pooled. scores, targets: (N, C)."""
    return thin_curve(precision_recall_curve(scores.ravel(), targets.ravel()))


def macro_curve(scores: np.ndarray, targets: np.ndarray) -> PrecisionRecallCurve:
    """Return the mean precision at each recall over the classes that have a positive. scores, targets: (N, C)."""
    recall = np.linspace(0, 1, MAX_POINTS)
    classes = np.flatnonzero(targets.any(axis=0))
    if not len(classes):
        return PrecisionRecallCurve(np.empty(0), np.empty(0))
    precisions = [precision_at_recall(precision_recall_curve(scores[:, c], targets[:, c]), recall) for c in classes]
    return PrecisionRecallCurve(recall, np.mean(precisions, axis=0))


def precision_recall_figure(evaluation: "Evaluation", partition: str, colors: dict[str, str]) -> Figure:
    """Return micro and macro curves over all classes and over each segment of a partition ("" for none)."""
    scores, targets = evaluation.scores, evaluation.targets
    segments = np.array(evaluation.partitions[partition]) if partition else np.array([])
    groups = [("all", np.ones(len(evaluation.classes), bool), "#000000")]
    groups += [(name, segments == name, color) for name, color in colors.items() if (segments == name).any()]
    traces = []
    for number, (name, mask, color) in enumerate(groups):
        for average, compute, width in (("micro", micro_curve, 2.5), ("macro", macro_curve, 1.5)):
            curve = compute(scores[:, mask], targets[:, mask])
            line = {"color": color, "width": width, "dash": "dot" if average == "macro" else "solid"}
            traces.append(_curve_trace(f"{escape_label(name)}, {average}", curve, line) | {"legendgroup": str(number)})
    return {"data": traces, "layout": _curve_layout(400)}


def _curve_trace(name: str, curve: PrecisionRecallCurve, line: dict[str, Any]) -> Figure:
    x, y = curve.recall.tolist(), curve.precision.tolist()
    if x and x[0] > 0:
        x, y = [0.0, *x], [y[0], *y]
    hover = "recall %{x:.2f}, precision %{y:.3f}"
    line = line | {"shape": "vh" if len(x) < MAX_POINTS else "linear"}  # few points are steps
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "line": line,
        "hovertemplate": hover,
        "x": [round(v, 4) for v in x],
        "y": [round(v, 4) for v in y],
    }


def _curve_layout(height: int) -> Figure:
    return {
        "height": height,
        "margin": {"l": 55, "r": 12, "t": 10, "b": 50},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": -0.17, "yanchor": "top", "font": {"size": 12}},
        "xaxis": {"title": {"text": "recall", "standoff": 6}, **UNIT_AXIS},
        "yaxis": {"title": {"text": "precision", "standoff": 6}, **UNIT_AXIS},
    }


def class_curves_figure(evaluation: "Evaluation", rows: list[dict[str, Any]]) -> Figure:
    """Return a curve per class in the order of `rows`, for the page's select element; `data` is the first curve."""
    class_ids = {name: c for c, name in enumerate(evaluation.classes)}
    choices = []
    for row in rows:
        c = class_ids[row["name"]]
        curve = thin_curve(precision_recall_curve(evaluation.raw_scores[:, c], evaluation.targets[:, c]))
        trace = _curve_trace("precision", curve, {"color": COLORS[0], "width": 2.5})
        prevalence = float(evaluation.targets[:, c].mean())
        dashed = {"color": GREY, "dash": "dash", "width": 1.5}
        chance = {"type": "scatter", "mode": "lines", "name": "prevalence (chance level)", "line": dashed}
        choices.append([trace, chance | {"x": [0, 1], "y": [prevalence, prevalence], "hoverinfo": "skip"}])
    return {"data": choices[0], "layout": _curve_layout(380), "choices": choices}


def reliability_figure(bins: list[dict[str, Any]], raw_bins: list[dict[str, Any]] | None = None) -> Figure:
    """Return the fraction of positives against the mean score of each bin, and below it the scores per bin.

    `raw_bins`: of the scores before calibration, if `bins` are of those after it."""
    centers = [(b["low"] + b["high"]) / 2 for b in bins]
    perfect = {"x": [0, 1], "y": [0, 1], "line": {"color": GREY, "dash": "dash", "width": 1.5}}
    counts = {
        "type": "bar",
        "x": centers,
        "y": [b["count"] or None for b in bins],
        "yaxis": "y2",
        "showlegend": False,
        "marker": {"color": COLORS[4]},
        "width": [0.9 * (b["high"] - b["low"]) for b in bins],
        "hovertemplate": "%{y:,} scores<extra></extra>",
    }
    lines = [
        {"type": "scatter", "mode": "lines", "name": "perfect calibration", "hoverinfo": "skip"} | perfect,
        _reliability_trace("these predictions" if raw_bins is None else "calibrated scores", bins, COLORS[0]),
    ]
    if raw_bins is not None:
        lines.insert(1, _reliability_trace("raw scores", raw_bins, COLORS[1]))
    layout = _curve_layout(480)
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    layout["xaxis"] = {"title": {"text": "score", "standoff": 6}, "anchor": "y2", **UNIT_AXIS}
    layout["yaxis"] = {"title": {"text": "fraction positive"}, "domain": [0.34, 1], **UNIT_AXIS}
    layout["yaxis2"] = {"title": {"text": "scores"}, "domain": [0, 0.26], "type": "log", "nticks": 4}
    return {"data": [*lines, counts], "layout": layout}


def _reliability_trace(name: str, bins: list[dict[str, Any]], color: str) -> Figure:
    filled = [b for b in bins if b["count"]]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [b["mean_score"] for b in filled],
        "y": [b["share_positive"] for b in filled],
        "text": [f"{name}: {b['count']:,} from {b['low']:.2f} to {b['high']:.2f}" for b in filled],
        "hovertemplate": "%{text}<br>mean score %{x:.3f}<br>positive %{y:.3f}<extra></extra>",
        "marker": {"size": 8, "color": color},
        "line": {"color": color, "width": 2},
    }


def predicted_labels(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (N, C) bool: each clip's k highest-scored classes, k its number of labels; ties go to lower class ids."""
    order = metrics.descending_order(scores)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(scores.shape[1])[None, :], axis=1)
    return ranks < targets.sum(axis=1, keepdims=True)


def confusion_counts(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (C, C) int64: clips whose label `row` is missed while `column` is wrongly predicted; diagonal: hits."""
    predicted = predicted_labels(scores, targets)
    missed, wrong = targets & ~predicted, predicted & ~targets
    counts = missed.T.astype(np.float64) @ wrong.astype(np.float64)  # BLAS multiplies floats only
    np.fill_diagonal(counts, (targets & predicted).sum(axis=0))
    return counts.astype(np.int64)


def confused_with(
    class_names: Sequence[str], scores: np.ndarray, targets: np.ndarray
) -> dict[str, tuple[int, list[str]]]:
    """Return class -> (number of clips in which it is predicted correctly, classes that it is most confused with)."""
    confusions = {}
    for c, (name, wrong) in enumerate(zip(class_names, confusion_counts(scores, targets), strict=True)):
        correct, wrong[c] = int(wrong[c]), 0
        order = [int(d) for d in metrics.descending_order(wrong)[:MAX_CONFUSIONS] if wrong[d]]
        confusions[name] = (correct, [f"{class_names[d]} ({wrong[d]:,})" for d in order])
    return confusions


def heatmap_figures(evaluation: "Evaluation") -> tuple[Figure, Figure]:
    """Return confusions and co-occurrence, as fractions of the clips with the row's label; frequent classes first."""
    targets = evaluation.targets
    positives = targets.sum(axis=0)
    order = metrics.descending_order(positives)
    with_positives = [int(c) for c in order if positives[c]]
    all_classes = [int(c) for c in order]
    confusions = confusion_counts(evaluation.scores, targets) / np.maximum(positives, 1)[:, None]
    labels_as_floats = targets.astype(np.float64)  # BLAS multiplies floats only
    co_occurrence = labels_as_floats.T @ labels_as_floats / np.maximum(positives, 1)[:, None]
    np.fill_diagonal(co_occurrence, np.nan)
    labels = list(axis_labels(evaluation.classes).values())
    confusion_hover = "labelled %{y}<br>predicted %{x}<br>%{z:.1%} of its clips"
    co_occurrence_hover = "of clips labelled %{y}<br>%{z:.1%} are also %{x}"
    return (
        _heatmap(confusions, with_positives, all_classes, labels, confusion_hover),
        _heatmap(co_occurrence, with_positives, with_positives, labels, co_occurrence_hover),
    )


def _heatmap(fractions: np.ndarray, rows: list[int], columns: list[int], labels: list[str], hover: str) -> Figure:
    values = [[None if np.isnan(v) else round(float(v), 4) for v in fractions[r, columns]] for r in rows]
    height = max(300, min(780, 210 + 42 * len(rows)))
    axis = {"type": "category", "automargin": True, "ticks": "", "showgrid": False, "tickfont": {"size": 11}}
    return {
        "data": [
            {
                "type": "heatmap",
                "x": [labels[c] for c in columns],
                "y": [labels[r] for r in rows],
                "z": values,
                "colorscale": BLUES,
                "zmin": 0,
                "zmax": 1,
                "hovertemplate": hover + "<extra></extra>",
                "hoverongaps": False,
                "xgap": 1 if len(rows) < 40 else 0,
                "ygap": 1 if len(rows) < 40 else 0,
                "colorbar": {"thickness": 10, "tickformat": ".0%", "len": 0.6, "outlinewidth": 0, "xpad": 4},
            }
        ],
        "layout": {
            "height": height,
            "margin": {"l": 20, "r": 10, "t": 32, "b": 20},
            "plot_bgcolor": "#eeeeee",
            "xaxis": axis | {"tickangle": -90, "constrain": "domain"},
            "yaxis": axis | {"autorange": "reversed"},
        },
        "zoom": True,
    }


def class_histogram_figure(classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Figure:
    """Return a plotly figure with one stacked bar per class, the most frequent class at the top."""
    totals = [sum(split_counts) for split_counts in zip(*counts.values(), strict=True)]
    order = sorted(range(len(classes)), key=lambda i: (-totals[i], classes[i]))
    labels = axis_labels(classes)
    ticks = [labels[classes[i]] for i in order]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": split,
            "x": [class_counts[i] for i in order],
            "y": ticks,
            "marker": {"color": color},
        }
        for (split, class_counts), color in zip(counts.items(), COLORS, strict=False)
    ]
    layout = {
        "barmode": "stack",
        "height": 120 + 20 * len(classes),
        "margin": {"l": 20, "r": 12, "t": 30, "b": 50},
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        "xaxis": {"title": {"text": "clips"}, "rangemode": "tozero"},
        "yaxis": {"automargin": True, "dtick": 1, "type": "category", "range": [len(classes) - 0.4, -0.6]},
    }
    return {"data": traces, "layout": layout}
