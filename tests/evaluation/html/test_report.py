"""The report as a page: nothing in it runs or is loaded, whatever the names are."""

from __future__ import annotations

import dataclasses
import http.server
import os
import shutil
import subprocess
import threading
from html.parser import HTMLParser

import numpy as np
import pytest

from detect.data.annotations import encode_paths
from detect.data.images import write_image
from detect.evaluation.coco import coco_metrics
from detect.evaluation.detection import Evaluation
from detect.evaluation.examples import Example, crop, encode
from detect.evaluation.html import report
from detect.evaluation.html.elements import POLICY
from detect.evaluation.html.report import Background, render, write_report
from detect.evaluation.postprocess import COCO_SETTINGS
from tests.evaluation.synthetic import make_found, make_table

NAMES = (
    "<script>document.title='owned'</script>",
    '"><img src=http://127.0.0.1:PORT/name onerror="document.title=\'owned\'">',
    "</title></style><iframe src=http://127.0.0.1:PORT/frame>",
    "\x1b[2J\u202egnp.tac\ud800",
    "'&amp;&#60;" + "x" * 10_000,
    "",
)
FILES = ("\"><img src=x onerror=document.title='owned'>.png", "\x1b[2J\n\u202e<svg onload=alert(1)>.png", "gone.png")


def hostile_evaluation(folder, names=NAMES) -> Evaluation:
    """Three images, the last of which is not there, with an object of each class; half of them are found."""
    rng = np.random.default_rng(0)
    paths = [folder / name for name in FILES]
    for path in paths[:2]:
        write_image(path.with_name("image.png"), rng.integers(0, 255, (64, 96, 3), dtype=np.uint8))
        path.with_name("image.png").rename(path)
    boxes = [(label, 10 * label, 5, 10 * label + 9, 25) for label in range(len(names))]
    table = make_table([boxes] * 3, names, tuple(range(1, len(names) + 1)), (64, 96))
    table.problems.add(f"kind {names[0]}", names[1])
    table = dataclasses.replace(table, image_paths=encode_paths(paths))
    found = make_found([(row, k, *box, 0.9 - 0.1 * k) for row in range(3) for k, *box in boxes[:3]])
    return Evaluation(coco_metrics(table, found), found, table, COCO_SETTINGS, {"network": 1.5})


def background(evaluation, names=NAMES) -> Background:
    about = {"weights": f"runs/{names[1]}", "data": names[0], "split": names[2], "image_size": 64}
    return Background(about, {"parameters": "1"}, evaluation.table.problems.summary())


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_a_page_of_hostile_names(tmp_path):
    evaluation = hostile_evaluation(tmp_path)
    page = write_report(tmp_path / "report", evaluation, background(evaluation))
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    allowed = "html head meta link title style body h1 h2 nav a div table thead tbody tr th td bdi meter p figure img"
    assert set(parsed.tags) <= {*allowed.split(), "figcaption", "ul", "li"}
    places = [value for key, value in parsed.attributes if key in ("src", "href")]
    assert all(value.startswith(("data:image/", "#s")) or value == "data:," for value in places)
    assert not [key for key, _ in parsed.attributes if key.startswith("on") or key == "style"]
    assert ("content", POLICY) in parsed.attributes
    # Two charts; of the two images that are there a pair, and for each of 3 missed objects a crop.
    assert parsed.tags.count("img") == 2 + 2 + 2 * 3
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "&lt;script&gt;" in text
    assert len(text.encode()) < 1_000_000
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]


def test_a_page_of_nothing():
    table, found = make_table([[]]), make_found([])
    evaluation = Evaluation(coco_metrics(table, found), found, table, COCO_SETTINGS, {})
    text = render(evaluation, Background({}, {}, []))
    assert "There are none." in text
    assert "No problem was found" in text


def test_pictures_become_smaller_until_they_fit(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    noise = Example(rng.integers(0, 255, (400, 800, 3), dtype=np.uint8), "a", "", "b")
    best = len(encode([noise], 10**7)[0])
    assert best // 4 < len(encode([noise], best - 1)[0]) < best
    assert encode([noise, noise], 1) == [None, None]
    evaluation = hostile_evaluation(tmp_path, ("a", "b", "c", "d"))
    full = len(render(evaluation, Background({}, {}, [])).encode())
    monkeypatch.setattr(report, "MAX_BYTES", full - 1)
    assert len(render(evaluation, Background({}, {}, [])).encode()) < full


@pytest.mark.parametrize("box", [(0, 0, 4, 4), (90, 50, 96, 64), (-50, -50, 1e9, 1e9), (500, 500, 510, 510)])
def test_a_crop_of_any_box(box):
    image = np.full((64, 96, 3), 200, np.uint8)
    assert crop(image, np.array(box, float), 0).shape == (180, 180, 3)


def test_a_crop_by_hand():
    """A box of 20 x 20 with three times as much around it: 3 crop pixels for each of the image; black beyond it."""
    image = np.full((100, 200, 3), 200, np.uint8)
    picture = crop(image, np.array([0, 40, 20, 60.0]), 0)
    assert (picture[:, :60] == 0).all(axis=2).mean() > 0.99
    assert (picture[5:55, 65:] == 200).all()
    (frame_y, frame_x) = np.nonzero((picture != 0).any(axis=2) & (picture != 200).any(axis=2))
    assert (frame_x.min(), frame_y.min(), frame_x.max(), frame_y.max()) == (60, 60, 119, 119)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        self.server.asked.append(self.path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_in_a_browser(tmp_path):
    """Chromium loads the page, no name becomes an element, nothing runs, and nothing else is asked for."""
    folder = tmp_path / "report"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: _Handler(*a, directory=str(folder)))
    server.asked = []
    port = str(server.server_address[1])
    names = tuple(name.replace("PORT", port) for name in NAMES)
    evaluation = hostile_evaluation(tmp_path, names)
    write_report(folder, evaluation, background(evaluation, names))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [*browser, "--virtual-time-budget=3000", "--dump-dom", f"http://127.0.0.1:{port}/index.html"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment).stdout
    server.shutdown()
    server.server_close()
    assert server.asked == ["/index.html"]
    parsed = Page(dom)
    assert not {"script", "iframe", "svg"} & set(parsed.tags)
    assert parsed.tags.count("img") == 2 + 2 + 2 * 3
    assert "<title>owned" not in dom
    assert "&lt;script&gt;" in dom


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_on_a_phone(tmp_path):
    """380 px wide: the page does not run over, tables have a line for each row, and two crops lie beside each other."""
    from tests.browser.chromium import Page as Browser

    evaluation = hostile_evaluation(tmp_path, ("a", "b", "c", "d"))
    page = write_report(tmp_path / "report", evaluation, background(evaluation))
    shown = Browser(tmp_path)
    try:
        shown.narrow(380)
        shown.browser.get(page.as_uri())
        assert shown.run("return document.documentElement.scrollWidth") == 380
        heights = shown.run(
            "const rows = [...document.querySelectorAll('h2 ~ div.wide tr')];"
            "return rows.map(row => row.getBoundingClientRect().height)"
        )
        assert len(heights) > 30
        assert max(heights) < 40
        sides = shown.run(
            "return [...document.querySelectorAll('div.grid img')].map(it => it.getBoundingClientRect().width)"
        )
        assert max(sides) < 190
    finally:
        shown.browser.quit()
