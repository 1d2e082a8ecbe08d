"""Files of a classifier's prediction run: images with the most probable classes drawn below, JSON.

Letters: H W pixels of the image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from detect.data.images import write_image
from detect.drawing.boxes import class_color
from detect.drawing.sheets import draw_text, fitted
from detect.inference.outputs import output_names
from detect.runtime.distributed import all_gather_texts, barrier, is_main_process
from detect.runtime.files import write_json
from detect.safety.ownership import OutputFolder
from detect.structures import Classification

MIN_SIDE_PX = 320
"""Minimum width of a picture, and long side of an image; a smaller image is enlarged."""

MIN_FONT_PX, MAX_FONT_PX = 14, 64
"""Text below 14 px is hard to read next to a picture."""

MAX_CLASSES = 5
"""Number of classes drawn."""

_NAME_SHARE, _SCORE_EMS = 0.45, 3
"""Share of the picture's width for the names; width of the probabilities in letter heights."""


class ClassWriter:
    """Writer of the results of a list of images.

    Of several processes each writes its own images, and the main one the table of all.

    Args:
        folder: place of the files; made with the first one.
        paths: all images of the run. Files are named after their paths below their common folder.
        json: also write ``predictions.json``: for each image ``file_name`` and ``top5``, its most probable classes
            (``Classification.to_entries``).

    Raises:
        InputError: something would be replaced that is not from an earlier run, an image of ``paths`` for example.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], *, json: bool = False) -> None:
        self._folder = OutputFolder(folder)
        self._json = json
        self._names = output_names(paths)
        places = [f"{name}.jpg" for name in self._names.values()]
        self._folder.check([*places, "predictions.json"] if json else places, paths)
        self._entries: list[dict[str, Any]] = []
        self._order = {str(path): number for number, path in enumerate(paths)}
        barrier("the start of the predictions")  # each process has checked the folder before any writes

    def add(self, path: Path, image_rgb: np.ndarray, found: Classification) -> Path:
        """Draw one image, (H, W, 3) uint8; returns the drawing's file."""
        drawn = self._folder.claim(f"{self._names[path]}.jpg")
        write_image(drawn, draw_classification(image_rgb, found))
        if self._json:
            self._entries.append({"file_name": str(path), "top5": found.to_entries()})
        return drawn

    def finish(self) -> list[str]:
        """Write the table of all images; returns the places of the files, one line each."""
        places = [f"drawn images: {self._folder.path}"]
        if self._json:
            parts = all_gather_texts(json.dumps(self._entries))
            if is_main_process():
                entries = [entry for part in parts for entry in json.loads(part)]
                entries.sort(key=lambda entry: self._order[entry["file_name"]])
                write_json(self._folder.claim("predictions.json"), entries)
            places.append(f"classes of all images: {self._folder.path / 'predictions.json'}")
        return places


def draw_classification(image_rgb: np.ndarray, found: Classification) -> np.ndarray:
    """Draw the most probable classes below an image, each with a bar as long as its probability.

    Args:
        image_rgb: (H, W, 3) uint8.
        found: classes of the image.

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
        color = class_color(found.names.index(name))
        _draw_line(picture, height + margin + number * pitch, font_px, name, score, color)
    return np.array(picture)


def _draw_line(
    picture: Image.Image, top: int, font_px: int, name: str, score: float, color: tuple[int, int, int]
) -> None:
    """Draw name, bar and probability in letters of ``font_px``."""
    draw = ImageDraw.Draw(picture)
    margin = font_px // 2
    bar_left = margin + round(_NAME_SHARE * picture.width)
    bar_right = picture.width - margin - _SCORE_EMS * font_px
    middle = top + round(0.75 * font_px)
    draw_text(draw, (margin, middle), name, font_px, bar_left - 2 * margin, anchor="lm")
    length = round(score * (bar_right - bar_left))
    draw.rectangle((bar_left, top + 2, bar_left + length, top + round(1.5 * font_px) - 4), fill=color)
    draw_text(draw, (picture.width - margin, middle), f"{score:.2f}", font_px, _SCORE_EMS * font_px, anchor="rm")
