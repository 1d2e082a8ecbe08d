"""Embedded data sets: pictures that are drawn the first time somebody asks for them, written as COCO's files.

Letters: H W pixels of a picture, M objects of it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detect.data.images import write_image
from detect.errors import InputError
from detect.runtime.files import write_json

SPLIT_KEYS = {"train": 0, "val": 1, "test": 2}
"""Word of each split in the keys of random generators."""


class Picture(NamedTuple):
    """A picture with its ground truth.

    Args:
        image_rgb: (H, W, 3) uint8.
        boxes_xywh_px: (M, 4) int64.
        labels: (M,) int64, index of the class.
        areas: (M,) int64, visible pixels.
    """

    image_rgb: np.ndarray
    boxes_xywh_px: np.ndarray
    labels: np.ndarray
    areas: np.ndarray


def generate_set(
    root: Path, sizes: Mapping[str, int], names: Sequence[str], draw: Callable[[str, int], Picture]
) -> None:
    """Draw a data set in COCO's format: ``annotations/<split>.json``, ``images/<split>/*.jpg``.

    ``root`` appears when it is complete. If another process has created it meanwhile, that one stays.

    Args:
        root: folder of the data set.
        sizes: number of pictures of each split.
        names: of the classes, in index order.
        draw: makes the picture of a split and a number, from 1.

    Raises:
        InputError: the folder exists already.
    """
    if root.exists():
        raise InputError(f"{root}: exists already; remove it to generate the data set again")
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        for split, count in sizes.items():
            pictures = ((number, draw(split, number)) for number in range(1, count + 1))
            content = _write_split(building / "images" / split, names, pictures)
            write_json(building / "annotations" / f"{split}.json", content)
        building.chmod(0o755)
        _take_place(building, root)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_split(folder: Path, names: Sequence[str], pictures: Iterable[tuple[int, Picture]]) -> dict[str, Any]:
    """Write the images; return the content of the annotation file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, boxes, labels, areas) in pictures:
        name = f"{number:06d}.jpg"
        write_image(folder / name, image)
        images.append({"id": number, "file_name": name, "width": image.shape[1], "height": image.shape[0]})
        for box, label, area in zip(boxes.tolist(), labels.tolist(), areas.tolist(), strict=True):
            annotation = {"image_id": number, "category_id": label + 1, "bbox": box, "area": area, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **annotation})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _take_place(building: Path, root: Path) -> None:
    try:
        building.rename(root)
    except OSError:
        if not root.is_dir():  # if it is there now, another process was faster, with the same content
            raise
