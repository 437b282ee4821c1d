"""Few-shot learning curves: average precision of runs against the number of training clips of each class."""

import contextlib
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from TFAM.run_bootstrap import METRICS, RunBootstrap
from TFAM.run_groups import RunGroup, RunMetrics
from vimoclip.annotations.few_shot import ALL_CLIPS, CURVES_FILE, MORE_LABELS
from vimoclip.errors import UserError

COLUMNS = ["config", "protocol", "settings", "shots", "train_videos", "seeds", "num_videos", "clips_sha256"]
COLUMNS += [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
COLUMNS += ["resampled"]
TITLES = {"map_macro": "macro AP", "map_micro": "micro AP"}


class CurveKey(NamedTuple):
    """Key of a learning curve. `protocol`: with the remark about the student; `settings`: without the shots."""

    config: str
    protocol: str
    settings: str


class FewShotPoint(NamedTuple):
    """Mean over the runs of one number of shots (None: all training clips), and its intervals by metric.

    `train_videos`: numbers of training clips, in general one; `intervals`: empty if they could not be computed;
    `resampled`: what their bootstrap draws, "clips" or "sources"."""

    shots: int | None
    train_videos: list[int]
    runs: Sequence[RunMetrics]
    means: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    clips_sha256: str
    resampled: str


Curves = dict[CurveKey, list[FewShotPoint]]


def learning_curves(groups: Mapping[RunGroup, Sequence[RunMetrics]], bootstrap: RunBootstrap) -> Curves:
    """Return the points of each curve, in ascending order of shots, all clips last.

    `groups`: of `run_groups.group_runs`. Configs without a few-shot run have no curve."""
    few_shot: dict[CurveKey, dict[int, Sequence[RunMetrics]]] = {}
    whole: dict[CurveKey, Sequence[RunMetrics]] = {}  # without the remark that only few-shot runs have
    for group, runs in groups.items():
        if shots := runs[0]["settings"].get("data.shots"):
            few_shot.setdefault(_curve(group, runs), {})[shots] = runs
        else:
            whole[_curve(group, runs)] = runs
    curves: Curves = {}
    for curve, runs_by_shots in few_shot.items():
        points: list[tuple[int | None, Sequence[RunMetrics]]] = [*sorted(runs_by_shots.items())]
        if all_clips := whole.get(_without_remark(curve)):
            points.append((None, all_clips))
        curves[curve] = [_make_point(shots, runs, bootstrap) for shots, runs in points]
    return curves


def _curve(group: RunGroup, runs: Sequence[RunMetrics]) -> CurveKey:
    settings = [f"{key}={value}" for key, value in sorted(runs[0]["settings"].items()) if key != "data.shots"]
    if group.inputs:
        settings.append(f"inputs={group.inputs}")
    return CurveKey(group.config, group.protocol_label, " ".join(settings))


def _without_remark(curve: CurveKey) -> CurveKey:
    for suffix in (f", student {MORE_LABELS}", f", {MORE_LABELS}"):
        if curve.protocol.endswith(suffix):
            return curve._replace(protocol=curve.protocol.removesuffix(suffix))
    return curve


def _make_point(shots: int | None, runs: Sequence[RunMetrics], bootstrap: RunBootstrap) -> FewShotPoint:
    intervals, clips_sha256 = {}, ""
    with contextlib.suppress(UserError):  # the table gives the reason beside the row of these runs
        clips_sha256 = bootstrap.clips_sha256(runs[0])
        if bootstrap.resamples:
            intervals = {metric: bootstrap.mean_interval(runs, metric) for metric in METRICS}
    means = {metric: mean(run[metric] for run in runs) for metric in METRICS}
    train_videos = sorted({run["train_num_videos"] for run in runs if "train_num_videos" in run})
    return FewShotPoint(shots, train_videos, runs, means, intervals, clips_sha256, bootstrap.over)


def _shots_label(shots: int | None) -> str:
    return ALL_CLIPS if shots is None else str(shots)


def write_curves(curves: Curves, folders: Sequence[Path]) -> list[Path]:
    """Write few_shot.csv into each folder and return the paths; without curves remove those of before."""
    from vimoclip.io.csv import write_csv

    paths = [folder / CURVES_FILE for folder in folders]
    if not curves:
        for path in paths:
            path.unlink(missing_ok=True)
        return []
    return [write_csv(path, COLUMNS, curve_rows(curves)) for path in paths]


def curve_rows(curves: Curves) -> list[list[str]]:
    """Return rows of few_shot.csv, whose columns are COLUMNS."""
    rows = []
    for curve, points in curves.items():
        for point in points:
            numbers = [
                f"{number:.4f}"
                for metric in METRICS
                for number in (point.means[metric], *point.intervals.get(metric, ()))
            ]
            if not point.intervals:
                numbers = [cell for number in numbers for cell in (number, "", "")]
            videos = " ".join(map(str, sorted({run["num_videos"] for run in point.runs})))
            train_videos = " ".join(map(str, point.train_videos))
            counts = [_shots_label(point.shots), train_videos, str(len(point.runs)), videos, point.clips_sha256]
            rows.append([*curve, *counts, *numbers, point.resampled if point.intervals else ""])
    return rows


def learning_curve_text(curves: Curves, resamples: int, over: str = "clips") -> str:
    """Return the section about few-shot runs in Markdown, with a table for each metric; "" without such runs."""
    if not curves:
        return ""
    shots = sorted({point.shots for points in curves.values() for point in points if point.shots is not None})
    columns: list[int | None] = [
        *shots,
        *([None] if any(points[-1].shots is None for points in curves.values()) else []),
    ]
    header = [*(_column_title(column, curves) for column in columns), "protocol", "settings"]
    text = "## Few-shot: clips of each class\n\n"
    for metric, title in TITLES.items():
        rows = [_markdown_row(curve, points, columns, metric) for curve, points in curves.items()]
        text += markdown_table([f"config, {title}", *header], rows) + "\n"
    interval = f" [95 % interval: bootstrap over {over} and seeds, {resamples} resamples]" if resamples else ""
    return text + (
        f"Mean over the seeds{interval}, by the number of training clips of each class; in brackets the number of "
        "training clips. A class has more clips if they have several labels, and fewer if there are no more. All "
        "configs and seeds are trained on the same clips, so that the intervals do not include how much the numbers "
        "would differ with other training clips. The other splits are whole.\n\n"
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown. Markup and column separators in the cells are escaped: users choose config names."""
    cells = [[html.escape(cell, quote=False).replace("|", "\\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in [header, ["---"] * len(header), *cells])


def _column_title(shots: int | None, curves: Curves) -> str:
    counts = {n for points in curves.values() for point in points if point.shots == shots for n in point.train_videos}
    return _shots_label(shots) + (f" ({' or '.join(map(str, sorted(counts)))})" if counts else "")


def _markdown_row(
    curve: CurveKey, points: Sequence[FewShotPoint], columns: Sequence[int | None], metric: str
) -> list[str]:
    cells = {}
    for point in points:
        interval = point.intervals.get(metric)
        bounds = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
        cells[point.shots] = f"{point.means[metric]:.2f}{bounds}"
    return [curve.config, *(cells.get(column, "") for column in columns), curve.protocol, curve.settings]
