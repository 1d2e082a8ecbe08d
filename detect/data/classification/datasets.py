"""Opening a split of any format as a ``ClassTable``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from detect.config.data import DataConfig
from detect.data.checks import check_split, log_problems
from detect.data.classification.cifar import read_cifar
from detect.data.classification.fine_grained import read_cub, read_stanford_dogs
from detect.data.classification.image_folders import read_image_folders, read_tiny_imagenet
from detect.data.classification.table import ClassTable
from detect.data.pixel_values import ReadSettings
from detect.data.recognition import with_format
from detect.data.value_range import with_value_range
from detect.errors import InputError

CLASS_READERS: dict[str, Callable[[DataConfig, str], ClassTable]] = {
    "folders": read_image_folders,
    "cifar": read_cifar,
    "tiny-imagenet": read_tiny_imagenet,
    "cub": read_cub,
    "stanford-dogs": read_stanford_dogs,
}
"""Reader of each format of ``DataConfig.format`` that is for classification."""


def open_class_split(config: DataConfig, split: str, strict: bool = False) -> ClassTable:
    """Read a split; log its problems, or refuse them by ``InputError`` if ``strict``. ``names`` select the classes."""
    table = _read_class_split(config, split)
    log_problems(config, split, table.problems, strict)
    return with_value_range(config, split, table, _read_class_split)


def _read_class_split(config: DataConfig, split: str) -> ClassTable:
    check_split(config, split)
    config = with_format(config)
    if config.format not in CLASS_READERS:
        raise InputError(
            f"{config.name}: format {config.format} is for detection, but the model is a classifier; formats for "
            f"classification: {', '.join(CLASS_READERS)}"
        )
    table = CLASS_READERS[config.format](config, split)
    if config.names is not None:
        table = table.of_classes(config.names)
    return replace(table, read_settings=ReadSettings(max_pixels=config.max_pixels))
