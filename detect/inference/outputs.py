"""What a prediction run leaves: drawn images, JSON, text files, crops."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detect.data.images import write_image
from detect.inference.ownership import OutputFolder
from detect.runtime.files import write_json, write_text
from detect.structures import Detections


@dataclass(frozen=True)
class OutputOptions:
    """What is written beside the drawn images.

    Args:
        json: ``predictions.json``, all detections of all images.
        txt: ``labels/<image>.txt``, a line ``class cx cy w h score`` per detection, as shares of the image's width and
            height.
        crops: ``crops/<class>/<image>-<number>.jpg``, each detection cut out.
    """

    json: bool = False
    txt: bool = False
    crops: bool = False


class PredictionWriter:
    """Writes the results of a list of images below a folder.

    Args:
        folder: where to; made when the first file is written.
        paths: all images of the run. Files are called after their paths below the folder that they have in common.
        options: what is written.

    Raises:
        InputError: something would be replaced that is not from an earlier run, an image of ``paths`` for example.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], options: OutputOptions) -> None:
        self._folder = OutputFolder(folder)
        self._options = options
        self._names = output_names(paths)
        self._folder.check(self._places(), paths)
        self._entries: list[dict[str, Any]] = []

    def add(self, path: Path, image_rgb: np.ndarray, detections: Detections) -> Path:
        """Write what belongs to one image.

        Args:
            path: one of the paths of the run.
            image_rgb: (H, W, 3) uint8.
            detections: what was found in it.

        Returns:
            The drawn image's file.
        """
        name = self._names[path]
        drawn = self._folder.claim(f"{name}.jpg")
        write_image(drawn, detections.plot(image_rgb))
        if self._options.txt:
            write_text(self._folder.claim("labels/") / f"{name}.txt", to_txt(detections))
        if self._options.crops:
            self._write_crops(name, image_rgb, detections)
        if self._options.json:
            self._entries += to_entries(path, detections)
        return drawn

    def finish(self) -> list[str]:
        """Write what belongs to all images, and say in one line each where things are."""
        places = [f"drawn images: {self._folder.path}"]
        if self._options.json:
            write_json(self._folder.claim("predictions.json"), self._entries)
            places.append(f"all detections: {self._folder.path / 'predictions.json'}")
        if self._options.txt:
            places.append(f"text files: {self._folder.path / 'labels'}")
        if self._options.crops:
            places.append(f"crops: {self._folder.path / 'crops'}")
        return places

    def _places(self) -> list[str]:
        """What the run will write below the folder, in the order of writing."""
        places = [f"{name}.jpg" for name in self._names.values()]
        wanted = {"labels/": self._options.txt, "crops/": self._options.crops, "predictions.json": self._options.json}
        return places + [place for place, is_wanted in wanted.items() if is_wanted]

    def _write_crops(self, name: str, image_rgb: np.ndarray, detections: Detections) -> None:
        for number, (box, class_name) in enumerate(zip(detections.boxes_xyxy_px, detections.class_names, strict=True)):
            left, top = np.floor(box[:2]).astype(int)
            right, bottom = np.ceil(box[2:]).astype(int)
            crop = image_rgb[top:bottom, left:right]
            write_image(self._folder.claim("crops/") / file_name(class_name) / f"{name}-{number}.jpg", crop)


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for the outputs of each image, without suffix, none twice.

    Args:
        paths: the images.

    Returns:
        Each path's part below the common folder. Where two images differ in their suffix only (``a.jpg``, ``a.png``),
        or in upper and lower case, which not every file system tells apart, the later ones are numbered (``a-2``).
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    common = Path(os.path.commonpath([path.parent for path in absolute])) if paths else Path()
    taken: set[str] = set()
    names = {}
    for path, full in zip(paths, absolute, strict=True):
        stem = full.relative_to(common).with_suffix("").as_posix()
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names[path] = name
    return names


def to_entries(path: Path, detections: Detections) -> list[dict[str, Any]]:
    """One JSON entry per detection: like COCO's results, with the file and the class by name.

    Returns:
        ``file_name``, ``category`` (class name), ``label`` (class index), ``score``, and the box twice, in
        original-image pixels: ``bbox`` [x, y, width, height] as in COCO, and ``xyxy`` [left, top, right, bottom].
    """
    xyxy = detections.boxes_xyxy_px.astype(np.float64).round(2)
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1).round(2)
    scores = detections.scores.astype(np.float64).round(5)
    columns = zip(
        detections.class_names, detections.labels.tolist(), scores.tolist(), xywh.tolist(), xyxy.tolist(), strict=True
    )
    keys = ("category", "label", "score", "bbox", "xyxy")
    return [{"file_name": str(path), **dict(zip(keys, values, strict=True))} for values in columns]


def to_txt(detections: Detections) -> str:
    """A line ``class cx cy w h score`` per detection; centre and size as shares of the image's width and height."""
    height, width = detections.image_hw
    left_top, right_bottom = detections.boxes_xyxy_px[:, :2], detections.boxes_xyxy_px[:, 2:]
    cxcywh_px = np.concatenate([(left_top + right_bottom) / 2, right_bottom - left_top], axis=1)
    shares = cxcywh_px / np.array([width, height, width, height])
    lines = [
        f"{label} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f} {score:.5f}\n"
        for label, (cx, cy, w, h), score in zip(detections.labels, shares, detections.scores, strict=True)
    ]
    return "".join(lines)


def file_name(class_name: str) -> str:
    """A class name as the name of a folder: without what some file system forbids or understands otherwise."""
    safe = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", class_name).strip(". ")[:64]
    return safe or "_"
