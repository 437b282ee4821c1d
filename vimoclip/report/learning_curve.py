"""Few-shot learning curves in the report: read from the few_shot.csv that TFAM.table writes beside the runs."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vimoclip.annotations.few_shot import ALL_CLIPS, MORE_LABELS
from vimoclip.errors import UserError
from vimoclip.io import csv
from vimoclip.io.palette import distinct_colors
from vimoclip.report.figures import UNIT_AXIS, Figure, escape_label
from vimoclip.training import run_folder

ALL_CLIPS_DISTANCE = 2.0  # of all clips from the most shots, on the logarithmic axis


class CurvePoint(NamedTuple):
    """Macro AP of one number of shots, like "5" or "all". `interval`: None if it could not be computed.

    `resampled`: what the interval's bootstrap draws, clips or sources."""

    shots: str
    train_videos: str
    macro_ap: float
    interval: tuple[float, float] | None
    resampled: str = "clips"


class LearningCurve(NamedTuple):
    """A line of the figure. `seeds`: numbers of runs behind the points; `more_labels`: see MORE_LABELS."""

    name: str
    points: list[CurvePoint]
    seeds: str
    more_labels: bool


def read_learning_curves(path: Path, protocol: str | None, videos: Sequence[str]) -> list[LearningCurve]:
    """Return the curves of runs with this protocol that were evaluated on exactly these videos; [] without a file.

    Raises UserError if the file is not one of TFAM.table."""
    if not path.is_file():
        return []
    hint = "create it again with python -m TFAM.table, or delete it"
    digest = run_folder.digest(sorted(videos))
    curves: dict[tuple[str, str, str], list[CurvePoint]] = {}
    seeds: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    try:
        for _, row in csv.read_table(path, hint)[1]:
            key = row["config"], row["protocol"], row["settings"]
            if row["protocol"].partition(",")[0] == protocol and row["clips_sha256"] == digest:
                curves.setdefault(key, []).append(_read_point(row))
                seeds[key].add(row["seeds"])
    except (KeyError, ValueError):
        raise UserError("is not a table of few-shot runs", hint, path=path) from None
    curves = {key: points for key, points in curves.items() if any(point.shots != ALL_CLIPS for point in points)}
    configs = [config for config, _, _ in curves]
    return [
        LearningCurve(
            key[0] if configs.count(key[0]) == 1 else f"{key[0]} ({key[1]}; {key[2]})",
            points,
            " or ".join(sorted(seeds[key])),
            MORE_LABELS in key[1],
        )
        for key, points in curves.items()
    ]


def _read_point(row: dict[str, str]) -> CurvePoint:
    low, high = row.get("map_macro_low"), row.get("map_macro_high")
    interval = (float(low), float(high)) if low and high else None
    shots = row["shots"] if row["shots"] == ALL_CLIPS else str(int(row["shots"]))
    resampled = row.get("resampled") or "clips"  # files of earlier versions do not have it
    return CurvePoint(shots, row["train_videos"], float(row["map_macro"]), interval, resampled)


def shots_columns(curves: Sequence[LearningCurve]) -> list[str]:
    """Return the numbers of shots of all curves in ascending order, "all" last."""
    shots = {point.shots for curve in curves for point in curve.points}
    return [*sorted(shots - {ALL_CLIPS}, key=int), *({ALL_CLIPS} & shots)]


def resampled_units(curves: Sequence[LearningCurve]) -> str:
    """Return what the bootstrap of the intervals draws, like "clips"; "" without an interval."""
    return " or ".join(sorted({point.resampled for curve in curves for point in curve.points if point.interval}))


def learning_curve_figure(curves: Sequence[LearningCurve]) -> Figure:
    """Return a line per curve over the shots, with its intervals as a band. All clips are beyond the most shots."""
    columns = shots_columns(curves)
    numbers = {text: float(text) for text in columns if text != ALL_CLIPS}
    positions = {**numbers, ALL_CLIPS: ALL_CLIPS_DISTANCE * max(numbers.values())}
    traces: list[dict[str, Any]] = []
    for curve, color, dash in zip(curves, distinct_colors(), itertools.cycle(("solid", "dash", "dot")), strict=False):
        x = [positions[point.shots] for point in curve.points]
        with_interval = [(at, point.interval) for at, point in zip(x, curve.points, strict=True) if point.interval]
        band = [(at, low) for at, (low, _) in with_interval] + [(at, high) for at, (_, high) in reversed(with_interval)]
        traces.append(
            {
                "type": "scatter",
                "mode": "none",
                "x": [at for at, _ in band],
                "y": [value for _, value in band],
                "fill": "toself",
                "fillcolor": _transparent(color),
                "hoverinfo": "skip",
                "legendgroup": curve.name,
                "showlegend": False,
            }
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape_label(curve.name) + (" *" if curve.more_labels else ""),
                "x": x,
                "y": [point.macro_ap for point in curve.points],
                "line": {"color": color, "width": 2, "dash": dash},
                "text": [_hover_text(curve, point) for point in curve.points],
                "hovertemplate": "%{text}<extra></extra>",
                "legendgroup": curve.name,
            }
        )
    return {
        "data": traces,
        "layout": {
            "height": 380 + 22 * -(-len(curves) // 3),
            "hovermode": "closest",
            "margin": {"l": 52, "r": 12, "t": 8, "b": 50},
            "legend": {"orientation": "h", "y": -0.18, "yanchor": "top"},
            "xaxis": {
                "title": {"text": "training clips of each action", "standoff": 6},
                "type": "log",
                "tickvals": [positions[text] for text in columns],
                "ticktext": columns,
                "zeroline": False,
            },
            "yaxis": {"title": {"text": "macro average precision", "standoff": 6}, **UNIT_AXIS},
        },
    }


def _transparent(color: str) -> str:
    """Return a hexadecimal colour as that of a band."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _hover_text(curve: LearningCurve, point: CurvePoint) -> str:
    lines = [f"<b>{escape_label(curve.name)}</b>", f"{point.shots} clips of each action"]
    if point.train_videos:
        lines.append(f"{point.train_videos} training clips")
    lines.append(f"macro average precision {point.macro_ap:.3f}")
    if point.interval:
        lines.append(f"95 % interval {point.interval[0]:.3f} to {point.interval[1]:.3f}")
    return "<br>".join(lines)
