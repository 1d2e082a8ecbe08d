"""The splits of a detector's training, and what a recipe makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from detect.class_names import match_names, some_names
from detect.config.data import DataConfig
from detect.config.recipe import DetectionRecipe
from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.data.detection.box_sizes import MANY_SMALL, SMALL_PX, share_under, training_sizes_px
from detect.data.detection.classes import OBJECT, as_single_class, with_classes
from detect.data.detection.repeats import describe_repeats, image_repeats
from detect.data.detection.sampling import epoch_length
from detect.data.detection.windows import cut_windows, describe_windows
from detect.data.pixel_values import MAX_TILED_PIXELS
from detect.data.scenes.table import SceneTable
from detect.data.value_range import as_trained
from detect.errors import InputError, did_you_mean
from detect.evaluation.coco import warn_of_nothing_to_measure
from detect.evaluation.crowding import warn_of_crowding
from detect.runtime.logs import LOGGER
from detect.training.checks import check_classes, check_splits, draw_images


@dataclass(frozen=True)
class DetectionData:
    """The splits of a detector's training.

    Args:
        train: training split, without background images if the data config drops them.
        val: validation split.
    """

    train: AnnotationTable
    val: AnnotationTable


def open_detection_data(data: DataConfig, strict: bool) -> DetectionData:
    """Read and check the training and validation splits.

    Raises:
        InputError: a split is missing, unlabelled or empty, or the two have no class in common.
    """
    check_splits(data)
    train = open_split(data, "train", strict=strict)
    val = open_split(as_trained(data, train.read_settings.value_range), "val", strict=strict)
    if not train.is_labelled or not val.is_labelled:
        raise InputError(f"data {data.name}: train and val must have annotations")
    check_classes(data, train.names, val.names)
    background = int((np.diff(train.box_offsets) == 0).sum())
    if background:
        kept = "are kept as background" if data.background == "keep" else "are dropped (background: drop)"
        LOGGER.info("%d of %d training images have no boxes; they %s", background, len(train), kept)
    if data.background == "drop":
        train = train.without_background()
    if train.is_crowd.all():
        raise InputError(f"data {data.name}: the training split has no usable boxes")
    warn_of_nothing_to_measure(f"data {data.name}: val", val)
    warn_of_crowding(f"data {data.name}: val", val)
    return DetectionData(train, val)


def report_small_objects(table: AnnotationTable, image_size: int, tile_px: int = 0) -> None:
    """Log the share of boxes that are tiny for the network, and a remedy; ``tile_px`` is the side of tiles, if any."""
    sizes = training_sizes_px(table, image_size)
    small = share_under(sizes, SMALL_PX)
    remedy = f"tiles.size_px below {tile_px}" if tile_px else "a larger --image-size"
    hint = f"; {remedy} would help them (detect data stats)" if small > MANY_SMALL else ""
    LOGGER.info(
        "%.1f %% of %d training boxes are under %d px at %d px%s", 100 * small, len(sizes), SMALL_PX, image_size, hint
    )


def prepare_detection_data(data: DataConfig, recipe: DetectionRecipe, strict: bool) -> DetectionData:
    """Read the splits and draw, or cut into tiles, the training images as the recipe says; log what is trained on.

    Raises:
        InputError: as ``open_detection_data``; or the recipe asks for what the data does not have.
    """
    if recipe.tiles.is_on:
        data = replace(data, max_pixels=max(data.max_pixels, MAX_TILED_PIXELS))
    splits = open_detection_data(data, strict)
    if isinstance(splits.train, SceneTable):
        _check_scenes(data, recipe)
    splits = choose_classes(splits, recipe, data)
    train = draw_images(splits.train, recipe)
    if recipe.tiles.is_on:
        train = _tiled(train, recipe)
    if recipe.sampling.rare_below:
        LOGGER.info("%s", describe_repeats(train, recipe.sampling.rare_below))
    report_small_objects(train, recipe.image_size, recipe.tiles.size_px)
    return DetectionData(train, splits.val)


def choose_classes(splits: DetectionData, recipe: DetectionRecipe, data: DataConfig) -> DetectionData:
    """Return the splits with the classes of the recipe; log what is left out.

    Raises:
        InputError: the training split has no class, or no box of one, that the recipe names; or validation has none.
    """
    train, val = splits.train, splits.val
    if recipe.classes:
        train = with_classes(train, _class_indices(train, recipe.classes))
        found = match_names(train.names, val.names).target_of
        if (found < 0).all():
            raise InputError(
                f"classes: val of {data.name} has none of {some_names(recipe.classes)}; nothing measures them"
            )
        val = with_classes(val, [index for index in found.tolist() if index >= 0])
        if train.is_crowd.all():
            raise InputError(f"classes: the training split has no usable boxes of {some_names(recipe.classes)}")
        background = int((np.diff(train.box_offsets) == 0).sum())
        LOGGER.info(
            "classes: %d of %d, %d of %d training boxes; %d of %d images have none of them and are %s",
            *(len(train.names), len(splits.train.names), len(train.labels), len(splits.train.labels)),
            *(background, len(train), "dropped" if data.background == "drop" else "background"),
        )
        if data.background == "drop":
            train = train.without_background()
    if recipe.single_class:
        LOGGER.info("single_class: %s are one class, %r", some_names(train.names), OBJECT)
        train, val = as_single_class(train), as_single_class(val)
    return DetectionData(train, val)


def _class_indices(train: AnnotationTable, names: Sequence[str]) -> list[int]:
    for name in names:
        if name not in train.names:
            raise InputError(f"classes: the training split has no class {name!r}{did_you_mean(name, train.names)}")
    return [train.names.index(name) for name in names]


def _check_scenes(data: DataConfig, recipe: DetectionRecipe) -> None:
    """Refuse what is made of a table of images: scenes are drawn one after another."""
    for key, is_on in (
        ("classes", bool(recipe.classes)),
        ("single_class", recipe.single_class),
        ("tiles.size_px", recipe.tiles.is_on),
        ("sampling.rare_below", recipe.sampling.rare_below > 0),
    ):
        if is_on:
            raise InputError(f"{key}: is not for generated scenes (data {data.name}); leave it out")


def _tiled(train: AnnotationTable, recipe: DetectionRecipe) -> AnnotationTable:
    tiles = cut_windows(train, recipe.tiles, recipe.image_size)
    if tiles.is_crowd.all():
        raise InputError(f"tiles.size_px: no tile of {recipe.tiles.size_px} px shows enough of an object to learn it")
    LOGGER.info("%s", describe_windows(train, tiles, recipe.tiles))
    if recipe.cache == "none" and len(tiles) > len(train):
        times = len(tiles) / len(train)
        LOGGER.info("each tile decodes its whole image, %.1f tiles an image; cache: disk decodes each once", times)
    return tiles


def epoch_images(train: AnnotationTable, recipe: DetectionRecipe) -> int:
    """Number of samples of an epoch, before the last batch that is not full is left out."""
    repeats = image_repeats(train, recipe)
    return len(train) if repeats is None else epoch_length(repeats)
