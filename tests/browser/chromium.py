"""Chromium without a window, driven by selenium, for the slow tests of pages."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="the page's tests need selenium")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1280,900"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)
PATIENCE_S = 60
NEEDS_CHROMIUM = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="there is no chromium with chromedriver on this machine"
)


class Page:
    """A page in a browser with a folder of its own.

    Args:
        folder: for the browser's files and downloads.
    """

    def __init__(self, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={folder / 'browser'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        downloads = {"behavior": "allow", "downloadPath": str(folder)}
        self.browser.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)

    def narrow(self, width: int) -> None:
        """Show pages as a phone of this width in CSS pixels does."""
        phone = {"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)

    def open(self, port: int, path: str = "/") -> None:
        self.browser.get(f"http://127.0.0.1:{port}{path}")
        self.wait(lambda: self.text("file") or self.text("alert"))

    def text(self, name: str) -> str:
        return self.run(f"return document.getElementById('{name}').textContent")

    def run(self, script: str) -> object:
        return self.browser.execute_script(script)

    def move(self, slider: str, value: object) -> None:
        """Move a slider or choose an option, as a hand does."""
        self.run(
            f"const it = document.getElementById('{slider}'); it.value = '{value}';"
            "it.dispatchEvent(new Event('input')); it.dispatchEvent(new Event('change'))"
        )

    def choose(self, path: Path) -> None:
        self.browser.find_element("id", "chooser").send_keys(str(path))

    def wait(self, is_so: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < end, (self.text("alert"), self.browser.get_log("browser"))
            time.sleep(0.05)

    def hosts(self) -> set[str | None]:
        """Hosts of all requests of the page."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        assert sent
        urls = [urlsplit(one["request"]["url"]) for one in sent if one["documentURL"].startswith("http")]
        return {url.hostname for url in urls if url.scheme != "blob"}
