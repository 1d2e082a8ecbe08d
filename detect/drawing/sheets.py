"""Contact sheets: images in rows, with captions.

Letters: H W pixels of an image.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from detect.drawing.text import load_font, shorten

PANEL_PX = 160
"""Side of the square that an image is fitted into: five times that of the small images of CIFAR."""

GAP_PX = 8
"""Between panels, and around the sheet."""

FONT_PX, LINE_PX = 13, 18
"""Height of the letters of a caption, and of its lines."""

CAPTION_LINES = 2
"""Maximum number of lines of a caption; a longer one is shortened."""

MAX_TEXT = 120
"""Maximum length of a line, before it is shortened to its width."""

_CAPTION_CHARACTERS = 22
"""Characters of Latin script that fit under a panel."""

Color = tuple[int, int, int]
BLACK, GREEN, RED = (0, 0, 0), (0, 110, 40), (190, 0, 20)


@dataclass(frozen=True)
class Panel:
    """One image of a sheet.

    Args:
        image_rgb: (H, W, 3) uint8.
        caption: text below; of a tuple each part takes a line.
        color: of the caption.
    """

    image_rgb: np.ndarray
    caption: str | tuple[str, ...]
    color: Color = BLACK


def panel_sheet(panels: Sequence[Panel], columns: int, panel_hw: tuple[int, int] = (PANEL_PX, PANEL_PX)) -> np.ndarray:
    """Draw images in rows, each with its caption below.

    Args:
        panels: without any, the sheet has one empty row.
        columns: panels of a row.
        panel_hw: rectangle that each image is fitted into, in pixels.

    Returns:
        (H, W, 3) uint8, white between the panels; W is ``sheet_width(columns)`` for the usual panels, H grows by the
        same for each row.
    """
    panel_height, panel_width = panel_hw
    pitch_hw = (panel_height + CAPTION_LINES * LINE_PX + GAP_PX, panel_width + GAP_PX)
    rows = max(1, -(-len(panels) // columns))
    sheet = np.full((rows * pitch_hw[0] + GAP_PX, columns * pitch_hw[1] + GAP_PX, 3), 255, np.uint8)
    places = [(GAP_PX + i // columns * pitch_hw[0], GAP_PX + i % columns * pitch_hw[1]) for i in range(len(panels))]
    for panel, (top, left) in zip(panels, places, strict=True):
        height, width = panel.image_rgb.shape[:2]
        factor = min(panel_height / height, panel_width / width)
        image = fitted(panel.image_rgb, round(factor * max(height, width)))
        height, width = image.shape[:2]
        top, left = top + panel_height - height, left + (panel_width - width) // 2
        sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    for panel, (top, left) in zip(panels, places, strict=True):
        for number, line in enumerate(_lines(panel.caption)):
            place = (left + panel_width // 2, top + panel_height + number * LINE_PX)
            draw_text(draw, place, line, FONT_PX, panel_width, panel.color, "ma")
    return np.array(picture)


def sheet_width(columns: int) -> int:
    """Width of a sheet in pixels."""
    return columns * (PANEL_PX + GAP_PX) + GAP_PX


def heading(text: str, width: int) -> np.ndarray:
    """Draw a line of text to go above a sheet, (H, width, 3) uint8; a text that is too long loses its middle."""
    picture = Image.new("RGB", (width, 2 * LINE_PX), "white")
    draw_text(ImageDraw.Draw(picture), (GAP_PX, 2 * LINE_PX - 4), text, FONT_PX + 2, width - 2 * GAP_PX, BLACK, "ld")
    return np.array(picture)


def fitted(image_rgb: np.ndarray, side: int) -> np.ndarray:
    """Scale an image, (H, W, 3) uint8, so that its long side is ``side`` pixels."""
    factor = side / max(image_rgb.shape[:2])
    size_wh = (max(round(image_rgb.shape[1] * factor), 1), max(round(image_rgb.shape[0] * factor), 1))
    # Linear when enlarging: more is visible in a blurred image than in one of large squares.
    return cv2.resize(image_rgb, size_wh, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def draw_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size_px: int,
    width: int,
    color: Color = BLACK,
    anchor: str = "la",
) -> None:
    """Draw one line of text of at most ``width`` pixels; a longer one loses its middle.

    ``anchor``, in Pillow's notation, is the point of the text at ``place``, (x, y).
    """
    shown = shorten(text, MAX_TEXT)
    for limit in range(len(shown), 0, -1):
        font, drawable = load_font(shorten(shown, limit), size_px)
        if draw.textlength(drawable, font=font) <= width:
            break
    draw.text(place, drawable, fill=color, font=font, anchor=anchor)


def _lines(caption: str | tuple[str, ...]) -> Sequence[str]:
    """Lines of a caption, a long one broken at a blank."""
    parts = caption if isinstance(caption, tuple) else textwrap.wrap(caption, _CAPTION_CHARACTERS)
    last = " ".join(parts[CAPTION_LINES - 1 :])
    return [line for line in (*parts[: CAPTION_LINES - 1], last) if line]
