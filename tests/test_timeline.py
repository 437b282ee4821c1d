"""Bouts against a fine grid of time, and the files of a timeline: read back, and the page as a browser shows it."""

import csv
import json
import os
import wave
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import Browser, chromium
from tests.conftest import moving_frames, write_video
from vimoclip import timeline
from vimoclip.errors import UserError
from vimoclip.timeline import Bout, Timeline, find_bouts, page

DRAWN = "document.documentElement.dataset.drawn"
LOADED = "document.getElementById('video').readyState >= 2"
NASTY = ("</script><b>drinking</b>", "<img src=x onerror=alert(1)>", "\"quoted\" 'it' & {{ 7 * 7 }}")
STEP = 0.125  # seconds: middles of windows in whole seconds, and what is halfway between them, are multiples of it
quick = settings(max_examples=150, deadline=None)


# ---- bouts


@st.composite
def scored(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of find_bouts: windows of whole seconds, few different scores, lengths in quarters of seconds."""
    starts = np.cumsum([0, *draw(st.lists(st.integers(1, 3), max_size=15))]).astype(float)
    stops = starts + draw(st.integers(1, 7))
    rows, classes = len(starts), draw(st.integers(1, 3))
    return {
        "starts": starts,
        "stops": stops,
        "scores": draw(arrays(float, (rows, classes), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]))),
        "thresholds": np.array([0.25, 0.5, 0.75])[:classes],
        "classes": ("a", "b", "c")[:classes],
        "seconds": float(stops[-1]) + draw(st.sampled_from([0, 0.5])),
        "min_length": draw(st.integers(0, 16)) / 4,
        "max_gap": draw(st.integers(0, 16)) / 4,
    }


def on_a_grid(given: dict[str, Any], column: int) -> list[tuple[float, float, float]]:
    """The bouts of a class, by looking at each eighth of a second."""
    times = np.arange(0, given["seconds"], STEP) + STEP / 2
    window = np.abs(times[:, None] - (given["starts"] + given["stops"]) / 2).argmin(axis=1)
    high = [bool(given["scores"][w, column] >= given["thresholds"][column]) for w in window]
    for value, most in ((False, given["max_gap"] + STEP / 2), (True, given["min_length"] - STEP / 2)):
        for first, last in stretches(high, value):
            inside = value or (first > 0 and last < len(high))  # a gap has a bout on both sides
            if inside and (last - first) * STEP < most and last - first < len(high):
                high[first:last] = [not value] * (last - first)
    found = []
    for first, last in stretches(high, True):
        mean = given["scores"][np.unique(window[first:last]), column].mean()
        found.append((first * STEP, last * STEP, mean))
    return found


def stretches(values: list[bool], value: bool) -> list[tuple[int, int]]:
    changes = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
    return [(a, b) for a, b in pairwise(changes) if a < b and values[a] == value]


@quick
@given(scored())
def test_bouts_are_those_of_a_fine_grid_of_time(given: dict[str, Any]) -> None:
    found = find_bouts(**given)
    for column, name in enumerate(given["classes"]):
        mine = [bout[1:] for bout in found if bout.action == name]
        assert np.array(mine) == pytest.approx(np.array(on_a_grid(given, column)))


@quick
@given(scored())
def test_bouts_lie_in_the_video_apart_from_each_other_and_are_long_enough(given: dict[str, Any]) -> None:
    found = find_bouts(**given)
    assert list(found) == sorted(found, key=lambda bout: (bout.start, bout.action))
    for bout in found:
        assert 0 <= bout.start < bout.stop <= given["seconds"]
        assert bout.stop - bout.start >= min(given["min_length"], given["seconds"])
        assert 0 <= bout.score <= 1
    for name in given["classes"]:
        mine = [bout for bout in found if bout.action == name]
        assert all(b.start - a.stop > given["max_gap"] for a, b in pairwise(mine))


def test_a_bout_by_hand() -> None:
    starts = np.arange(0, 5.0)  # windows of 2 s every second: their middles are 1, 2, 3, 4, 5
    scores = np.array([[0.1, 0.9, 0.3, 0.6, 0.2]]).T
    asked: dict[str, Any] = {"thresholds": np.array([0.5]), "classes": ["drinking"], "seconds": 6.0}
    assert find_bouts(starts, starts + 2, scores, **asked, max_gap=0.5) == (
        Bout("drinking", 1.5, 2.5, 0.9),
        Bout("drinking", 3.5, 4.5, 0.6),
    )
    (joined,) = find_bouts(starts, starts + 2, scores, **asked)
    assert joined[:3] == ("drinking", 1.5, 4.5) and joined.score == pytest.approx(0.6)
    assert find_bouts(starts, starts + 2, scores, **asked, max_gap=0.5, min_length=1.01) == ()


def test_a_video_shorter_than_any_bout_may_be_one() -> None:
    whole = np.array([0.0]), np.array([0.48]), np.array([[0.7, 0.2]]), np.array([0.5, 0.5]), ("a", "b"), 0.48
    assert find_bouts(*whole) == (Bout("a", 0.0, 0.48, 0.7),)
    unknown = np.array([[np.nan, 0.2]]), np.array([0.5, np.nan])  # nothing is known of either
    assert find_bouts(*whole[:2], *unknown, *whole[4:]) == ()


# ---- files


def make(
    video: Path, seconds: float = 4.0, classes: tuple[str, ...] = ("resting", "drinking"), **changed: Any
) -> Timeline:
    """Windows of a second every half; all but the first class are seen for its third quarter, somewhat late."""
    starts = np.arange(0, seconds - 0.75, 0.5)
    scores = np.full((len(starts), len(classes)), 0.125)
    scores[:, 1:] = np.where((starts + 0.5 > seconds / 2) & (starts + 0.5 <= seconds * 0.75), 0.75, 0.25)[:, None]
    thresholds = np.full(len(classes), 0.5)
    given: dict[str, Any] = {
        "frames": round(seconds * 25),
        "scores": scores,
        "thresholds": thresholds,
        "bouts": find_bouts(starts, starts + 1, scores, thresholds, classes, seconds),
        "whole": scores.mean(axis=0),
        "whole_by": f"mean over {len(starts)} windows",
        "made_with": {"tfam": "seed49", "none": None, "sizes": [1, 2.5]},
        **changed,
    }
    return Timeline(video, seconds, 25.0, classes=classes, starts=starts, stops=starts + 1, **given)


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_csvs_hold_the_bouts_and_all_windows(tmp_path: Path) -> None:
    made = make(tmp_path / "elsewhere" / "a, b.mp4")
    written = timeline.write(tmp_path / "out", made)
    assert {path.name for path in written} == {path.name for path in (tmp_path / "out").iterdir()}
    assert [path.name for path in written][-1] == "a, b.json"
    header = ["video", "action", "start", "stop", "score"]
    assert rows(tmp_path / "out" / "a, b.csv") == [header, ["a, b.mp4", "drinking", "2.25", "3.25", "0.75"]]
    found = rows(tmp_path / "out" / "a, b_windows.csv")
    assert found[:3] == [header, ["a, b.mp4", "resting", "0", "1", "0.125"], ["a, b.mp4", "drinking", "0", "1", "0.25"]]
    assert len(found) == 1 + 2 * 7 and found[-1] == ["a, b.mp4", "drinking", "3", "4", "0.25"]


def test_the_json_holds_everything_and_no_folder(tmp_path: Path) -> None:
    scores = np.full((7, 2), 1 / 3)
    scores[1, 0] = np.nan
    made = make(tmp_path / "a.mp4", scores=scores, thresholds=np.array([np.inf, 0.5]))
    timeline.write(tmp_path, made)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["schema"] == 1 and found["video"] == "a.mp4"
    assert (found["seconds"], found["fps"], found["frames"]) == (4.0, 25.0, 100)
    assert found["whole"] == dict(zip(made.classes, made.whole.tolist(), strict=True))
    assert found["thresholds"] == {"resting": None, "drinking": 0.5}
    assert found["bouts"] == [bout._asdict() for bout in made.bouts] and found["whole_by"] == made.whole_by
    assert (found["starts"], found["stops"]) == (made.starts.tolist(), made.stops.tolist())
    assert found["scores"] == [[None if row == 1 and c == 0 else 0.333333 for c in range(2)] for row in range(7)]
    assert timeline.made_with(tmp_path / "a.json") == made.made_with
    for name in ("a.json", "a.html", "a.csv"):
        assert str(tmp_path) not in (tmp_path / name).read_text(encoding="utf-8")


def test_what_a_timeline_was_made_with_is_asked_of_the_right_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert timeline.made_with(path) is None
    for text in ("{", "[]", '{"schema": 0, "made_with": {}}', '{"schema": 1}'):
        path.write_text(text)
        with pytest.raises(UserError, match="is no timeline"):
            timeline.made_with(path)


def test_what_was_there_before_is_not_taken_for_whole(tmp_path: Path) -> None:
    made = make(tmp_path / "a.mp4")
    timeline.write(tmp_path, made)
    (tmp_path / "a.boris.tsv").unlink()
    (tmp_path / "a.boris.tsv").mkdir()  # nothing can be written there
    with pytest.raises(OSError, match="boris"):
        timeline.write(tmp_path, made)
    assert timeline.made_with(tmp_path / "a.json") is None


def test_the_same_timeline_gives_the_same_bytes(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        timeline.write(tmp_path / place, make(tmp_path / place / "v.mp4"))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("video", "folder", "address"),
    [
        ("v/a b#1?%.mp4", "out", "../v/a%20b%231%3F%25.mp4"),
        ("é.mp4", ".", "./%C3%A9.mp4"),
        ("file:x.mp4", ".", "./file%3Ax.mp4"),
    ],
)
def test_the_video_is_found_from_the_page(tmp_path: Path, video: str, folder: str, address: str) -> None:
    assert page.sources(tmp_path / video, tmp_path / folder) == [address]


def test_the_video_is_found_whichever_way_the_page_is_opened(tmp_path: Path) -> None:
    (tmp_path / "big" / "disk").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "big" / "disk")
    assert page.sources(tmp_path / "v.mp4", tmp_path / "out") == ["../v.mp4", "../../v.mp4"]


# ---- the page


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def browser(window: Browser) -> Browser:
    """The one window, which tells of nothing that was before."""
    window.errors(), window.requests()
    return Browser(window.driver)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s at 25 frames a second, under a name that an address has to spell otherwise."""
    path = tmp_path_factory.mktemp("videos") / "badger 1 #2?.mp4"
    return write_video(path, np.tile(moving_frames(20, (1, 0)), (5, 1, 1, 1)), lossless=False)


def show(browser: Browser, folder: Path, made: Timeline, width: int = 1280, ready: str = LOADED) -> None:
    timeline.write(folder, made)
    browser.resize(width)
    browser.open(folder / f"{made.video.stem}.html", f"{DRAWN} && {ready}")


def wait(browser: Browser, expression: str) -> None:
    WebDriverWait(browser.driver, 30, poll_frequency=0.05).until(lambda _: browser.run(f"return Boolean({expression})"))


def time(browser: Browser) -> float:
    """Where the playhead stands, in seconds, if the whole video is shown."""
    return browser.run(
        "const axis = document.querySelector('#axis canvas').getBoundingClientRect(),"
        " head = document.getElementById('playhead').getBoundingClientRect();"
        "return (head.left + head.width / 2 - axis.left) / axis.width"
        " * JSON.parse(document.getElementById('data').textContent).seconds"
    )


def canvases(browser: Browser) -> list[Any]:
    return browser.driver.find_elements(By.CSS_SELECTOR, "#lanes .lane:not([hidden]) canvas")[1:]


def at(browser: Browser, lane: int, share: float) -> ActionChains:
    """The mouse over a lane, at a share of its width."""
    canvas = canvases(browser)[lane]
    return ActionChains(browser.driver, duration=20).move_to_element_with_offset(
        canvas, round((share - 0.5) * canvas.size["width"]), 0
    )


def current(browser: Browser) -> float:
    """The video's own time, once it is there."""
    wait(browser, "!document.getElementById('video').seeking")
    return browser.run("return document.getElementById('video').currentTime")


def press(browser: Browser, *keys: str) -> None:
    ActionChains(browser.driver).send_keys(*keys).perform()


def is_quiet(browser: Browser, *videos: Path) -> bool:
    assert browser.errors() == []
    assert set(browser.requests()) == {path.as_uri() for path in videos}
    return True


def test_the_video_plays_and_the_playhead_goes_with_it(browser: Browser, tmp_path: Path, video: Path) -> None:
    show(browser, tmp_path, make(video))
    assert browser.run("return document.getElementById('unplayable').hidden")
    assert time(browser) == pytest.approx(0, abs=0.01)
    browser.driver.find_element(By.ID, "play").click()
    wait(browser, "document.getElementById('video').currentTime > 0.3")
    assert browser.run("return document.getElementById('play').textContent") == "Pause"
    ActionChains(browser.driver).send_keys_to_element(browser.driver.find_element(By.TAG_NAME, "body"), "n").perform()
    browser.run("document.getElementById('video').pause()")
    wait(browser, "document.getElementById('play').textContent === 'Play'")
    assert 2.25 <= current(browser) == pytest.approx(time(browser), abs=0.02)
    assert is_quiet(browser, video)


def test_a_click_and_a_drag_seek(browser: Browser, tmp_path: Path, video: Path) -> None:
    show(browser, tmp_path, make(video))
    at(browser, 0, 0.75).click().perform()
    assert current(browser) == pytest.approx(3, abs=0.02) and time(browser) == pytest.approx(3, abs=0.02)
    at(browser, 1, 0.6).click_and_hold().perform()
    at(browser, 0, 0.25).release().perform()
    assert current(browser) == pytest.approx(1, abs=0.02) and time(browser) == pytest.approx(1, abs=0.02)
    at(browser, 0, 0.4).perform()
    assert current(browser) == pytest.approx(1, abs=0.02)  # the button is up
    assert is_quiet(browser, video)


def test_the_mouse_over_a_lane_hears_time_class_and_score(browser: Browser, tmp_path: Path, video: Path) -> None:
    show(browser, tmp_path, make(video))
    said = "return document.getElementById('tip').innerText"
    at(browser, 0, 0.6).perform()
    assert browser.run(said).split("\n") == [
        "0:00:02.4 drinking",
        "score 0.750, threshold 0.500",
        "bout 0:00:02.3 to 0:00:03.3, mean 0.750",
    ]
    at(browser, 1, 0.6).perform()
    assert browser.run(said).split("\n") == ["0:00:02.4 resting", "score 0.125, threshold 0.500"]


def test_keys_and_the_table_seek(browser: Browser, tmp_path: Path, video: Path) -> None:
    bouts = (Bout("drinking", 0.5, 1.5, 0.7), Bout("resting", 1.0, 2.0, 0.6), Bout("drinking", 2.25, 2.75, 0.75))
    show(browser, tmp_path, make(video, bouts=bouts))
    browser.driver.find_elements(By.CSS_SELECTOR, "tbody tr")[2].click()
    assert current(browser) == 2.25
    for key, expected in (
        ("p", 1.0),
        ("p", 0.5),
        ("p", 0.5),
        ("n", 1.0),
        ("\ue014", 2.0),
        ("\ue012", 1.0),
        (".", 1.04),
    ):
        press(browser, key)
        assert current(browser) == pytest.approx(expected, abs=1e-3), key
    marked = "return [...document.querySelectorAll('tbody tr.now')].map((row) => row.cells[3].textContent)"
    assert browser.run(marked) == ["drinking", "resting"]
    browser.run(
        "const picker = document.getElementById('action'); picker.selectedIndex = 1;"
        "picker.dispatchEvent(new Event('change'))"
    )
    shown = browser.run("return [...document.querySelectorAll('tbody tr')].map((row) => row.cells[3].textContent)")
    assert shown == ["drinking", "drinking"]  # the action that lasts longest comes first
    press(browser, "n")
    assert current(browser) == 2.25
    browser.driver.find_element(By.ID, "previous").send_keys(" ")  # a button that is pressed does its own work alone
    assert current(browser) == 0.5 and browser.run("return document.getElementById('video').paused")
    browser.run("document.activeElement.blur()")
    press(browser, " ")
    wait(browser, "!document.getElementById('video').paused")
    press(browser, " ")
    wait(browser, "document.getElementById('video').paused")
    assert is_quiet(browser, video)


def test_a_part_can_be_looked_at_closely(browser: Browser, tmp_path: Path, video: Path) -> None:
    show(browser, tmp_path, make(video))
    at(browser, 0, 1.0).click().perform()
    browser.driver.find_element(By.ID, "in").click()  # the last 2 of 4 s
    at(browser, 0, 0.5).click().perform()
    assert current(browser) == pytest.approx(3, abs=0.02)
    press(browser, "\ue011")  # Home: the part that is shown goes with the time
    at(browser, 0, 0.5).click().perform()
    assert current(browser) == pytest.approx(1, abs=0.02)
    browser.driver.find_element(By.ID, "all").click()
    assert time(browser) == pytest.approx(1, abs=0.02)


def pixels(browser: Browser, lane: int, share: float, colour: tuple[int, int, int]) -> int:
    """How many pixels of that colour stand above each other at a share of a lane's width."""
    return browser.run(
        "const canvas = document.createElement('canvas');"  # a copy: the page's own isn't made to be read
        "canvas.width = arguments[0].width; canvas.height = arguments[0].height;"
        "const pen = canvas.getContext('2d', {willReadFrequently: true});"
        "pen.drawImage(arguments[0], 0, 0);"
        "const found = pen.getImageData(Math.round(arguments[1] * canvas.width), 0, 1, canvas.height).data;"
        "let count = 0;"
        "for (let i = 0; i < found.length; i += 4) count += arguments[2].every((c, j) => found[i + j] === c);"
        "return count",
        canvases(browser)[lane],
        share,
        colour,
    )


def test_scores_and_bouts_are_drawn_where_they_are(browser: Browser, tmp_path: Path, video: Path) -> None:
    made = make(video, thresholds=np.array([np.nan, np.nan]))  # no line is in the way
    made.scores[4, 1] = np.nan
    show(browser, tmp_path, made)
    light, strong = (188, 220, 240), (0, 114, 178)
    high = browser.run("return document.querySelectorAll('#lanes canvas')[1].height") - 10
    shares = {share: (pixels(browser, 0, share, light), pixels(browser, 0, share, strong)) for share in (0.1, 0.65)}
    assert shares[0.1] == (pytest.approx(0.25 * high, abs=1.1), 0)
    assert shares[0.65] == (0, 4)  # a window without a score, in a bout that goes on
    at(browser, 0, 0.65).perform()
    assert browser.run("return document.getElementById('tip').innerText.split('\\n')[1]") == "score –"


def test_bouts_are_drawn_in_the_stronger_colour(browser: Browser, tmp_path: Path, video: Path) -> None:
    show(browser, tmp_path, make(video))
    strong = (0, 114, 178)
    assert [pixels(browser, 0, share, strong) > 10 for share in (0.55, 0.57, 0.8, 0.82)] == [False, True, True, False]
    assert not any(pixels(browser, 1, share, strong) for share in (0.1, 0.6, 0.9))


def late(source: Path, path: Path, seconds: int) -> Path:
    """The same video with all its times later."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.pts is not None and packet.dts is not None:
                shift = int(seconds / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                new.mux(packet)
    return path


def test_a_video_whose_times_begin_late_begins_at_its_first_frame(
    browser: Browser, tmp_path: Path, video: Path
) -> None:
    show(browser, tmp_path, make(late(video, tmp_path / "late.mp4", 5)))
    assert time(browser) == pytest.approx(0, abs=0.01)
    press(browser, "n")
    assert current(browser) == pytest.approx(5 + 2.25, abs=0.01) and time(browser) == pytest.approx(2.25, abs=0.02)


def test_names_of_users_are_text_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    video = tmp_path / "<img src=x onerror=alert(1)> {{ 1 }} 'a' & \"b\".mp4"
    made = make(write_video(video, moving_frames(10, (1, 0)), lossless=False), classes=NASTY, whole_by=NASTY[0])
    show(browser, tmp_path, made)
    assert browser.run("return document.title") == f"{video.name}: timeline"
    assert browser.run("return document.querySelectorAll('img, main b b, td b').length") == 0
    labels = browser.run("return [...document.querySelectorAll('.label b')].map((e) => e.textContent)")
    assert sorted(labels) == sorted(NASTY)
    assert browser.run("return document.querySelector('#whole p').textContent") == f"Scores: {NASTY[0]}."
    assert is_quiet(browser, video)


def test_a_file_that_no_browser_plays_leaves_the_timeline(browser: Browser, tmp_path: Path, video: Path) -> None:
    bad = tmp_path / "old.avi"
    bad.write_bytes(b"no video")
    shown = "!document.getElementById('unplayable').hidden"
    show(browser, tmp_path, make(bad), ready=shown)
    text = browser.driver.find_element(By.ID, "unplayable").text
    assert "This browser can’t show the video." in text and "./old.avi" in text
    at(browser, 0, 0.75).click().perform()
    assert time(browser) == pytest.approx(3, abs=0.02)
    press(browser, "p")
    assert time(browser) == pytest.approx(2.25, abs=0.02)
    press(browser, "+", "\ue011")  # a closer look, then Home: the part that is shown goes there
    assert browser.run("return document.getElementById('playhead').hidden") is False
    press(browser, "-", "n")
    browser.driver.find_element(By.ID, "file").send_keys(str(video))  # a copy that it can play
    wait(browser, f"{LOADED} && !({shown})")
    assert current(browser) == 2.25
    assert is_quiet(browser, bad)


def test_sound_alone_is_no_video(browser: Browser, tmp_path: Path) -> None:
    """As of a film whose pictures a browser can't read."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 1, 8000, 0, "NONE", ""))
        file.writeframes(bytes(8000))
    show(browser, tmp_path, make(tmp_path / "a.wav", 1.0), ready="!document.getElementById('unplayable').hidden")


def test_an_hour_of_140_classes(browser: Browser, tmp_path: Path, video: Path) -> None:
    rng = np.random.default_rng(0)
    starts = np.arange(0, 3595.0)
    scores = rng.random((len(starts), 140)) ** 8
    names = tuple(f"class {c}" + " with a name that is long" * (c % 5 == 0) for c in range(140))
    found = find_bouts(starts, starts + 6, scores, np.full(140, 0.97), names, 3600.0, min_length=0)
    how = scores, scores.mean(axis=0), "x", np.full(140, 0.97), found
    made = Timeline(video, 3600.0, 25.0, 90_000, names, starts, starts + 6, *how)
    (tmp_path / "page.html").write_text(page.render(made, tmp_path), encoding="utf-8")
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
    at(browser, 0, 0.5).click().perform()
    assert time(browser) == pytest.approx(4, abs=0.1)  # where this video ends
    assert is_quiet(browser, video)


def test_classes_without_a_bout_are_shown_when_asked_for(browser: Browser, tmp_path: Path, video: Path) -> None:
    names = tuple(f"class {c}" for c in range(30))
    scores = np.repeat(np.linspace(0.1, 0.4, 30)[None], 7, axis=0)
    scores[4, 3] = 0.9
    bouts = (Bout("class 3", 2.25, 2.75, 0.9),)
    show(browser, tmp_path, make(video, classes=names, scores=scores, bouts=bouts, whole=np.zeros(30)), 400)
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
def test_a_page_in_a_linked_folder_finds_its_video(browser: Browser, tmp_path: Path, video: Path) -> None:
    (tmp_path / "big" / "disk").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "big" / "disk")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    (tmp_path / "out" / "page.html").write_text(page.render(make(copy), tmp_path / "out"), encoding="utf-8")
    for way in ("big/disk", "out"):
        browser.driver.get((tmp_path / way / "page.html").absolute().as_uri())
        wait(browser, LOADED)
    assert browser.run("return document.getElementById('unplayable').hidden")
