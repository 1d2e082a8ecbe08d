"""Everything between a run's settings and its first step: data, anchors, model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from detect.boxes.anchors import best_possible_recall, close_recall, fit_anchors
from detect.config.loader import to_plain
from detect.config.schema import DataConfig, DetectionRecipe
from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.errors import InputError, did_you_mean
from detect.losses.detection import Assignment, choose_assignment
from detect.models.build import build_model
from detect.models.catalog import find_definition
from detect.models.checkpoint import load_checkpoint, transfer_weights
from detect.models.definition import ModelDefinition, with_args
from detect.models.detector import DetectionModel
from detect.runtime.logs import LOGGER

CLOSE_IOU = 0.25
"""An anchor serves YOLOv3's assignment from this IoU on: as with half its width and half its height."""
SMALL_PX = 8
"""Boxes whose shorter side is below this many network-input pixels are reported: they are what strides and pools
lose."""


@dataclass(frozen=True)
class Material:
    """What a training works on.

    Args:
        train: training split, without background images if the data config drops them.
        val: validation split.
    """

    train: AnnotationTable
    val: AnnotationTable


def open_material(data: DataConfig, strict: bool) -> Material:
    """Read and check the training and validation splits.

    Raises:
        InputError: a split is missing, unlabelled or empty, or the two name other classes.
    """
    for split in ("train", "val"):
        if split not in data.splits:
            raise InputError(f"data {data.name}: has no split {split!r}; training needs train and val")
    train, val = open_split(data, "train", strict=strict), open_split(data, "val", strict=strict)
    if not train.is_labelled or not val.is_labelled:
        raise InputError(f"data {data.name}: train and val must have annotations")
    if train.names != val.names:
        only = sorted(set(train.names) ^ set(val.names))
        which = f"{', '.join(only[:5])} in one of them only" if only else "the same in another order; give names"
        raise InputError(f"data {data.name}: train and val have different classes: {which}")
    background = int((np.diff(train.box_offsets) == 0).sum())
    if background:
        kept = "are kept as background" if data.background == "keep" else "are dropped (background: drop)"
        LOGGER.info("%d of %d training images have no boxes; they %s", background, len(train), kept)
    if data.background == "drop":
        train = train.without_background()
    if train.is_crowd.all():
        raise InputError(f"data {data.name}: the training split has no usable boxes")
    return Material(train, val)


def training_sizes_px(table: AnnotationTable, image_size: int) -> np.ndarray:
    """(M, 2) widths and heights of the boxes that are trained on, in network-input pixels."""
    counts = np.diff(table.box_offsets)
    factor = np.repeat(image_size / table.sizes_hw.max(axis=1), counts)
    sizes = (table.boxes_xyxy_px[:, 2:] - table.boxes_xyxy_px[:, :2]) * factor[:, None]
    return sizes[~table.is_crowd & (sizes > 0).all(axis=1)]


def report_small_objects(table: AnnotationTable, image_size: int) -> None:
    """Say how many boxes are tiny for the network, and what helps."""
    sizes = training_sizes_px(table, image_size)
    small = float((sizes.min(axis=1) < SMALL_PX).mean())
    hint = "; a larger --image-size would help them" if small > 0.1 else ""
    LOGGER.info(
        "%.1f %% of %d training boxes are under %d px at %d px%s", 100 * small, len(sizes), SMALL_PX, image_size, hint
    )


def prepare_model(
    name: str | None, weights: Path | None, material: Material, recipe: DetectionRecipe
) -> DetectionModel:
    """The model to train: built for the data's classes, with suitable anchors and, if asked, with given weights.

    Args:
        name: model name or file; None takes the model of ``weights``.
        weights: a checkpoint to start from; what fits is copied.
        material: the data.
        recipe: the recipe.
    """
    source = load_checkpoint(weights).model if weights else None
    if name is None:
        assert source is not None, "a run has a model or weights"
        definition = source.definition
    else:
        definition = find_definition(name)
        if source is not None and len(source.head.anchors_px) == len(definition.rows[-1].inputs):
            definition = with_args(definition, "AnchorDetect", anchors_px=source.head.anchors_px.tolist())
    definition = suit_anchors(definition, material.train, recipe)
    model = build_model(definition, len(material.train.names))
    if source is not None:
        copy_weights(model, source, str(weights))
    return model


def copy_weights(model: DetectionModel, source: DetectionModel, where: str) -> None:
    """Copy the weights that fit, and say how many do.

    Args:
        model: receives them.
        source: gives them.
        where: the checkpoint, for messages.

    Raises:
        InputError: no convolution fits. (Counters of norms fit every model, the head's biases every one of as many
            classes.)
    """
    given = dict(source.named_parameters())
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.ndim > 1}
    if not any(name in given and given[name].shape == parameter.shape for name, parameter in own.items()):
        raise InputError(
            f"{where}: no convolution of {source.definition.name} fits {model.definition.name}; leave out --model to "
            "train the checkpoint's own model"
        )
    copied, total = transfer_weights(model, source)
    level = logging.INFO if copied > total / 2 else logging.WARNING
    LOGGER.log(level, "%s: %d of %d tensors fit and were copied", where, copied, total)


def suit_anchors(definition: ModelDefinition, table: AnnotationTable, recipe: DetectionRecipe) -> ModelDefinition:
    """The definition with anchors that suit the training boxes, fitted if need be (said aloud)."""
    given = np.array(definition.rows[-1].args.get("anchors_px", []), dtype=float)
    if recipe.anchors.fit == "never" or given.ndim != 3:
        return definition
    sizes = training_sizes_px(table, recipe.image_size)
    measure, recall_of = _recall_measure(definition, recipe)
    recall = recall_of(sizes, given.reshape(-1, 2))
    if recipe.anchors.fit == "auto" and recall >= recipe.anchors.min_recall:
        LOGGER.info("anchors: %s %.4f, kept", measure, recall)
        return definition
    fitted = fit_anchors(sizes, given.shape[0] * given.shape[1], recipe.seed)
    new_recall = recall_of(sizes, fitted)
    if recipe.anchors.fit == "auto" and new_recall <= recall:
        LOGGER.warning("anchors: %s %.4f; fitting did not raise it, so they are kept", measure, recall)
        return definition
    shown = ", ".join(f"{w:.0f}x{h:.0f}" for w, h in fitted)
    LOGGER.info("anchors: %s %.4f, fitted to the data: %.4f with %s", measure, recall, new_recall, shown)
    return with_args(definition, definition.rows[-1].module, anchors_px=fitted.reshape(given.shape).round(2).tolist())


def _recall_measure(
    definition: ModelDefinition, recipe: DetectionRecipe
) -> tuple[str, Callable[[np.ndarray, np.ndarray], float]]:
    """How well anchors (A, 2) serve boxes (M, 2), as the assignment of this model and recipe sees it, and its name."""
    with torch.device("meta"):  # no memory, and no random numbers that the real model would miss
        head = DetectionModel(definition, num_classes=1).head
    if choose_assignment(recipe.loss, head) == "yolov3":
        return f"close recall (IoU {CLOSE_IOU})", partial(close_recall, min_iou=CLOSE_IOU)
    return "best possible recall", partial(best_possible_recall, max_ratio=recipe.loss.anchor_ratio)


def warn_of_ignored(recipe: DetectionRecipe, assignment: Assignment) -> None:
    """Warn, in one line, of settings that the recipe changes and that have no effect in it.

    Args:
        recipe: the recipe.
        assignment: what ``choose_assignment`` made of it.
    """
    schedule, asked, plain = recipe.optimizer.schedule, to_plain(recipe), to_plain(DetectionRecipe())
    needs = (
        ("loss", "anchor_ratio", "assignment", assignment, "yolov5"),
        ("loss", "ignore_iou", "assignment", assignment, "yolov3"),
        ("optimizer", "power", "schedule", schedule, "poly"),
        ("optimizer", "milestones", "schedule", schedule, "step"),
        ("optimizer", "step_factor", "schedule", schedule, "step"),
    )
    ignored = [
        f"{section}.{key} ({word} is {found}, not {needed})"
        for section, key, word, found, needed in needs
        if found != needed and asked[section][key] != plain[section][key]
    ]
    if ignored:
        LOGGER.warning("no effect: %s", ", ".join(ignored))


def freeze(model: DetectionModel, names: tuple[str, ...]) -> None:
    """Stop sections or rows from learning; ``set_training_mode`` keeps their norms still.

    Args:
        model: is changed.
        names: sections (``backbone``) or rows (``stem``).

    Raises:
        InputError: a name is neither a section nor a row, or nothing is left to learn.
    """
    rows = {row.name: row.section for row in model.definition.rows}
    allowed = {*rows, *rows.values()}
    for name in names:
        if name not in allowed:
            raise InputError(f"freeze: unknown section or row {name!r}{did_you_mean(name, allowed)}")
    for row, section in rows.items():
        if row in names or section in names:
            model.graph.layers[row].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"freeze: {', '.join(names)} is the whole model; nothing would learn")


def set_training_mode(model: DetectionModel) -> None:
    """Training mode, except for frozen norms, whose statistics must not drift."""
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and not layer.weight.requires_grad:
            layer.eval()
