"""The most probable classes drawn below their image.

Letters: H W pixels of the image.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from detect.drawing.boxes import class_color
from detect.evaluation.sheets import draw_text, fitted
from detect.structures import Classification

MIN_SIDE_PX = 320
"""An image whose long side is shorter is enlarged; the picture is never narrower than this."""

MIN_FONT_PX, MAX_FONT_PX = 14, 64
"""Text below 14 px is hard to read next to a picture."""

MAX_CLASSES = 5
"""Classes that get a line."""

_NAME_SHARE, _SCORE_EMS = 0.45, 3
"""Of the width of the picture the names take so much; the probability takes so many heights of its letters."""


def draw_classification(image_rgb: np.ndarray, found: Classification) -> np.ndarray:
    """Write the most probable classes below an image, each with a bar that is as long as the class is probable.

    Args:
        image_rgb: (H, W, 3) uint8.
        found: what it shows.

    Returns:
        The image, enlarged if it is tiny, and the lines below it; (H, W, 3) uint8.
    """
    image = fitted(image_rgb, MIN_SIDE_PX) if max(image_rgb.shape[:2]) < MIN_SIDE_PX else image_rgb
    height, width = image.shape[0], max(MIN_SIDE_PX, image.shape[1])
    font_px = int(np.clip(round(width / 30), MIN_FONT_PX, MAX_FONT_PX))
    lines = found.top(MAX_CLASSES)
    pitch, margin = round(1.5 * font_px), font_px // 2
    picture = Image.new("RGB", (width, height + pitch * len(lines) + 2 * margin), "white")
    picture.paste(Image.fromarray(image), ((width - image.shape[1]) // 2, 0))
    for number, (name, score) in enumerate(lines):
        _draw_line(
            picture, height + margin + number * pitch, font_px, name, score, class_color(found.names.index(name))
        )
    return np.array(picture)


def _draw_line(
    picture: Image.Image, top: int, font_px: int, name: str, score: float, color: tuple[int, int, int]
) -> None:
    """A line of ``font_px`` letters: name, bar, probability."""
    draw = ImageDraw.Draw(picture)
    margin = font_px // 2
    bar_left = margin + round(_NAME_SHARE * picture.width)
    bar_right = picture.width - margin - _SCORE_EMS * font_px
    middle = top + round(0.75 * font_px)
    draw_text(draw, (margin, middle), name, font_px, bar_left - 2 * margin, anchor="lm")
    length = round(score * (bar_right - bar_left))
    draw.rectangle((bar_left, top + 2, bar_left + length, top + round(1.5 * font_px) - 4), fill=color)
    draw_text(draw, (picture.width - margin, middle), f"{score:.2f}", font_px, _SCORE_EMS * font_px, anchor="rm")
