"""The picture of ``docs/explanation/small-objects.md``: what a stride of 2 and space-to-depth keep of a small object.

Use: python docs/draw_space_to_depth.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from detect.data.digits.pages import draw_page

OUT = Path(__file__).parent / "images" / "space-to-depth.png"
PAGE, SIDE_PX = 19, 16  # of the validation pages; side of the part around its smallest digit
CELL_PX, GAP_PX, TEXT_PX = 14, 30, 22
COLOURS = ((255, 214, 214), (214, 235, 214), (214, 224, 255), (250, 240, 200))
"""Of the four places in a block of 2 x 2 pixels."""


def part_of_page() -> np.ndarray:
    """(16, 16) grey levels around the smallest digit of a page; a block of 2 x 2 pixels begins at each even place."""
    image, boxes, _, _ = draw_page(160, "val", PAGE)
    left, top, width, height = min(boxes.tolist(), key=lambda box: max(box[2:]))
    x, y = (max(start + side // 2 - SIDE_PX // 2, 0) for start, side in ((left, width), (top, height)))
    return np.asarray(Image.fromarray(image).convert("L"))[y : y + SIDE_PX, x : x + SIDE_PX]


def enlarged(values: np.ndarray, cell_px: int) -> Image.Image:
    return Image.fromarray(values).resize(
        tuple(side * cell_px for side in values.shape[::-1]), Image.Resampling.NEAREST
    )


def draw() -> Image.Image:
    """Draw the part, every second pixel of it, and the four maps of its blocks."""
    part = part_of_page()
    side = SIDE_PX * CELL_PX
    sheet = Image.new("RGB", (3 * side + 2 * GAP_PX + 8, side + 2 * TEXT_PX + 8), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    titles = ("16 x 16 px of an image", "a stride of 2: one pixel in four", "space-to-depth: all, in four channels")
    for column, title in enumerate(titles):
        left = column * (side + GAP_PX)
        pen.text((left, 0), title, "black", font)
        if column == 0:
            sheet.paste(enlarged(part, CELL_PX), (left, TEXT_PX))
        for number in range(4) if column == 2 else range(1 if column else 0):
            row, place = divmod(number, 2)
            half = side // 2
            where = (left + place * (half + 4), TEXT_PX + row * (half + 4))
            kept = part[row::2, place::2]
            pen.rectangle((where[0] - 2, where[1] - 2, where[0] + half + 1, where[1] + half + 1), COLOURS[number])
            sheet.paste(enlarged(kept, CELL_PX), where)
    return sheet


if __name__ == "__main__":
    draw().save(OUT, optimize=True)
