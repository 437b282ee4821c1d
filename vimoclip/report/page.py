"""From an evaluation to the page: what the template shows, and the one HTML file."""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from vimoclip.report import clips, figures, tables
from vimoclip.report.subject import Evaluation

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
UNKNOWN = "Not known: these predictions don't say on which clips their epoch was chosen."


def render(evaluation: Evaluation, videos_dir: Path | None, flows_dir: Path | None) -> str:
    """The page. All that comes from users is escaped: by jinja2 in text, by figures in plots."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    scripts = {"plotly": get_plotlyjs(), "script": _template("report.js")}
    loader = FunctionLoader(_template)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.get_template("report.html")
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts.values())
    return page.render(
        **{name: _inline(text) for name, text in scripts.items()},
        style=_inline(_template("style.css")),
        hashes=hashes,
        **_content(evaluation, videos_dir, flows_dir),
    )


def _content(evaluation: Evaluation, videos_dir: Path | None, flows_dir: Path | None) -> dict[str, Any]:
    metrics = {**dict.fromkeys(OPTIONAL), **evaluation.metrics}
    rows = tables.classes(evaluation.per_class)
    best, worst = clips.choose(evaluation)
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
        "without": clips.add_strips(best + worst, videos_dir, flows_dir),
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
    return PUBLISHED if metrics.get("protocol") == "published" else UNKNOWN


def _template(name: str) -> str:
    return (files("vimoclip.report") / "templates" / name).read_text(encoding="utf-8")


def _inline(text: str) -> Any:
    """A script or style of this project's or plotly's own, to stand in the page as it is."""
    from markupsafe import Markup

    return Markup(text)


def _digest(text: str) -> str:
    """By which the page's policy knows its two scripts: no other one runs, whatever a name holds."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
