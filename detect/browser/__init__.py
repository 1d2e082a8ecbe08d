"""Files that the pages of ``detect serve`` and of ``detect export --format web`` share, and how both show classes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from detect.drawing.boxes import class_color
from detect.drawing.text import shorten
from detect.errors import visible

SHARED_FILES = ("page.css", "page.js", "drawing.js", "sources.js", "icon.svg")
MAX_SHOWN_NAME = 60
"""Characters of a name on a page; a longer one loses its middle."""


def page_file(package: str, name: str) -> bytes:
    """Content of a file of a page: one of ``SHARED_FILES``, or one in the folder ``page`` of a package."""
    return (files(__name__) / name if name in SHARED_FILES else files(package) / "page" / name).read_bytes()


def shown_name(name: str) -> str:
    """A stranger's name as pages show it: short, without control and bidirectional characters."""
    return visible(shorten(name, MAX_SHOWN_NAME))


def describe_classes(names: Sequence[str]) -> list[dict[str, str]]:
    """Name, shown name and colour (``#rrggbb``, as in drawn images) of each class."""
    colors = ("".join(f"{channel:02x}" for channel in class_color(label)) for label in range(len(names)))
    return [
        {"name": name, "shown": shown_name(name), "color": f"#{color}"}
        for name, color in zip(names, colors, strict=True)
    ]
