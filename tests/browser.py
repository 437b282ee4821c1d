"""A page in headless Chromium, without a network: what it draws, what it asks for, what its console says.

Chromium and its driver come from the distribution. Where they are missing, tests that need them are skipped and say so;
where CI is set, that is a failure."""

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

PACKAGES = "apt-get install chromium chromium-driver"
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)
OWN = ("data:", "blob:", "chrome:")  # within the page, or the browser's own first page
# what reaches beyond the right edge, but for what stands in a box that scrolls
WIDER = """
const clips = (e) => getComputedStyle(e).overflowX !== "visible";
const inBox = (e) => e && e !== document.body && (clips(e) || inBox(e.parentElement));
return [...document.body.querySelectorAll("*")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !inBox(e.parentElement))
  .map((e) => e.tagName + "#" + e.id + "." + e.className);
"""


class Browser:
    """One window. `errors` and `requests` tell of everything since it was opened."""

    def __init__(self, driver: webdriver.Chrome):
        self.driver = driver
        self._console: list[str] = []
        self._urls: list[str] = []

    def open(self, page: Path | str, ready: str = "document.readyState === 'complete'") -> None:
        """Load a file, or an address on this machine, and wait until the JavaScript expression `ready` is true."""
        self.driver.get(page.resolve().as_uri() if isinstance(page, Path) else page)
        WebDriverWait(self.driver, 60, poll_frequency=0.1).until(lambda _: self.run(f"return Boolean({ready})"))

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns in the page."""
        return self.driver.execute_script(script, *arguments)

    def resize(self, width: int, height: int = 900) -> None:
        """The window's size in pixels, also one smaller than a real window can be. Before `open` for a phone."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def errors(self) -> list[str]:
        """What the console has: errors and warnings, those of the page's security policy too."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        self._console += [e["message"] for e in entries if e["level"] in ("SEVERE", "WARNING")]
        return list(self._console)

    def requests(self) -> list[str]:
        """Every address that was asked for, but for pages that were opened and data within them."""
        for entry in self.driver.get_log("performance"):  # type: ignore[no-untyped-call]
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                given = message["params"]
                url = given["request"]["url"]
                if given.get("type") != "Document" and not url.startswith(OWN):
                    self._urls.append(url)
        return list(self._urls)

    def wider_than_the_window(self) -> list[str]:
        """The elements because of which the page would scroll sideways."""
        page = self.run("return document.documentElement.scrollWidth > innerWidth")
        return self.run(WIDER) + (["the page"] if page else [])

    def screenshot(self, path: Path) -> Path:
        """A picture of the whole page."""
        found = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def pdf(self, path: Path) -> Path:
        """The page as it is printed, on the paper that its style asks for."""
        asked = {"preferCSSPageSize": True, "printBackground": True}
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", asked)["data"]))
        return path


@contextmanager
def chromium(profile: Path, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """A browser that knows nothing; `profile`: an empty folder of its own. Skips the test where there is none."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        missing = "chromedriver" if browser else "Chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{missing} is missing: {PACKAGES}")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options, Service(driver))  # a named driver: selenium looks for none in the network
    try:
        window.execute_cdp_cmd("Network.enable", {})
        yield Browser(window)
    finally:
        window.quit()
