"""The HTML page of a timeline, as a browser shows it."""

import os
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from tests.browser import Browser
from tests.conftest import moving_frames, write_video
from tests.timeline.helpers import make_timeline
from tests.timeline.page_actions import (
    DRAWN,
    LOADED,
    assert_no_errors_or_requests,
    count_pixels,
    mouse_at,
    open_page,
    playhead_time,
    press,
    video_time,
    wait_until,
)
from vimoclip.timeline import Bout, find_bouts, page

HTML_INJECTIONS = ("</script><b>drinking</b>", "<img src=x onerror=alert(1)>", "\"quoted\" 'it' & {{ 7 * 7 }}")


@pytest.mark.parametrize(
    ("video", "folder", "address"),
    [
        ("v/a b#1?%.mp4", "out", "../v/a%20b%231%3F%25.mp4"),
        ("é.mp4", ".", "./%C3%A9.mp4"),
        ("file:x.mp4", ".", "./file%3Ax.mp4"),
    ],
)
def test_video_url_is_relative_and_escaped(tmp_path: Path, video: str, folder: str, address: str) -> None:
    assert page.video_urls(tmp_path / video, tmp_path / folder) == [address]


# ---- the page


def test_playhead_follows_the_video(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_page(browser, tmp_path, make_timeline(video))
    assert browser.run("return document.getElementById('unplayable').hidden")
    assert playhead_time(browser) == pytest.approx(0, abs=0.01)
    browser.driver.find_element(By.ID, "play").click()
    wait_until(browser, "document.getElementById('video').currentTime > 0.3")
    assert browser.run("return document.getElementById('play').textContent") == "Pause"
    ActionChains(browser.driver).send_keys_to_element(browser.driver.find_element(By.TAG_NAME, "body"), "n").perform()
    browser.run("document.getElementById('video').pause()")
    wait_until(browser, "document.getElementById('play').textContent === 'Play'")
    assert 2.25 <= video_time(browser) == pytest.approx(playhead_time(browser), abs=0.02)
    assert assert_no_errors_or_requests(browser, video)


def test_click_and_drag_seek(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_page(browser, tmp_path, make_timeline(video))
    mouse_at(browser, 0, 0.75).click().perform()
    assert video_time(browser) == pytest.approx(3, abs=0.02) and playhead_time(browser) == pytest.approx(3, abs=0.02)
    mouse_at(browser, 1, 0.6).click_and_hold().perform()
    mouse_at(browser, 0, 0.25).release().perform()
    assert video_time(browser) == pytest.approx(1, abs=0.02) and playhead_time(browser) == pytest.approx(1, abs=0.02)
    mouse_at(browser, 0, 0.4).perform()
    assert video_time(browser) == pytest.approx(1, abs=0.02)  # the button is up
    assert assert_no_errors_or_requests(browser, video)


def test_tooltip_shows_time_class_and_score(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_page(browser, tmp_path, make_timeline(video))
    tooltip_text = "return document.getElementById('tip').innerText"
    mouse_at(browser, 0, 0.6).perform()
    assert browser.run(tooltip_text).split("\n") == [
        "0:00:02.4 drinking",
        "score 0.750, threshold 0.500",
        "bout 0:00:02.3 to 0:00:03.3, mean 0.750",
    ]
    mouse_at(browser, 1, 0.6).perform()
    assert browser.run(tooltip_text).split("\n") == ["0:00:02.4 resting", "score 0.125, threshold 0.500"]


def test_keys_and_the_table_seek(browser: Browser, tmp_path: Path, video: Path) -> None:
    bouts = (Bout("drinking", 0.5, 1.5, 0.7), Bout("resting", 1.0, 2.0, 0.6), Bout("drinking", 2.25, 2.75, 0.75))
    open_page(browser, tmp_path, make_timeline(video, bouts=bouts))
    browser.driver.find_elements(By.CSS_SELECTOR, "tbody tr")[2].click()
    assert video_time(browser) == 2.25
    keys = [("p", 1.0), ("p", 0.5), ("p", 0.5), ("n", 1.0), ("\ue014", 2.0), ("\ue012", 1.0), (".", 1.04)]
    for key, expected in keys:
        press(browser, key)
        assert video_time(browser) == pytest.approx(expected, abs=1e-3), key
    marked = "return [...document.querySelectorAll('tbody tr.now')].map((row) => row.cells[3].textContent)"
    assert browser.run(marked) == ["drinking", "resting"]
    browser.run(
        "const picker = document.getElementById('action'); picker.selectedIndex = 1;"
        "picker.dispatchEvent(new Event('change'))"
    )
    shown = browser.run("return [...document.querySelectorAll('tbody tr')].map((row) => row.cells[3].textContent)")
    assert shown == ["drinking", "drinking"]  # the action that lasts longest comes first
    press(browser, "n")
    assert video_time(browser) == 2.25
    browser.driver.find_element(By.ID, "previous").send_keys(" ")  # a focused button handles the key, not the page
    assert video_time(browser) == 0.5 and browser.run("return document.getElementById('video').paused")
    browser.run("document.activeElement.blur()")
    press(browser, " ")
    wait_until(browser, "!document.getElementById('video').paused")
    press(browser, " ")
    wait_until(browser, "document.getElementById('video').paused")
    assert assert_no_errors_or_requests(browser, video)


def test_zooming(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_page(browser, tmp_path, make_timeline(video))
    mouse_at(browser, 0, 1.0).click().perform()
    browser.driver.find_element(By.ID, "in").click()  # the last 2 of 4 s
    mouse_at(browser, 0, 0.5).click().perform()
    assert video_time(browser) == pytest.approx(3, abs=0.02)
    press(browser, "\ue011")  # Home: the part that is shown goes with the time
    mouse_at(browser, 0, 0.5).click().perform()
    assert video_time(browser) == pytest.approx(1, abs=0.02)
    browser.driver.find_element(By.ID, "all").click()
    assert playhead_time(browser) == pytest.approx(1, abs=0.02)


def test_scores_are_drawn_at_their_position(browser: Browser, tmp_path: Path, video: Path) -> None:
    result = make_timeline(video, thresholds=np.array([np.nan, np.nan]))  # no line is in the way
    result.scores[4, 1] = np.nan
    open_page(browser, tmp_path, result)
    light, strong = (188, 220, 240), (0, 114, 178)
    high = browser.run("return document.querySelectorAll('#lanes canvas')[1].height") - 10
    shares = {
        share: (count_pixels(browser, 0, share, light), count_pixels(browser, 0, share, strong))
        for share in (0.1, 0.65)
    }
    assert shares[0.1] == (pytest.approx(0.25 * high, abs=1.1), 0)
    assert shares[0.65] == (0, 4)  # a window without a score, within a bout
    mouse_at(browser, 0, 0.65).perform()
    assert browser.run("return document.getElementById('tip').innerText.split('\\n')[1]") == "score –"


def test_bouts_are_drawn_in_the_stronger_colour(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_page(browser, tmp_path, make_timeline(video))
    strong = (0, 114, 178)
    drawn = [count_pixels(browser, 0, share, strong) > 10 for share in (0.55, 0.57, 0.8, 0.82)]
    assert drawn == [False, True, True, False]
    assert not any(count_pixels(browser, 1, share, strong) for share in (0.1, 0.6, 0.9))


def delay_timestamps(source: Path, path: Path, seconds: int) -> Path:
    """Write the video with all timestamps delayed."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.pts is not None and packet.dts is not None:
                shift = int(seconds / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                new.mux(packet)
    return path


def test_video_with_late_timestamps_begins_at_its_first_frame(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_page(browser, tmp_path, make_timeline(delay_timestamps(video, tmp_path / "late.mp4", 5)))
    assert playhead_time(browser) == pytest.approx(0, abs=0.01)
    press(browser, "n")
    assert video_time(browser) == pytest.approx(5 + 2.25, abs=0.01)
    assert playhead_time(browser) == pytest.approx(2.25, abs=0.02)


def test_names_are_escaped(browser: Browser, tmp_path: Path) -> None:
    video = tmp_path / "<img src=x onerror=alert(1)> {{ 1 }} 'a' & \"b\".mp4"
    result = make_timeline(
        write_video(video, moving_frames(10, (1, 0)), lossless=False),
        classes=HTML_INJECTIONS,
        whole_by=HTML_INJECTIONS[0],
    )
    open_page(browser, tmp_path, result)
    assert browser.run("return document.title") == f"{video.name}: timeline"
    assert browser.run("return document.querySelectorAll('img, main b b, td b').length") == 0
    labels = browser.run("return [...document.querySelectorAll('.label b')].map((e) => e.textContent)")
    assert sorted(labels) == sorted(HTML_INJECTIONS)
    assert browser.run("return document.querySelector('#whole p').textContent") == f"Scores: {HTML_INJECTIONS[0]}."
    assert assert_no_errors_or_requests(browser, video)


def test_unplayable_video_leaves_a_usable_timeline(browser: Browser, tmp_path: Path, video: Path) -> None:
    bad = tmp_path / "old.avi"
    bad.write_bytes(b"no video")
    shown = "!document.getElementById('unplayable').hidden"
    open_page(browser, tmp_path, make_timeline(bad), ready=shown)
    text = browser.driver.find_element(By.ID, "unplayable").text
    assert "./old.avi" in text
    mouse_at(browser, 0, 0.75).click().perform()
    assert playhead_time(browser) == pytest.approx(3, abs=0.02)
    press(browser, "p")
    assert playhead_time(browser) == pytest.approx(2.25, abs=0.02)
    press(browser, "+", "\ue011")  # a closer look, then Home: the part that is shown goes there
    assert browser.run("return document.getElementById('playhead').hidden") is False
    press(browser, "-", "n")
    browser.driver.find_element(By.ID, "file").send_keys(str(video))  # a copy that it can play
    wait_until(browser, f"{LOADED} && !({shown})")
    assert video_time(browser) == 2.25
    assert assert_no_errors_or_requests(browser, bad)


def test_audio_only_file_is_unplayable(browser: Browser, tmp_path: Path) -> None:
    """As for a video whose frames the browser cannot decode."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    shown = "!document.getElementById('unplayable').hidden"
    open_page(browser, tmp_path, make_timeline(tmp_path / "a.wav", 1.0), ready=shown)


def test_one_hour_with_140_classes(browser: Browser, tmp_path: Path, video: Path) -> None:
    rng = np.random.default_rng(0)
    starts = np.arange(0, 3595.0)
    scores = rng.random((len(starts), 140)) ** 8
    names = tuple(f"class {c}" + " with a name that is long" * (c % 5 == 0) for c in range(140))
    thresholds = np.full(140, 0.97)
    found = find_bouts(starts, starts + 6, scores, thresholds, names, 3600.0, min_length=0)
    changed: dict[str, Any] = {
        "starts": starts,
        "stops": starts + 6,
        "scores": scores,
        "thresholds": thresholds,
        "bouts": found,
        "provenance": {"min_length": 0},
    }
    result = replace(make_timeline(video, 3600.0), classes=names, whole=scores.mean(axis=0), **changed)
    (tmp_path / "page.html").write_text(page.render_timeline(result, tmp_path), encoding="utf-8")
    assert (tmp_path / "page.html").stat().st_size < 2e6 and len(found) > 1000
    for width in (400, 1280):
        browser.resize(width)
        browser.open(tmp_path / "page.html", f"{DRAWN} && {LOADED}")
        assert browser.wider_than_the_window() == []
    heights = "return [...document.querySelectorAll('.lane:not(#axis)')].map((lane) => lane.offsetHeight)"
    assert len(browser.run(heights)) == 140 and len(set(browser.run(heights)[:-1])) == 1  # the last has no line below
    table = "return document.querySelectorAll('tbody tr').length"
    assert browser.run(table) == 300
    browser.driver.find_element(By.ID, "rest").click()
    assert browser.run(table) == len(found)
    thresholds[0] = 0.8
    changed_bouts = find_bouts(starts, starts + 6, scores, thresholds, names, 3600.0, min_length=0)
    browser.run(
        "const slider = document.querySelector(arguments[0]); slider.value = 0.8;"
        "slider.dispatchEvent(new Event('input'))",
        '[aria-label="Threshold of class 0 with a name that is long"]',
    )
    assert browser.run("return document.getElementById('count').textContent") == f"{len(changed_bouts):,} bouts"
    assert len(changed_bouts) > len(found) == browser.run(table)
    mouse_at(browser, 0, 0.5).click().perform()
    assert playhead_time(browser) == pytest.approx(4, abs=0.1)  # where this video ends
    assert assert_no_errors_or_requests(browser, video)


def test_classes_without_bouts_are_shown_on_request(browser: Browser, tmp_path: Path, video: Path) -> None:
    names = tuple(f"class {c}" for c in range(30))
    scores = np.repeat(np.linspace(0.1, 0.4, 30)[None], 7, axis=0)
    scores[4, 3] = 0.9
    bouts = (Bout("class 3", 2.25, 2.75, 0.9),)
    result = make_timeline(video, classes=names, scores=scores, bouts=bouts, whole=np.zeros(30))
    open_page(browser, tmp_path, result, 400)
    labels = "return [...document.querySelectorAll('.lane:not([hidden]) b')].map((e) => e.textContent)"
    first = ["class 3", *(f"class {c}" for c in range(29, 18, -1))]
    assert browser.run(labels) == first
    more = browser.driver.find_element(By.ID, "more")
    assert more.text == "Show all 30 actions"
    for expected in (30, 12, 30):
        more.click()
        assert len(browser.run(labels)) == expected
    assert browser.wider_than_the_window() == []


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_page_in_a_linked_folder_finds_its_video(browser: Browser, tmp_path: Path, video: Path) -> None:
    (tmp_path / "big" / "disk").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "big" / "disk")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    text = page.render_timeline(make_timeline(copy), tmp_path / "out")
    (tmp_path / "out" / "page.html").write_text(text, encoding="utf-8")
    for way in ("big/disk", "out"):
        browser.driver.get((tmp_path / way / "page.html").absolute().as_uri())
        wait_until(browser, LOADED)
    assert browser.run("return document.getElementById('unplayable').hidden")
