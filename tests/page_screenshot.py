"""Screenshot of a page for the docs: `python -m tests.page_screenshot page.html docs/timeline.png --at 0.4`.

The picture docs/agreement.png is made of agreement.html in the same way. Needs what tests of pages need:
selenium, Chromium and its driver."""

import argparse
import tempfile
from pathlib import Path

from PIL import Image
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from tests.browser import chromium

READY = (  # a timeline, an index, an agreement, or class_counts.html
    "(document.documentElement.dataset.drawn || document.querySelector('#counts .bars')) && "
    "[...document.querySelectorAll('video')].every((v) => v.hidden || v.readyState > 1)"
)
STILL = "document.querySelector('video')?.removeAttribute('controls')"  # they fade, so no two pictures would be alike


def main(argv: list[str] | None = None) -> Path:
    """The picture's path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path, help="a PNG")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=None, help="pixels from the top; default: the whole page")
    parser.add_argument("--at", type=float, default=None, help="where to go first, as a share of the time axis")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile), args.width) as browser:
        browser.resize(args.width)
        browser.open(args.page, f"!!({READY})")
        browser.run(STILL)
        if args.at is not None:
            axis = browser.driver.find_element(By.CSS_SELECTOR, "#axis canvas")
            place = round((args.at - 0.5) * axis.size["width"])
            ActionChains(browser.driver).move_to_element_with_offset(axis, place, 0).click().perform()
            ActionChains(browser.driver).move_by_offset(0, -300).pause(1).perform()
        browser.screenshot(args.picture)
    with Image.open(args.picture) as image:
        image.crop((0, 0, image.width, min(args.height or image.height, image.height))).save(
            args.picture, optimize=True
        )
    return args.picture


if __name__ == "__main__":
    main()
