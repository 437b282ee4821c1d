"""The report in a browser: plots, the class picker, printing, and escaping of user-provided names."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import evaluate
from tests.browser import Browser
from tests.conftest import CLASSES, write_annotations
from tests.report.helpers import calibrated_evaluation, large_evaluation, render_plots, small_evaluation
from vimoclip import report
from vimoclip.evaluation import Evaluation
from vimoclip.report import figures, page

DRAWN = "document.documentElement.dataset.drawn"
SPECIAL_NAMES = (
    "</script><img src=x onerror=alert(1)>",
    "<b>bold</b> & \"quoted\" 'it'",
    '<a href="https://x.org">%{x}</a>',
)
# plotly ignores a second hover within 50 ms
HOVER = """return new Promise((answer) => setTimeout(() => {
  Plotly.Fx.hover('bars-0', [arguments[0]]);
  answer(document.querySelector('#bars-0 .hoverlayer').textContent);
}, 100))"""


def open_report(browser: Browser, path: Path, evaluation: Evaluation, width: int = 1280) -> None:
    report.write_report(path / "report.html", evaluation)
    browser.resize(width)
    browser.open(path / "report.html", DRAWN)


def has_no_errors_or_requests(browser: Browser) -> bool:
    assert browser.errors() == []
    assert browser.requests() == []
    return True


@pytest.mark.parametrize(
    ("evaluation", "width"),
    [
        (large_evaluation(), 1280),
        (large_evaluation(), 360),
        (small_evaluation(), 360),
        (calibrated_evaluation(), 1280),
        (calibrated_evaluation(), 360),
    ],
)
def test_every_plot_is_drawn_without_network_requests(
    browser: Browser, tmp_path: Path, evaluation: Evaluation, width: int
) -> None:
    open_report(browser, tmp_path, evaluation, width)
    drawn = browser.run(
        "return [...document.querySelectorAll('.plot')].map((e) => [e.id, e.querySelector('.main-svg').clientWidth,"
        " e.clientHeight, e.querySelectorAll('.barlayer path, .scatterlayer path, .heatmaplayer image').length])"
    )
    assert {name for name, *_ in drawn} == set(render_plots(evaluation))
    for name, plot_width, plot_height, shapes in drawn:
        assert width * 0.6 < plot_width <= width and plot_height > 100 and shapes > 0, name
    if evaluation.metrics["calibration"]["raw"]:
        lines = browser.run("return document.querySelectorAll('#reliability .scatterlayer .js-line').length")
        assert lines == 3  # perfect, raw and calibrated
        legend = browser.run("return document.querySelector('#reliability .legend').textContent")
        assert "raw scores" in legend and "calibrated scores" in legend
    assert browser.wider_than_the_window() == []
    assert has_no_errors_or_requests(browser)


def test_evaluate_writes_the_report(browser: Browser, tmp_path: Path) -> None:
    splits = {"train": {f"t{i}.mp4": (i % 3,) for i in range(12)}, "val": {f"v{i}.mp4": (i % 3,) for i in range(9)}}
    write_annotations(tmp_path / "annotations", splits)
    rows = [
        f"v{i}.mp4," + ",".join(f"{0.1 * c + 0.05 * (i % 4) + 0.3 * (c == i % 3):.3f}" for c in range(3))
        for i in range(9)
    ]
    (tmp_path / "scores.csv").write_text("\n".join(["video_id," + ",".join(CLASSES), *rows]))
    arguments = ["--annotations-dir", str(tmp_path / "annotations"), "--output-dir", str(tmp_path / "out")]
    evaluate.main([str(tmp_path / "scores.csv"), *arguments, "--resamples", "20"])
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    browser.resize(360)
    browser.open(tmp_path / "out" / "report.html", DRAWN)
    displayed = browser.run("return document.querySelector('#numbers td strong').textContent")
    assert displayed == f"{result['map_macro']['value']:.4f}"
    names = browser.run("return [...document.querySelectorAll('#mistakes th[scope=row]')].map((e) => e.textContent)")
    assert sorted(names) == sorted(CLASSES)
    assert browser.wider_than_the_window() == []
    assert has_no_errors_or_requests(browser)


def test_the_class_picker_changes_the_curve(browser: Browser, tmp_path: Path) -> None:
    evaluation = small_evaluation()
    open_report(browser, tmp_path, evaluation)
    third = browser.run(
        "const picker = document.getElementById('class-picker'); picker.selectedIndex = 2;"
        "picker.dispatchEvent(new Event('change')); return picker.selectedOptions[0].textContent"
    )
    name = third.split(" (")[0]
    c = evaluation.classes.index(name)
    curve = figures.precision_recall_curve(evaluation.scores[:, c], evaluation.targets[:, c])
    displayed = browser.run("return document.getElementById('class-curve').data[0].x")
    assert displayed[1:] == pytest.approx(curve.recall.round(4))
    assert has_no_errors_or_requests(browser)


def test_user_provided_names_are_escaped(browser: Browser, tmp_path: Path) -> None:
    evaluation = small_evaluation(
        (*SPECIAL_NAMES, "sitting", "jumping"), notes=[SPECIAL_NAMES[0]], predictions=SPECIAL_NAMES[1]
    )
    evaluation = replace(evaluation, videos=[f"{SPECIAL_NAMES[0]}{i}.mp4" for i in range(40)], title=SPECIAL_NAMES[0])
    open_report(browser, tmp_path, evaluation)
    assert browser.run("return document.title") == f"Evaluation of {SPECIAL_NAMES[0]}"
    assert browser.run("return document.querySelectorAll('img').length") == 0
    rows = browser.run("return [...document.querySelectorAll('#mistakes th[scope=row]')].map((e) => e.textContent)")
    assert set(rows) == {*SPECIAL_NAMES, "sitting", "jumping"}
    ticks = browser.run("return [...document.querySelectorAll('#bars-0 .ytick text')].map((e) => e.textContent)")
    assert any(tick.startswith("<b>bold</b> & ") for tick in ticks)
    hover_texts = [browser.run(HOVER, {"curveNumber": 0, "pointNumber": i}) for i in range(len(rows))]
    assert sorted(text.partition("8 clips")[0] for text in hover_texts) == sorted(rows)
    assert browser.run("return document.querySelectorAll('svg a, b, a[href^=http]').length") == 0
    assert has_no_errors_or_requests(browser)


def test_the_content_security_policy_blocks_other_scripts(browser: Browser, tmp_path: Path) -> None:
    html = page.render_report(small_evaluation(), None, None)
    (tmp_path / "report.html").write_text(html.replace("</main>", "<script>window.ran = 1</script></main>"))
    browser.open(tmp_path / "report.html", DRAWN)
    assert any("Content Security Policy" in message for message in browser.errors())
    assert browser.run("return window.ran") is None


def test_printing_hides_the_picker_and_fits_plots_to_the_page(browser: Browser, tmp_path: Path) -> None:
    open_report(browser, tmp_path, large_evaluation())
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        hidden = browser.run("return ['nav', '.picker'].map((s) => document.querySelector(s).offsetParent)")
        assert hidden == [None, None]
        browser.run("window.dispatchEvent(new Event('beforeprint'))")
        sizes = browser.run(
            "return [...document.querySelectorAll('.plot')].filter((e) => e.offsetParent)"
            ".map((e) => [e.querySelector('.main-svg').clientWidth, e.clientHeight])"
        )
        assert sizes and all(width == 680 and height < 1000 for width, height in sizes)
        browser.run("window.dispatchEvent(new Event('afterprint'))")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert has_no_errors_or_requests(browser)


def test_the_browser_helper_detects_errors_requests_and_overflow(tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "page.html").write_text(
        '<img src="gone.png"><div id="w" style="width:900px">x</div><script>f()</script>'
    )
    browser.resize(360)
    browser.open(tmp_path / "page.html")
    assert any("f is not defined" in message for message in browser.errors())
    assert browser.requests() == [(tmp_path / "gone.png").as_uri()]
    assert "DIV#w." in browser.wider_than_the_window()
