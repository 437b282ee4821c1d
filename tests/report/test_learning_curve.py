"""The section about few-shot runs in report.html: evaluate.py finds the table's curves of the same clips."""

import re
from pathlib import Path

import plotly.graph_objects as go
import pytest

import evaluate
from tests.browser import Browser
from tests.report.helpers import small_evaluation
from tests.tfam.helpers import read_csv
from tests.tfam.test_learning_curve import write_few_shot_run
from tests.tfam.test_table import make_table, noisy_scores, write_annotations_of_finished_runs, write_finished_run
from tests.untrusted_files import exit_code
from vimoclip import report
from vimoclip.report.learning_curve import CurvePoint, LearningCurve, learning_curve_figure

RGB = Path("checkpoints/TFAM/rgb/seed1")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with annotations of the clips of `write_finished_run`."""
    monkeypatch.chdir(tmp_path)
    write_annotations_of_finished_runs()
    return tmp_path


def write_runs() -> None:
    """RGB alone and motion with 1 and 5 clips of each class and all; another protocol."""
    for config, shift in (("rgb", 0), ("motion", 1)):
        for shots in (1, 5, None):
            student = {"student_has_more_labels": config == "motion" and shots is not None}
            scores = noisy_scores(10 * (shots or 0) + shift, 2 / (shots or 10))
            write_few_shot_run(config, 1, shots, scores, **student)
    write_few_shot_run("rgb", 7, 1, noisy_scores(3, 1.0), protocol="three_splits")


def evaluate_run(folder: Path = RGB) -> str:
    evaluate.main([str(folder), "--annotations-dir", "dataset/annotations", "--resamples", "5", "--split", "val"])
    return (folder / "evaluation" / "report.html").read_text()


def table_cells(html: str) -> list[list[str]]:
    """The rows of the section's table, as texts."""
    section = html[html.index('<section id="learning-curves">') :].partition("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section, re.S)
    return [[re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd][^>]*>.*?</t[hd]>", row)] for row in rows]


def test_report_has_the_curves_of_the_table(workspace: Path) -> None:
    write_runs()
    make_table("--resamples", "20")
    html = evaluate_run()
    header, *rows = table_cells(html)
    assert header[2:] == ["1", "5", "all"]
    assert [row[0] for row in rows] == ["rgb", "motion *"]  # of this protocol only
    written = [row for row in read_csv(Path("results/few_shot.csv")) if row["protocol"] == "held_out"]
    expected = [f"{float(row['map_macro']):.3f}" for row in written]
    assert [cell[:5] for cell in rows[0][2:]] == expected and " to " in rows[0][2]
    # also the report of a few-shot run
    assert table_cells(evaluate_run(RGB.with_name("seed1_shots5"))) == [header, *rows]


def test_text_says_what_the_bootstrap_draws(workspace: Path) -> None:
    write_runs()

    def lead() -> str:
        section = evaluate_run().partition('<section id="learning-curves">')[2]
        return section.partition('<p class="lead">')[2].partition("</p>")[0]

    Path("dataset/annotations/sources.csv").write_text(
        "video_id,source\n" + "".join(f"V{n:02}.mp4,{n // 5}\n" for n in range(30))
    )
    make_table("--resamples", "5", "--resample", "sources")
    assert "over sources" in lead() and "over clips" not in lead()
    make_table("--resamples", "5")
    assert "over clips" in lead() and "over sources" not in lead()
    make_table("--resamples", "0")
    assert "interval" not in lead()


def test_curve_whose_few_shot_points_are_of_unknown_clips_is_left_out(workspace: Path) -> None:
    write_runs()
    for folder in Path("checkpoints/TFAM").glob("*/*_shots*"):
        (folder / "predictions.csv").unlink()
    make_table("--resamples", "2")
    assert "learning-curve" not in evaluate_run().partition("<script")[0]


@pytest.mark.parametrize("change", ["no few-shot run", "other clips", "other protocol"])
def test_without_curves_of_these_clips_there_is_no_section(workspace: Path, change: str) -> None:
    if change != "no few-shot run":
        write_few_shot_run("motion", 1, 1, noisy_scores(2, 1.0))
    scores = noisy_scores(1, 1.0)
    if change == "other clips":
        write_finished_run("rgb", 1, scores[:27], range(27), left_out_videos={f"V{n}.mp4": "" for n in (27, 28, 29)})
    else:
        write_finished_run("rgb", 1, scores, protocol="published" if change == "other protocol" else "held_out")
    make_table("--resamples", "2")
    assert "learning-curve" not in evaluate_run().partition("<script")[0]


def test_another_file_of_that_name_is_refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_finished_run("rgb", 1, noisy_scores(1, 1.0))
    for content in ("a,b\n1,2\n", "config,protocol,settings,shots\nrgb,held_out,,x\n"):
        Path("checkpoints/TFAM/few_shot.csv").write_text(content)
        assert exit_code(evaluate.main, str(RGB), "--annotations-dir", "dataset/annotations", "--resamples", "2") == 2
        assert "few_shot.csv" in capsys.readouterr().err


def example_curves() -> list[LearningCurve]:
    points = [
        CurvePoint("1", "6", 0.3, (0.2, 0.4)),
        CurvePoint("25", "90", 0.6, (0.5, 0.7)),
        CurvePoint("all", "", 0.8, None),
    ]
    names = [f"config {number}" for number in range(8)] + ["<b>bold</b> &"]
    return [LearningCurve(name, points, "3", name.endswith("1")) for name in names]


def test_figure_is_valid_and_has_lines_and_bands() -> None:
    figure = learning_curve_figure(example_curves())
    go.Figure(figure["data"], figure["layout"])  # raises ValueError for an unknown property
    band, line = figure["data"][:2]
    assert line["y"] == [0.3, 0.6, 0.8] and line["x"][:2] == [1, 25] and line["x"][2] > 25
    assert (band["x"], band["y"]) == ([1, 25, 25, 1], [0.2, 0.5, 0.7, 0.4])
    assert len({trace["line"]["color"] for trace in figure["data"][1::2]}) == 9


@pytest.mark.parametrize("width", [1280, 360])
def test_curves_are_drawn(browser: Browser, tmp_path: Path, width: int) -> None:
    report.write_report(tmp_path / "report.html", small_evaluation(), curves=example_curves())
    browser.resize(width)
    browser.open(tmp_path / "report.html", "document.documentElement.dataset.drawn")
    plot = "document.querySelector('#learning-curve"
    lines = browser.run("return document.querySelectorAll('#learning-curve .scatterlayer .js-line').length")
    bands = browser.run("return document.querySelectorAll('#learning-curve .scatterlayer .js-fill').length")
    assert lines == 9 and bands == 9
    ticks = browser.run(
        "return [...document.querySelectorAll('#learning-curve .xtick text')].map((e) => e.textContent)"
    )
    assert ticks == ["1", "25", "all"]
    legend = browser.run(f"return {plot} .legend').textContent")
    assert "config 1 *" in legend and "<b>bold</b> &" in legend
    assert browser.wider_than_the_window() == [] and browser.errors() == [] and browser.requests() == []
