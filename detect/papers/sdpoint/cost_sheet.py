"""Pictures of an image at several costs (SDPoint), side by side.

Letters: H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from detect.data.images import write_image
from detect.drawing.sheets import BLACK, draw_text, fitted
from detect.errors import InputError
from detect.inference.class_outputs import draw_classification
from detect.inference.classifier import Classifier
from detect.inference.detector import Detector
from detect.inference.inputs import as_image
from detect.inference.outputs import output_names
from detect.papers.sdpoint.network import AdjustableNetwork
from detect.safety.ownership import OutputFolder

MIN_PANEL_PX, MAX_PANEL_PX = 320, 720
"""Limits of the long side of a drawn image."""

GAP_PX = 8
"""Between panels, and around them."""

CAPTION_PX, FONT_PX = 32, 20
"""Height of the strip above a panel, and of its letters."""


def write_cost_sheets(
    predictor: Detector | Classifier, paths: Sequence[Path], costs: Sequence[float], folder: Path, **options: Any
) -> Iterator[str]:
    """Draw each image at several costs, a panel each.

    Args:
        predictor: its checkpoint has measured instances.
        paths: image files.
        costs: shares of the full cost, for the panels from left to right.
        folder: of the pictures, which have the names of their images.
        options: of ``Detector.predict`` or ``Classifier.predict``.

    Yields:
        A line for each panel, and one for each picture.

    Raises:
        InputError: an image cannot be read, an option or a cost is out of range, the instances are not measured, or a
            file would be replaced that is not from an earlier run.
    """
    network = predictor.network
    if not isinstance(network, AdjustableNetwork):
        raise InputError("the cost of an exported file is fixed; detect export --cost exports another one")
    out, names = OutputFolder(folder), output_names(paths)
    out.check([f"{name}.jpg" for name in names.values()], paths)
    for path in paths:
        panels = []
        image = as_image(path, predictor.read_settings())
        predictor.cost = 1  # the full image size
        network_hw = predictor.network_hw((image.shape[0], image.shape[1]), options.get("image_size"))
        for cost, (choice, ms) in zip(costs, network.choices(costs, network_hw), strict=True):
            predictor.cost = cost
            panels.append(_panel(_drawn(predictor, image, options), f"cost {cost:g}   {ms:.1f} ms"))
            yield f"cost {cost:g}: {ms:.1f} ms of the network; {choice.line()}"
        picture = out.claim(f"{names[path]}.jpg")
        write_image(picture, side_by_side(panels))
        yield f"{path}: {picture}"


def side_by_side(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Join at least one panel (H, W, 3) uint8 to (H + 2 * GAP_PX, ..., 3), with white gaps."""
    height = panels[0].shape[0]
    gap = np.full((height, GAP_PX, 3), 255, np.uint8)
    row = np.concatenate([part for panel in panels for part in (gap, panel)] + [gap], axis=1)
    border = np.full((GAP_PX, row.shape[1], 3), 255, np.uint8)
    return np.concatenate([border, row, border])


def _drawn(predictor: Detector | Classifier, image_rgb: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    if isinstance(predictor, Classifier):
        return draw_classification(image_rgb, predictor.predict(image_rgb, **options))
    return predictor.predict(image_rgb, **options).plot(image_rgb)


def _panel(image_rgb: np.ndarray, caption: str) -> np.ndarray:
    side = int(np.clip(max(image_rgb.shape[:2]), MIN_PANEL_PX, MAX_PANEL_PX))
    image = fitted(image_rgb, side)
    strip = Image.new("RGB", (image.shape[1], CAPTION_PX), "white")
    draw_text(ImageDraw.Draw(strip), (0, CAPTION_PX // 2), caption, FONT_PX, image.shape[1], BLACK, "lm")
    return np.concatenate([np.array(strip), image])
