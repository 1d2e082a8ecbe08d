"""Detections as label files, to be corrected in a labelling tool or read as a data set.

YOLO and Pascal VOC have a file for each image, which is written at once; COCO, CVAT and Label Studio have one for all
images, which is written at the end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np

from detect.data.annotations import Problems
from detect.data.formats.coco_writing import predicted_coco, write_coco_file
from detect.data.formats.cvat import cvat_xml
from detect.data.formats.label_studio import label_studio_tasks
from detect.data.formats.labelled_images import LabelledImage, LabelledObject
from detect.data.formats.voc import voc_element
from detect.data.formats.writing import printable, safe_classes, write_lines
from detect.inference.rows import LABEL_PLACES, to_txt
from detect.runtime.distributed import all_gather_texts, is_main_process, num_processes
from detect.runtime.files import atomic_path, write_text
from detect.runtime.logs import LOGGER
from detect.safety.ownership import OutputFolder
from detect.structures import Detections

_ANY_NAME = ("coco", "label-studio")
"""JSON holds names of images and classes with any character; lines of text and XML do not."""


class LabelWriter:
    """Writer of the label files of a run.

    Args:
        folder: of the results.
        form: of the files.
        model: name of the model, for Label Studio's ``model_version``.
        has_scores: of YOLO's rows, as a sixth number; COCO, CVAT and Label Studio have scores always, VOC never.
    """

    def __init__(self, folder: OutputFolder, form: str, model: str, has_scores: bool) -> None:
        self._folder, self._form, self._model, self._has_scores = folder, form, model, has_scores
        self._seen: list[tuple[str, LabelledImage]] = []
        self._names: tuple[str, ...] = ()
        self._changes = Problems()

    def add(self, source: str, name: str, suffix: str, detections: Detections) -> None:
        """Add an image: ``name`` is its path without ``suffix`` below the folder of all sources."""
        if not self._names:
            self._names = detections.names if self._form in _ANY_NAME else safe_classes(detections.names, self._changes)
        if self._form == "yolo":
            write_text(self._folder.claim("labels/") / f"{name}.txt", to_txt(detections, self._has_scores))
            return
        image_name = f"{name}{suffix}"
        image_name = image_name if self._form in _ANY_NAME else printable(image_name)
        image = labelled_image(image_name, replace(detections, names=self._names))
        if self._form == "voc":
            tree = ElementTree.ElementTree(voc_element(image, ()))
            ElementTree.indent(tree)
            with atomic_path(self._folder.claim("voc/") / f"{name}.xml") as temporary:
                tree.write(temporary, encoding="utf-8")
        else:
            self._seen.append((source, image))

    def finish(self, sources: Sequence[str]) -> None:
        """Write what is for all images, in the order of ``sources``; of several processes, the main one does."""
        for line in self._changes.summary():
            LOGGER.warning("labels: %s", line)
        parts = [json.dumps([self._names, self._seen])]
        parts = all_gather_texts(parts[0]) if num_processes() > 1 else parts
        loaded = [json.loads(part) for part in parts]
        names = next((tuple(names) for names, _ in loaded if names), ())
        if not is_main_process() or not names:
            return
        place = {name: number for number, name in enumerate(sources)}
        seen = sorted((one for _, some in loaded for one in some), key=lambda one: place[one[0]])
        self._write([_restored(image) for _, image in seen], names)

    def _write(self, images: list[LabelledImage], names: tuple[str, ...]) -> None:
        *_, last = LABEL_PLACES[self._form]
        if self._form == "coco":
            write_coco_file(self._folder.claim(last), predicted_coco(images, names))
        elif self._form == "cvat":
            with atomic_path(self._folder.claim(last)) as temporary:
                temporary.write_bytes(cvat_xml(images, names))
        elif self._form == "label-studio":
            write_coco_file(self._folder.claim(last), label_studio_tasks(images, self._model))
        elif self._form == "yolo":
            write_lines(self._folder.claim(last), names)


def labelled_image(name: str, detections: Detections) -> LabelledImage:
    """Return an image with its detections as objects, boxes rounded to 0.01 px and scores to 0.00001."""
    boxes = detections.boxes_xyxy_px.astype(np.float64).round(2).tolist()
    scores = detections.scores.astype(np.float64).round(5).tolist()
    columns = zip(detections.class_names, boxes, scores, strict=True)
    objects = tuple(LabelledObject(name, tuple(box), score=score) for name, box, score in columns)
    return LabelledImage(name, objects, detections.image_hw)


def _restored(values: list[Any]) -> LabelledImage:
    """Return the image of its JSON values, of another process."""
    name, objects, (height, width) = values
    items = (
        LabelledObject(label, tuple(box), crowd, tuple(marks), *more) for label, box, crowd, marks, *more in objects
    )
    return LabelledImage(name, tuple(items), (height, width))
