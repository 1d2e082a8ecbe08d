"""A small data set as a folder with COCO's annotations, and as shards."""

from __future__ import annotations

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from detect.config.data import DataConfig, SplitConfig
from detect.data.annotations import AnnotationTable
from detect.data.datasets import open_split
from detect.data.formats.shards import read_shards
from detect.data.images import write_image

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 90, "name": "brush"}]


def coco_config(folder: Path, num_images: int = 12) -> DataConfig:
    """Images of random pixels and shapes, JPEG and PNG, with 0 to 3 boxes each; some are crowd regions."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(num_images):
        height, width = (int(side) for side in rng.integers(30, 90, 2))
        name = f"im-{number:03d}{'.png' if number % 3 else '.jpg'}"
        write_image(folder / "images" / name, rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        images.append({"id": 1000 - number, "file_name": name, "height": height, "width": width})
        for _ in range(number % 4):
            box = [float(v) for v in (*rng.uniform(0, 10, 2), *rng.uniform(8, 19, 2))]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1000 - number,
                    "category_id": CATEGORIES[int(rng.integers(3))]["id"],
                    "bbox": box,
                    "area": box[2] * box[3] / 3,
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (folder / "coco.json").write_text(json.dumps(content), encoding="utf-8")
    return DataConfig("folder", str(folder), {"train": SplitConfig("images", "coco.json")})


def read_folder(folder: Path, num_images: int = 12) -> AnnotationTable:
    """The table of ``coco_config``."""
    return open_split(coco_config(folder, num_images), "train")


def shards_config(folder: Path, pattern: str = "train-*.tar", **words: Any) -> DataConfig:
    """A data config of shards with one split."""
    return DataConfig("mine", str(folder), {"train": SplitConfig(pattern)}, format="shards", **words)


def read(folder: Path, pattern: str = "train-*.tar", **words: Any) -> AnnotationTable:
    """Its split."""
    return read_shards(shards_config(folder, pattern, **words), "train")


def png(height: int = 20, width: int = 30, value: int = 200) -> bytes:
    """An image file."""
    return cv2.imencode(".png", np.full((height, width, 3), value, np.uint8))[1].tobytes()


def document(*boxes: Any, **words: Any) -> bytes:
    """A JSON file with boxes of the class ``dog``."""
    annotations = [{"bbox": box, "category": "dog"} for box in boxes]
    return json.dumps({"annotations": annotations, **words}).encode()


def write_tar(path: Path, members: list[tuple[str, bytes] | tarfile.TarInfo], **words: Any) -> Path:
    """A tar file of these members."""
    with tarfile.open(path, words.pop("mode", "w"), **words) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            information = tarfile.TarInfo(member[0])
            information.size = len(member[1])
            archive.addfile(information, BytesIO(member[1]))
    return path
