"""Small sound data sets, as files, that tests damage in one place each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detect.config.data import DataConfig, SplitConfig

SIZE_WH = (40, 30)
"""Width and height of every image."""

BOXES = {
    "train": {
        "a": [("cat", (2, 3, 10, 12)), ("dog", (20, 5, 8, 9))],
        "b": [("cat", (5, 5, 20, 20))],
        "c": [("dog", (1, 1, 9, 9))],
    },
    "val": {"d": [("cat", (4, 4, 12, 10))], "e": [("dog", (10, 8, 15, 15))]},
}
"""Each split's images with their boxes: class and left, top, width, height."""

NAMES = ("cat", "dog")


def noise(seed: int, size_wh: tuple[int, int] = SIZE_WH) -> Image.Image:
    """An image of noise, which no other seed has."""
    width, height = size_wh
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@dataclass
class Coco:
    """A COCO data set: the images are there, the annotation files come with ``write``.

    Args:
        root: its folder.
        files: each split's annotation file; a test changes what it likes.
        raw: what is written in place of a split's ``files``.
        extra: keys of the data config.
    """

    root: Path
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        number = 0
        for split, images in BOXES.items():
            (self.root / split).mkdir(parents=True)
            content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
            content["categories"] = [{"id": 1 + index, "name": name} for index, name in enumerate(NAMES)]
            for image_id, (stem, boxes) in enumerate(images.items(), start=1):
                noise(ord(stem)).save(self.image(split, stem), quality=95)
                content["images"].append(
                    {"id": image_id, "file_name": f"{stem}.jpg", "width": SIZE_WH[0], "height": SIZE_WH[1]}
                )
                for name, box in boxes:
                    number += 1
                    ids = {"id": number, "image_id": image_id, "category_id": 1 + NAMES.index(name)}
                    content["annotations"].append({**ids, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0})
            self.files[split] = content

    def image(self, split: str, stem: str) -> Path:
        """An image's file."""
        return self.root / split / f"{stem}.jpg"

    def write(self) -> DataConfig:
        """Write the annotation files."""
        for split, content in self.files.items():
            self.root.joinpath(f"{split}.json").write_bytes(self.raw.get(split, json.dumps(content).encode()))
        splits = {split: SplitConfig(split, f"{split}.json") for split in BOXES}
        return DataConfig("pets", str(self.root), splits, **self.extra)


@dataclass
class Voc:
    """A VOC data set, all of it on the disk; its splits share their folders.

    Args:
        root: its folder.
        extra: keys of the data config.
    """

    root: Path
    extra: dict[str, Any] = field(default_factory=lambda: {"names": NAMES})

    def __post_init__(self) -> None:
        for folder in ("JPEGImages", "Annotations", "ImageSets"):
            (self.root / folder).mkdir(parents=True)
        for split, images in BOXES.items():
            self.list(split).write_text("".join(f"{stem}\n" for stem in images))
            for stem, boxes in images.items():
                noise(ord(stem)).save(self.image(stem), quality=95)
                objects = "".join(voc_object(name, box) for name, box in boxes)
                self.xml(stem).write_text(
                    f"<annotation><filename>{stem}.jpg</filename><size><width>{SIZE_WH[0]}</width>"
                    f"<height>{SIZE_WH[1]}</height></size>{objects}</annotation>"
                )

    def image(self, stem: str) -> Path:
        """An image's file."""
        return self.root / "JPEGImages" / f"{stem}.jpg"

    def xml(self, stem: str) -> Path:
        """An image's annotation file."""
        return self.root / "Annotations" / f"{stem}.xml"

    def list(self, split: str) -> Path:
        """A split's list of images."""
        return self.root / "ImageSets" / f"{split}.txt"

    def replace(self, stem: str, old: str, new: str) -> None:
        """Put ``new`` in the place of the one ``old`` in an annotation file."""
        text = self.xml(stem).read_text()
        assert text.count(old) == 1
        self.xml(stem).write_text(text.replace(old, new))

    def write(self) -> DataConfig:
        """The data config."""
        splits = {split: SplitConfig("JPEGImages", "Annotations", f"ImageSets/{split}.txt") for split in BOXES}
        return DataConfig("pets", str(self.root), splits, format="voc", **self.extra)


def voc_object(name: str, box_xywh_px: tuple[int, int, int, int]) -> str:
    """An ``object`` element."""
    left, top, width, height = box_xywh_px
    return (
        f"<object><name>{name}</name><bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{left + width}</xmax>"
        f"<ymax>{top + height}</ymax></bndbox></object>"
    )
