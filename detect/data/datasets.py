"""Open a split of a data config as an ``AnnotationTable``, whatever its format.

``detect.data.classification.datasets`` opens data sets for classification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable
from detect.data.checks import check_split, log_problems
from detect.data.digits.pages import generate_digits
from detect.data.formats.coco import read_coco
from detect.data.formats.cvat import read_cvat
from detect.data.formats.label_studio import read_label_studio
from detect.data.formats.labelme import read_labelme
from detect.data.formats.shards import read_shards
from detect.data.formats.supervisely import read_supervisely
from detect.data.formats.via import read_via
from detect.data.formats.visdrone import read_visdrone
from detect.data.formats.voc import read_voc
from detect.data.formats.yolo import read_yolo
from detect.data.pixel_values import ReadSettings
from detect.data.recognition import with_format
from detect.data.scenes.table import read_scenes
from detect.data.shapes import generate_shapes
from detect.data.value_range import with_value_range
from detect.errors import InputError
from detect.runtime.distributed import main_process_first
from detect.runtime.logs import LOGGER

READERS: dict[str, Callable[[DataConfig, str], AnnotationTable]] = {
    "coco": read_coco,
    "voc": read_voc,
    "yolo": read_yolo,
    "visdrone": read_visdrone,
    "shards": read_shards,
    "cvat": read_cvat,
    "label-studio": read_label_studio,
    "labelme": read_labelme,
    "via": read_via,
    "supervisely": read_supervisely,
    "scenes": read_scenes,
}
"""Reader of each ``DataConfig.format`` for detection."""

GENERATORS: dict[str, Callable[[Path], None]] = {"shapes": generate_shapes, "digits": generate_digits}
"""Generator of each ``DataConfig.generate``."""


def open_split(config: DataConfig, split: str, strict: bool = False) -> AnnotationTable:
    """Read one split as ``read_split`` does, and log each kind of problem in one line with its count.
    A problem raises ``InputError`` instead if ``strict``.
    """
    table = read_split(config, split)
    log_problems(config, split, table.problems, strict)
    return with_value_range(config, split, table, read_split)


def read_split(config: DataConfig, split: str) -> AnnotationTable:
    """Read one split of a data set, without logging the table's ``problems``.

    The range of values of images with more than 8 bits is not chosen yet (``detect.data.value_range``).

    Args:
        config: the data set, with ``root`` as an absolute path. An embedded data set is generated there first if the
            folder does not exist. A missing format is recognised.
        split: a key of ``config.splits``.

    Raises:
        InputError: the data set is one for classification, or the split is unknown or unusable.
    """
    check_split(config, split)
    config = with_format(config)
    if config.format not in READERS:
        raise InputError(
            f"{config.name}: format {config.format} is for classification, but the model is a detector; take a "
            f"classifier, such as resnet18, or data for detection: {', '.join(READERS)}"
        )
    root = Path(config.root)
    if config.generate is not None:
        with main_process_first():
            if not root.exists():
                LOGGER.info("%s: generating the data set in %s", config.name, root)
                GENERATORS[config.generate](root)
    table = READERS[config.format](config, split)
    return replace(table, read_settings=ReadSettings(max_pixels=config.max_pixels))
