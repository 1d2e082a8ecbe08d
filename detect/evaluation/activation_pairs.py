"""Class activation maps of two classifiers at several image sizes, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from detect.data.classification.geometry import center_crop
from detect.data.images import write_image
from detect.drawing.sheets import GREEN, RED, Panel, panel_sheet
from detect.errors import InputError
from detect.evaluation.class_differences import ClassifierPair
from detect.evaluation.class_pictures import class_maps, network_inputs, overlay
from detect.evaluation.classification import ClassEvaluation
from detect.evaluation.differences import MODELS
from detect.evaluation.forward import evaluation_mode
from detect.models.model import ClassificationModel


def check_sizes(models: Sequence[ClassificationModel], sizes: Sequence[int]) -> None:
    """Refuse sizes, in pixels, at which a model has no class activation map.

    Raises:
        InputError: a size is no multiple of a model's reduction, or its last map has a single cell.
    """
    for multiple, size in ((model.max_reduction, size) for model in models for size in sizes):
        if size % multiple:
            raise InputError(f"--activations: must be multiples of {multiple}, found {size}")
        if size == multiple:
            raise InputError(f"--activations: the last map has a single cell at {size} px; take a larger size")


def draw_activation_pairs(
    path: Path,
    pair: ClassifierPair,
    models: tuple[ClassificationModel, ClassificationModel],
    sizes: Sequence[int],
    count: int,
) -> None:
    """Draw images that one classifier alone has right, with the map of each classifier's answer at each image size.

    A row is an image, A at each size and B at each size; a caption is green where the answer at that size is right.

    Args:
        path: the image file; its suffix chooses the format.
        pair: chooses the images, half of them right by A alone and half by B alone.
        models: A and B, on one device.
        sizes: sides of the network input in pixels, as ``check_sizes`` allows.
        count: maximum number of images.

    Source: Temporally Resolution Decrement, Figure 2, for the arrangement.
    """
    panels: list[Panel] = []
    rows = np.concatenate([pair.rows_of(name)[: -(-count // 2)] for name in MODELS])
    table = pair.evaluations[0].table
    for row, image in network_inputs(pair.evaluations[0], rows):
        panels.append(Panel(image, f"is {table.names[table.labels[row]]}"))
        for name, model, evaluation in zip(MODELS, models, pair.evaluations, strict=True):
            panels += _panels(name, model, evaluation, row, sizes)
    write_image(path, panel_sheet(panels, columns=1 + len(models) * len(sizes)))


def _panels(
    name: str, model: ClassificationModel, evaluation: ClassEvaluation, row: int, sizes: Sequence[int]
) -> Iterator[Panel]:
    """Overlay the map of the answer at each size."""
    device, table = next(model.parameters()).device, evaluation.table
    whole = table.read(row)
    for size in sizes:
        image = center_crop(whole, size, evaluation.center_crop)
        with evaluation_mode(model):
            logits, maps = class_maps(model, torch.from_numpy(np.stack([image])), device)  # (1, M), (1, M, h, w)
        is_lacking = torch.from_numpy(evaluation.label_of < 0)  # (M,): the table does not have these classes
        logits = logits.masked_fill(is_lacking, -torch.inf)
        answer = int(logits.argmax())
        label = int(evaluation.label_of[answer])
        caption = (f"{name}, {size} px:", f"{table.names[label]} {float(logits.softmax(dim=1)[0, answer]):.2f}")
        yield Panel(overlay(image, maps[0, answer].numpy()), caption, GREEN if label == table.labels[row] else RED)
