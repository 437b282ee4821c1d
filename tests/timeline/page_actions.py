"""What tests do with the page of a timeline in a browser."""

from pathlib import Path
from typing import Any

from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser import Browser
from vimoclip import timeline
from vimoclip.timeline import Timeline

DRAWN = "document.documentElement.dataset.drawn"
LOADED = "document.getElementById('video').readyState >= 2"


def open_page(browser: Browser, folder: Path, result: Timeline, width: int = 1280, ready: str = LOADED) -> None:
    timeline.write_timeline(folder, result)
    browser.resize(width)
    browser.open(folder / f"{result.video.stem}.html", f"{DRAWN} && {ready}")


def wait_until(browser: Browser, expression: str) -> None:
    WebDriverWait(browser.driver, 30, poll_frequency=0.05).until(lambda _: browser.run(f"return Boolean({expression})"))


def playhead_time(browser: Browser) -> float:
    """Position of the playhead in seconds, if the whole video is visible."""
    return browser.run(
        "const axis = document.querySelector('#axis canvas').getBoundingClientRect(),"
        " head = document.getElementById('playhead').getBoundingClientRect();"
        "return (head.left + head.width / 2 - axis.left) / axis.width"
        " * Number(document.getElementById('axis').ariaValueMax)"
    )


def canvases(browser: Browser) -> list[Any]:
    return browser.driver.find_elements(By.CSS_SELECTOR, "#lanes .lane:not([hidden]) canvas")[1:]


def mouse_at(browser: Browser, lane: int, share: float) -> ActionChains:
    """Move the mouse over a lane, to a fraction of its width."""
    canvas = canvases(browser)[lane]
    return ActionChains(browser.driver, duration=20).move_to_element_with_offset(
        canvas, round((share - 0.5) * canvas.size["width"]), 0
    )


def video_time(browser: Browser) -> float:
    """Return currentTime of the video after a seek."""
    wait_until(browser, "!document.getElementById('video').seeking")
    return browser.run("return document.getElementById('video').currentTime")


def press(browser: Browser, *keys: str) -> None:
    ActionChains(browser.driver).send_keys(*keys).perform()


def assert_no_errors_or_requests(browser: Browser, *videos: Path) -> bool:
    assert browser.errors() == []
    assert set(browser.requests()) == {path.as_uri() for path in videos}
    return True


def count_pixels(browser: Browser, lane: int, share: float, colour: tuple[int, int, int]) -> int:
    """Count the pixels of a colour in the column at a fraction of a lane's width."""
    return browser.run(
        "const canvas = document.createElement('canvas');"  # a copy: the page's own can't be read back
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
