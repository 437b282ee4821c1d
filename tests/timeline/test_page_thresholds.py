"""Thresholds on the page of a timeline: its sliders give the bouts of find_bouts, and it saves them as CSV."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import Browser
from tests.timeline.helpers import make_timeline
from tests.timeline.page_actions import (
    assert_no_errors_or_requests,
    count_pixels,
    mouse_at,
    open_page,
    press,
    video_time,
)
from vimoclip import timeline
from vimoclip.timeline import Bout, Timeline, find_bouts, page

SCORE_ERROR = 1 / 65000 / 2 + 1e-4 / 2  # of a bout that the page finds: half a code, and rounded to 4 decimals
ODD_NAMES = ("=1+1", 'a "b", c', "two\nlines\r\n", " é\t", "-")
SET_SLIDERS = """
for (const [name, threshold] of Object.entries(arguments[0])) {
  const slider = document.querySelector(`[aria-label="Threshold of ${CSS.escape(name)}"]`);
  slider.value = threshold;
  slider.dispatchEvent(new Event("input"));
}
"""
FIND_BOUTS = """
const [data, thresholds] = arguments, codes = unpackScores(data.scores), windows = data.edges.length - 1;
return thresholds.map((threshold) => data.classes.map(
  (_, action) => findBouts(data, codes.subarray(action * windows, (action + 1) * windows), threshold)));
"""
ROWS = """
return [...document.querySelectorAll("#bouts tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent));
"""
HATCHING = (180, 186, 194)


def page_data(text: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def bouts_at(result: Timeline, thresholds: np.ndarray) -> tuple[Bout, ...]:
    grid = result.starts, result.stops, result.scores, thresholds, result.classes, result.seconds
    return find_bouts(*grid, result.min_length, result.max_gap)


def random_timeline(rng: np.random.Generator, video: Path) -> Timeline:
    """Windows at irregular times; scores that are whole thousandths, next to them, anywhere, or missing."""
    count, classes = int(rng.integers(1, 120)), ("a", "b", "c", "d")
    starts = np.cumsum(rng.choice([0.04, 0.5, 0.333333, 1.0, 2.7], count)).round(6)
    stops = starts + rng.choice([0.2, 1.0, 6.0])
    levels = rng.integers(0, 1001, (count, 4)) / 1000
    levels[:, 1] = rng.choice([0.25, 0.5, 0.75], count)
    shift = rng.integers(-1, 2, levels.shape)
    scores = np.where(shift < 0, np.nextafter(levels, 0), np.where(shift > 0, np.nextafter(levels, 1), levels))
    scores[:, 2] = rng.random(count)
    scores[rng.random(count) < rng.choice([0.0, 0.2])] = np.nan
    settings = {
        "min_length": float(rng.choice([0, 0.333333, 1, 3, 1e4])),
        "max_gap": float(rng.choice([0, 0.5, 1, 2.7])),
    }
    changed: dict[str, Any] = {"starts": starts, "stops": stops, "scores": scores, "provenance": settings, "bouts": ()}
    seconds = float(stops[-1] + rng.choice([0.0, 0.7]))
    return replace(make_timeline(video, classes=classes), seconds=seconds, whole=np.zeros(4), **changed)


def test_browser_finds_the_bouts_of_find_bouts(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_page(browser, tmp_path, make_timeline(video))
    rng = np.random.default_rng(0)
    total = 0
    for _ in range(60):
        result = random_timeline(rng, video)
        thresholds = [0.0, 0.25, 0.5, 1.0, *(rng.integers(0, 1001, 12) / 1000).tolist()]
        found = browser.run(FIND_BOUTS, page_data(page.render_timeline(result, tmp_path)), thresholds)
        for threshold, of_actions in zip(thresholds, found, strict=True):
            expected = bouts_at(result, np.full(4, threshold))
            for action, mine in zip(result.classes, of_actions, strict=True):
                bouts = [bout for bout in expected if bout.action == action]
                assert [(start, stop) for start, stop, _ in mine] == [bout[1:3] for bout in bouts]
                assert [m[2] for m in mine] == pytest.approx([bout.score for bout in bouts], abs=SCORE_ERROR)
                total += len(mine)
    assert total > 10_000


def test_packed_scores_decide_as_the_scores_do_at_every_position_of_a_slider(tmp_path: Path, video: Path) -> None:
    thresholds = np.arange(1001) / 1000
    scores = np.concatenate([np.nextafter(thresholds, 0), thresholds, np.nextafter(thresholds, 1).clip(0, 1)])[:, None]
    codes = np.frombuffer(page.base64.b64decode(page._pack_scores(scores)), "<u2")
    assert ((codes[:, None] >= np.round(thresholds * page.SCORE_ONE)) == (scores >= thresholds)).all()


def test_page_begins_with_the_bouts_that_it_is_given_and_returns_to_them(
    browser: Browser, tmp_path: Path, video: Path
) -> None:
    result = make_timeline(video, thresholds=np.array([0.5, 0.4371234567]))
    result.scores[4:6, 1] = 0.4371234567, np.nextafter(0.4371234567, 0)  # one code, but only one of them is a bout
    result = replace(result, bouts=bouts_at(replace(result, provenance={"min_length": 0}), result.thresholds))
    open_page(browser, tmp_path, result)
    before = browser.run(ROWS)
    assert before == [["0:00:02.3", "0:00:02.8", "0.5 s", "drinking", "0.44"]]
    assert not browser.driver.find_element(By.ID, "changes").is_displayed()
    browser.run(SET_SLIDERS, {"drinking": 0.2, "resting": 0.1})
    assert browser.run(ROWS) == [
        ["0:00:00.0", "0:00:04.0", "4.0 s", "resting", "0.13"],
        ["0:00:00.0", "0:00:04.0", "4.0 s", "drinking", "0.30"],
    ]
    changes = browser.driver.find_element(By.ID, "changes")
    assert "drinking 0.200" in changes.text and "resting 0.100" in changes.text
    browser.driver.find_elements(By.CSS_SELECTOR, ".reset")[0].click()
    assert [row[3] for row in browser.run(ROWS)] == ["resting", "drinking"]
    assert browser.run(ROWS)[1] == before[0] and "drinking" not in changes.text
    browser.driver.find_element(By.ID, "reset").click()
    assert browser.run(ROWS) == before and not changes.is_displayed()
    assert assert_no_errors_or_requests(browser, video)


def line_heights(browser: Browser, lane: int) -> list[float]:
    """Return the heights of the rows of a lane with the colour of threshold lines, as scores."""
    return browser.run(
        "const canvas = document.querySelectorAll('#lanes .lane:not(#axis) canvas')[arguments[0]];"
        "const copy = Object.assign(document.createElement('canvas'), {width: canvas.width, height: canvas.height});"
        "const pen = copy.getContext('2d', {willReadFrequently: true});"
        "pen.drawImage(canvas, 0, 0);"
        "const rows = Array.from({length: copy.height}, (_, y) => pen.getImageData(0, y, copy.width, 1).data.join());"
        "return rows.map((row, y) => (row.includes('213,94,0,255') ? (copy.height - 7 - y) / (copy.height - 10) : -1))"
        ".filter((y) => y >= 0)",
        lane,
    )


def test_everything_on_the_page_follows_a_slider(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_page(browser, tmp_path, make_timeline(video))
    counts = "return [...document.querySelectorAll('#count, #action option')].map((e) => e.textContent)"
    assert browser.run(counts) == ["1 bout", "all (1)", "drinking (1)"]
    strong, before = (0, 114, 178), line_heights(browser, 0)
    browser.run(SET_SLIDERS, {"drinking": 0.25})  # the lowest score
    assert count_pixels(browser, 0, 0.1, strong) > 4
    assert before == [pytest.approx(0.5, abs=0.04)] and line_heights(browser, 0) == [pytest.approx(0.25, abs=0.04)]
    mouse_at(browser, 0, 0.1).perform()
    assert browser.run("return document.getElementById('tip').innerText.split('\\n')") == [
        "0:00:00.4 drinking",
        "score 0.250, threshold 0.250",
        "bout 0:00:00.0 to 0:00:04.0, mean 0.393",
    ]
    browser.run(SET_SLIDERS, {"resting": 0.125})
    assert browser.run(counts) == ["2 bouts", "all (2)", "drinking (1)", "resting (1)"]
    browser.run("const p = document.getElementById('action'); p.value = '1'; p.dispatchEvent(new Event('change'))")
    browser.run(SET_SLIDERS, {"drinking": 0.75})
    assert browser.run(ROWS) == [["0:00:02.3", "0:00:03.3", "1.0 s", "drinking", "0.75"]]  # the action stays picked
    press(browser, "n")
    assert video_time(browser) == 2.25
    assert count_pixels(browser, 0, 0.1, strong) == 0
    browser.run(SET_SLIDERS, {"drinking": 0.751})
    assert browser.run(ROWS) == [] and browser.run("return document.getElementById('action').value") == "1"
    browser.run(SET_SLIDERS, {"resting": 0.2})
    assert browser.driver.find_element(By.ID, "none").is_displayed()
    assert not browser.driver.find_element(By.ID, "next").is_enabled()
    assert browser.run(counts) == ["0 bouts", "all (0)", "drinking (0)"]
    assert assert_no_errors_or_requests(browser, video)


def test_keys_on_a_slider_change_it_and_nothing_else(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_page(browser, tmp_path, make_timeline(video))
    slider = browser.driver.find_element(By.CSS_SELECTOR, ".label input")
    values = []
    for keys in ("\ue014", "\ue013", "\ue012", "\ue008\ue014", " ", "n", "+", "\ue010", "\ue014", "\ue011"):
        slider.send_keys(keys)  # right, up, left, shift and right, ..., End, right, Home
        values.append(slider.get_attribute("aria-valuetext"))
    expected = ["0.510", "0.520", "0.510", "0.511", "0.511", "0.511", "0.511", "1.000", "1.000", "0.000"]
    assert values == expected
    assert video_time(browser) == 0 and browser.run("return document.getElementById('video').paused")
    assert browser.driver.find_element(By.ID, "out").get_attribute("disabled")  # not zoomed
    slider.click()  # on its middle
    assert (
        float(str(slider.get_attribute("aria-valuetext"))) == pytest.approx(0.5, abs=0.02) and video_time(browser) == 0
    )


def test_action_without_a_threshold_gets_one_from_its_slider(browser: Browser, tmp_path: Path, video: Path) -> None:
    result = make_timeline(video, thresholds=np.array([np.inf, np.nan]), bouts=())
    result.scores[:, 0] = np.nan
    open_page(browser, tmp_path, result)
    values = "return [...document.querySelectorAll('.value')].map((e) => e.textContent)"
    assert browser.run(values) == ["none", "none"] and browser.run(ROWS) == []
    browser.run(SET_SLIDERS, {"drinking": 0.7, "resting": 0})
    assert browser.run(values) == ["0.700", "0.000"]
    assert [row[3] for row in browser.run(ROWS)] == ["drinking"]  # resting has no score
    browser.driver.find_element(By.ID, "reset").click()
    assert browser.run(values) == ["none", "none"] and browser.run(ROWS) == []
    assert assert_no_errors_or_requests(browser, video)


def save(browser: Browser, path: Path) -> list[list[str]]:
    """Save the bouts as `path`, and return the rows of the file."""
    browser.download_to(path.parent)
    browser.driver.find_element(By.ID, "save").click()
    WebDriverWait(browser.driver, 30, poll_frequency=0.05).until(lambda _: path.exists() and path.stat().st_size > 0)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def test_saved_csv_has_the_bouts_at_the_thresholds_shown(browser: Browser, tmp_path: Path, video: Path) -> None:
    copy = tmp_path / "a, 'b'.mp4"
    copy.write_bytes(video.read_bytes())
    rng = np.random.default_rng(1)
    result = make_timeline(copy, seconds=120.0, classes=ODD_NAMES, scores=rng.random((239, 5)).round(4))
    result = replace(result, bouts=bouts_at(result, result.thresholds))
    open_page(browser, tmp_path / "out", result)
    (saved := tmp_path / "saved" / "a, 'b'_adjusted_thresholds.csv").parent.mkdir()
    with (tmp_path / "out" / "a, 'b'.csv").open(encoding="utf-8", newline="") as file:
        assert save(browser, saved) == list(csv.reader(file))
    saved.unlink()
    browser.run(
        "const names = JSON.parse(document.getElementById('data').textContent).order;"
        "[...document.querySelectorAll('.label input')].forEach((slider, i) => {"
        "  slider.value = [0.1, 0.937, 0.5, 0.7, 0][names[i]]; slider.dispatchEvent(new Event('input')); })"
    )
    rows = save(browser, saved)
    expected = bouts_at(result, np.array([0.1, 0.937, 0.5, 0.7, 0]))
    assert rows[0] == ["video", "action", "start", "stop", "score"]
    assert [row[:2] for row in rows[1:]] == [[copy.name, bout.action] for bout in expected]
    numbers = np.array([row[2:] for row in rows[1:]], float)
    assert numbers[:, :2].tolist() == [[bout.start, bout.stop] for bout in expected]
    assert numbers[:, 2] == pytest.approx([bout.score for bout in expected], abs=SCORE_ERROR)
    assert assert_no_errors_or_requests(browser, copy)


def test_unobserved_stretches_are_hatched_and_have_no_score(browser: Browser, tmp_path: Path, video: Path) -> None:
    result = make_timeline(video, observed=((0.0, 1.0), (2.0, 3.5)))
    open_page(browser, tmp_path, result)
    light = (188, 220, 240)
    seen = [share / 100 for share in range(5, 20)]
    unseen = [share / 100 for share in (*range(27, 48), *range(90, 99))]
    assert not any(count_pixels(browser, 0, share, HATCHING) for share in seen)
    assert all(count_pixels(browser, 0, share, light) for share in seen)
    assert not any(count_pixels(browser, 0, share, light) for share in unseen)
    mouse_at(browser, 0, 0.4).perform()
    text = browser.run("return document.getElementById('tip').innerText.split('\\n')[1]")
    assert text == "not observed, threshold 0.500"
    mouse_at(browser, 0, 0.4).click().perform()
    scores = "return [...document.querySelectorAll('.label .score')].map((e) => e.textContent)"
    assert browser.run(scores) == ["–", "–"]
    mouse_at(browser, 0, 0.1).click().perform()
    assert browser.run(scores) == ["0.25", "0.13"]


def test_page_links_to_the_index_if_there_is_one(browser: Browser, tmp_path: Path, video: Path) -> None:
    links = "return [...document.querySelectorAll('a')].map((a) => a.getAttribute('href'))"
    for index, expected in (("", []), ("index.html", ["index.html"])):
        timeline.write_timeline(tmp_path, make_timeline(video), index=index)
        browser.open(tmp_path / f"{video.stem}.html")
        assert browser.run(links) == expected


def test_windows_without_scores_are_unobserved_if_the_timeline_does_not_say(tmp_path: Path, video: Path) -> None:
    result = make_timeline(video)
    assert page_data(page.render_timeline(result, tmp_path))["unobserved"] == []
    result.scores[2:4] = np.nan
    assert page_data(page.render_timeline(result, tmp_path))["unobserved"] == [[1.25, 2.25]]
    result.scores[:] = np.nan
    assert page_data(page.render_timeline(result, tmp_path))["unobserved"] == [[0, 4]]
