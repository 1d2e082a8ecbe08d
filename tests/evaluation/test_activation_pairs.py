"""Class activation maps of two classifiers side by side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detect.drawing.sheets import CAPTION_LINES, GAP_PX, LINE_PX, PANEL_PX, sheet_width
from detect.evaluation.activation_pairs import draw_activation_pairs
from detect.evaluation.class_differences import ClassifierPair
from detect.models.model import ClassificationModel
from tests.evaluation.test_class_pictures import make_evaluation, tiny_model


def model_of(answer: int) -> ClassificationModel:
    """A classifier that gives one answer to every image."""
    model = tiny_model(classes=2)
    with torch.no_grad():
        model.head.linear.bias[answer] = 100.0
    return model


@pytest.mark.parametrize("sizes", [(32,), (32, 16)])
def test_a_row_for_each_image(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """A says cat, B dog; image 0 is a cat, image 1 a dog. The captions of A are green in the first row, red below."""
    evaluations = (
        make_evaluation(tmp_path, ("cat", "dog"), [[0.9, 0.1], [0.8, 0.2]]),
        make_evaluation(tmp_path, ("cat", "dog"), [[0.1, 0.9], [0.2, 0.8]]),
    )
    path = tmp_path / "maps.png"
    draw_activation_pairs(path, ClassifierPair(evaluations), (model_of(0), model_of(1)), sizes, count=2)
    image_bgr = cv2.imread(str(path))
    assert image_bgr is not None
    sheet = image_bgr[..., ::-1].astype(int)
    pitch = PANEL_PX + CAPTION_LINES * LINE_PX + GAP_PX
    columns = 1 + 2 * len(sizes)
    assert sheet.shape == (2 * pitch + GAP_PX, sheet_width(columns), 3)
    greener = np.zeros((2, columns))
    for row, column in np.ndindex(greener.shape):
        top, left = GAP_PX + row * pitch + PANEL_PX, GAP_PX + column * (PANEL_PX + GAP_PX)
        caption = sheet[top : top + CAPTION_LINES * LINE_PX, left : left + PANEL_PX]
        greener[row, column] = np.sign((caption[..., 1] - caption[..., 0]).sum())
    of_a, of_b = [1] * len(sizes), [-1] * len(sizes)
    assert greener.tolist() == [[0, *of_a, *of_b], [0, *of_b, *of_a]]
