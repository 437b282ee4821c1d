"""Headless Chromium without a network: draws a page, and records its requests and console messages.

Requires the distribution's Chromium and its driver. If they are missing, tests that need them are skipped, or fail if
CI is set."""

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
OWN = ("data:", "blob:", "chrome:")  # no network requests
# elements that reach beyond the right edge, except in boxes that scroll
WIDER = """
const clips = (e) => getComputedStyle(e).overflowX !== "visible";
const inBox = (e) => e && e !== document.body && (clips(e) || inBox(e.parentElement));
return [...document.body.querySelectorAll("*")]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !inBox(e.parentElement))
  .map((e) => e.tagName + "#" + e.id + "." + e.className);
"""


class Browser:
    """One window. `errors` and `requests` cover the time since it was opened."""

    def __init__(self, driver: webdriver.Chrome):
        self.driver = driver
        self._console: list[str] = []
        self._urls: list[str] = []

    def open(self, page: Path | str, ready: str = "document.readyState === 'complete'") -> None:
        """Load a file, or an address on this machine, and wait until the JavaScript expression `ready` is true."""
        self.driver.get(page.resolve().as_uri() if isinstance(page, Path) else page)
        WebDriverWait(self.driver, 60, poll_frequency=0.1).until(lambda _: self.run(f"return Boolean({ready})"))

    def run(self, script: str, *arguments: Any) -> Any:
        """Return the result of a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def resize(self, width: int, height: int = 900) -> None:
        """Set the window's size in pixels, also below the minimum of a real window. For a phone, call before `open`."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def download_to(self, folder: Path) -> None:
        """Save downloads in a folder."""
        settings = {"behavior": "allow", "downloadPath": str(folder.resolve())}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", settings)

    def errors(self) -> list[str]:
        """Return errors and warnings of the console, including those of the page's security policy."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        self._console += [e["message"] for e in entries if e["level"] in ("SEVERE", "WARNING")]
        return list(self._console)

    def requests(self) -> list[str]:
        """Return all requested addresses, except opened pages and data within them."""
        for entry in self.driver.get_log("performance"):  # type: ignore[no-untyped-call]
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                parameters = message["params"]
                url = parameters["request"]["url"]
                if parameters.get("type") != "Document" and not url.startswith(OWN):
                    self._urls.append(url)
        return list(self._urls)

    def wider_than_the_window(self) -> list[str]:
        """Return the elements that make the page scroll horizontally."""
        page = self.run("return document.documentElement.scrollWidth > innerWidth")
        return self.run(WIDER) + (["the page"] if page else [])

    def screenshot(self, path: Path) -> Path:
        """Write a picture of the whole page."""
        found = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def pdf(self, path: Path) -> Path:
        """Print the page on the paper size of its style."""
        options = {"preferCSSPageSize": True, "printBackground": True}
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", options)["data"]))
        return path


@contextmanager
def chromium(profile: Path, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """Open a browser with an empty folder as its profile. Skips the test if no browser is installed."""
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
    window = webdriver.Chrome(options, Service(driver))  # without a path, selenium downloads a driver
    try:
        window.execute_cdp_cmd("Network.enable", {})
        yield Browser(window)
    finally:
        window.quit()
