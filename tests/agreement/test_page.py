"""The page of two codings, as a browser shows it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tests.browser import Browser
from tests.conftest import moving_frames, write_video
from tests.timeline.page_actions import (
    DRAWN,
    LOADED,
    assert_no_errors_or_requests,
    canvases,
    count_pixels,
    mouse_at,
    playhead_time,
    press,
    video_time,
    wait_until,
)
from vimoclip.agreement.coding import CodingPair, FilmCoding, FilmPair
from vimoclip.agreement.page import render_agreement
from vimoclip.timeline.bouts import Span

HTML_INJECTIONS = ("</script><b>drinking</b>", "<img src=x onerror=alert(1)>", "\"quoted\" 'it' & {{ 7 * 7 }}")
CODED, BOTH_CODED = (0, 114, 178), (169, 208, 234)
PREDICTED, BOTH_PREDICTED = (213, 94, 0), (245, 201, 166)
TRACK = (242, 244, 246)
UNKNOWN = {"value": None, "ci95": None}
TIP = "return document.getElementById('tip').innerText.split('\\n')"
DIFFERENCE = "return document.getElementById('difference').textContent"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 s at 25 frames/s."""
    path = tmp_path_factory.mktemp("videos") / "badger 1 #2?.mp4"
    return write_video(path, np.tile(moving_frames(20, (1, 0)), (5, 1, 1, 1)), lossless=False)


# ---- codings and agreement.json, written by hand


def coding(bouts: Mapping[str, Sequence[Span]], seconds: float, **changed: Any) -> FilmCoding:
    return FilmCoding("film.mp4", seconds, {action: tuple(spans) for action, spans in bouts.items()}, **changed)


def entry(value: float, *interval: float) -> dict[str, Any]:
    return {"value": value, "ci95": list(interval) or None}


def action_entries(**changed: Any) -> dict[str, Any]:
    """Return what agreement.json says of an action that occurs nowhere, except `changed`."""
    by_time: dict[str, Any] = dict.fromkeys(("precision", "recall", "f1"), UNKNOWN)
    errors = dict.fromkeys(("mean", "mean_absolute"), UNKNOWN)
    counts: dict[str, Any] = dict.fromkeys(
        ("coded_seconds", "predicted_seconds", "coded_points", "predicted_points"), 0
    )
    measures = {
        "kappa": UNKNOWN,
        "percent_agreement": entry(100.0),
        "by_time": by_time,
        "by_bouts": by_time | dict.fromkeys(("matched", "coded", "predicted"), 0),
        "onset_error_seconds": errors,
        "offset_error_seconds": errors,
    }
    return {**counts, **measures, **changed}


def make_document(pair: CodingPair, kappas: Sequence[float | None], **changed: Any) -> dict[str, Any]:
    """Return agreement.json; `kappas`: of the films."""
    lengths = [sum(stop - start for start, stop in film.compared) for film in pair.films]
    films = [
        {"name": film.name, "kappa": kappa, "percent_agreement": 91.0 + number, "compared_seconds": length}
        for number, (film, kappa, length) in enumerate(zip(pair.films, kappas, lengths, strict=True))
    ]
    by_time, errors = (action_entries()[key] for key in ("by_time", "onset_error_seconds"))
    overall: dict[str, Any] = {"kappa": entry(0.5), "percent_agreement": entry(90.0), "kappa_macro": entry(0.4)}
    overall |= {"by_time": by_time, "by_bouts": by_time, "states": 3, "actions_with_kappa": 2}
    overall |= {"onset_error_seconds": errors, "offset_error_seconds": errors}
    document = {
        "coded": {"file": "anna.boris", "observations": None},
        "predicted": {"file": "predictions", "observations": None},
        "notes": [],
        "step_seconds": 0.1,
        "overlap": 0.5,
        "compared_seconds": sum(lengths),
        "bootstrap": {"resamples": 1000, "over": "films", "units": len(films)},
        "films": films,
        "overall": overall,
        "actions": {action: action_entries() for action in pair.actions},
        "confusions": [],
    }
    return {**document, **changed}


def three_films(video: Path) -> CodingPair:
    """One with a video, one without, parts of which are unknown or not compared, and one whose kappa is not known."""
    first = FilmPair(
        "a 10.mp4",
        coding({"walk": [(0.5, 1.5), (2.0, 3.0)], "rest": [(1.0, 1.2)]}, 4.0, points={"call": (0.3, 3.8)}),
        coding({"walk": [(0.5, 1.5), (2.5, 3.5)]}, 4.0, points={"call": (0.3,)}, video=video),
        4.0,
        ((0.0, 4.0),),
    )
    second = FilmPair(
        "a 2.mp4",
        coding({"walk": [(3.0, 7.0)]}, 10.0, unknown={"rest": ((8.0, float("inf")),)}),
        coding({"rest": [(7.0, 9.0)]}, 10.0),
        10.0,
        ((0.0, 4.0), (6.0, 10.0)),
    )
    last = FilmPair("b.mp4", coding({}, 5.0), coding({}, 5.0), 5.0, ((0.0, 5.0),))
    return CodingPair(("walk", "rest", "groom", "call"), (first, second, last), ())


def open_page(
    browser: Browser,
    folder: Path,
    pair: CodingPair,
    document: Mapping[str, Any],
    width: int = 1280,
    ready: str = LOADED,
) -> Path:
    path = folder / "agreement.html"
    path.write_text(render_agreement(folder, pair, document), encoding="utf-8")
    browser.resize(width)
    browser.open(path, f"{DRAWN} && ({ready})")
    return path


def open_three_films(browser: Browser, folder: Path, video: Path) -> None:
    """Open the page; the film with a video has the lowest kappa, so it is shown first."""
    pair = three_films(video)
    open_page(browser, folder, pair, make_document(pair, [0.25, 0.8, None]))


# ---- what a user sees and does


def rows(browser: Browser, table: str) -> list[list[str]]:
    """Return the texts of the cells of each visible row."""
    return browser.run(
        "return [...document.querySelectorAll(arguments[0])].filter((row) => !row.hidden)"
        ".map((row) => [...row.cells].map((cell) => cell.innerText.trim()))",
        f"#{table} tbody tr",
    )


def film_names(browser: Browser) -> list[str]:
    return [row[0] for row in rows(browser, "films")]


def lane_names(browser: Browser) -> list[str]:
    return browser.run("return [...document.querySelectorAll('.lane:not([hidden]) b')].map((e) => e.textContent)")


def choose(browser: Browser, film: str) -> None:
    browser.driver.find_element(By.XPATH, f"//section[@id='films']//button[.='{film}']").click()


def tick(browser: Browser, action: str) -> None:
    browser.driver.find_element(By.XPATH, f"//div[@id='lanes']//label[.='{action}']/input").click()


def is_hatched(browser: Browser, lane: int, share: float) -> bool:
    """Whether a column of a lane shows other colours than those of the codings."""
    colours = (TRACK, CODED, BOTH_CODED, PREDICTED, BOTH_PREDICTED)
    return sum(count_pixels(browser, lane, share, colour) for colour in colours) < 15


def drawn(browser: Browser, lane: int, share: float) -> set[tuple[int, int, int]]:
    """Return which colours of codings a column of a lane has."""
    colours = (CODED, BOTH_CODED, PREDICTED, BOTH_PREDICTED)
    return {colour for colour in colours if count_pixels(browser, lane, share, colour) > 10}


def test_page_shows_the_numbers_and_why_there_are_none(browser: Browser, tmp_path: Path, video: Path) -> None:
    pair = three_films(video)
    document = make_document(pair, [0.25, None, None], notes=["first note", "second note"])
    document["overall"]["kappa"] = entry(0.504, 0.4, 0.613)
    document["overall"]["by_bouts"] = {"precision": entry(0.9), "recall": entry(0.7), "f1": entry(0.787, 0.7, 0.8)}
    document["actions"]["walk"] = action_entries(
        kappa=entry(-0.104, -0.25, 0.1),
        percent_agreement=entry(87.25, 80.0, 90.04),
        by_time={"precision": entry(0.61), "recall": entry(0.62), "f1": entry(0.63)},
        by_bouts={"precision": entry(0.71), "recall": entry(0.72), "f1": entry(0.73), "coded": 1200, "predicted": 7},
        onset_error_seconds={"mean": entry(-0.001), "mean_absolute": entry(0.25)},
        offset_error_seconds={"mean": entry(-1.5), "mean_absolute": entry(1.5)},
        coded_seconds=1234.56,
        predicted_seconds=2.0,
        coded_points=3,
    )
    document["confusions"] = [
        {"coded": None, "predicted": None, "seconds": 9.0},
        {"coded": "walk", "predicted": "walk", "seconds": 3.0},
        {"coded": "walk", "predicted": None, "seconds": 2.25},
        {"coded": "rest", "predicted": "walk", "seconds": 1.0},
        {"coded": None, "predicted": "rest", "seconds": 0.5},
    ]
    open_page(browser, tmp_path, pair, document)
    header = browser.driver.find_element(By.TAG_NAME, "header").text
    parts = ("anna.boris", "predictions", "0.50", "0.40 to 0.61", "90.0", "0.79", "0:00:17.0", "3 films, 4 actions")
    assert all(part in header for part in parts)
    assert [item.text for item in browser.driver.find_elements(By.CSS_SELECTOR, "#notes li")] == document["notes"]
    table = {row[0]: row[1:] for row in rows(browser, "actions")}
    assert list(table) == list(pair.actions)
    assert table["walk"] == [
        *("−0.10", "−0.25 to 0.10", "87.2", "0.61", "0.62", "0.63", "0.71", "0.72", "0.73"),
        *("0.00", "0.25", "−1.50", "1.50", "1,234.6", "2.0", "1,200 + 3 points", "7"),
    ]
    assert table["groom"] == ["–", "", "100.0", *["–"] * 10, "0.0", "0.0", "0", "0"]
    titles = "return [...document.querySelectorAll('#actions tbody tr')].map((r) => [...r.cells].map((c) => c.title))"
    walk, *_, groom, _ = browser.run(titles)
    assert "80.0 to 90.0" in walk[3] and all(groom[1:3]) and all(groom[4:14])
    assert len(set(groom[4:7])) == 3  # a reason for precision, recall and F1 each
    assert rows(browser, "confusions") == [
        ["walk", "nothing", "2.2", ""],
        ["rest", "walk", "1.0", ""],
        ["nothing", "rest", "0.5", ""],
    ]
    assert assert_no_errors_or_requests(browser, video)


def test_films_are_chosen_sorted_and_found(browser: Browser, tmp_path: Path, video: Path) -> None:
    pair = three_films(video)
    more = [FilmPair(f"c {number}.mp4", coding({}, 1.0), coding({}, 1.0), 1.0, ((0.0, 1.0),)) for number in range(6)]
    pair = CodingPair(pair.actions, (*pair.films, *more), ())
    kappas = [0.25, -0.5, None, 0.5, 0.6, None, 0.7, 0.8, 0.9]
    open_page(browser, tmp_path, pair, make_document(pair, kappas), ready="true")
    shown = "return document.getElementById('film').textContent"
    by_kappa = ["a 2.mp4", "a 10.mp4", "c 0.mp4", "c 1.mp4", "c 3.mp4", "c 4.mp4", "c 5.mp4"]
    assert film_names(browser)[:7] == by_kappa and set(film_names(browser)[7:]) == {"b.mp4", "c 2.mp4"}  # no kappa
    assert browser.run(shown) == "a 2.mp4" and rows(browser, "films")[0][1:] == ["−0.50", "92.0", "0:00:08.0"]
    heading = browser.driver.find_element(By.CSS_SELECTOR, "#films [data-sort='1']")
    heading.click()
    assert film_names(browser)[:7] == by_kappa[::-1] and set(film_names(browser)[7:]) == {"b.mp4", "c 2.mp4"}
    assert heading.find_element(By.XPATH, "./..").get_attribute("aria-sort") == "descending"
    browser.driver.find_element(By.CSS_SELECTOR, "#films [data-sort='0']").click()
    assert film_names(browser)[:4] == ["a 2.mp4", "a 10.mp4", "b.mp4", "c 0.mp4"]
    choose(browser, "a 10.mp4")
    press(browser, Keys.ARROW_DOWN)
    assert browser.run(shown) == "b.mp4"
    press(browser, Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_UP)  # the first film stays
    assert browser.run(shown) == "a 2.mp4"
    current = "return [...document.querySelectorAll('#films [aria-current]')].map((row) => row.cells[0].innerText)"
    assert browser.run(current) == ["a 2.mp4"]
    browser.driver.find_element(By.ID, "find").send_keys("C ")
    assert film_names(browser) == [f"c {number}.mp4" for number in range(6)]
    choose(browser, "c 0.mp4")
    press(browser, Keys.ARROW_DOWN)
    assert browser.run(shown) == "c 1.mp4"


def test_tables_of_actions_and_confusions_can_be_sorted_and_opened(browser: Browser, tmp_path: Path) -> None:
    pair = CodingPair(
        ("a 10", "a 2", "b"), (FilmPair("f.mp4", coding({}, 1.0), coding({}, 1.0), 1.0, ((0.0, 1.0),)),), ()
    )
    document = make_document(pair, [None])
    document["actions"]["a 10"] = action_entries(kappa=entry(0.5), coded_seconds=9.0)
    document["actions"]["b"] = action_entries(kappa=entry(0.75), coded_seconds=10.0)
    document["confusions"] = [{"coded": f"action {i}", "predicted": None, "seconds": 60.0 - i} for i in range(20)]
    open_page(browser, tmp_path, pair, document, ready="true")
    orders = {"Action": ["a 2", "a 10", "b"], "Kappa": ["b", "a 10", "a 2"], "coded": ["b", "a 10", "a 2"]}
    for name, expected in orders.items():
        browser.driver.find_element(By.XPATH, f"//section[@id='actions']//button[starts-with(., '{name}')]").click()
        assert [row[0] for row in rows(browser, "actions")] == expected, name
    assert len(rows(browser, "confusions")) < 20
    browser.driver.find_element(By.ID, "more").click()
    assert len(rows(browser, "confusions")) == 20
    assert not browser.driver.find_elements(By.ID, "find")  # one film


def test_lanes_show_what_both_and_one_of_the_codings_have(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_three_films(browser, tmp_path, video)
    assert lane_names(browser) == ["walk", "rest", "call"]
    walk = {share: drawn(browser, 0, share) for share in (0.05, 0.25, 0.55, 0.7, 0.8, 0.95)}
    both = {BOTH_CODED, BOTH_PREDICTED}
    assert walk == {0.05: set(), 0.25: both, 0.55: {CODED}, 0.7: both, 0.8: {PREDICTED}, 0.95: set()}
    assert drawn(browser, 1, 1.1 / 4) == {CODED}
    assert (drawn(browser, 2, 0.3 / 4), drawn(browser, 2, 3.8 / 4)) == (both, {CODED})  # point events
    notes = [note.text for note in browser.driver.find_elements(By.CSS_SELECTOR, ".lane:not([hidden]) .note")]
    assert notes == ["missed 0.5 s, added 0.5 s", "missed 0.2 s, added 0.0 s", "missed 1 point, added 0.0 s"]
    choose(browser, "a 2.mp4")
    assert lane_names(browser) == ["walk", "rest"]
    hatched = [share for share in (0.15, 0.35, 0.45, 0.55, 0.65, 0.95) if is_hatched(browser, 0, share)]
    assert hatched == [0.45, 0.55]  # not compared from 4 to 6 s, though it is coded
    assert [drawn(browser, 0, share) for share in (0.35, 0.65)] == [{CODED}, {CODED}]
    assert [drawn(browser, 1, share) for share in (0.75, 0.85)] == [{PREDICTED}, {BOTH_PREDICTED}]  # coded: unknown
    assert count_pixels(browser, 1, 0.95, TRACK) < 25 < count_pixels(browser, 1, 0.15, TRACK)  # one row is hatched
    browser.driver.find_element(By.ID, "empty").click()
    assert lane_names(browser) == ["walk", "rest", "groom", "call"]


def test_short_bouts_of_long_films_are_visible(browser: Browser, tmp_path: Path) -> None:
    hour, bouts = ((0.0, 3600.0),), {"walk": [(1000.0, 1000.2), (2000.0, 2000.2)]}
    film = FilmPair("f.mp4", coding(bouts, 3600.0), coding({"walk": [(1000.0, 1000.2)]}, 3600.0), 3600.0, hour)
    pair = CodingPair(("walk",), (film,), ())
    open_page(browser, tmp_path, pair, make_document(pair, [0.5]), ready="true")
    width = canvases(browser)[0].size["width"]
    first, second = (drawn(browser, 0, np.ceil(time / 3600 * width) / width) for time in (1000, 2000))
    assert (first, second) == ({BOTH_CODED, BOTH_PREDICTED}, {CODED})


def test_click_seeks_the_video_and_the_playhead_follows_it(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_three_films(browser, tmp_path, video)
    assert browser.run("return document.getElementById('unplayable').hidden")
    mouse_at(browser, 0, 0.75).click().perform()
    assert video_time(browser) == pytest.approx(3, abs=0.02) == playhead_time(browser)
    mouse_at(browser, 1, 0.5).perform()
    press(browser, "+", Keys.HOME)  # the first 2 s
    mouse_at(browser, 0, 0.5).click().perform()
    assert video_time(browser) == pytest.approx(1, abs=0.02)
    press(browser, "-", " ")
    wait_until(browser, "document.getElementById('video').currentTime > 1.3")
    press(browser, " ")
    wait_until(browser, "document.getElementById('video').paused")
    assert 1.3 < video_time(browser) == pytest.approx(playhead_time(browser), abs=0.03)
    assert assert_no_errors_or_requests(browser, video)


def test_film_without_a_video_moves_the_playhead(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_three_films(browser, tmp_path, video)
    mouse_at(browser, 0, 0.5).click().perform()
    choose(browser, "a 2.mp4")
    assert playhead_time(browser) == 0
    assert browser.driver.find_element(By.ID, "unknown").is_displayed()
    assert not browser.driver.find_element(By.ID, "failed").is_displayed()
    assert not browser.driver.find_element(By.ID, "video").is_displayed()
    mouse_at(browser, 0, 0.75).click().perform()
    assert playhead_time(browser) == pytest.approx(7.5, abs=0.02)
    assert browser.driver.find_element(By.ID, "clock").text.startswith("0:00:07.5")
    browser.driver.find_element(By.ID, "file").send_keys(str(video))
    wait_until(browser, f"{LOADED} && !document.getElementById('video').hidden")
    choose(browser, "a 10.mp4")
    wait_until(browser, f"{LOADED} && document.getElementById('video').currentSrc.startsWith('file:')")
    press(browser, "n")
    assert video_time(browser) == 1
    assert assert_no_errors_or_requests(browser, video)


def test_video_that_is_not_there_is_named(browser: Browser, tmp_path: Path) -> None:
    pair = three_films(tmp_path / "gone <b>.mp4")
    document = make_document(pair, [0.25, 0.8, None])
    open_page(browser, tmp_path, pair, document, ready="!document.getElementById('unplayable').hidden")
    text = browser.driver.find_element(By.ID, "unplayable").text
    assert "./gone%20%3Cb%3E.mp4" in text and not browser.driver.find_element(By.ID, "unknown").is_displayed()
    press(browser, "n")
    assert playhead_time(browser) == pytest.approx(1, abs=0.01)


def test_keys_and_buttons_go_to_differences(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_three_films(browser, tmp_path, video)
    assert "4 differences" in browser.run(DIFFERENCE)
    for key, expected in [("n", 1.0), ("n", 2.0), ("n", 3.0), ("n", 3.8), ("n", 3.8), ("p", 3.0), ("p", 2.0)]:
        press(browser, key)
        assert video_time(browser) == pytest.approx(expected, abs=1e-3), key
    shown = browser.run(DIFFERENCE)
    assert "2 of 4" in shown and "walk missed" in shown and "0.5 s" in shown
    browser.driver.find_element(By.ID, "next").click()
    assert video_time(browser) == 3 and "walk added" in browser.run(DIFFERENCE)
    tick(browser, "walk")  # the focus stays on the box, which leaves letters to the page
    press(browser, "p", "p")
    assert video_time(browser) == 1
    press(browser, "n")
    assert video_time(browser) == pytest.approx(3.8, abs=1e-3)
    press(browser, Keys.HOME)
    Select(browser.driver.find_element(By.ID, "least")).select_by_value("0.5")
    browser.run("document.activeElement.blur()")
    press(browser, "n")
    assert video_time(browser) == pytest.approx(3.8, abs=1e-3)  # a point event has no length
    browser.driver.find_element(By.ID, "every").click()
    press(browser, "p")
    assert video_time(browser) == 3
    browser.driver.find_element(By.ID, "every").click()
    assert not browser.driver.find_element(By.ID, "next").is_enabled()
    assert assert_no_errors_or_requests(browser, video)


def test_time_that_is_not_compared_or_not_known_has_no_differences(
    browser: Browser, tmp_path: Path, video: Path
) -> None:
    open_three_films(browser, tmp_path, video)
    choose(browser, "a 2.mp4")
    for expected in (3, 6, 7, 7):
        press(browser, "n")
        assert playhead_time(browser) == pytest.approx(expected, abs=0.02)


def test_tooltip_says_what_each_coding_has(browser: Browser, tmp_path: Path, video: Path) -> None:
    open_three_films(browser, tmp_path, video)
    expected = {
        0.55: ["0:00:02.2 walk", "coded: 0:00:02.0 to 0:00:03.0", "predicted: no", "missed: 0.5 s"],
        0.65: ["0:00:02.6 walk", "coded: 0:00:02.0 to 0:00:03.0", "predicted: 0:00:02.5 to 0:00:03.5"],
    }
    for share, lines in expected.items():
        mouse_at(browser, 0, share).perform()
        assert browser.run(TIP) == lines
    mouse_at(browser, 2, 3.8 / 4).perform()
    assert browser.run(TIP)[1:] == ["coded: point event at 0:00:03.8", "predicted: no", "missed: point event"]
    choose(browser, "a 2.mp4")
    mouse_at(browser, 0, 0.5).perform()
    assert browser.run(TIP)[3:] == ["not compared"]
    mouse_at(browser, 1, 0.95).perform()
    assert "not known" in browser.run(TIP)[1] and len(browser.run(TIP)) == 3


def test_arrow_keys_scroll_a_wide_table_and_move_the_time_elsewhere(
    browser: Browser, tmp_path: Path, video: Path
) -> None:
    pair = three_films(video)
    open_page(browser, tmp_path, pair, make_document(pair, [0.25, 0.8, None]), width=600)
    press(browser, Keys.ARROW_RIGHT)
    assert video_time(browser) == 1
    browser.run("document.querySelector('#actions .wide').focus()")
    press(browser, Keys.ARROW_RIGHT)
    wait_until(browser, "document.querySelector('#actions .wide').scrollLeft > 0")
    assert video_time(browser) == 1


def test_names_are_escaped(browser: Browser, tmp_path: Path, video: Path) -> None:
    bouts = {name: [(1.0 + i, 1.5 + i)] for i, name in enumerate(HTML_INJECTIONS)}
    films = [
        FilmPair(name, coding(bouts, 4.0, video=video), coding({}, 4.0), 4.0, ((0.0, 4.0),)) for name in HTML_INJECTIONS
    ]
    pair = CodingPair(HTML_INJECTIONS, tuple(films), ())
    files = {
        "coded": {"file": HTML_INJECTIONS[1], "observations": None},
        "predicted": {"file": HTML_INJECTIONS[2], "observations": None},
    }
    confusions = [{"coded": HTML_INJECTIONS[0], "predicted": HTML_INJECTIONS[1], "seconds": 1.0}]
    document = make_document(pair, [0.1, 0.2, 0.3], notes=list(HTML_INJECTIONS), confusions=confusions, **files)
    open_page(browser, tmp_path, pair, document)
    assert browser.run("return document.title") == f"{HTML_INJECTIONS[1]} and {HTML_INJECTIONS[2]}: agreement"
    assert browser.run("return document.querySelectorAll('img, b b, li b, td b, th b').length") == 0
    assert film_names(browser) == lane_names(browser) == list(HTML_INJECTIONS)
    assert [row[0] for row in rows(browser, "actions")] == list(HTML_INJECTIONS)
    assert rows(browser, "confusions")[0][:2] == list(HTML_INJECTIONS[:2])
    press(browser, "n")
    assert HTML_INJECTIONS[0] in browser.run(DIFFERENCE)
    mouse_at(browser, 0, 0.3).perform()
    assert HTML_INJECTIONS[0] in browser.run(TIP)[0]
    assert assert_no_errors_or_requests(browser, video)


@pytest.mark.parametrize("width", [360, 1280])
def test_codings_with_nearly_nothing(browser: Browser, tmp_path: Path, width: int) -> None:
    pair = CodingPair(("a",), (FilmPair("f.mp4", coding({}, 0.0), coding({}, 0.0), 0.0, ((0.0, 0.0),)),), ())
    document = make_document(pair, [None])
    document["overall"] |= {"kappa": UNKNOWN, "percent_agreement": UNKNOWN, "kappa_macro": UNKNOWN}
    open_page(browser, tmp_path, pair, document, width, ready="true")
    assert browser.run("return document.body.innerText.match(/NaN|undefined|Infinity|None/)") is None
    assert browser.wider_than_the_window() == []
    press(browser, "n", "+", Keys.END)
    assert_no_errors_or_requests(browser)


def test_300_hours_with_20_actions(browser: Browser, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    actions = tuple(f"action {a}" + " with a name that is long" * (a % 5 == 0) for a in range(20))

    def random_coding() -> FilmCoding:
        starts = np.sort(rng.integers(0, 3_590_000, (20, 15)), axis=1) / 1000
        spans = [[(start, start + 0.5) for start in row] for row in starts.tolist()]
        return coding(dict(zip(actions, spans, strict=True)), 3600.0)

    films = [
        FilmPair(
            f"film {i}" + "_without_spaces" * 6 * (i == 0), random_coding(), random_coding(), 3600.0, ((0.0, 3600.0),)
        )
        for i in range(300)
    ]
    pair = CodingPair(actions, tuple(films), ())
    document = make_document(pair, rng.random(300).round(3).tolist())
    pairs = [(a, b) for a in (*actions, None) for b in (*actions, None) if a != b]
    document["confusions"] = [{"coded": a, "predicted": b, "seconds": 12345.6} for a, b in pairs]
    for width in (360, 1280):
        path = open_page(browser, tmp_path, pair, document, width, ready="true")
        assert browser.wider_than_the_window() == []
    loaded = "return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    assert browser.run(loaded) < 5000  # milliseconds; less than 1000 if nothing else runs
    assert path.stat().st_size < 4e6
    choose(browser, "film 299")
    coded, predicted = (side.bouts[actions[0]] for side in (films[299].coded, films[299].predicted))
    first = min(start for start, _ in (*coded, *predicted))
    for action in lane_names(browser)[1:]:
        tick(browser, action)
    press(browser, "n")
    assert playhead_time(browser) == pytest.approx(first, abs=3)
    assert_no_errors_or_requests(browser)


def test_rendering_is_deterministic(tmp_path: Path) -> None:
    pair = three_films(tmp_path / "v.mp4")
    document = make_document(pair, [0.25, 0.8, None])
    assert render_agreement(tmp_path, pair, document) == render_agreement(tmp_path, pair, document)
