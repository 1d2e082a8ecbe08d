"""Names from a user's file as text to show: shortened, padded, with a font that has their characters."""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
from pathlib import Path
from typing import Any

from PIL import ImageFont

from detect.errors import visible

FORMULA_START = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet runs as a formula."""


def spreadsheet_text(value: Any) -> Any:
    """Return a cell that no spreadsheet runs: a text that starts like a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_START) else value


def shorten(name: str, limit: int) -> str:
    """Return a name on one line of at most ``limit`` characters, as it is ``visible``.

    A long name loses its middle, because similar names tend to differ at their ends.
    """
    shown = visible(name) or '""'
    if len(shown) <= limit:
        return shown
    head = limit // 2
    return f"{shown[:head]}…{shown[len(shown) - (limit - head - 1) :]}"


def pad(text: str, width: int) -> str:
    """Pad ``text`` to ``width`` columns of a terminal; East Asian characters take two."""
    return text + " " * max(0, width - columns(text))


def columns(text: str) -> int:
    """Width of ``text`` in columns of a terminal."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    combining = sum(unicodedata.combining(c) > 0 for c in text)
    return len(text) + wide - combining


def font_for(text: str) -> tuple[Path, str]:
    r"""Find a font that has the characters of ``text``: DejaVu Sans of matplotlib, else one of the system.

    Returns:
        The font's file, and ``text`` as it can be drawn with it: if no font has all characters, those that DejaVu
        Sans lacks are escapes such as ``\u4eba``.
    """
    font = _dejavu()
    if text.isascii() and text.isprintable():  # it has all of them, and matplotlib takes long to import
        return font, text
    missing = {ord(c) for c in text} - _characters(font)
    if not missing:
        return font, text
    for other in _system_fonts():
        if {ord(c) for c in text} <= _characters(other):
            return other, text
    return font, "".join(c.encode("unicode_escape").decode() if ord(c) in missing else c for c in text)


def load_font(text: str, size_px: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """Load Pillow's font for ``text``; return it and ``text`` as it can be drawn with it, see ``font_for``."""
    path, drawable = font_for(text)
    return _loaded_font(str(path), size_px), drawable


@functools.lru_cache(maxsize=32)
def _loaded_font(path: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px)


@functools.cache
def _dejavu() -> Path:
    found = importlib.util.find_spec("matplotlib")
    assert found is not None, "it is a dependency"
    assert found.origin is not None, "it is a package with a file"
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"


@functools.cache
def _system_fonts() -> list[Path]:
    from matplotlib import font_manager

    return sorted(Path(path) for path in font_manager.findSystemFonts())


@functools.cache
def _characters(font: Path) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(font)).get_charmap())
    except (RuntimeError, OSError):  # a damaged font of the system
        return frozenset()


def chart_text(text: str) -> str:
    """Replace characters that matplotlib's own font lacks."""
    return text.encode("latin-1", "replace").decode("latin-1")
