"""Class activation maps: which parts of an image speak for a class.

A classifier's head averages the last map over its cells and multiplies by a class's weights; in the other order, the
weights first, each cell has its own say for the class, and the average of what the cells say, with the class's bias,
is the logit.

Letters: B images, H W pixels, h w cells of the last map, C its channels, K classes.

Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, section 2.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from detect.data.images import write_image
from detect.evaluation.class_pictures import seen, spread
from detect.evaluation.classification import ClassEvaluation
from detect.evaluation.forward import evaluation_mode, run_classifier
from detect.evaluation.sheets import GREEN, RED, Color, Tile, heading, sheet_width, tile_sheet
from detect.models.model import ClassificationModel
from detect.runtime.logs import LOGGER

MAX_IMAGES = 9
"""Right ones, and as many wrong ones."""

COLUMNS = 6
"""Tiles of a row; an image and its map take two."""

_OPACITY = 0.5
_BATCH = 3


def class_maps(model: ClassificationModel, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """What the cells of the last map say for each class: the sum over C of weight times activation.

    With ``pool: avg`` of the head, averaged before or after its layer, the mean over the cells and the class's bias
    are the logit. With ``pool: max`` the logit is made of each channel's greatest cell; the map then shows where the
    channels that speak for the class are active, and does not add up to it.

    Args:
        model: in evaluation mode, on ``device``.
        images: (B, H, W, 3) uint8 RGB.
        device: where to compute.

    Returns:
        (B, K) logits and (B, K, h, w) maps, float32 on the CPU.
    """
    maps: list[Tensor] = []
    head = model.head
    hook = head.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0].float()))
    try:
        logits = run_classifier(model, images, device)
    finally:
        hook.remove()
    with torch.inference_mode():
        said = torch.einsum("bchw,kc->bkhw", maps[0], head.linear.weight.float())
    return logits.cpu(), said.cpu()


def draw_class_activation(
    path: Path, evaluation: ClassEvaluation, model: ClassificationModel, device: torch.device
) -> bool:
    """Draw images, right and wrong ones, and over them what their cells say for the class that they were taken for.

    Colours go from the least (blue) to the most (red) of each image, so they do not compare between images.

    Args:
        path: the image file; its suffix chooses the format.
        evaluation: of a split by ``model``.
        model: on ``device``.
        device: where to compute.

    Returns:
        Whether there is a picture. Where the last map has one cell only, there is nothing to see.
    """
    is_right = evaluation.predicted == evaluation.table.labels
    parts = []
    for what, chosen, color in (("Right", is_right, GREEN), ("Wrong", ~is_right & evaluation.is_answered, RED)):
        rows = spread(np.flatnonzero(chosen), MAX_IMAGES)
        if len(rows):
            tiles = _tiles(evaluation, model, device, rows, color)
            if not tiles:
                LOGGER.warning("%s is not drawn: the last map has a single cell at this image size", path)
                return False
            text = f"{what}: what speaks for the predicted class, least (blue) to most (red) within each image"
            parts += [heading(text, sheet_width(COLUMNS)), tile_sheet(tiles, COLUMNS)]
    if not parts:
        return False
    write_image(path, np.concatenate(parts))
    return True


def overlay(image_rgb: np.ndarray, said: np.ndarray) -> np.ndarray:
    """A map as colours over its image.

    Args:
        image_rgb: (H, W, 3) uint8.
        said: (h, w) any values; the least is blue, the greatest red.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image_rgb.shape[:2]
    smooth = cv2.resize(said.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    span = max(float(smooth.max() - smooth.min()), 1e-12)
    levels = ((smooth - smooth.min()) / span * 255).round().astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return cv2.addWeighted(image_rgb, 1 - _OPACITY, colors, _OPACITY, 0)


def _tiles(
    evaluation: ClassEvaluation, model: ClassificationModel, device: torch.device, rows: np.ndarray, color: Color
) -> list[Tile]:
    """An image and its map for each row; none where the map has one cell."""
    names, tiles = evaluation.table.names, []
    of_model = {label: index for index, label in enumerate(evaluation.label_of.tolist())}  # the table's to the model's
    images = seen(evaluation, rows)
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        with evaluation_mode(model):
            _, maps = class_maps(model, torch.from_numpy(np.stack([image for _, image in batch])), device)
        if maps.shape[2] * maps.shape[3] == 1:
            return []
        for (row, image), said in zip(batch, maps.numpy(), strict=True):
            found = evaluation.classification(row)
            tiles += [
                Tile(image, f"is {names[evaluation.table.labels[row]]}", color),
                Tile(overlay(image, said[of_model[found.label]]), f"{found.name} {found.score:.2f}", color),
            ]
    return tiles
