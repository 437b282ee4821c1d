"""Rendering of an evaluation as report.html, and of class counts as class_counts.html."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip.annotations import SEGMENTS
from vimoclip.annotations.split_protocol import PROTOCOL_NOTES, PUBLISHED, UNKNOWN_PROTOCOL_NOTE
from vimoclip.io import atomic, html_page
from vimoclip.io.palette import COLORS
from vimoclip.metrics import METRIC_NAMES, format_fraction
from vimoclip.metrics.score_calibration import MIN_POSITIVES
from vimoclip.report import examples, figures, learning_curve
from vimoclip.report.learning_curve import LearningCurve

if TYPE_CHECKING:
    from vimoclip.evaluation import Evaluation

MetricEntry = Mapping[str, Any]  # of metrics.json
TableRow = tuple[str, str, MetricEntry]  # name; what the metric is computed over; entry
PACKAGE = "vimoclip.report"
PARTITION_TITLES = {
    "segment": "Segments of the data set's authors",
    "segment_by_count": "Segments by number of training labels",
}
MISSING = "–"
HISTOGRAM_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ font-family: sans-serif; margin: 1rem auto; max-width: 60rem; padding: 0 1rem }}</style></head>
<body><h1>{title}</h1><div id="counts"></div>
<script>{plotly}</script>
<script>Plotly.newPlot("counts", {data}, {layout}, {{responsive: true, displayModeBar: false}})</script>
</body></html>
"""


def write_report(
    path: Path,
    evaluation: "Evaluation",
    videos_dir: Path | None = None,
    flows_dir: Path | None = None,
    curves: Sequence[LearningCurve] = (),
) -> Path:
    """Write the report atomically, with filmstrips of the videos that the folders contain. Raises OSError.

    `curves`: few-shot learning curves of the run and of others on the same clips."""
    return atomic.write_text(path, render_report(evaluation, videos_dir, flows_dir, curves))


def render_report(
    evaluation: "Evaluation", videos_dir: Path | None, flows_dir: Path | None, curves: Sequence[LearningCurve] = ()
) -> str:
    """Return the page. User-provided text is escaped: by jinja2 in HTML, by figures.escape_label in plots."""
    from plotly.offline import get_plotlyjs

    scripts = {"plotly": get_plotlyjs(), "script": html_page.read_template(PACKAGE, "report.js")}
    context = _template_context(evaluation, videos_dir, flows_dir)
    context["shots"] = columns = learning_curve.shots_columns(curves)
    context["learning_curves"] = _learning_curve_rows(curves, columns)
    context["resampled"] = learning_curve.resampled_units(curves)
    context["more_labels"] = any(curve.more_labels for curve in curves)
    if curves:
        context["plots"]["learning-curve"] = learning_curve.learning_curve_figure(curves)
    style = html_page.read_template(PACKAGE, "style.css")
    return html_page.render_page(PACKAGE, "report.html", style, scripts, context)


def _template_context(evaluation: "Evaluation", videos_dir: Path | None, flows_dir: Path | None) -> dict[str, Any]:
    metrics = evaluation.metrics
    rows = _class_rows(evaluation.per_class)
    best, worst = examples.choose_examples(evaluation)
    return {
        "title": evaluation.title,
        "metrics": metrics,
        "protocol": PROTOCOL_NOTES.get(metrics["protocol"], UNKNOWN_PROTOCOL_NOTE),
        "published": metrics["protocol"] == PUBLISHED,
        "metric_names": METRIC_NAMES,
        "numbers": _metric_rows(metrics),
        "segments": {
            PARTITION_TITLES[name]: _group_rows(segments, "{classes:,} classes")
            for name, segments in metrics["segments"].items()
        },
        "animals": _group_rows(metrics["animal_classes"], "{num_videos:,} clips"),
        "classes": rows,
        "calibration_numbers": _calibration_rows(metrics["calibration"]),
        "calibrated_classes": _class_calibrations(evaluation),
        "few_positives": MIN_POSITIVES,
        "classes_without_positives": [row["name"] for row in rows if not row["positives"]],
        "confused_with": figures.confused_with(evaluation.classes, evaluation.scores, evaluation.targets),
        "format_number": format_number,
        "format_interval": format_interval,
        "example_lists": [("Best clips", best), ("Worst clips", worst)],
        "filmstrip_notes": examples.add_filmstrips(best + worst, videos_dir, flows_dir),
        **_plot_context(evaluation, [row for row in rows if row["ap"] is not None]),
    }


def _plot_context(evaluation: "Evaluation", rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return `colors`, `plots` (element id -> figure), ids of `bars` and `curves`. `rows`: the classes with an AP."""
    colors = dict(zip(SEGMENTS, COLORS, strict=False)) if evaluation.partitions else {}
    labels = figures.axis_labels(evaluation.classes)
    plots = {f"bars-{i}": figure for i, figure in enumerate(figures.per_class_bars(rows, labels, colors))}
    bars = list(plots)
    plots["confusions"], co_occurrence = figures.heatmap_figures(evaluation)
    if (evaluation.targets.sum(axis=1) > 1).any():
        plots["co-occurrence"] = co_occurrence
    curves = {}
    for partition in list(evaluation.partitions) or [""]:
        plot_id = f"curves-{partition or 'all'}"
        plots[plot_id] = figures.precision_recall_figure(evaluation, partition, colors)
        curves[plot_id] = PARTITION_TITLES.get(partition, "All classes")
    if rows:
        plots["class-curve"] = figures.class_curves_figure(evaluation, rows)
    calibration = evaluation.metrics["calibration"]
    raw_bins = calibration["raw"]["bins"] if calibration["raw"] else None
    plots["reliability"] = figures.reliability_figure(calibration["bins"], raw_bins)
    return {"colors": colors, "plots": plots, "bars": bars, "curves": curves}


def format_number(value: float | None, digits: int = 4, sign: str = "") -> str:
    if value is None:
        return MISSING
    return f"{value:{sign}.{digits}f}" if sign else format_fraction(value, digits)


def format_interval(bounds: Sequence[float | None] | None, digits: int = 4, sign: str = "") -> str:
    if bounds is None or bounds[0] is None:
        return MISSING
    return " to ".join(format_number(bound, digits, sign) for bound in bounds)


def _count_classes(entry: MetricEntry) -> str:
    count = entry.get("classes", 0)
    return f"{count:,} {'class' if count == 1 else 'classes'}"


def _metric_rows(metrics: Mapping[str, Any]) -> list[TableRow]:
    """Return one row for each metric of metrics.json that is not null."""
    entries = {**metrics, **metrics["calibration"]}
    return [
        (label, description.format(classes=_count_classes(entries[key])), entries[key])
        for key, (label, description) in METRIC_NAMES.items()
        if entries[key]
    ]


def _calibration_rows(calibration: Mapping[str, Any]) -> list[TableRow]:
    """Return rows of the expected calibration error and the log loss, with those before calibration if there is one."""
    raw = calibration["raw"]
    stages = (("before calibration", raw), ("after calibration", calibration)) if raw else (("", calibration),)
    return [
        (METRIC_NAMES[key].label, stage or METRIC_NAMES[key].description, entries[key])
        for key in ("ece", "log_loss")
        for stage, entries in stages
    ]


def _class_calibrations(evaluation: "Evaluation") -> list[dict[str, Any]]:
    """Return the rows of per_class.csv with mean scores, the class with the highest ECE first."""
    means = (scores.mean(0).tolist() for scores in (evaluation.scores, evaluation.raw_scores))
    rows = [
        {**row, "mean_score": mean, "mean_score_raw": raw_mean}
        for row, mean, raw_mean in zip(evaluation.per_class, *means, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["ece"])


def _learning_curve_rows(
    curves: Sequence[LearningCurve], columns: Sequence[str]
) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return (name, seeds, a value and its interval for each column) of each curve."""
    rows = []
    for curve in curves:
        cells = {
            point.shots: (format_number(point.macro_ap, 3), format_interval(point.interval, 3))
            for point in curve.points
        }
        name = f"{curve.name} *" if curve.more_labels else curve.name
        rows.append((name, curve.seeds, [cells.get(column, (MISSING, "")) for column in columns]))
    return rows


def _group_rows(groups: Mapping[str, Mapping[str, Any]], size: str) -> list[TableRow]:
    """Return rows of macro and micro AP of each segment or class of animals. `size`: a format string."""
    rows: list[TableRow] = []
    for name, group in groups.items():
        over, macro = size.format(**group), group["map_macro"]
        rows.append((name, f"macro over {over}, {_count_classes(macro)} with a positive", macro))
        rows.append((name, f"micro over {over}", group["map_micro"]))
    return rows


def _class_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of per_class.csv with `name` and `segment`, in descending order of AP, without an AP last."""
    named = [{**row, "name": row["class"], "segment": row["segment"] or row["segment_by_count"] or ""} for row in rows]
    return sorted(named, key=lambda row: (row["ap"] is None, -(row["ap"] or 0), -row["positives"]))


def write_class_histogram(path: Path, title: str, classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Path:
    """Write a self-contained page. `counts`: split -> number of clips of each class. Raises OSError."""
    from plotly.offline import get_plotlyjs

    figure = figures.class_histogram_figure(classes, counts)
    data, layout = (json.dumps(figure[key]).replace("</", "<\\/") for key in ("data", "layout"))
    text = HISTOGRAM_PAGE.format(title=figures.escape_label(title), plotly=get_plotlyjs(), data=data, layout=layout)
    return atomic.write_text(path, text)
