"""Files of both pages: nothing inline, nothing from elsewhere, no HTML made of texts, a label for each control."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import detect.browser
import detect.exporting.web
import detect.serving
from detect.browser import SHARED_FILES, page_file
from detect.exporting.web.folder import OWN_FILES
from detect.serving.app import PAGE_FILES
from detect.serving.security import POLICY

PAGES = {"detect.serving": tuple(PAGE_FILES), "detect.exporting.web": (*OWN_FILES, *SHARED_FILES)}
FILES = sorted({(package, name) for package, names in PAGES.items() for name in names})
SCRIPTS = [(package, name) for package, name in FILES if name.endswith("js")]


def text_of(package: str, name: str) -> str:
    return page_file(package, name).decode("utf-8")


class Elements(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, package: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text_of(package, "index.html"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(params=PAGES)
def package(request):
    return request.param


@pytest.fixture
def elements(package):
    return Elements(package).found


def test_every_file_is_used():
    own = {name for package in (detect.serving, detect.exporting.web) for name in folder(package, "page")}
    shared = folder(detect.browser, "") - {"__init__.py", "__pycache__"}
    assert shared == set(SHARED_FILES)
    assert own == {name for _, name in FILES} - shared


def folder(package, name: str) -> set[str]:
    return {path.name for path in (Path(package.__file__).parent / name).iterdir()}


def test_the_policy_of_the_static_page():
    """That of the server, which cannot be sent as a header here; WebAssembly and a worker are allowed as well."""
    (policy,) = (one["content"] for _, one in Elements("detect.exporting.web").found if "http-equiv" in one)
    given = dict(part.split(" ", 1) for part in policy.split("; "))
    served = dict(part.split(" ", 1) for part in POLICY.split("; "))
    del served["frame-ancestors"]  # it works as a header only
    served |= {"script-src": "'self' 'wasm-unsafe-eval'", "worker-src": "'self'"}
    assert given == served


@pytest.mark.parametrize(("package", "name"), FILES)
def test_nothing_from_elsewhere(package, name):
    text = text_of(package, name).replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://\S*|url\([^)]*\)|@import|data:", text) == []


def test_nothing_inline(elements):
    """The content security policy would refuse it."""
    for tag, attributes in elements:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not [name for name in attributes if name == "style" or name.startswith("on")], (tag, attributes)


@pytest.mark.parametrize(("package", "name"), SCRIPTS)
def test_texts_are_never_html(package, name):
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    assert re.findall(forbidden, text_of(package, name)) == []


def test_the_scripts_find_their_elements(package, elements):
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    scripts = [text_of(package, name) for name in PAGES[package] if name.endswith(".js")]
    used = {found for text in scripts for found in re.findall(r'\bfind\("([\w-]+)"\)', text)}
    assert used
    assert used <= set(ids)


def test_every_control_has_a_label(elements):
    labels = {attributes.get("for") for tag, attributes in elements if tag == "label"}
    controls = [attributes for tag, attributes in elements if tag in ("input", "select")]
    assert [control["id"] for control in controls if control["id"] not in labels] == []
    regions = {attributes.get("aria-live") or attributes.get("role") for _, attributes in elements}
    assert regions >= {"polite", "alert"}


def contrast(one: str, other: str) -> float:
    """Contrast of two colours (WCAG 2.1, relative luminance)."""
    lights = []
    for color in (one, other):
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme):
    """4.5 : 1 for every text on what is behind it (WCAG 2.1, 1.4.3)."""
    assert contrast("#000000", "#ffffff") == 21
    colors = dict(
        re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text_of("detect.browser", "page.css").split("@media")[scheme])
    )
    pairs = [(text, ground) for text in ("text", "muted", "accent") for ground in ("surface", "ground")]
    pairs += [("on-accent", "accent"), ("danger", "danger-ground")]
    assert {
        pair: round(contrast(*map(colors.get, pair)), 1) for pair in pairs if contrast(*map(colors.get, pair)) < 4.5
    } == {}
