"""Small data sets on the disk, and comparisons of what was read from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detect.config.data import DataConfig
from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.data.recognition import open_data


def annotation(number: int, image_id: int, category_id: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    """An entry of a COCO file."""
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox, "iscrowd": 0, **more}


def make_coco(root: Path, content: dict[str, Any], split: str = "train") -> str:
    """Write a COCO file and its images of 40 x 30 px, each of another colour; gives the folder's name."""
    for number, image in enumerate(content["images"]):
        path = root / split / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 0, 0)).save(path, format="PNG")
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return str(root)


def rich_content() -> dict[str, Any]:
    """Three images, one of which shows nothing, with all that COCO files have beside boxes."""
    return {
        "info": {"year": 2017},
        "licenses": [{"id": 1}],
        "images": [
            {"id": 70, "file_name": "b.png", "width": 40, "height": 30, "license": 1},
            {"id": 5, "file_name": "sub/a.png", "width": 40, "height": 30},
            {"id": 9, "file_name": "empty.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 3, "name": "car", "supercategory": "vehicle"}, {"id": 90, "name": "bus"}],
        "annotations": [
            annotation(11, 70, 90, [1.1, 2.2, 3.3, 4.4], area=7.5, segmentation=[[1, 2, 3, 4, 5, 6]], score=0.5),
            annotation(12, 5, 3, [0.1, 0.2, 10, 10], area=100, truncated=1, occluded=2),
            annotation(7, 5, 3, [0, 0, 40, 5], area=200, iscrowd=1, segmentation={"counts": "x", "size": [30, 40]}),
            annotation(13, 5, 3, [1, 1, 0, 5], area=0),  # damaged
        ],
    }


def read(name: str | Path, split: str = "train") -> AnnotationTable:
    """A split of the data set that ``name`` opens."""
    return open_split(opened(name), split)


def opened(name: str | Path) -> DataConfig:
    """The data set of a folder or file."""
    return open_data(str(name))


def boxes_by_image(table: AnnotationTable, with_crowds: bool = True) -> dict[str, list[tuple[str, bool, list[float]]]]:
    """(class, is crowd, left, top, right, bottom) of each image by its file name without suffix, in a fixed order."""
    found = {}
    for row in range(len(table)):
        boxes, labels, is_crowd = table.boxes(row)
        entries = [
            (table.names[label], bool(crowd), box.tolist())
            for box, label, crowd in zip(boxes, labels, is_crowd, strict=True)
            if with_crowds or not crowd
        ]
        found[table.path(row).stem] = sorted(
            entries, key=lambda entry: (entry[0], entry[1], np.round(entry[2], 3).tolist())
        )
    return found


def largest_difference(first: AnnotationTable, second: AnnotationTable, with_crowds: bool = True) -> float:
    """The largest difference of a coordinate in pixels; the two have the same images, classes and crowd regions."""
    one, other = boxes_by_image(first, with_crowds), boxes_by_image(second, with_crowds)
    assert one.keys() == other.keys()
    largest = 0.0
    for stem in one:
        assert [entry[:2] for entry in one[stem]] == [entry[:2] for entry in other[stem]], stem
        for (_, _, box), (_, _, same) in zip(one[stem], other[stem], strict=True):
            largest = max(largest, float(np.abs(np.array(box) - same).max()))
    return largest
