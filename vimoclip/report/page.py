"""Rendering of an evaluation as report.html, and of class counts as class_counts.html."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip.annotations.split_protocol import PROTOCOL_NOTES, PUBLISHED, UNKNOWN_PROTOCOL_NOTE
from vimoclip.io import atomic, html_page
from vimoclip.report import examples, figures, tables

if TYPE_CHECKING:
    from vimoclip.evaluation import Evaluation

PACKAGE = "vimoclip.report"
PARTITION_TITLES = {
    "segment": "Segments of the data set's authors",
    "segment_by_count": "Segments by number of training labels",
}
SEGMENT_SCOPES = (
    "macro over {classes_with_positives} with a positive, of {classes}",
    "micro over {classes} classes",
)
ANIMAL_SCOPES = (
    "macro over {classes_with_positives} with a positive, in {num_videos} clips",
    "micro over {num_videos} clips",
)


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
    path: Path, evaluation: "Evaluation", videos_dir: Path | None = None, flows_dir: Path | None = None
) -> Path:
    """Write the report atomically, with filmstrips of the videos that the folders contain. Raises OSError."""
    return atomic.write_text(path, render_report(evaluation, videos_dir, flows_dir))


def render_report(evaluation: "Evaluation", videos_dir: Path | None, flows_dir: Path | None) -> str:
    """Return the page. User-provided text is escaped: by jinja2 in HTML, by figures.escape_label in plots."""
    from plotly.offline import get_plotlyjs

    scripts = {"plotly": get_plotlyjs(), "script": html_page.read_template(PACKAGE, "report.js")}
    context = _template_context(evaluation, videos_dir, flows_dir)
    return html_page.render_page(PACKAGE, "report.html", "style.css", scripts, context)


def _template_context(evaluation: "Evaluation", videos_dir: Path | None, flows_dir: Path | None) -> dict[str, Any]:
    metrics = evaluation.metrics
    rows = tables.class_rows(evaluation.per_class)
    best, worst = examples.choose_examples(evaluation)
    return {
        "title": evaluation.title,
        "metrics": metrics,
        "protocol": PROTOCOL_NOTES.get(metrics["protocol"], UNKNOWN_PROTOCOL_NOTE),
        "published": metrics["protocol"] == PUBLISHED,
        "numbers": tables.metric_rows(metrics),
        "segments": _segment_rows(metrics),
        "animals": tables.group_rows(metrics["animal_classes"], *ANIMAL_SCOPES),
        "comparison": tables.comparison_table(metrics["comparison"]) if metrics["comparison"] else None,
        "classes": rows,
        "classes_without_positives": [row["name"] for row in rows if not row["positives"]],
        "confused_with": tables.confused_with(evaluation.classes, evaluation.scores, evaluation.targets),
        "format_number": tables.format_number,
        "format_interval": tables.format_interval,
        "example_lists": [("Best clips", best), ("Worst clips", worst)],
        "filmstrip_notes": examples.add_filmstrips(best + worst, videos_dir, flows_dir),
        **_plot_context(evaluation, [row for row in rows if row["ap"] is not None]),
    }


def _plot_context(evaluation: "Evaluation", rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return `colors`, `plots` (element id -> figure), ids of `bars` and `curves`. `rows`: the classes with an AP."""
    colors = figures.segment_colors(evaluation.partitions)
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
    plots["reliability"] = figures.reliability_figure(evaluation.metrics["calibration"]["bins"])
    return {"colors": colors, "plots": plots, "bars": bars, "curves": curves}


def _segment_rows(metrics: Mapping[str, Any]) -> dict[str, list[tables.MetricRow]]:
    return {
        PARTITION_TITLES.get(name, name): tables.group_rows(entries, *SEGMENT_SCOPES)
        for name, entries in metrics["segments"].items()
    }


def write_class_histogram(path: Path, title: str, classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Path:
    """Write a self-contained page. `counts`: split -> number of clips of each class. Raises OSError."""
    from plotly.offline import get_plotlyjs

    figure = figures.class_histogram_figure(classes, counts)
    data, layout = (json.dumps(figure[key]).replace("</", "<\\/") for key in ("data", "layout"))
    text = HISTOGRAM_PAGE.format(title=figures.escape_label(title), plotly=get_plotlyjs(), data=data, layout=layout)
    return atomic.write_text(path, text)
