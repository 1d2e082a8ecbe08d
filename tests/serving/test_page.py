"""The page's files: nothing inline, nothing from elsewhere, no HTML made of texts, a label for each control."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import detect.serving
from detect.serving.app import PAGE_FILES

PAGE = Path(detect.serving.__file__).parent / "page"
SCRIPTS = [name for name in PAGE_FILES if name.endswith(".js")]


def text_of(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Tags and attributes of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text_of("index.html"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


ELEMENTS = Elements().found


def test_every_file_is_served():
    assert {path.name for path in PAGE.iterdir()} == set(PAGE_FILES)


@pytest.mark.parametrize("name", PAGE_FILES)
def test_nothing_from_elsewhere(name):
    text = text_of(name).replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://\S*|url\([^)]*\)|@import|data:", text) == []


def test_nothing_inline():
    """The content security policy would refuse it."""
    for tag, attributes in ELEMENTS:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not [name for name in attributes if name == "style" or name.startswith("on")], (tag, attributes)


@pytest.mark.parametrize("name", SCRIPTS)
def test_texts_are_never_html(name):
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    assert re.findall(forbidden, text_of(name)) == []


def test_the_scripts_find_their_elements():
    ids = [attributes["id"] for _, attributes in ELEMENTS if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {found for name in SCRIPTS for found in re.findall(r'\bfind\("([\w-]+)"\)', text_of(name))}
    assert used
    assert used <= set(ids)


def test_every_control_has_a_label():
    labels = {attributes.get("for") for tag, attributes in ELEMENTS if tag == "label"}
    controls = [attributes for tag, attributes in ELEMENTS if tag in ("input", "select")]
    assert [control["id"] for control in controls if control["id"] not in labels] == []
    regions = {attributes.get("aria-live") or attributes.get("role") for _, attributes in ELEMENTS}
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
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text_of("page.css").split("@media")[scheme]))
    pairs = [(text, ground) for text in ("text", "muted", "accent") for ground in ("surface", "ground")]
    pairs += [("on-accent", "accent"), ("danger", "danger-ground")]
    assert {
        pair: round(contrast(*map(colors.get, pair)), 1) for pair in pairs if contrast(*map(colors.get, pair)) < 4.5
    } == {}
