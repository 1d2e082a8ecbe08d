"""The page of ``detect export --format web`` in a real browser, from a server of files: the Python runner's boxes.

The runtime is not part of this repository: ``DETECT_WEB_RUNTIME`` names the npm package onnxruntime-web.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from PIL import Image

from detect.api.exporting import ExportRequest, run_web_export
from detect.exporting.onnx_runner import OnnxModel
from detect.models.foreign.importing import ImportOptions, import_weights
from tests.browser.chromium import NEEDS_CHROMIUM, Page
from tests.browser.static_server import ISOLATED, static_server

RUNTIME = os.environ.get("DETECT_WEB_RUNTIME")
ORIENTATION = 0x0112
"""Tag of EXIF."""

pytestmark = [
    pytest.mark.slow,
    NEEDS_CHROMIUM,
    pytest.mark.skipif(RUNTIME is None, reason="DETECT_WEB_RUNTIME names no onnxruntime-web"),
]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A browser; at the end nothing was asked of others, and its console has no errors but of damaged folders."""
    page = Page(tmp_path)
    try:
        yield page
        assert page.hosts() == {"127.0.0.1"}
        severe = [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert [
            entry for entry in severe if not re.search("status of 404|prepare wasm|Aborted", entry["message"])
        ] == []
    finally:
        page.browser.quit()


def make_folder(folder: Path, weights: Path, **options: object) -> Path:
    assert RUNTIME is not None
    return run_web_export(ExportRequest(weights, folder, **options), Path(RUNTIME)).path


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the shipped model of blood cells."""
    return make_folder(tmp_path_factory.mktemp("cells") / "page", Path("yolov5n-spd-bccd"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A red disc on grey, in which the model sees something."""
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), cv2.circle(np.full((240, 320, 3), 200, np.uint8), (160, 120), 40, (110, 80, 190), -1))
    return path


def changed(cells: Path, folder: Path, **metadata: object) -> Path:
    """A copy of the page whose model has other metadata."""
    shutil.copytree(cells, folder)
    model = onnx.load(folder / "model.onnx")
    given = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, given | {key: json.dumps(value) for key, value in metadata.items()})
    onnx.save(model, folder / "model.onnx")
    return folder


def open_page(page: Page, port: int) -> None:
    page.browser.get(f"http://127.0.0.1:{port}/")
    page.wait(lambda: page.text("facts") or page.text("alert"))


def found_in(page: Page, path: Path, downloads: Path) -> list[dict]:
    """Detections that the page saves of an image."""
    page.choose(path)
    page.wait(lambda: page.text("summary").startswith(f"{path.name} (") or page.text("alert"))
    saved = downloads / f"{path.stem}-detections.json"
    page.run("document.getElementById('save-json').click()")
    page.wait(saved.is_file)
    content = json.loads(saved.read_text())
    saved.unlink()
    assert content["file_name"] == path.name
    assert sorted(content["ms"]) == ["decode", "letterbox", "network", "suppression"]
    return content["detections"]


def assert_same(found: list[dict], expected: np.ndarray) -> None:
    """Every detection of the runner, in its order, with the box to 0.5 px; scores differ where a JPEG decoder does."""
    assert [one["label"] for one in found] == expected[:, 5].astype(int).tolist()
    np.testing.assert_allclose([one["score"] for one in found], expected[:, 4], atol=0.02)
    boxes = np.array([one["xyxy"] for one in found]).reshape(-1, 4)
    largest = np.abs(boxes - expected[:, :4]).max(initial=0)
    print(f"{len(expected)} boxes, {largest:.5f} px apart at most")
    assert largest <= 0.5


CASES = [("cells", 4), ("boards", 3), ("photos", 3)]


@pytest.mark.real
@pytest.mark.parametrize(("kind", "count"), CASES, ids=[kind for kind, _ in CASES])
def test_the_boxes_are_the_runners(kind, count, page, real_data, tmp_path, request):
    """Ten images, as JPEG and as PNG, through the three kinds of files: predictions, detections, raw maps."""
    if kind == "cells":
        folder, images = request.getfixturevalue("cells"), real_data / "bccd" / "JPEGImages"
    elif kind == "boards":
        folder, images = tmp_path / "page", real_data / "deeppcb" / "images"
        make_folder(folder, Path("yolov5n-spd-deeppcb"), nms=True)
    else:
        folder, images = tmp_path / "page", real_data / "tiny_coco" / "val2017"
        import_weights(ImportOptions(real_data / "yolox" / "yolox_nano.onnx", tmp_path / "x.pt", image_size=416))
        make_folder(folder, tmp_path / "x.pt", raw=True)
    runner, number = OnnxModel(str(folder / "model.onnx")), 0
    with static_server(folder) as port:
        open_page(page, port)
        for path in sorted(images.glob("*.jpg"))[:count]:
            image = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
            png = tmp_path / f"{path.stem}-exact.png"
            cv2.imwrite(str(png), image)
            expected = runner.detect(image)
            number += len(expected)
            assert_same(found_in(page, png, tmp_path), expected)
            assert_same(found_in(page, path, tmp_path), expected)
    assert number > 10


def test_orientation_and_shape(page, cells, photo, tmp_path):
    """An image that EXIF turns by 90 degrees, and one that is enlarged."""
    turned = tmp_path / "turned.jpg"
    with Image.open(photo) as opened:
        exif = opened.getexif()
        exif[ORIENTATION] = 6
        opened.save(turned, exif=exif, quality=95)
        opened.resize((120, 200)).save(tmp_path / "small.png")
    runner = OnnxModel(str(cells / "model.onnx"))
    with static_server(cells) as port:
        open_page(page, port)
        for path, size in ((turned, "240 × 320"), (tmp_path / "small.png", "120 × 200")):
            expected = runner.detect(cv2.imread(str(path)))
            assert len(expected)
            assert_same(found_in(page, path, tmp_path), expected)
            assert page.text("summary").startswith(f"{path.name} ({size}): ")


def test_threads_where_the_server_isolates(page, cells, photo, tmp_path):
    page.browser.execute_cdp_cmd("Emulation.setHardwareConcurrencyOverride", {"hardwareConcurrency": 3})
    boxes = {}
    for threads, headers in (("1 thread", {}), ("3 threads", ISOLATED)):
        with static_server(cells, headers) as port:
            open_page(page, port)
            assert page.text("facts") == f"yolov5n-spd · 3 classes · 320 px · fp32 · {threads}"
            boxes[threads] = [one["xyxy"] for one in found_in(page, photo, tmp_path)]
    assert boxes["1 thread"]
    np.testing.assert_allclose(boxes["1 thread"], boxes["3 threads"], atol=0.01)


def test_the_page_answers_while_the_model_works(page, cells, photo):
    """Timers of 5 ms go on; the network alone takes longer than several of them."""
    with static_server(cells) as port:
        open_page(page, port)
        page.run("window.ticks = []; setInterval(() => window.ticks.push(performance.now()), 5)")
        page.choose(photo)
        page.wait(lambda: page.text("summary").startswith("photo.png ("))
        gaps = page.run("return window.ticks.slice(1).map((at, index) => at - window.ticks[index])")
        network = float(page.text("network").removesuffix(" ms"))
        assert network > 15
        assert max(gaps) < max(network, 100)


def test_an_image_that_cannot_be_read(page, cells, photo, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with static_server(cells) as port:
        open_page(page, port)
        count = len(found_in(page, photo, tmp_path))
        page.choose(tmp_path / "broken.jpg")
        page.wait(lambda: page.text("alert") == "broken.jpg: is not an image that this browser reads")
        assert page.text("objects") == str(count)
        page.choose(photo)
        page.wait(lambda: page.text("alert") == "")


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_and_pasted_images(event, page, cells, photo):
    """Anywhere on the page; the event carries the file as a browser's own would."""
    content = list(photo.read_bytes())
    with static_server(cells) as port:
        open_page(page, port)
        page.run(
            "const data = new DataTransfer();"
            f"data.items.add(new File([new Uint8Array({content})], 'given.png', {{ type: 'image/png' }}));"
            "const given = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };"
            f"const event = '{event}' === 'drop' ? new DragEvent('drop', given) : new ClipboardEvent('paste', given);"
            "document.getElementById('summary').dispatchEvent(event)"
        )
        page.wait(lambda: page.text("summary").startswith("given.png (320 × 240): "))


def test_values_of_sixteen_bits(page, cells, tmp_path):
    """Browsers cut them; a model that was trained with a range of values would see something else."""
    cv2.imwrite(str(tmp_path / "thermal.png"), np.full((64, 64), 3000, np.uint16))
    model = onnx.load(cells / "model.onnx", load_external_data=False)
    (given,) = (json.loads(entry.value) for entry in model.metadata_props if entry.key == "preprocessing")
    folder = changed(cells, tmp_path / "page", preprocessing=given | {"value_range": [2000, 4000]})
    with static_server(folder) as port:
        open_page(page, port)
        page.choose(tmp_path / "thermal.png")
        page.wait(lambda: page.text("alert").startswith("thermal.png: has 16 bits for each value"))


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("model.json", None, "model.json: the server answered 404; is the whole folder on the server?"),
        ("model.json", '{"file": "x", "classes": []}', "model.onnx: has other classes than model.json"),
        ("model.onnx", None, "model.onnx: the server answered 404; is the whole folder there?"),
        ("model.onnx", "<p>no model", "model.onnx: is not an ONNX file, or damaged"),
        ("ort/ort.wasm.bundle.min.js", None, "ort/: the runtime cannot be loaded: "),
        ("ort/ort-wasm-simd-threaded.wasm", "\0asm", "model.onnx: the runtime cannot start it: "),
        ("worker.js", None, "worker.js does not run: "),
    ],
)
def test_a_folder_that_is_not_whole(file, content, line, page, cells, photo, tmp_path):
    """One line, also for an image that comes later."""
    folder = tmp_path / "page"
    shutil.copytree(cells, folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with static_server(folder) as port:
        open_page(page, port)
        page.wait(lambda: page.text("alert").startswith(line))
        assert "\n" not in page.text("alert")
        if file != "model.json":
            page.choose(photo)
            page.wait(lambda: page.text("alert").startswith(f"photo.png: {line}"))


def test_hostile_names_stay_text(page, cells, tmp_path):
    names = ["<img src=x onerror=alert(1)>", "<script>window.seized = 1</script>", "c"]
    folder = changed(cells, tmp_path / "page", names=names)
    facts = json.loads((folder / "model.json").read_text())
    for look, name in zip(facts["classes"], names, strict=True):
        look |= {"name": name, "shown": name}
    (folder / "model.json").write_text(json.dumps(facts | {"file": names[0], "model": names[1]}))
    with static_server(folder) as port:
        open_page(page, port)
        assert page.run("return [...document.querySelectorAll('#classes bdi')].map((it) => it.textContent)") == names
        assert page.text("file") == names[0]
        assert page.text("facts").startswith(names[1])
        assert (
            page.run("return document.querySelectorAll('main img, header p *, h1 bdi *, #classes script').length") == 0
        )
        assert page.run("return window.seized ?? null") is None


def test_the_camera(page, cells):
    """The browser's own picture of a camera: frames go one after the other until it is stopped."""
    with static_server(cells) as port:
        open_page(page, port)
        page.run("document.getElementById('camera').click()")
        page.wait(lambda: page.text("rate").endswith(" fps"))
        page.run("document.getElementById('camera').click()")
        assert page.text("camera") == "Camera"
        page.wait(lambda: page.text("summary").startswith("camera ("))


def test_a_narrow_phone(page, cells, photo, tmp_path):
    """At 360 px nothing is wider than the screen, in a folder below the server's root."""
    page.narrow(360)
    with static_server(cells.parent) as port:
        page.browser.get(f"http://127.0.0.1:{port}/{cells.name}/")
        page.wait(lambda: page.text("facts") or page.text("alert"))
        found_in(page, photo, tmp_path)
        assert page.run("return document.documentElement.scrollWidth") == 360


def test_the_keyboard(page, cells):
    """Tab reaches every control, and its focus is visible."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    with static_server(cells) as port:
        open_page(page, port)
        reached: list[str] = []
        while reached[-1:] != ["BODY"]:
            ActionChains(page.browser).send_keys(Keys.TAB).perform()
            name, outline = page.run(
                "const it = document.activeElement; const seen = it.id === 'chooser' ? it.nextElementSibling : it;"
                "return [it.id || it.className || it.type || it.tagName, getComputedStyle(seen).outlineStyle]"
            )
            reached.append(name)
            assert outline != "none" or name in ("skip", "BODY"), reached
        assert reached[:-1] == ["skip", "chooser", "camera", "score", "all-classes", *["checkbox"] * 3, "SUMMARY"]
