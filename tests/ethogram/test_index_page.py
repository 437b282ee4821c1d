"""The index page of a folder, as a browser shows it."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import Browser
from tests.timeline.helpers import make_timeline
from vimoclip import timeline
from vimoclip.ethogram.index_page import render_index
from vimoclip.ethogram.statistics import write_ethogram, write_transitions
from vimoclip.io.palette import COLORS
from vimoclip.timeline import Bout, Timeline
from vimoclip.timeline.page import format_clock

DRAWN = "document.documentElement.dataset.drawn"
CLASSES = ("resting", "drinking", "walking")
HTML_INJECTIONS = ("</script><b>drinking</b>", "<img src=x onerror=alert(1)>", "\"quoted\" 'it' & {{ 7 * 7 }}")
ROWS = "[...document.querySelectorAll('#videos tbody tr')]"


def film(video: str, seconds: float, *spans: tuple[str, float, float], **changed: Any) -> Timeline:
    """Return a timeline of bouts; its windows and scores are those of a shorter one."""
    bouts = tuple(Bout(*span, 0.5) for span in spans)
    short = make_timeline(Path("videos") / video, 4.0, changed.pop("classes", CLASSES))
    return replace(short, **{"seconds": seconds, "observed": ((0.0, seconds),), "bouts": bouts, **changed})


def three_films() -> list[Timeline]:
    """One with a pause, one without bouts of its own classes, one of another model."""
    return [
        film("b 10.mp4", 100.0, ("resting", 0.0, 20.0), ("walking", 20.0, 30.0), ("resting", 40.0, 50.0)),
        film(
            "b 2.mp4",
            80.0,
            ("resting", 10.0, 20.0),
            ("drinking", 15.0, 45.0),
            ("walking", 70.0, 80.0),
            observed=((0.0, 40.0), (60.0, 80.0)),
        ),
        film("a.mp4", 50.0, ("resting", 25.0, 30.123), classes=("resting", "digging")),
    ]


def open_index(
    browser: Browser,
    folder: Path,
    timelines: Sequence[Timeline],
    links: Mapping[str, str] | None = None,
    width: int = 1280,
) -> Path:
    path = folder / "index.html"
    path.write_text(render_index(folder, timelines, links or {}), encoding="utf-8")
    browser.resize(width)
    browser.open(path, DRAWN)
    return path


def texts(browser: Browser, selector: str) -> list[list[str]]:
    """Return the texts of the cells of each row of a table."""
    return browser.run(
        "return [...document.querySelectorAll(arguments[0])]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText.trim()))",
        selector,
    )


def video_names(browser: Browser) -> list[str]:
    return [row[0] for row in texts(browser, "#videos tbody tr")]


def choose(browser: Browser, *actions: str) -> None:
    for action in actions:
        browser.driver.find_element(By.XPATH, f"//section[@id='budget']//label[span[.='{action}']]/input").click()


def write_in(browser: Browser, field: str, text: str) -> None:
    browser.driver.find_element(By.ID, field).send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE, text)


def lane(browser: Browser, video: int) -> np.ndarray:
    """Return the (H, W, 4) pixels of a lane, after it has been drawn."""
    browser.run(f"{ROWS}[arguments[0]].scrollIntoView({{block: 'center'}})", video)
    canvas = f"{ROWS}[{video}].querySelector('canvas')"
    WebDriverWait(browser.driver, 30, poll_frequency=0.02).until(lambda _: browser.run(f"return {canvas}.width"))
    png = browser.run(f"return {canvas}.toDataURL()").partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return np.array(image.convert("RGBA"))


def pixel(lane: np.ndarray, share_x: float, share_y: float) -> str:
    """Return the colour of a point of a lane."""
    color = lane[int(share_y * lane.shape[0]), int(share_x * lane.shape[1])]
    return f"#{bytes(color[:3]).hex().upper()}" if color[3] else ""


def assert_no_errors_or_requests(browser: Browser) -> None:
    assert browser.errors() == [] and browser.requests() == []


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def test_numbers_are_those_of_the_csv_files(browser: Browser, tmp_path: Path) -> None:
    films = three_films()
    open_index(browser, tmp_path, films)
    rows = read(write_ethogram(tmp_path / "e.csv", films))
    budget = {row[0]: row for row in texts(browser, "#budget tbody tr")}
    assert list(budget) == ["resting", "drinking", "walking", "digging"]
    for action, (_, _, share, _, bouts, videos) in budget.items():
        own = [row for row in rows if row["action"] == action]
        total, observed = (sum(float(row[key]) for row in own) for key in ("total_seconds", "observed_seconds"))
        assert (share, bouts) == (percent(total / observed), str(sum(int(row["bouts"]) for row in own)))
        assert videos == str(sum(row["bouts"] != "0" for row in own))
    assert budget["resting"][3] == "10.2–30.0 %"  # lowest and highest share of a video
    choose(browser, "resting")
    expected = {row["video"]: row for row in rows if row["action"] == "resting"}
    for name, _, length, bouts, seconds, part in texts(browser, "#videos tbody tr"):
        own_row = expected.pop(name)
        assert bouts == own_row["bouts"]
        assert (seconds, part) == (format_clock(float(own_row["total_seconds"])), percent(float(own_row["share"])))
        assert length == format_clock(next(f.seconds for f in films if f.video.name == name))
    assert not expected
    summary = browser.driver.find_element(By.ID, "summary").text
    assert all(part in summary for part in ("3 videos", "0:03:50.0", "0:03:30.0", "4 bouts"))
    assert_no_errors_or_requests(browser)


def test_transitions_are_those_of_the_csv_file(browser: Browser, tmp_path: Path) -> None:
    films = three_films()
    open_index(browser, tmp_path, films)
    rows = read(write_transitions(tmp_path / "t.csv", films))
    of_all = [row for row in rows if not row["video"]]
    expected = {(row["from"], row["to"]): (row["count"], float(row["probability"])) for row in of_all}
    assert len(expected) >= 3

    def shown() -> dict[tuple[str, str], str]:
        (columns,) = texts(browser, "#transitions thead tr")
        found = texts(browser, "#transitions tbody tr")
        return {(row[0], to): text for row in found for to, text in zip(columns[1:], row[1:], strict=True) if text}

    assert shown() == {pair: str(round(share * 100)) for pair, (_, share) in expected.items()}
    tips = browser.run("return [...document.querySelectorAll('#transitions td')].map((cell) => cell.dataset.tip)")
    for (first, following), (count, share) in expected.items():
        (tip,) = [tip for tip in tips if tip.startswith(f"{first} → {following}\n")]
        assert f"\n{count} of " in tip and percent(share) in tip
    choose(browser, "drinking")  # its row, with all actions that follow
    assert set(shown()) == {pair for pair in expected if pair[0] == "drinking"}
    write_in(browser, "find-video", "a.mp4")
    assert shown() == {} and browser.driver.find_element(By.CSS_SELECTOR, "#transitions p").text


def test_bouts_are_drawn_in_their_colour_at_their_place(browser: Browser, tmp_path: Path) -> None:
    open_index(browser, tmp_path, three_films())
    assert video_names(browser) == ["a.mp4", "b 2.mp4", "b 10.mp4"]
    resting, drinking, walking = COLORS[:3]  # the most frequent first; nothing digs
    tracks = {resting: 1 / 6, drinking: 3 / 6, walking: 5 / 6}

    def drawn(video: int, *times: float) -> list[set[str]]:
        """Return the colours of the tracks at some times, on the scale of the longest video."""
        pixels = lane(browser, video)
        return [{color for color, y in tracks.items() if pixel(pixels, time / 100, y) == color} for time in times]

    assert drawn(2, 0.5, 19, 21, 29, 31, 39, 41, 49, 51) == [
        *({resting}, {resting}, {walking}, {walking}),
        *(set(), set(), {resting}, {resting}, set()),
    ]
    assert drawn(1, 9, 11, 17, 22, 39, 41, 59, 79, 81) == [
        *(set(), {resting}, {resting, drinking}, {drinking}, {drinking}),
        *(set(), set(), {walking}, set()),  # a bout reaches into a stretch that was not observed
    ]
    pixels = lane(browser, 1)
    assert len({pixel(pixels, x / 100, y / 20) for x in range(42, 58) for y in range(20)}) == 2  # hatched
    assert pixel(pixels, 0.9, 0.5) == ""  # after its end
    browser.driver.find_element(By.ID, "same").click()
    assert pixel(lane(browser, 1), 79 / 80, tracks[walking]) == walking  # each lane fills the width
    choose(browser, "walking")
    pixels = lane(browser, 2)
    assert [pixel(pixels, time / 100, 0.5) for time in (21, 29)] == [walking] * 2  # the only track
    assert pixel(pixels, 0.1, 0.5) not in tracks
    colors = "return [...document.querySelectorAll(arguments[0])].map((e) => getComputedStyle(e).backgroundColor)"
    budget = browser.run(colors, "#budget .swatch")
    choose(browser, "walking")
    assert budget[:3] == browser.run(colors, "#legend .swatch")
    assert budget[0] == f"rgb({', '.join(str(int(resting[i : i + 2], 16)) for i in (1, 3, 5))})"


def test_filters_search_and_sorting(browser: Browser, tmp_path: Path) -> None:
    open_index(browser, tmp_path, three_films())
    choose(browser, "drinking")
    assert [row[3] for row in texts(browser, "#videos tbody tr")] == ["0", "1", "0"]
    browser.driver.find_element(By.ID, "only").click()
    assert video_names(browser) == ["b 2.mp4"]
    assert {row[0]: row[5] for row in texts(browser, "#budget tbody tr")}["resting"] == "1"  # of the shown videos
    browser.driver.find_element(By.CSS_SELECTOR, "#legend button").send_keys(Keys.ENTER)  # without drinking
    assert len(video_names(browser)) == 3
    choose(browser, "digging")
    assert video_names(browser) == [] and browser.driver.find_element(By.ID, "none").is_displayed()
    browser.driver.find_element(By.ID, "clear").click()
    assert len(video_names(browser)) == 3
    write_in(browser, "find-video", "B ")
    assert video_names(browser) == ["b 2.mp4", "b 10.mp4"]
    write_in(browser, "find-video", "")
    write_in(browser, "find-action", "ING ")
    visible = "return [...document.querySelectorAll('#budget tbody tr')].filter((r) => !r.hidden).length"
    assert browser.run(visible) == 4
    write_in(browser, "find-action", "dig")
    assert browser.run(visible) == 1
    orders = {"name": ["b 10.mp4", "b 2.mp4", "a.mp4"], "seconds": ["b 10.mp4", "b 2.mp4", "a.mp4"]}
    orders |= {"total": ["b 2.mp4", "b 10.mp4", "a.mp4"], "bouts": ["b 2.mp4", "b 10.mp4", "a.mp4"]}
    for key, expected in orders.items():
        button = browser.driver.find_element(By.CSS_SELECTOR, f"[data-sort={key}]")
        button.click()
        assert video_names(browser) == expected, key
        heading = button.find_element(By.XPATH, "./..")
        assert heading.get_attribute("aria-sort") == "descending"
        button.send_keys(" ")
        assert heading.get_attribute("aria-sort") == "ascending"
    write_in(browser, "find-action", "")
    choose(browser, "walking")
    browser.driver.find_element(By.CSS_SELECTOR, "[data-sort=share]").click()
    assert video_names(browser) == ["b 2.mp4", "b 10.mp4"]  # 1/6, 1/10; the other one is hidden as before
    assert_no_errors_or_requests(browser)


def test_links_open_the_timelines_and_other_files(browser: Browser, tmp_path: Path) -> None:
    names = ["a #1?%.mp4", "é:x.mp4", "same.mp4"]
    films = [film(name, 4.0, ("resting", 1.0, 2.0)) for name in names]
    films.append(film("same.mp4", 4.0, name="other-same"))
    for item in films:
        timeline.write_timeline(tmp_path, item)
    index = open_index(browser, tmp_path, films, {"Ethogram": "ethogram 1.csv"})
    assert sorted(video_names(browser)) == sorted([*names, "other-same.mp4"])  # as in ethogram.csv
    address = browser.run("return document.querySelector('nav a').href")
    assert address == (tmp_path / "ethogram 1.csv").as_uri()
    for name in video_names(browser):
        browser.driver.find_element(By.LINK_TEXT, name).click()
        assert browser.run("return document.title").startswith(name.removeprefix("other-"))
        browser.open(index, DRAWN)
    browser.driver.find_element(By.CSS_SELECTOR, "#videos tbody canvas").click()
    assert browser.run("return document.title").endswith(": timeline")


def test_names_are_escaped(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / '<b>folder & "1"'
    folder.mkdir()
    spans = [(name, float(i), i + 1.5) for i, name in enumerate(HTML_INJECTIONS)]
    names = [f"{i} {name.replace('/', '-')}.mp4" for i, name in enumerate(HTML_INJECTIONS)]
    open_index(
        browser, folder, [film(n, 4.0, *spans, classes=HTML_INJECTIONS) for n in names], {HTML_INJECTIONS[1]: "x"}
    )
    assert browser.run("return document.title") == f"{folder.name}: ethogram"
    assert browser.run("return document.querySelectorAll('img, b:not(#legend b)').length") == 0
    assert video_names(browser) == names
    assert {row[0] for row in texts(browser, "#budget tbody tr")} == set(HTML_INJECTIONS)
    assert browser.run("return document.querySelector('nav').innerText") == HTML_INJECTIONS[1]
    legend = browser.run("return [...document.querySelectorAll('#legend b')].map((e) => e.textContent)")
    assert set(legend) == set(HTML_INJECTIONS)
    choose(browser, HTML_INJECTIONS[0])
    assert_no_errors_or_requests(browser)


@pytest.mark.parametrize(
    "films",
    [
        [],
        [film("a.mp4", 4.0)],
        [film("a.mp4", 4.0, ("resting", 1.0, 2.0), observed=()), film("b.mp4", 0.04, ("resting", 0.0, 0.04))],
    ],
)
def test_folders_with_nearly_nothing(browser: Browser, tmp_path: Path, films: list[Timeline]) -> None:
    open_index(browser, tmp_path, films, width=390)
    assert len(video_names(browser)) == len(films)
    assert browser.run("return document.body.innerText.match(/NaN|undefined|Infinity/)") is None
    assert browser.wider_than_the_window() == []
    assert_no_errors_or_requests(browser)


def random_film(number: int, like: Timeline, bouts: int) -> Timeline:
    """Return one hour of bouts that overlap, of all classes of another film."""
    rng = np.random.default_rng(number)
    starts = np.sort(rng.random(bouts) * 3500).round(3)
    stops = (starts + 1 + rng.exponential(10, bouts)).round(3)
    classes = rng.integers(0, len(like.classes), bouts).tolist()
    spans = zip(classes, starts.tolist(), stops.tolist(), strict=True)
    found = tuple(Bout(like.classes[c], start, min(stop, 3600.0), 0.5) for c, start, stop in spans)
    return replace(like, video=Path(f"film {number}.mp4"), bouts=found)


def test_300_hours_with_140_actions(browser: Browser, tmp_path: Path) -> None:
    names = tuple(f"action {c}" + " with a name that is long" * (c % 5 == 0) for c in range(140))
    like = film("like.mp4", 3600.0, classes=names)
    films = [random_film(number, like, 500) for number in range(300)]
    path = tmp_path / "index.html"
    open_index(browser, tmp_path, films)
    loaded = "return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
    assert browser.run(loaded) < 5000  # milliseconds; less than 1000 if nothing else runs
    assert path.stat().st_size < 6e6
    last = len(films) - 1
    assert browser.run(f"return {ROWS}[arguments[0]].querySelector('canvas').width", last) == 0  # not drawn yet
    action = names[0]
    own = next(bout for bout in films[last].bouts if bout.action == action and bout.stop - bout.start > 10)
    took = browser.run(
        "const start = performance.now(); document.querySelector('#find-action').value = '';"
        "[...document.querySelectorAll('#budget label')].find((l) => l.innerText === arguments[0]).click();"
        "document.body.offsetHeight; return performance.now() - start",
        action,
    )
    assert took < 2000
    color = browser.run("return JSON.parse(document.querySelector('#data').textContent)")["colors"]
    shown = next(row for row in texts(browser, "#budget tbody tr") if row[0] == action)
    order = [row[0] for row in texts(browser, "#budget tbody tr")]
    middle = (own.start + own.stop) / 2 / 3600
    assert pixel(lane(browser, last), middle, 0.5) == color[order.index(action)].upper()
    lengths = [bout.stop - bout.start for item in films for bout in item.bouts if bout.action == action]
    assert shown[2] == percent(sum(lengths) / (300 * 3600)) and shown[4] == f"{len(lengths):,}"
    browser.resize(390)
    browser.open(path, DRAWN)
    assert browser.wider_than_the_window() == []
    assert_no_errors_or_requests(browser)


def test_rendering_is_deterministic(tmp_path: Path) -> None:
    first, again = (render_index(tmp_path, three_films(), {"a": "a.csv"}) for _ in range(2))
    assert first == again
