"""Pictures of a classifier's evaluation: confusion matrix, confused classes, predictions, class activation maps.

Letters: N images of the split, B images of a batch, H W pixels, h w cells of the last map, C its channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from detect.data.classification.geometry import center_crop
from detect.data.images import ImageError, write_image
from detect.drawing.sheets import GREEN, RED, Color, Panel, heading, panel_sheet, sheet_width
from detect.drawing.text import shorten
from detect.evaluation.classification import ClassEvaluation, most_confused
from detect.evaluation.forward import evaluation_mode, run_classifier
from detect.evaluation.pictures import MAX_NAME, draw_matrix
from detect.models.model import ClassificationModel
from detect.runtime.logs import LOGGER

MAX_PAIRS = 10
"""Rows of the picture of confused classes."""

MAX_EXAMPLES = 8
"""Images of a row."""

MAX_ACTIVATIONS = 9
"""Correct images with a class activation map, and as many wrong ones."""

ACTIVATION_COLUMNS = 6
"""Panels of a row; an image and its map take two."""

_OPACITY = 0.5
_BATCH = 3


def draw_class_confusion(path: Path, evaluation: ClassEvaluation) -> None:
    """Draw the confusion matrix as a PNG file."""
    title = "Confusion matrix\n(counts; colour: share of the row)"
    draw_matrix(path, evaluation.metrics.confusion, list(evaluation.table.names), title)


def draw_confused_pairs(path: Path, evaluation: ClassEvaluation) -> None:
    """Draw images of the most confused classes: a row for each pair, the most confident errors first.

    The caption of an image has the probabilities of the predicted and of the true class.

    Args:
        path: the image file; its suffix chooses the format.
        evaluation: of a split.
    """
    width = sheet_width(MAX_EXAMPLES)
    names, labels = evaluation.table.names, evaluation.table.labels
    parts = []
    for true, predicted, count in most_confused(evaluation.metrics.confusion, MAX_PAIRS):
        total = int(evaluation.metrics.confusion[true].sum())
        text = f"{shorten(names[true], MAX_NAME)} as {shorten(names[predicted], MAX_NAME)}: {count} of {total}"
        rows = np.flatnonzero((labels == true) & (evaluation.predicted == predicted))
        rows = rows[np.argsort(-evaluation.probabilities[rows, predicted], kind="stable")][:MAX_EXAMPLES]
        panels = [
            Panel(image, _probabilities(evaluation, row, (predicted, true)), RED)
            for row, image in network_inputs(evaluation, rows)
        ]
        parts += [heading(text, width), panel_sheet(panels, MAX_EXAMPLES)]
    if not parts:
        parts = [heading("No image has a wrong class.", width)]
    write_image(path, np.concatenate(parts))


def prediction_sheet(evaluation: ClassEvaluation, count: int) -> np.ndarray:
    """Draw images from all over the split with their predicted class, correct ones green and wrong ones red.

    Args:
        evaluation: of a split.
        count: maximum number of images.

    Returns:
        (H, W, 3) uint8.
    """
    names, labels, predicted = evaluation.table.names, evaluation.table.labels, evaluation.predicted
    panels = []
    for row, image in network_inputs(evaluation, spread(np.flatnonzero(evaluation.is_answered), count)):
        found = evaluation.classification(row)
        is_correct = predicted[row] == labels[row]
        answer = f"{found.name} {found.score:.2f}"
        lines = (answer,) if is_correct else (answer, f"is {names[labels[row]]}")
        panels.append(Panel(image, lines, GREEN if is_correct else RED))
    return panel_sheet(panels, _square_columns(len(panels)))


def class_sheet(images_rgb: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """Draw a batch of images, (B, H, W, 3) uint8, with their captions; (H, W, 3) uint8."""
    panels = [Panel(image, caption) for image, caption in zip(images_rgb, captions, strict=True)]
    return panel_sheet(panels, _square_columns(len(panels)))


def network_inputs(evaluation: ClassEvaluation, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Row and network input, (S, S, 3) uint8, of the images at ``rows``, without those that cannot be read any more."""
    found = []
    for row in rows.tolist():
        with suppress(ImageError):
            image = evaluation.table.read(row)
            found.append((row, center_crop(image, evaluation.image_size, evaluation.center_crop)))
    return found


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` of ``rows``, evenly spaced: a split is often sorted by class."""
    return rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def _probabilities(evaluation: ClassEvaluation, row: int, labels: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{evaluation.table.names[label]} {evaluation.probabilities[row, label]:.2f}" for label in labels)


def _square_columns(num_panels: int) -> int:
    return max(1, int(np.ceil(np.sqrt(num_panels))))


def class_maps(model: ClassificationModel, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Compute class activation maps: for each class and cell of the last map, the sum over C of weight x activation.

    From (B, H, W, 3) uint8 RGB to (B, K) logits and (B, K, h, w) maps, float32 on the CPU. With ``pool: avg`` of the
    head, averaged before or after its layer, the mean over the cells plus the class's bias is the logit. With
    ``pool: max`` the logit is made of each channel's greatest cell; the map then shows where the channels of the class
    are active, and does not add up to the logit.

    Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, section 2.
    """
    inputs: list[Tensor] = []
    head = model.head
    hook = head.register_forward_pre_hook(
        lambda _, given: inputs.append(given[-1].float())  # behind early exits, the last map
    )
    try:
        logits = run_classifier(model, images, device)
    finally:
        hook.remove()
    with torch.inference_mode():
        maps = torch.einsum("bchw,kc->bkhw", inputs[0], head.linear.weight.float())
    return logits.cpu(), maps.cpu()


def draw_class_activation(
    path: Path, evaluation: ClassEvaluation, model: ClassificationModel, device: torch.device
) -> bool:
    """Draw correct and wrong images with the class activation map of the predicted class.

    Colours go from the minimum (blue) to the maximum (red) of each image, so they do not compare between images.

    Args:
        path: the image file; its suffix chooses the format.
        evaluation: of a split by ``model``.
        model: on ``device``.
        device: device of the model.

    Returns:
        True if a picture was written; False where the last map has a single cell, or no image has an answer.
    """
    is_correct = evaluation.predicted == evaluation.table.labels
    parts = []
    for title, chosen, color in (
        ("Correct", is_correct, GREEN),
        ("Wrong", ~is_correct & evaluation.is_answered, RED),
    ):
        rows = spread(np.flatnonzero(chosen), MAX_ACTIVATIONS)
        if len(rows):
            panels = _activation_panels(evaluation, model, device, rows, color)
            if not panels:
                LOGGER.warning("%s is not drawn: the last map has a single cell at this image size", path)
                return False
            text = f"{title}: activation of the predicted class, lowest (blue) to highest (red) within each image"
            parts += [heading(text, sheet_width(ACTIVATION_COLUMNS)), panel_sheet(panels, ACTIVATION_COLUMNS)]
    if not parts:
        return False
    write_image(path, np.concatenate(parts))
    return True


def overlay(image_rgb: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """Draw a (h, w) map as colours, minimum blue and maximum red, over its image, (H, W, 3) uint8."""
    height, width = image_rgb.shape[:2]
    smooth = cv2.resize(activation.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    span = max(float(smooth.max() - smooth.min()), 1e-12)
    levels = ((smooth - smooth.min()) / span * 255).round().astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return cv2.addWeighted(image_rgb, 1 - _OPACITY, colors, _OPACITY, 0)


def _activation_panels(
    evaluation: ClassEvaluation, model: ClassificationModel, device: torch.device, rows: np.ndarray, color: Color
) -> list[Panel]:
    """Image and map of each row; nothing where the map has a single cell."""
    names, panels = evaluation.table.names, []
    model_label = {label: index for index, label in enumerate(evaluation.label_of.tolist())}  # by the table's label
    images = network_inputs(evaluation, rows)
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        with evaluation_mode(model):
            _, maps = class_maps(model, torch.from_numpy(np.stack([image for _, image in batch])), device)
        if maps.shape[2] * maps.shape[3] == 1:
            return []
        for (row, image), activations in zip(batch, maps.numpy(), strict=True):
            found = evaluation.classification(row)
            panels += [
                Panel(image, f"is {names[evaluation.table.labels[row]]}", color),
                Panel(overlay(image, activations[model_label[found.label]]), f"{found.name} {found.score:.2f}", color),
            ]
    return panels
