"""report.html: its arithmetic by hand and against scikit-learn, and the page as a browser shows it."""

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.metrics import average_precision_score, confusion_matrix

import evaluate
from tests.browser import Browser, chromium
from tests.conftest import CLASSES, indexed_frames, read_index, write_annotations, write_video
from vimoclip import report
from vimoclip.report import confusion, examples, figures, page, pr_curves, tables
from vimoclip.video import filmstrip

DRAWN = "document.documentElement.dataset.drawn"
NASTY = ("</script><img src=x onerror=alert(1)>", "<b>bold</b> & \"quoted\" 'it'", '<a href="https://x.org">%{x}</a>')
# plotly hears of no second hovering within 50 ms
HOVER = """return new Promise((answer) => setTimeout(() => {
  Plotly.Fx.hover('bars-0', [arguments[0]]);
  answer(document.querySelector('#bars-0 .hoverlayer').textContent);
}, 100))"""
quick = settings(max_examples=100, deadline=None)


# ---- what is predicted in the stead of what


def test_confusions_of_clips_with_several_labels_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.1, 0.0], [0.9, 0.1, 0.8, 0.0], [0.2, 0.3, 0.4, 0.1], [0.0, 0.0, 0.0, 1.0]])
    targets = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    expected = np.zeros((4, 4), int)
    expected[0] = [2, 0, 1, 0]  # found in the first two; the third is taken for class 2
    expected[1] = [0, 1, 1, 0]  # the second clip is taken for 0, which is right, and for 2 in the stead of 1
    assert np.array_equal(confusion.confusions(scores, targets), expected)
    assert np.array_equal(confusion.co_occurrence(targets)[:2, :2], [[3, 2], [2, 2]])


@pytest.mark.filterwarnings("ignore:A single label")
@quick
@given(st.data())
def test_with_one_label_a_clip_it_is_the_confusion_matrix(data: st.DataObject) -> None:
    count, classes = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 6))
    labels = data.draw(arrays(int, count, elements=st.integers(0, classes - 1)))
    scores = data.draw(arrays(float, (count, classes), elements=st.floats(0, 1)))
    found = confusion.confusions(scores, np.eye(classes, dtype=bool)[labels])
    assert np.array_equal(found, confusion_matrix(labels, scores.argmax(axis=1), labels=range(classes)))


tied = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])  # few values, so that many are equal


@quick
@given(arrays(float, (6, 5), elements=tied), arrays(bool, (6, 5)))
def test_a_clips_precision_is_scikit_learns(scores: np.ndarray, targets: np.ndarray) -> None:
    for found, row, labels in zip(confusion.clip_precision(scores, targets), scores, targets, strict=True):
        assert np.isnan(found) if not labels.any() else found == pytest.approx(average_precision_score(labels, row))


@quick
@given(arrays(float, 30, elements=tied), arrays(bool, 30))
def test_the_area_under_a_curve_is_average_precision(scores: np.ndarray, targets: np.ndarray) -> None:
    curve = pr_curves.precision_recall(scores, targets)
    if targets.any():
        assert (np.diff(curve.recall, prepend=0) > 0).all() and curve.recall[-1] == 1
        area = (np.diff(curve.recall, prepend=0) * curve.precision).sum()
        assert area == pytest.approx(average_precision_score(targets, scores))
    else:
        assert not len(curve.recall)


def test_micro_pools_and_macro_averages() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.3], [0.2, 0.2]])
    targets = np.array([[1, 0], [0, 0], [0, 1]], bool)
    micro, macro = pr_curves.micro(scores, targets), pr_curves.macro(scores, targets)
    # pooled: 0.9 right, 0.8 wrong, 0.3 wrong, then two scores of 0.2 of which one is right
    assert micro.recall == pytest.approx([0.5, 1]) and micro.precision == pytest.approx([1, 2 / 5])
    assert macro.precision == pytest.approx(np.full(101, (1 + 1 / 2) / 2))  # 1 for the first class, 1/2 for the other


def test_a_long_curve_is_thinned_at_even_recalls() -> None:
    curve = pr_curves.Curve(np.linspace(0.001, 1, 1000), np.linspace(1, 0.5, 1000))
    thin = pr_curves.thinned(curve)
    assert len(thin.recall) == 101
    assert thin.recall[50] == 0.5 and thin.precision[50] == pytest.approx(curve.precision[499])
    assert pr_curves.thinned(thin) is thin


def test_best_and_worst_clips_vary_and_never_meet() -> None:
    targets = np.eye(3, dtype=bool)[[0, 0, 0, 1, 2, 2]]
    right = np.where(targets, 0.9, 0.1)
    right[1] = [0.99, 0.01, 0.01]  # the surest of three clips of class 0, all with a precision of 1
    right[2] = [0.98, 0.02, 0.02]
    right[3] = [0.05, 0.95, 0.05]
    right[5] = [0.9, 0.5, 0.1]  # the only wrong one
    best, worst = confusion.best_and_worst(right, targets, 2)
    assert best == [1, 3] and worst == [5]
    best, worst = confusion.best_and_worst(right, targets, 100)
    assert best == [1, 3, 2] and worst == [5]  # no other one is wrong
    targets[4] = False  # a clip without labels has no precision
    best, worst = confusion.best_and_worst(right, targets, 100)
    assert 4 not in best + worst


# ---- what the page is made of


@dataclass
class Evaluation:
    title: str
    metrics: dict[str, Any]
    per_class: list[dict[str, Any]]
    classes: list[str]
    videos: list[str]
    scores: np.ndarray
    targets: np.ndarray
    partitions: Mapping[str, list[str]]


def make(targets: np.ndarray, scores: np.ndarray, names: list[str], **changed: Any) -> Evaluation:
    """An evaluation as evaluate.py has it, with all that may be there; `changed`: other values of metrics.json."""
    count, size = targets.shape
    known = np.asarray(targets.any(axis=0))
    segments = ["head" if c < size / 8 else "middle" if c < size / 3 else "tail" for c in range(size)]

    def entry(value: float | None, **more: Any) -> dict[str, Any]:
        return {"value": value, "ci95": [0.1, 0.9], "baseline": 0.25, "random": None, **more}

    def rated(c: int) -> dict[str, Any]:
        ap = average_precision_score(targets[:, c], scores[:, c]) if known[c] else None
        low, high = (max(0, ap - 0.1), min(1, ap + 0.1)) if ap is not None and c % 7 else (None, None)
        row = {"class": names[c], "id": c, "segment": segments[c], "segment_by_count": "tail"}
        share = targets[:, c].mean() if known[c] else None
        return (
            row
            | {"positives": int(targets[:, c].sum()), "ap": ap, "ap_low": low, "ap_high": high}
            | {
                "ap_baseline": share,
                "ap_random": share,
            }
        )

    both = {"map_macro": entry(0.5, classes=3), "map_micro": entry(0.625)}
    metrics = {
        "predictions": "predictions.csv",
        "predictions_sha256": "0123456789abcdef" * 4,
        "protocol": "held_out",
        "epoch_chosen_on": "selection clips of the training split",
        "split": "val",
        "num_videos": count,
        "num_classes": size,
        "classes_with_a_positive": int(known.sum()),
        "map_macro": entry(0.1234567, classes=int(known.sum())),
        "map_micro": entry(0.7709),
        "top1": None,
        "torchmetrics_macro": {"value": 0.4, "note": "what counts absent classes as 0"},
        "segments": {"segment": {"head": {"classes": 4, **both}}, "segment_by_count": {"tail": {"classes": 5, **both}}},
        "animal_classes": {"Mammal": {"num_videos": 7, **both}},
        "hit_at_1": entry(0.75),
        "f1_macro_at_fitted_thresholds": None,
        "calibration": {"ece": entry(0.0125), "bins": bins(scores, targets)},
        "bootstrap": {"resamples": 1000, "seed": 0, "level": 0.95, "over": "clips"},
        "comparison": None,
        "notes": [],
        "versions": {"vimoclip": "0.1.0"},
        "command": "evaluate.py run",
        **changed,
    }
    return Evaluation(
        metrics=metrics,
        per_class=[rated(c) for c in range(size)],
        classes=names,
        scores=scores,
        videos=[f"v{i}.mp4" for i in range(count)],
        targets=targets,
        title="a run",
        partitions={"segment": segments, "segment_by_count": ["tail"] * size},
    )


def bins(scores: np.ndarray, targets: np.ndarray) -> list[dict[str, Any]]:
    found = []
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = (scores >= low) & (scores < low + 0.25)
        mean, share = (scores[inside].mean(), targets[inside].mean()) if inside.any() else (None, None)
        count = int(inside.sum())
        found.append({"low": low, "high": low + 0.25, "count": count, "mean_score": mean, "share_positive": share})
    return found


def many(**changed: Any) -> Evaluation:
    """600 clips of 140 classes, the last 13 without a clip; some names are long."""
    rng = np.random.default_rng(0)
    targets = rng.random((600, 140)) < np.minimum(0.4, 2 / np.arange(1, 141))
    targets[:, 127:] = False
    scores = 1 / (1 + np.exp(-rng.normal(-3, 1, targets.shape) - 3 * targets))
    names = [f"class {c}" + " with a name that is long" * (c % 5 == 0) for c in range(140)]
    return make(targets, scores, names, **changed)


def few(names: tuple[str, ...] = ("walking", "running", "eating", "sitting", "jumping"), **changed: Any) -> Evaluation:
    """40 clips of 5 classes, one label each."""
    rng = np.random.default_rng(1)
    targets = np.eye(5, dtype=bool)[np.arange(40) % 5]
    return make(targets, np.clip(rng.random((40, 5)) * 0.6 + 0.3 * targets, 0, 1), list(names), **changed)


def plots(evaluation: Evaluation) -> dict[str, Any]:
    html = page.render(evaluation, None, None)
    found = re.search(r'<script type="application/json" id="plots">(.*?)</script>', html, re.S)
    assert found
    return json.loads(found[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize("evaluation", [many(), few()], ids=["140 classes", "5 classes"])
def test_plotly_knows_every_property_of_every_plot(evaluation: Evaluation) -> None:
    for figure in plots(evaluation).values():
        go.Figure(figure["data"], figure["layout"])  # raises ValueError for one that it doesn't know


def test_bars_are_sorted_and_say_their_segment_and_counts() -> None:
    evaluation = many()
    found = plots(evaluation)
    drawn = [figure for name, figure in found.items() if name.startswith("bars-")]
    order = [tick for figure in drawn for tick in figure["layout"]["yaxis"]["categoryarray"]]
    heights = {
        y: x
        for figure in drawn
        for trace in figure["data"]
        for y, x in zip(trace["y"], trace["x"], strict=True)
        if trace["type"] == "bar"
    }
    assert len(order) == len(heights) == 127
    assert [heights[tick] for tick in order] == sorted(heights.values(), reverse=True)
    assert all(len(figure["layout"]["yaxis"]["categoryarray"]) <= figures.BARS_A_PLOT for figure in drawn)
    colors = {trace["name"]: trace["marker"]["color"] for trace in drawn[-1]["data"] if trace["type"] == "bar"}
    assert len(set(colors.values())) == len(colors) and set(colors) <= {"head", "middle", "tail"}
    assert any(tick.startswith("class 1 ·") and tick.endswith(f" {evaluation.targets[:, 1].sum()}") for tick in order)


def test_the_table_of_classes_names_the_commonest_confusions() -> None:
    scores = np.array([[0.1, 0.9, 0.2]] * 3 + [[0.1, 0.2, 0.9]] * 2 + [[0.9, 0.1, 0.1]])
    targets = np.eye(3, dtype=bool)[[0] * 6]
    found = tables.commonest(["a", "b", "c"], scores, targets)
    assert found["a"] == (1, ["b (3)", "c (2)"])
    assert found["b"] == (0, [])


def test_rows_of_a_csv_do_as_well_as_numbers() -> None:
    rows = [{"class": "a", "positives": "0", "ap": "", "ap_low": "nan"}, {"class": "b", "positives": "3", "ap": "0.5"}]
    first, second = tables.classes(rows)
    assert (first["name"], first["ap"], first["ap_low"], first["positives"]) == ("b", 0.5, None, 3)
    assert (second["name"], second["ap"]) == ("a", None)


def test_labels_of_an_axis_differ_where_long_names_begin_alike() -> None:
    names = ["a" * 40, "a" * 50, "b"]
    found = figures.labels(names)
    assert len(set(found.values())) == 3 and found["b"] == "b"
    assert all(len(label) < 35 for label in found.values())


# ---- pictures of clips


def strips_of(html: str) -> list[tuple[str, Image.Image]]:
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)">', html)
    return [(text, Image.open(io.BytesIO(base64.b64decode(data)))) for data, text in found]


def test_clips_are_shown_as_strips_of_frames_and_flow(tmp_path: Path) -> None:
    evaluation = few()
    for number in range(40):
        write_video(tmp_path / "videos" / f"v{number}.mp4", indexed_frames(16, seed=number))
        write_video(tmp_path / "flows" / f"v{number}.mp4", indexed_frames(15, seed=number))
    written = report.write(tmp_path / "report.html", evaluation, tmp_path / "videos", tmp_path / "flows")
    found = strips_of(written.read_text(encoding="utf-8"))
    assert len(found) == 2 * 2 * examples.COUNT  # frames and flow, of the best and the worst
    for text, strip in found:
        each = np.array_split(np.asarray(strip), examples.FRAMES, axis=1)
        last = 14 if "flow" in text else 15
        assert [read_index(frame) for frame in each] == np.linspace(0, last, 6).astype(int).tolist(), text


def test_a_clip_without_pictures_says_why(tmp_path: Path) -> None:
    evaluation = few()
    (tmp_path / "videos").mkdir()
    for name in evaluation.videos:
        (tmp_path / "videos" / name).write_bytes(b"no video")
        for checkpoint in ("things", "sintel"):
            write_video(tmp_path / "flows" / f"{name[:-4]}_raft_{checkpoint}.mp4", indexed_frames(2))
    best, worst = examples.choose(evaluation)
    assert examples.add_strips(best + worst, tmp_path / "videos", tmp_path / "flows") == []
    assert all("can't be read" in clip.missing[0] for clip in best)
    assert {clip.missing[1] for clip in worst} == {"several files may be its flow"}

    evaluation.videos = [f"../{name}" for name in evaluation.videos]
    found, _ = examples.choose(evaluation)
    examples.add_strips(found, tmp_path / "videos", tmp_path / "flows")
    assert {tuple(clip.missing) for clip in found} == {("its video is missing", "its flow is missing")}
    html = page.render(evaluation, None, tmp_path / "nowhere")
    assert "No frames: no folder of videos was given." in html and "No flow: there is no such folder." in html
    assert not strips_of(html)


# ---- the page in words


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("held_out", "the epoch was chosen by selection clips of the training split"),
        (
            "published",
            '<p class="warning" role="note"><strong>Not held out.</strong> The epoch was chosen on the clips',
        ),
        (None, "these predictions don&#39;t say on which clips their epoch was chosen"),
    ],
)
def test_the_head_says_on_which_clips_the_epoch_was_chosen(protocol: str | None, said: str) -> None:
    html = page.render(few(protocol=protocol), None, None)
    assert said in html
    assert ("Not held out" in html) == (protocol == "published")


def test_numbers_stand_with_their_interval_and_beside_chance() -> None:
    html = page.render(few(notes=["Two classes have one clip."]), None, None)
    text = " ".join(re.sub("<[^>]+>", " ", html[: html.index('<script type="application/json"')]).split())
    assert "127" not in text and "Two classes have one clip." in text
    assert "classes that have a positive 0.1235 0.1000 to 0.9000 0.2500 –" in text
    assert "Footnote: 0.4000 is what counts absent classes as 0." in text
    assert "tail micro over its 5 classes 0.6250" in text
    assert "Mammal macro over the 3 classes with a positive, in 7 clips 0.5000" in text
    assert "Top-1" not in text and "F1, macro, fitted" not in text  # these are null
    assert "1,000 bootstrap resamples of the clips" in text


def test_what_an_evaluation_does_not_say_is_not_shown() -> None:
    evaluation = few()
    said = ("predictions", "split", "num_videos", "num_classes", "classes_with_a_positive")
    evaluation.metrics = {key: evaluation.metrics[key] for key in said}
    evaluation.partitions = {}
    html = page.render(evaluation, None, None)
    assert "<h1>Evaluation of a run</h1>" in html and "walking" in html
    assert not any(text in html for text in ("Footnote", "bootstrap", "Calibration</h2>", "Common and rare", "None."))


def test_a_strip_holds_so_many_frames_none_wider_than_asked(tmp_path: Path) -> None:
    path = write_video(tmp_path / "wide.mp4", indexed_frames(9, 16, 256))
    sheet = np.asarray(filmstrip.strip(path, 3, 16, 2, between="red"))
    assert sheet.shape == (16, 3 * 256 + 2 * 2, 3)
    assert [read_index(sheet[:, x : x + 256]) for x in (0, 258, 516)] == [0, 4, 8]
    assert (sheet[:, 256:258] == (255, 0, 0)).all()
    assert filmstrip.strip(path, 3, 16, 2, widest=48).size == (3 * 48 + 2 * 2, 16)


def test_a_comparison_names_gains_and_losses() -> None:
    changed = {"class": "eating", "positives": 7, "ap": 0.5, "other_ap": 0.25, "difference": 0.25, "ci95": [0.2, 0.3]}
    lost = changed | {"class": "running", "difference": -0.125, "ci95": [None, None]}
    total = {"difference": 0.0126, "ci95": [-0.001, 0.02]}
    comparison: dict[str, Any] = {"other": "rgb.csv", "map_macro": total, "map_micro": total}
    comparison |= {"num_videos": 1234, "classes": 17}  # of those that both have, not all that are reported
    comparison |= {"gained": [changed], "lost": [lost]}
    html = page.render(few(comparison=comparison), None, None)
    text = " ".join(re.sub("<[^>]+>", " ", html).split())
    assert "on the same 1,234 clips" in text and "the extremes of 17." in text
    assert "Compared with rgb.csv" in text and "+0.0126 -0.0010 to +0.0200" in text
    assert "eating 7 0.500 0.250 +0.250 +0.200 to +0.300" in text and "running 7 0.500 0.250 -0.125 –" in text
    assert "Compared with" not in page.render(few(), None, None)


def test_the_same_evaluation_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (report.write(tmp_path / f"{i}.html", few()).read_bytes() for i in range(2))
    assert first == second


# ---- the page in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as window:
        yield window


def show(browser: Browser, path: Path, evaluation: Evaluation, width: int = 1280) -> None:
    report.write(path / "report.html", evaluation)
    browser.resize(width)
    browser.open(path / "report.html", DRAWN)


def is_quiet(browser: Browser) -> bool:
    assert browser.errors() == []
    assert browser.requests() == []
    return True


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("evaluation", [many(), few()], ids=["140 classes", "5 classes"])
def test_every_plot_is_drawn_and_nothing_is_asked_for(
    browser: Browser, tmp_path: Path, evaluation: Evaluation, width: int
) -> None:
    show(browser, tmp_path, evaluation, width)
    drawn = browser.run(
        "return [...document.querySelectorAll('.plot')].map((e) => [e.id, e.querySelector('.main-svg').clientWidth,"
        " e.clientHeight, e.querySelectorAll('.barlayer path, .scatterlayer path, .heatmaplayer image').length])"
    )
    assert {name for name, *_ in drawn} == set(plots(evaluation))
    for name, wide, high, shapes in drawn:
        assert width * 0.6 < wide <= width and high > 100 and shapes > 0, name
    assert browser.wider_than_the_window() == []
    assert is_quiet(browser)


def test_evaluate_writes_the_page(browser: Browser, tmp_path: Path) -> None:
    splits = {"train": {f"t{i}.mp4": (i % 3,) for i in range(12)}, "val": {f"v{i}.mp4": (i % 3,) for i in range(9)}}
    write_annotations(tmp_path / "annotations", splits)
    rows = [
        f"v{i}.mp4," + ",".join(f"{0.1 * c + 0.05 * (i % 4) + 0.3 * (c == i % 3):.3f}" for c in range(3))
        for i in range(9)
    ]
    (tmp_path / "scores.csv").write_text("\n".join(["video_id," + ",".join(CLASSES), *rows]))
    asked = ["--annotations-dir", str(tmp_path / "annotations"), "--output-dir", str(tmp_path / "out")]
    evaluate.main([str(tmp_path / "scores.csv"), *asked, "--resamples", "20"])
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    browser.resize(360)
    browser.open(tmp_path / "out" / "report.html", DRAWN)
    shown = browser.run("return document.querySelector('#numbers td strong').textContent")
    assert shown == f"{found['map_macro']['value']:.4f}"
    names = browser.run("return [...document.querySelectorAll('#mistakes th[scope=row]')].map((e) => e.textContent)")
    assert sorted(names) == sorted(CLASSES)
    assert browser.wider_than_the_window() == []
    assert is_quiet(browser)


def test_a_class_can_be_picked(browser: Browser, tmp_path: Path) -> None:
    evaluation = few()
    show(browser, tmp_path, evaluation)
    third = browser.run(
        "const picker = document.getElementById('class-picker'); picker.selectedIndex = 2;"
        "picker.dispatchEvent(new Event('change')); return picker.selectedOptions[0].textContent"
    )
    name = third.split(" (")[0]
    c = evaluation.classes.index(name)
    curve = pr_curves.precision_recall(evaluation.scores[:, c], evaluation.targets[:, c])
    shown = browser.run("return document.getElementById('class-curve').data[0].x")
    assert shown[1:] == pytest.approx(curve.recall.round(4))
    assert is_quiet(browser)


def test_names_of_users_are_text_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    evaluation = few((*NASTY, "sitting", "jumping"), notes=[NASTY[0]], predictions=NASTY[1])
    evaluation.videos = [f"{NASTY[0]}{i}.mp4" for i in range(40)]
    evaluation.title = NASTY[0]
    show(browser, tmp_path, evaluation)
    assert browser.run("return document.title") == f"Evaluation of {NASTY[0]}"
    assert browser.run("return document.querySelectorAll('img').length") == 0
    rows = browser.run("return [...document.querySelectorAll('#mistakes th[scope=row]')].map((e) => e.textContent)")
    assert set(rows) == {*NASTY, "sitting", "jumping"}
    ticks = browser.run("return [...document.querySelectorAll('#bars-0 .ytick text')].map((e) => e.textContent)")
    assert any(tick.startswith("<b>bold</b> & ") for tick in ticks)
    bars = browser.run("return document.getElementById('bars-0').data.map((t) => t.type === 'bar' ? t.y.length : 0)")
    places = [{"curveNumber": trace, "pointNumber": i} for trace, count in enumerate(bars) for i in range(count)]
    said = [browser.run(HOVER, place) for place in places]
    assert sorted(text.partition("8 clips")[0] for text in said) == sorted(rows)
    assert browser.run("return document.querySelectorAll('svg a, b, a[href^=http]').length") == 0
    assert is_quiet(browser)


def test_what_a_name_could_smuggle_in_would_not_run(browser: Browser, tmp_path: Path) -> None:
    html = page.render(few(), None, None)
    (tmp_path / "report.html").write_text(html.replace("</main>", "<script>window.ran = 1</script></main>"))
    with pytest.MonkeyPatch.context() as patch:  # the browser's console has its complaint, which is wanted here
        patch.setattr(browser, "_console", [])
        browser.open(tmp_path / "report.html", DRAWN)
        assert any("Content Security Policy" in message for message in browser.errors())
    assert browser.run("return window.ran") is None


def test_on_paper_there_is_no_picker_and_plots_fit_a_page(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, many())
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        hidden = browser.run("return ['nav', '.picker'].map((s) => document.querySelector(s).offsetParent)")
        assert hidden == [None, None]
        browser.run("window.dispatchEvent(new Event('beforeprint'))")
        sizes = browser.run(
            "return [...document.querySelectorAll('.plot')].filter((e) => e.offsetParent)"
            ".map((e) => [e.querySelector('.main-svg').clientWidth, e.clientHeight])"
        )
        assert sizes and all(wide == 680 and high < 1000 for wide, high in sizes)
        browser.run("window.dispatchEvent(new Event('afterprint'))")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert is_quiet(browser)


def test_the_browser_sees_errors_requests_and_what_is_too_wide(tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "page.html").write_text(
        '<img src="gone.png"><div id="w" style="width:900px">x</div><script>f()</script>'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser, "_console", [])
        patch.setattr(browser, "_urls", [])
        browser.resize(360)
        browser.open(tmp_path / "page.html")
        assert any("f is not defined" in message for message in browser.errors())
        assert browser.requests() == [(tmp_path / "gone.png").as_uri()]
        assert "DIV#w." in browser.wider_than_the_window()
