"""The HTML of report.html: plots, tables, filmstrips and texts."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from tests.conftest import indexed_frames, read_index, write_video
from tests.report.helpers import (
    calibrated_evaluation,
    large_evaluation,
    read_filmstrips,
    render_plots,
    small_evaluation,
)
from vimoclip import report
from vimoclip.annotations.split_protocol import PROTOCOL_NOTES, UNKNOWN_PROTOCOL_NOTE
from vimoclip.evaluation import Evaluation
from vimoclip.metrics import METRIC_NAMES
from vimoclip.report import examples, figures, page
from vimoclip.video import filmstrip


@pytest.mark.parametrize(
    "evaluation",
    [large_evaluation(), small_evaluation(), calibrated_evaluation()],
    ids=["60 classes", "5 classes", "calibrated"],
)
def test_figures_are_valid_plotly_figures(evaluation: Evaluation) -> None:
    for figure in render_plots(evaluation).values():
        go.Figure(figure["data"], figure["layout"])  # raises ValueError for an unknown property


def test_bars_are_sorted_and_labelled_with_counts_and_segments() -> None:
    evaluation = large_evaluation()
    plots = render_plots(evaluation)
    bar_charts = [figure for name, figure in plots.items() if name.startswith("bars-")]
    order = [tick for figure in bar_charts for tick in figure["layout"]["yaxis"]["categoryarray"]]
    bars = [figure["data"][0] for figure in bar_charts]
    heights = {y: x for trace in bars for y, x in zip(trace["y"], trace["x"], strict=True)}
    assert len(order) == len(heights) == 47
    assert [heights[tick] for tick in order] == sorted(heights.values(), reverse=True)
    assert all(len(figure["layout"]["yaxis"]["categoryarray"]) <= figures.BARS_PER_PLOT for figure in bar_charts)
    colors = {y: c for trace in bars for y, c in zip(trace["y"], trace["marker"]["color"], strict=True)}
    segments = evaluation.partitions["segment"]
    colors_of_segments = {(segments[int(tick.split()[1])], color) for tick, color in colors.items()}
    assert len(colors_of_segments) == len(set(colors.values())) == len(set(segments))
    assert any(tick.startswith("class 1 ·") and tick.endswith(f" {evaluation.targets[:, 1].sum()}") for tick in order)


def test_co_occurrence_is_a_fraction_of_the_clips_of_the_row() -> None:
    evaluation = large_evaluation()
    heatmap = render_plots(evaluation)["co-occurrence"]["data"][0]
    row, column = heatmap["y"].index("class 1"), heatmap["x"].index("class 2")
    first, second = evaluation.targets[:, 1], evaluation.targets[:, 2]
    assert heatmap["z"][row][column] == pytest.approx((first & second).sum() / first.sum(), abs=1e-4)
    assert heatmap["z"][row][row] is None


def test_axis_labels_of_long_names_with_a_common_prefix_differ() -> None:
    names = ["a" * 40, "a" * 50, "b"]
    labels = figures.axis_labels(names)
    assert len(set(labels.values())) == 3 and labels["b"] == "b"
    assert all(len(label) < 35 for label in labels.values())


def test_filmstrips_show_frames_and_flow(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    best, worst = examples.choose_examples(evaluation)
    for seed, clip in enumerate(best + worst):
        write_video(tmp_path / "videos" / clip.video, indexed_frames(16, seed=seed))
        write_video(tmp_path / "flows" / clip.video, indexed_frames(15, seed=seed))
    written = report.write_report(tmp_path / "report.html", evaluation, tmp_path / "videos", tmp_path / "flows")
    strips = read_filmstrips(written.read_text(encoding="utf-8"))
    assert len(strips) == 2 * 2 * examples.CLIPS_PER_LIST  # frames and flow, of the best and the worst
    for text, strip in strips:
        frames = np.array_split(np.asarray(strip), examples.STRIP_FRAMES, axis=1)
        last = 14 if "flow" in text else 15
        assert [read_index(frame) for frame in frames] == np.linspace(0, last, 6).astype(int).tolist(), text


def test_missing_filmstrips_have_a_reason(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    (tmp_path / "videos").mkdir()
    for name in evaluation.videos:
        (tmp_path / "videos" / name).write_bytes(b"no video")
        for checkpoint in ("things", "sintel"):
            write_video(tmp_path / "flows" / f"{name[:-4]}_raft_{checkpoint}.mp4", indexed_frames(2))
    best, worst = examples.choose_examples(evaluation)
    assert examples.add_filmstrips(best + worst, tmp_path / "videos", tmp_path / "flows") == []
    assert all(len(clip.missing) == 2 and clip.video in clip.missing[0] and not clip.strips for clip in best + worst)
    unreadable = {reason for clip in worst for reason in clip.missing}
    evaluation = replace(evaluation, videos=[f"../{name}" for name in evaluation.videos])
    clips, _ = examples.choose_examples(evaluation)
    examples.add_filmstrips(clips, tmp_path / "videos", tmp_path / "flows")
    assert all(len(clip.missing) == 2 and not unreadable & set(clip.missing) for clip in clips)
    notes = examples.add_filmstrips(clips, None, None)
    html = page.render_report(evaluation, None, None)
    assert len(notes) == 2 and all(note in html for note in notes) and not read_filmstrips(html)


@pytest.mark.parametrize("protocol", ["held_out", "published", None])
def test_the_header_states_the_protocol_and_warns_of_the_published_one(protocol: str | None) -> None:
    html = page.render_report(small_evaluation(protocol=protocol), None, None)
    header = html[: html.index("<nav")]
    assert PROTOCOL_NOTES.get(str(protocol), UNKNOWN_PROTOCOL_NOTE) in unescape(header)
    assert ('class="warning"' in header) == (protocol == "published")


def text_of(html: str) -> str:
    return " ".join(re.sub("<[^>]+>", " ", html[: html.index('<script type="application/json"')]).split())


def test_metrics_are_listed_with_intervals_and_baselines() -> None:
    evaluation = small_evaluation(notes=["Two classes have one clip."])
    metrics = evaluation.metrics
    text = text_of(page.render_report(evaluation, None, None))
    assert "Two classes have one clip." in text

    def cells(entry: dict[str, Any]) -> str:
        low, high = entry["ci95"]
        return f"{entry['value']:.4f} {low:.4f} to {high:.4f} {entry['baseline']:.4f} {entry['random']:.4f}"

    for name in ("map_macro", "map_micro", "hit_at_1"):
        assert re.search(rf"{re.escape(METRIC_NAMES[name].label)} [^.]*{cells(metrics[name])}", text), name
    assert cells(metrics["calibration"]["ece"]) in text
    assert METRIC_NAMES["f1_macro_at_fitted_thresholds"].label not in text  # it is null
    groups = metrics["segments"]["segment"] | metrics["animal_classes"]
    for row in ("head", "tail", "Mammal"):
        for name in ("map_macro", "map_micro"):
            assert re.search(rf"{row} [^.]*{cells(groups[row][name])}", text), row
    assert " 20 bootstrap" in text and f"{metrics['torchmetrics_macro']['value']:.4f}" in text


def test_render_filmstrip_limits_the_frame_width(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", indexed_frames(9, 16, 256))
    sheet = np.asarray(filmstrip.render_filmstrip(path, 3, 16, 2, gap_color="red"))
    assert sheet.shape == (16, 3 * 256 + 2 * 2, 3)
    assert [read_index(sheet[:, x : x + 256]) for x in (0, 258, 516)] == [0, 4, 8]
    assert (sheet[:, 256:258] == (255, 0, 0)).all()
    assert filmstrip.render_filmstrip(path, 3, 16, 2, max_width=48).size == (3 * 48 + 2 * 2, 16)


def test_a_comparison_lists_gains_and_losses() -> None:
    gained = {"class": "eating", "positives": 7, "ap": 0.5, "other_ap": 0.25, "difference": 0.25, "ci95": [0.2, 0.3]}
    lost = gained | {"class": "running", "difference": -0.125, "ci95": [None, None]}
    total = {"difference": 0.0126, "ci95": [-0.001, 0.02]}
    comparison: dict[str, Any] = {"other": "rgb.csv", "map_macro": total, "map_micro": total}
    comparison |= {"num_videos": 1234, "classes": 17}
    comparison |= {"gained": [gained], "lost": [lost]}
    html = page.render_report(small_evaluation(comparison=comparison), None, None)
    text = text_of(html)
    assert "1,234" in text and "17" in text and "rgb.csv" in text
    assert "+0.0126 -0.0010 to +0.0200" in text
    assert "eating 7 0.500 0.250 +0.250 +0.200 to +0.300" in text and "running 7 0.500 0.250 -0.125 –" in text
    assert 'id="comparison"' in html and 'id="comparison"' not in page.render_report(small_evaluation(), None, None)


def test_the_reliability_plot_has_a_curve_of_raw_and_of_calibrated_scores() -> None:
    evaluation = calibrated_evaluation()
    calibration = evaluation.metrics["calibration"]
    curves = {curve["name"]: curve for curve in render_plots(evaluation)["reliability"]["data"] if "text" in curve}
    for name, bins in (("raw scores", calibration["raw"]["bins"]), ("calibrated scores", calibration["bins"])):
        filled = [b for b in bins if b["count"]]
        assert curves[name]["x"] == [b["mean_score"] for b in filled]
        assert curves[name]["y"] == [b["share_positive"] for b in filled]
    raw, calibrated = (np.abs(np.subtract(curves[n]["x"], curves[n]["y"])).max() for n in curves)
    assert len(curves) == 2 and calibrated < raw
    assert sum("text" in curve for curve in render_plots(small_evaluation())["reliability"]["data"]) == 1


def read_calibration_table(html: str) -> list[list[str]]:
    """Cells of the rows of the table of calibration per class."""
    section = html[html.index('<section id="calibration">') : html.index('<section id="mistakes">')]
    table = section[section.index("Calibration of each class, ") :]
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", table, re.S)
    return [[" ".join(cell.split()) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)] for row in rows]


def test_calibration_is_listed_before_and_after_for_each_class() -> None:
    evaluation = calibrated_evaluation()
    calibration = evaluation.metrics["calibration"]
    html = page.render_report(evaluation, None, None)
    text = text_of(html)
    for stage, entries in (("before", calibration["raw"]), ("after", calibration)):
        for metric in ("ece", "log_loss"):
            low, high = entries[metric]["ci95"]
            numbers = f"{entries[metric]['value']:.4f} {low:.4f} to {high:.4f}"
            assert f"{METRIC_NAMES[metric].label} {stage} calibration {numbers}" in text
    rows = read_calibration_table(html)
    by_class = {row["class"]: row for row in evaluation.per_class}
    errors = [by_class[cells[0]]["ece"] for cells in rows]
    assert errors == sorted(errors, reverse=True) and len(rows) == 5
    for name, *cells in rows:
        row, c = by_class[name], evaluation.classes.index(name)
        values = [row[key] for key in ("ece_raw", "ece", "log_loss_raw", "log_loss")]
        values += [evaluation.raw_scores[:, c].mean(), evaluation.scores[:, c].mean(), evaluation.targets[:, c].mean()]
        mark = " *" if c < 2 else ""  # fewer than 10 positives
        assert cells[1:] == [*(f"{value:.3f}" for value in values), row["scaling"], f"{8 + c}{mark}"]
    assert all(len(cells) == 6 for cells in read_calibration_table(page.render_report(small_evaluation(), None, None)))
