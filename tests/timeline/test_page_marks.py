"""Marks of the page of a timeline: actions whose calibration rests on few clips, and the spread over several runs."""

from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.by import By

from tests.browser import Browser
from tests.timeline.helpers import make_timeline
from tests.timeline.page_actions import DRAWN, mouse_at, open_page

CLASSES = ("resting", "drinking", "a name that is too long for the column of names")


def marks(browser: Browser) -> dict[str, tuple[str, str]]:
    """Return text and text alternative of the marks, by the name that they stand at."""
    names = browser.driver.find_elements(By.CSS_SELECTOR, ".label .name")
    found = {name.find_element(By.TAG_NAME, "b"): name.find_elements(By.CSS_SELECTOR, "[role=img]") for name in names}
    return {
        name.text: (mark[0].text, mark[0].get_attribute("aria-label") or "") for name, mark in found.items() if mark
    }


@pytest.mark.parametrize("width", [1280, 400])
def test_actions_with_few_positives_are_marked(browser: Browser, tmp_path: Path, video: Path, width: int) -> None:
    positives = dict(zip(CLASSES, (10, 9, 0), strict=True))
    open_page(browser, tmp_path, make_timeline(video, classes=CLASSES, positives=positives), width, ready="true")
    found = marks(browser)
    assert [(name, text) for name, (text, _) in found.items()] == [(CLASSES[1], "*"), (CLASSES[2], "*")]
    assert all(f" {positives[name]} " in label for name, (_, label) in found.items())
    titles = browser.run("return [...document.querySelectorAll('.label .name')].map((e) => e.title)")
    for name, count in positives.items():
        assert any(title.startswith(f"{name}\n") and f" {count} positive" in title for title in titles)
    right = "return [...document.querySelectorAll('.label .few')].map((e) => e.getBoundingClientRect().right)"
    left = "return document.querySelector('.label .score').getBoundingClientRect().left"
    assert max(browser.run(right)) <= browser.run(left)
    assert "fewer than 10" in browser.driver.find_element(By.CSS_SELECTOR, ".key").text
    assert browser.errors() == []


@pytest.mark.parametrize("positives", [{}, {"resting": 10, "drinking": 200}])
def test_without_few_positives_there_is_no_mark(
    browser: Browser, tmp_path: Path, video: Path, positives: dict[str, int]
) -> None:
    open_page(browser, tmp_path, make_timeline(video, positives=positives), ready="true")
    assert marks(browser) == {} and "fewer" not in browser.driver.find_element(By.CSS_SELECTOR, ".key").text


def test_tooltip_shows_the_standard_deviation_over_several_runs(browser: Browser, tmp_path: Path, video: Path) -> None:
    result = make_timeline(video, score_sd=np.full((7, 2), 0.0625))
    result.scores[0] = np.nan
    open_page(browser, tmp_path, result, ready=DRAWN)
    tip = "return document.getElementById('tip').innerText.split('\\n')[1]"
    mouse_at(browser, 0, 0.6).perform()
    assert browser.run(tip) == "score 0.750 ± 0.063, threshold 0.500"  # 0.0625 in codes of 1 / 65,000
    mouse_at(browser, 0, 0.02).perform()
    assert "±" not in browser.run(tip)
