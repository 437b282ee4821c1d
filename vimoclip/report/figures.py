"""The report's plots, as what plotly.js draws: dicts of traces and layout. Names from users come in escaped."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vimoclip.annotations import SEGMENTS
from vimoclip.report import confusion, pr_curves
from vimoclip.report.subject import Evaluation

Figure = dict[str, Any]
# Okabe and Ito's, which the colour-blind can tell apart: https://jfly.uni-koeln.de/color/
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
GREY = "#666666"
BLUES = [[0, "#ffffff"], [0.02, "#e3eef9"], [0.1, "#b5d4e9"], [0.3, "#6baed6"], [0.6, "#2171b5"], [1, "#08306b"]]
BARS_A_PLOT = 44  # what fits a printed page, below a heading
LONGEST = 26  # letters of a name beside a plot
SHARE: Figure = {"range": [0, 1.02], "zeroline": False, "tickvals": [0, 0.2, 0.4, 0.6, 0.8, 1]}


def plain(name: str, longest: int | None = None) -> str:
    """A user's text for a plot: plotly takes tags such as <b> and <a> for markup."""
    if longest and len(name) > longest:
        name = name[: longest - 1] + "…"
    return html.escape(name, quote=False)


def labels(names: Sequence[str]) -> dict[str, str]:
    """A short name for an axis of each, and each another (by its id): the places of a category axis are its names."""
    short = [plain(name, LONGEST) for name in names]
    doubled = {name for name in short if short.count(name) > 1}
    unique = [f"{label} ({i})" if label in doubled else label for i, label in enumerate(short)]
    return dict(zip(names, unique, strict=True))


def segment_colors(partitions: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A colour a segment; {} where classes have none."""
    return dict(zip(SEGMENTS, COLORS, strict=False)) if partitions else {}


def per_class(rows: list[dict[str, Any]], names: dict[str, str], colors: dict[str, str]) -> list[Figure]:
    """Bars of average precision in the order of `rows`, in as many plots as pages are needed.

    rows: name, segment, positives, ap, ap_low, ap_high, ap_baseline of each class that has a positive."""
    each = -(-len(rows) // max(1, -(-len(rows) // BARS_A_PLOT)))
    return [_bars(rows[start : start + each], names, colors) for start in range(0, len(rows), each or 1)]


def _bars(rows: list[dict[str, Any]], names: dict[str, str], colors: dict[str, str]) -> Figure:
    ticks = [f"{names[row['name']]} · {row['positives']}" for row in rows]
    traces = [_bar(segment, rows, ticks, colors) for segment in [*colors, ""]]
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
        "data": [trace for trace in traces if trace["y"]] + [constant],
        "layout": {
            "height": 60 + 18 * len(rows),
            "showlegend": False,
            "bargap": 0.25,
            "barmode": "overlay",
            "hovermode": "closest",
            "margin": {"l": 20, "r": 12, "t": 4, "b": 50},
            "xaxis": {"title": {"text": "average precision", "standoff": 6}, **SHARE},
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


def _bar(segment: str, rows: list[dict[str, Any]], ticks: list[str], colors: dict[str, str]) -> Figure:
    of = [row["segment"] if row["segment"] in colors else "" for row in rows]
    mine = [(row, tick) for row, tick, its in zip(rows, ticks, of, strict=True) if its == segment]
    known = [row["ap_low"] is not None for row, _ in mine]
    above = [row["ap_high"] - row["ap"] if k else 0 for (row, _), k in zip(mine, known, strict=True)]
    below = [row["ap"] - row["ap_low"] if k else 0 for (row, _), k in zip(mine, known, strict=True)]
    return {
        "type": "bar",
        "orientation": "h",
        "name": plain(segment) or "classes",
        "x": [row["ap"] for row, _ in mine],
        "y": [tick for _, tick in mine],
        "marker": {"color": colors.get(segment, COLORS[0])},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "color": "#444444",
            "thickness": 1,
            "width": 2,
            "visible": any(known),
        },
        "text": [_said(row) for row, _ in mine],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }


def _said(row: dict[str, Any]) -> str:
    """What the bar of a class says when it is pointed at."""
    lines = [f"<b>{plain(row['name'])}</b>", f"{row['positives']} clips", f"average precision {row['ap']:.3f}"]
    if row["ap_low"] is not None:
        lines.append(f"95 % interval {row['ap_low']:.3f} to {row['ap_high']:.3f}")
    if row["ap_baseline"] is not None:
        lines.append(f"constant predictor {row['ap_baseline']:.3f}")
    return "<br>".join(lines + ([f"segment {plain(row['segment'])}"] if row["segment"] else []))


def precision_recall(evaluation: Evaluation, partition: str, colors: dict[str, str]) -> Figure:
    """Micro and macro curves over all classes, and over those of each segment of a partition ("" for none)."""
    scores, targets = evaluation.scores, evaluation.targets
    segments = np.array(evaluation.partitions[partition]) if partition else np.array([])
    groups = [("all", np.ones(len(evaluation.classes), bool), "#000000")]
    groups += [(name, segments == name, color) for name, color in colors.items() if (segments == name).any()]
    traces = []
    for number, (name, mask, color) in enumerate(groups):
        for average, find, width in (("micro", pr_curves.micro, 2.5), ("macro", pr_curves.macro, 1.5)):
            curve = find(scores[:, mask], targets[:, mask])
            line = {"color": color, "width": width, "dash": "dot" if average == "macro" else "solid"}
            traces.append(_line(f"{plain(name)}, {average}", curve, line) | {"legendgroup": str(number)})
    return {"data": traces, "layout": _curve_layout(400)}


def _line(name: str, curve: pr_curves.Curve, line: dict[str, Any]) -> Figure:
    x, y = curve.recall.tolist(), curve.precision.tolist()
    if x and x[0] > 0:
        x, y = [0.0, *x], [y[0], *y]
    hover = "recall %{x:.2f}, precision %{y:.3f}"
    line = line | {"shape": "vh" if len(x) < pr_curves.POINTS else "linear"}  # few points are steps
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
        "xaxis": {"title": {"text": "recall", "standoff": 6}, **SHARE},
        "yaxis": {"title": {"text": "precision", "standoff": 6}, **SHARE},
    }


def class_curves(evaluation: Evaluation, rows: list[dict[str, Any]]) -> Figure:
    """What the picker of a class needs: a curve for each, in the order of `rows`. The first one is drawn."""
    place = {name: c for c, name in enumerate(evaluation.classes)}
    found = []
    for row in rows:
        c = place[row["name"]]
        curve = pr_curves.thinned(pr_curves.precision_recall(evaluation.scores[:, c], evaluation.targets[:, c]))
        trace = _line("precision", curve, {"color": COLORS[0], "width": 2.5})
        share = float(evaluation.targets[:, c].mean())
        dashed = {"color": GREY, "dash": "dash", "width": 1.5}
        chance = {"type": "scatter", "mode": "lines", "name": "share of clips that have the label", "line": dashed}
        found.append([trace, chance | {"x": [0, 1], "y": [share, share], "hoverinfo": "skip"}])
    return {"data": found[0], "layout": _curve_layout(380), "choices": found}


def reliability(bins: list[dict[str, Any]]) -> Figure:
    """Share of positives against mean score for each bin of scores, and beneath it how many scores there are."""
    full = [b for b in bins if b["count"]]
    middles = [(b["low"] + b["high"]) / 2 for b in bins]
    perfect = {"x": [0, 1], "y": [0, 1], "line": {"color": GREY, "dash": "dash", "width": 1.5}}
    points = {
        "x": [b["mean_score"] for b in full],
        "y": [b["share_positive"] for b in full],
        "text": [f"{b['count']:,} scores from {b['low']:.2f} to {b['high']:.2f}" for b in full],
        "hovertemplate": "%{text}<br>mean score %{x:.3f}<br>positive %{y:.3f}<extra></extra>",
        "marker": {"size": 8, "color": COLORS[0]},
        "line": {"color": COLORS[0], "width": 2},
    }
    counts = {
        "type": "bar",
        "x": middles,
        "y": [b["count"] or None for b in bins],
        "yaxis": "y2",
        "showlegend": False,
        "marker": {"color": COLORS[4]},
        "width": [0.9 * (b["high"] - b["low"]) for b in bins],
        "hovertemplate": "%{y:,} scores<extra></extra>",
    }
    lines = [
        {"type": "scatter", "mode": "lines", "name": "as it should be", "hoverinfo": "skip"} | perfect,
        {"type": "scatter", "mode": "lines+markers", "name": "these predictions"} | points,
    ]
    layout = _curve_layout(480)
    layout["margin"] = {"l": 55, "r": 12, "t": 10, "b": 50}
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"}
    layout["xaxis"] = {"title": {"text": "score", "standoff": 6}, "anchor": "y2", **SHARE}
    layout["yaxis"] = {"title": {"text": "share positive"}, "domain": [0.34, 1], **SHARE}
    layout["yaxis2"] = {"title": {"text": "scores"}, "domain": [0, 0.26], "type": "log", "nticks": 4}
    return {"data": [*lines, counts], "layout": layout}


def heatmaps(evaluation: Evaluation) -> tuple[Figure, Figure]:
    """Confusions and co-occurrence as shares of the clips that have the row's label; the commonest class first."""
    targets = evaluation.targets
    positives = targets.sum(axis=0)
    order = np.argsort(-positives, kind="stable")
    known = [int(c) for c in order if positives[c]]
    every = [int(c) for c in order]
    confused = confusion.confusions(evaluation.scores, targets) / np.maximum(positives, 1)[:, None]
    together = confusion.co_occurrence(targets) / np.maximum(positives, 1)[:, None]
    np.fill_diagonal(together, np.nan)
    names = list(labels(evaluation.classes).values())
    first = _heatmap(confused, known, every, names, "labelled %{y}<br>taken for %{x}<br>%{z:.1%} of its clips")
    second = _heatmap(together, known, known, names, "of clips labelled %{y}<br>%{z:.1%} are also %{x}")
    return first, second


def _heatmap(shares: np.ndarray, rows: list[int], columns: list[int], names: list[str], hover: str) -> Figure:
    values = [[None if np.isnan(v) else round(float(v), 4) for v in shares[r, columns]] for r in rows]
    side = max(300, min(780, 210 + 42 * len(rows)))
    axis = {"type": "category", "automargin": True, "ticks": "", "showgrid": False, "tickfont": {"size": 11}}
    return {
        "data": [
            {
                "type": "heatmap",
                "x": [names[c] for c in columns],
                "y": [names[r] for r in rows],
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
            "height": side,
            "margin": {"l": 20, "r": 10, "t": 32, "b": 20},
            "plot_bgcolor": "#eeeeee",
            "xaxis": axis | {"tickangle": -90, "constrain": "domain"},
            "yaxis": axis | {"autorange": "reversed"},
        },
        "zoom": True,
    }
