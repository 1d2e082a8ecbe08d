"""What a split says beyond its images, boxes and classes, and what of it another format cannot hold.

Letters: N images, M boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from detect.config.data import DataConfig
from detect.data.annotations import MARKS, AnnotationTable, Problems
from detect.data.checks import find_file
from detect.data.formats.coco import load_coco
from detect.data.formats.coco_ids import id_key
from detect.data.formats.stems import list_files
from detect.data.formats.voc import read_xml
from detect.errors import InputError

OWN_AREA = "areas of their own (of outlines; they become width * height)"
UNWANTED = "annotations of categories that the data config does not list in names (left out)"

_ANNOTATION_KEYS = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", *MARKS}
_IMAGE_KEYS = {"id", "file_name", "height", "width"}
_LISTS = {"images", "annotations", "categories"}
_OBJECT_TAGS = {"name", "bndbox", "difficult", *MARKS}
_FILE_TAGS = {"filename", "size", "object", "folder", "path"}  # the last two say where the file once lay
_SAYS_NOTHING = {"", "0", "Unspecified", "Unknown"}


def count_remains(config: DataConfig, split: str, table: AnnotationTable, to: str) -> dict[str, int]:
    """What is lost on the way to another format, in words, with counts.

    What the writers leave out or change themselves is not among it; nor what was damaged, which is in the table's
    ``problems``.

    Args:
        config: the data set.
        split: a key of ``config.splits``.
        table: the split as it was read.
        to: the format that is written.
    """
    counts: Counter[str] = Counter()
    if config.format == "coco":
        counts.update(_of_coco(config, split, table, keeps_all=to == "coco"))
    elif config.format == "voc":
        counts.update(_of_voc(config, split))
    if to == "shards":
        counts["annotation ids"] = len(table.labels) if config.format == "coco" else 0
    elif to != "coco":
        counts.update(_of_table(table, config.format in ("coco", "shards")))
    return {words: count for words, count in counts.items() if count}


def _of_table(table: AnnotationTable, is_coco: bool) -> dict[str, int]:
    areas = table.exact_xywh_px[:, 2:].prod(axis=1)
    counts = {OWN_AREA: int((~np.isclose(table.areas, areas, rtol=1e-6, atol=0)).sum())}
    if is_coco:
        counts |= {"image ids": len(table), "category ids": len(table.names), "annotation ids": len(table.labels)}
    return counts


def _of_coco(config: DataConfig, split: str, table: AnnotationTable, keeps_all: bool) -> Counter[str]:
    outlines: Counter[str] = Counter()

    def without_outline(item: dict[str, Any]) -> dict[str, Any]:
        segmentation = item.pop("segmentation", None)
        if segmentation:
            outlines["outlines (segmentation: run-length masks)" if isinstance(segmentation, dict) else _POLYGONS] += 1
        return item

    content = load_coco(find_file(config, config.splits[split].annotations or ""), hook=without_outline)
    annotations = [entry for entry in content.get("annotations", []) if isinstance(entry, dict)]
    unwanted = {str(id_key(one["id"])) for one in content["categories"]} - {*map(str, table.category_ids_of_file)}
    counts = Counter({UNWANTED: sum(str(id_key(one.get("category_id"))) in unwanted for one in annotations)})
    if keeps_all:
        return counts
    counts += outlines
    counts.update(f"{key!r} of annotations" for one in annotations for key in one if key not in _ANNOTATION_KEYS)
    images = [entry for entry in content["images"] if isinstance(entry, dict)]
    counts.update(f"{key!r} of images" for one in images for key in one if key not in _IMAGE_KEYS)
    counts.update(f"{key!r} of categories" for one in content["categories"] for key in one if key not in ("id", "name"))
    counts.update(f"{key!r} of the file" for key in content if key not in _LISTS)
    return counts


_POLYGONS = "outlines (segmentation: polygons)"


def _of_voc(config: DataConfig, split: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    folder = Path(config.root, config.splits[split].annotations or "").resolve()
    for path in list_files(config, split, folder, ".xml", Problems()).values():
        try:
            root = read_xml(path)
        except InputError:  # was reported when the split was read
            continue
        counts.update(f"<{tag}> of objects" for item in root.iterfind("object") for tag in _tags(item, _OBJECT_TAGS))
        counts.update(f"<{tag}> of images" for tag in _tags(root, _FILE_TAGS))
    return counts


def _tags(element: ElementTree.Element, known: set[str]) -> Iterator[str]:
    """The other children that say something."""
    for child in element:
        said = {(text or "").strip() for text in child.itertext()}
        if child.tag not in known and not said <= _SAYS_NOTHING:
            yield str(child.tag)[:40]
