"""Range of values that is mapped to 0 ... 255 in a data set whose images have more than 8 bits a channel.

The high byte of 16 bits is a picture only if the values fill them. A thermal camera of 14 bits gives values between,
say, 7,400 and 7,600, of which all high bytes are 28 and 29. So the range is stated in the data config (``range``), or
measured once on the training split, kept in the checkpoint, and the same in evaluation and prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from detect.config.data import DataConfig, RangeConfig
from detect.data.annotations import AnnotationTable
from detect.data.classification.table import ClassTable
from detect.data.images import ImageError, open_by_pillow, open_image_file, pillow_errors, read_deep_values
from detect.data.pixel_values import MAX_PIXELS, is_deep, is_unsigned_16
from detect.errors import InputError
from detect.runtime.logs import LOGGER

FEW_LEVELS = 128
"""Different high bytes below which the range is measured, unless the data config states one."""

MEASURED = RangeConfig()
"""``range: measured``: a dead pixel per image is outside of the percentiles, the smallest objects are inside."""

_MAX_OPENED = 256  # images whose headers are read
_MAX_DECODED = 64
_MAX_VALUES = 2**16  # of an image, evenly spaced

Table = TypeVar("Table", AnnotationTable, ClassTable)


class RangeChoice(NamedTuple):
    """Range of a split.

    Args:
        value_range: low and high; None keeps the high byte.
        is_stated: by the data config, if only as ``measured``.
        num_deep: images of more than 8 bits a channel, among those of the split that were examined.
        text: description for the log; empty if nothing is changed.
    """

    value_range: tuple[float, float] | None
    is_stated: bool
    num_deep: int
    text: str


def with_value_range(
    config: DataConfig, split: str, table: Table, read_split: Callable[[DataConfig, str], Table]
) -> Table:
    """Return the split with its images' range of values, which is logged; ``choose_range`` has the errors.

    ``read_split`` reads the training split, on which the range is measured.
    """
    choice = choose_range(config, split, table, read_split)
    if choice.text:
        LOGGER.info("%s %s: %s", config.name, split, choice.text)
    return replace(table, read_settings=replace(table.read_settings, value_range=choice.value_range))


def as_trained(config: DataConfig, value_range: tuple[float, float] | None) -> DataConfig:
    """Return the data set with a model's range of values, if it has one.

    Args:
        config: the data set.
        value_range: of the model's checkpoint.
    """
    if value_range is None:
        return config
    if isinstance(config.range, tuple) and config.range != value_range:
        LOGGER.info(
            "%s: the data config's range %s gives way to the model's, %s",
            config.name,
            list(config.range),
            list(value_range),
        )
    return replace(config, range=value_range)


def choose_range(
    config: DataConfig, split: str, table: Table, read_split: Callable[[DataConfig, str], Table]
) -> RangeChoice:
    """Choose the range of values of a split's images; arguments as of ``with_value_range``.

    Raises:
        InputError: ``range`` of the data config is invalid, or cannot be measured.
    """
    _check(config)
    rows = deep_rows(table)
    if isinstance(config.range, tuple):
        low, high = config.range
        text = f"images of more than 8 bits: values {low:g} to {high:g} become 0 to 255"
        return RangeChoice((low, high), True, len(rows), text if rows else "")
    if not rows:
        return RangeChoice(None, config.range is not None, 0, "")
    num_deep, measured_on = len(rows), split
    if split != "train" and "train" in config.splits:
        train = read_split(config, "train")
        if train_rows := deep_rows(train):
            table, rows, measured_on = train, train_rows, "train"
    return _measured(config, table, rows, measured_on)._replace(num_deep=num_deep)


def deep_rows(table: AnnotationTable | ClassTable) -> list[int]:
    """Rows of images with more than 8 bits a channel, in a sample, by their headers."""
    if isinstance(table, ClassTable) and table.pixels is not None:
        return []
    rows = _spaced(np.arange(len(table)), _MAX_OPENED).tolist()
    return [row for row in rows if _header(table, row, is_deep)]


def _measured(config: DataConfig, table: AnnotationTable | ClassTable, rows: list[int], split: str) -> RangeChoice:
    """Measure the range on some images."""
    wanted = config.range if isinstance(config.range, RangeConfig) else MEASURED
    rows = _spaced(np.array(rows), _MAX_DECODED).tolist()
    values = [found for row in rows if (found := _values(table, row)) is not None and len(found)]
    if not values:
        raise InputError(f"{config.name} {split}: the range of its images' values cannot be measured: none can be read")
    low, high = _percentiles(np.concatenate(values), wanted.percentiles)
    levels = math.floor(high) // 256 - math.floor(low) // 256 + 1
    is_stated = config.range is not None
    has_high_byte = all(_header(table, row, is_unsigned_16) for row in rows)
    if not is_stated and has_high_byte and levels >= FEW_LEVELS:
        return RangeChoice(None, False, len(rows), "")
    reason = (
        f"their high bytes have {levels} of 256 levels" if has_high_byte else "they have a sign, or more than 16 bits"
    )
    text = (
        f"images of more than 8 bits: values {low:g} to {high:g} become 0 to 255, measured on {len(values)} images of "
        f"{split}{'' if is_stated else f', because {reason}'} (range: [{low:g}, {high:g}] in the data config states it)"
    )
    return RangeChoice((low, high), is_stated, len(rows), text)


def _percentiles(values: np.ndarray, percentiles: tuple[float, ...]) -> tuple[float, float]:
    """Two different numbers, the outermost values if the percentiles are equal."""
    low, high = (float(value) for value in np.percentile(values, percentiles))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        high = low + 1
    if np.issubdtype(values.dtype, np.integer):
        return float(math.floor(low)), float(math.ceil(high))
    # The digits of the message, so that a stated range gives the same.
    return float(f"{low:g}"), float(f"{high:g}")


def _values(table: AnnotationTable | ClassTable, row: int) -> np.ndarray | None:
    """Some finite values of an image; None if it cannot be decoded, which is reported when it is used."""
    try:
        values = read_deep_values(table.read_bytes(row), str(table.path(row)), table.read_settings.max_pixels)
    except ImageError:
        return None
    flat = _spaced(values.reshape(-1), _MAX_VALUES)
    return flat[np.isfinite(flat)]


def _header(table: AnnotationTable | ClassTable, row: int, test: Callable[[Any], bool]) -> bool:
    """Apply a test to an image opened by Pillow; False if it cannot be opened."""
    path: Path = table.path(row)
    is_in_shard = isinstance(table, AnnotationTable) and table.shards is not None
    limit = max(MAX_PIXELS, table.read_settings.max_pixels)
    try:
        with (
            pillow_errors(str(path)),
            BytesIO(table.read_bytes(row)) if is_in_shard else open_image_file(path, limit) as file,
            open_by_pillow(file, limit) as opened,
        ):
            return test(opened)
    except ImageError:
        return False


def _spaced(items: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` items, evenly spaced."""
    return items[:: -(-len(items) // most)] if len(items) > most else items


def _check(config: DataConfig) -> None:
    found = config.range.percentiles if isinstance(config.range, RangeConfig) else config.range
    if isinstance(found, tuple) and (len(found) != 2 or found[0] >= found[1]):
        raise InputError(f"{config.name}: range: must be two numbers, the lower one first, found {list(found)}")
