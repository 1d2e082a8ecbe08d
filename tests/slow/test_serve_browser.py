"""The page of ``detect serve`` in a real browser: Chromium without a window, driven by selenium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from detect.inference.detector import Detector
from detect.serving.app import Limits
from detect.serving.predictions import ServedDetector
from tests.browser.chromium import NEEDS_CHROMIUM, Page
from tests.inference.onnx_files import write_onnx
from tests.papers.sdpoint.samples import detector as checkpoint_of
from tests.serving.servers import png, served, serving
from tests.serving.test_predictions import hand_made

pytestmark = [pytest.mark.slow, NEEDS_CHROMIUM]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A browser; at the end nothing was asked of others, and there was no error on its console."""
    page = Page(tmp_path)
    try:
        yield page
        assert page.hosts() == {"127.0.0.1"}
        severe = [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert [entry for entry in severe if "status of 422" not in entry["message"]] == []
    finally:
        page.browser.quit()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(png())
    return path


def test_an_image(page, image, tmp_path):
    with serving(served(tmp_path)) as port:
        page.open(port)
        assert page.text("facts") == "hand-made · 3 classes · 64 px · cpu"
        page.choose(image)
        page.wait(lambda: page.text("summary").startswith("photo.png (64 × 64): "))
        assert (page.text("objects"), page.text("macs")) == ("2", "unknown")
        assert (
            page.text("summary").partition(": ")[2] == "1 c, 1 a; the limit of detections is reached, there may be more"
        )
        drawn = page.run(
            "const it = document.getElementById('boxes'); "
            "const { data } = it.getContext('2d').getImageData(0, 0, it.width, it.height); "
            "return data.filter((value, index) => index % 4 === 3 && value).length"
        )
        assert drawn > 500  # pixels of frames and labels
        page.move("score", 50)
        page.wait(lambda: page.text("objects") == "1")
        page.run("document.querySelectorAll('#classes input')[2].click()")
        page.wait(lambda: page.text("objects") == "0")
        page.run("document.getElementById('all-classes').click()")
        page.move("score", 5)
        page.wait(lambda: page.text("objects") == "2")
        page.run("document.querySelector('#list summary').click()")
        page.wait(lambda: page.text("rows") == "c0.904, 816 × 32a0.3030, 1020 × 20")
        page.run("document.getElementById('save-json').click(); document.getElementById('save-picture').click()")
        page.wait(lambda: len(list(tmp_path.glob("photo-detections.*"))) == 2)
        saved = json.loads((tmp_path / "photo-detections.json").read_text())
        assert (saved["file_name"], len(saved["detections"]), saved["min_score"]) == ("photo.png", 2, 0.05)
        assert (tmp_path / "photo-detections.png").read_bytes().startswith(b"\x89PNG")


def test_errors_keep_the_image(page, image, tmp_path):
    with serving(served(tmp_path), Limits(upload_bytes=5000)) as port:
        page.open(port)
        page.choose(image)
        page.wait(lambda: page.text("objects") == "2")
        (tmp_path / "broken.jpg").write_bytes(b"no image")
        page.choose(tmp_path / "broken.jpg")
        page.wait(lambda: page.text("alert").startswith("broken.jpg: is not an image, or damaged"))
        (tmp_path / "large.jpg").write_bytes(bytes(6000))
        page.choose(tmp_path / "large.jpg")
        page.wait(lambda: page.text("alert").startswith("large.jpg: has 0.0 MiB; at most "))
        assert page.text("objects") == "2"
        page.choose(image)
        page.wait(lambda: page.text("alert") == "")


def test_a_format_that_the_browser_does_not_read(page, tmp_path):
    """The server makes a picture of it."""
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "cells.tif"), np.full((64, 64, 3), 200, np.uint8))
    with serving(served(tmp_path)) as port:
        page.open(port)
        page.choose(tmp_path / "cells.tif")
        page.wait(lambda: page.text("objects") == "2")
        middle = (
            "const it = document.getElementById('image'); "
            "return it.getContext('2d').getImageData(it.width / 2, 5, 1, 1).data[0]"
        )
        assert abs(page.run(middle) - 200) <= 2


def test_the_slider_and_its_curve(page, image, tmp_path):
    """Stops are the Pareto front and the full network, which is off it: 1@0.5, 1@0.75, 2@0.75, plain."""
    detector = ServedDetector(Detector(checkpoint_of(tmp_path), device="cpu"), tmp_path / "slider.pt")
    with serving(detector) as port:
        page.open(port)
        assert page.run("return document.getElementById('cost').max") == "3"
        assert page.text("cost-value") == "100 %"
        page.choose(image)
        page.wait(lambda: page.text("macs") != "–")
        full = page.text("macs")
        page.move("cost", 0)
        page.wait(lambda: page.text("macs") != full)
        assert page.text("cost-value") == "25 %"
        assert page.text("cost-note") == "AP 0.300 on shapes val, 32 px"
        assert page.run("return document.querySelector('#curve svg').getAttribute('aria-label')").endswith(
            "in use: 1@0.5, AP 0.300"
        )
        assert page.run("return document.querySelectorAll('#curve circle').length") == 6  # five, and the present one
        page.run("document.querySelectorAll('#curve .point')[1].dispatchEvent(new Event('click'))")
        page.wait(lambda: page.text("cost-value") == "60 %")
        assert page.run("return document.querySelector('tr.current').textContent") == "1@0.7560 %0.4506.0"


def test_hostile_names_stay_text(page, image, tmp_path):
    names = ["<img src=x onerror=alert(1)>", "<script>window.seized = 1</script>", "\u202ereversed"]
    path = write_onnx(tmp_path / "m.onnx", *hand_made(), names=json.dumps(names))
    with serving(ServedDetector(Detector(path, device="cpu"), path)) as port:
        page.open(port)
        shown = page.run("return [...document.querySelectorAll('#classes bdi')].map((it) => it.textContent)")
        assert shown == [*names[:2], "\\u202ereversed"]
        assert page.run("return document.querySelectorAll('#classes img, #classes script').length") == 0
        assert page.run("return window.seized ?? null") is None


def test_the_camera(page, tmp_path):
    """The browser's own picture of a camera: frames go one after the other until it is stopped."""
    with serving(served(tmp_path)) as port:
        page.open(port)
        page.run("document.getElementById('camera').click()")
        page.wait(lambda: page.text("rate").endswith(" fps"))
        page.run("document.getElementById('camera').click()")
        assert page.text("camera") == "Camera"
        assert page.text("summary").startswith("camera (")


def test_a_narrow_phone(page, image, tmp_path):
    """At 360 px nothing is wider than the screen."""
    page.narrow(360)
    detector = ServedDetector(Detector(checkpoint_of(tmp_path), device="cpu"), tmp_path / f"{'long-name' * 9}.pt")
    with serving(detector) as port:
        page.open(port)
        page.choose(image)
        page.wait(lambda: page.text("macs") != "–")
        assert page.run("return document.documentElement.scrollWidth") == 360


def test_the_keyboard(page, tmp_path):
    """Tab reaches every control, and its focus is visible."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    with serving(served(tmp_path)) as port:
        page.open(port)
        reached: list[str] = []
        while reached[-1:] != ["BODY"]:
            ActionChains(page.browser).send_keys(Keys.TAB).perform()
            name, outline = page.run(
                "const it = document.activeElement; const seen = it.id === 'chooser' ? it.nextElementSibling : it;"
                "return [it.id || it.className || it.type || it.tagName, getComputedStyle(seen).outlineStyle]"
            )
            reached.append(name)
            assert outline != "none" or name in ("skip", "BODY"), reached
        controls = ["skip", "chooser", "camera", "score", "all-classes", *["checkbox"] * 3, "tile", "SUMMARY"]
        assert reached[:-1] == controls
