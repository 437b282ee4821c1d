"""From an evaluation to the page: what the template shows, and the one HTML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimoclip.io import atomic, html_page
from vimoclip.report import examples, figures, tables
from vimoclip.report.subject import Evaluation

PACKAGE = "vimoclip.report"
PARTITIONS = {
    "segment": "Segments by the data set's authors",
    "segment_by_count": "Segments by number of training labels",
}
SEGMENTS = ("macro over the {known} with a positive, of {classes}", "micro over its {classes} classes")
ANIMALS = ("macro over the {known} with a positive, in {num_videos} clips", "micro over {num_videos} clips")
OPTIONAL = ("notes", "predictions_sha256", "bootstrap", "torchmetrics_macro", "comparison", "command", "versions")
HELD_OUT = "Held out: the epoch was chosen by {how}; the reported clips had no part in it."
PUBLISHED = (
    "The epoch was chosen on the clips that are reported here, as in the paper's code: "
    "the numbers are better than they would be on clips that had no part in the choice."
)
THREE_SPLITS = "Three splits: the epoch was chosen on the val clips; the reported test clips had no part in it."
ZERO_SHOT = "Zero-shot: CLIP alone, by the actions' words. Nothing was learnt, and no epoch chosen."
UNKNOWN = "Not known: these predictions don't say on which clips their epoch was chosen."


def render(evaluation: Evaluation, videos_dir: Path | None, flows_dir: Path | None) -> str:
    """The page. All that comes from users is escaped: by jinja2 in text, by figures in plots."""
    from plotly.offline import get_plotlyjs

    scripts = {"plotly": get_plotlyjs(), "script": html_page.template(PACKAGE, "report.js")}
    content = _content(evaluation, videos_dir, flows_dir)
    return html_page.render(PACKAGE, "report.html", "style.css", scripts, content)


def _content(evaluation: Evaluation, videos_dir: Path | None, flows_dir: Path | None) -> dict[str, Any]:
    metrics = {**dict.fromkeys(OPTIONAL), **evaluation.metrics}
    rows = tables.classes(evaluation.per_class)
    best, worst = examples.choose(evaluation)
    return {
        "title": evaluation.title,
        "metrics": metrics,
        "protocol": _protocol(metrics),
        "published": metrics.get("protocol") == "published",
        "numbers": tables.metrics(metrics),
        "segments": _segments(metrics),
        "animals": tables.groups(metrics.get("animal_classes") or {}, *ANIMALS),
        "comparison": tables.comparison(metrics["comparison"]) if metrics.get("comparison") else None,
        "classes": rows,
        "absent": [row["name"] for row in rows if not row["positives"]],
        "commonest": tables.commonest(evaluation.classes, evaluation.scores, evaluation.targets),
        "shown": tables.shown,
        "interval": tables.interval,
        "lists": [("The best clips", best), ("The worst clips", worst)],
        "without": examples.add_strips(best + worst, videos_dir, flows_dir),
        **_figures(evaluation, [row for row in rows if row["ap"] is not None]),
    }


def _figures(evaluation: Evaluation, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The plots by the id of the element that they are drawn in, and the names of the groups of them."""
    colors = figures.segment_colors(evaluation.partitions)
    bars = {
        f"bars-{i}": figure
        for i, figure in enumerate(figures.per_class(rows, figures.labels(evaluation.classes), colors))
    }
    confused, together = figures.heatmaps(evaluation)
    plots = {**bars, "confusions": confused}
    if (evaluation.targets.sum(axis=1) > 1).any():
        plots["together"] = together
    curves = {}
    for partition in list(evaluation.partitions) or [""]:
        key = f"curves-{partition or 'all'}"
        plots[key] = figures.precision_recall(evaluation, partition, colors)
        curves[key] = PARTITIONS.get(partition, "Over all classes")
    if rows:
        plots["class-curve"] = figures.class_curves(evaluation, rows)
    if bins := (evaluation.metrics.get("calibration") or {}).get("bins"):
        plots["reliability"] = figures.reliability(bins)
    return {
        "colors": colors,
        "plots": plots,
        "bars": list(bars),
        "curves": curves,
        "choices": [row["name"] for row in rows],
    }


def _segments(metrics: Mapping[str, Any]) -> dict[str, list[tables.Row]]:
    return {
        PARTITIONS.get(name, name): tables.groups(found, *SEGMENTS)
        for name, found in (metrics.get("segments") or {}).items()
        if found
    }


def _protocol(metrics: Mapping[str, Any]) -> str:
    if metrics.get("protocol") == "held_out":
        return HELD_OUT.format(how=metrics.get("epoch_chosen_on") or "clips that are not reported")
    return {"published": PUBLISHED, "three_splits": THREE_SPLITS, "zero_shot": ZERO_SHOT}.get(
        metrics.get("protocol") or "", UNKNOWN
    )


if TYPE_CHECKING:
    from vimoclip.report.subject import Evaluation


def write(path: Path, evaluation: "Evaluation", videos_dir: Path | None = None, flows_dir: Path | None = None) -> Path:
    """The report, whole or not at all. From the two folders come pictures of clips, as far as they are there.

    Raises OSError."""

    return atomic.write_text(path, render(evaluation, videos_dir, flows_dir))
