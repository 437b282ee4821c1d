"""Bar chart of the number of clips of each class in each split: class_counts.html."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vimoclip.io import atomic
from vimoclip.report.figures import COLORS, axis_labels, escape_label

PAGE_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ font-family: sans-serif; margin: 1rem auto; max-width: 60rem; padding: 0 1rem }}</style></head>
<body><h1>{title}</h1><div id="counts"></div>
<script>{plotly}</script>
<script>Plotly.newPlot("counts", {data}, {layout}, {{responsive: true, displayModeBar: false}})</script>
</body></html>
"""


def write_class_histogram(path: Path, title: str, classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Path:
    """Write a self-contained page. `counts`: split -> number of clips of each class. Raises OSError."""
    from plotly.offline import get_plotlyjs

    figure = class_histogram_figure(classes, counts)
    data, layout = (json.dumps(figure[key]).replace("</", "<\\/") for key in ("data", "layout"))
    text = PAGE_TEMPLATE.format(title=escape_label(title), plotly=get_plotlyjs(), data=data, layout=layout)
    return atomic.write_text(path, text)


def class_histogram_figure(classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> dict[str, Any]:
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
