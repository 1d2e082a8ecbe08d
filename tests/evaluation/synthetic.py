"""Small annotation tables and detections for the evaluation tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from detect.data.annotations import AnnotationTable, encode_paths, offsets_of
from detect.evaluation import detection
from detect.evaluation.coco import FoundBoxes
from detect.evaluation.loop import Conditions

CONDITIONS = {field.name for field in dataclasses.fields(Conditions)}


def evaluate(model, table, **options) -> detection.Evaluation:
    """``detection.evaluate`` with the fields of its two records as keywords."""
    conditions = Conditions(**{name: value for name, value in options.items() if name in CONDITIONS})
    others = {name: value for name, value in options.items() if name not in CONDITIONS}
    return detection.evaluate(model, table, conditions, detection.DetectionOptions(**others))


def make_table(images, names=("a", "b"), category_ids=(1, 2), size_hw=(500, 600), image_ids=None) -> AnnotationTable:
    """A table; ``images`` holds, per image, a list of (label, x1, y1, x2, y2[, is_crowd])."""
    flat = [box for boxes in images for box in boxes]
    boxes = np.array([box[1:5] for box in flat], dtype=np.float64).reshape(-1, 4)
    return AnnotationTable(
        image_paths=encode_paths([Path(f"/images/{row}.jpg") for row in range(len(images))]),
        image_ids=np.array(image_ids or range(1, len(images) + 1), dtype=np.int64),
        has_own_ids=image_ids is not None,
        sizes_hw=np.tile(np.array(size_hw, dtype=np.int32), (len(images), 1)),
        box_offsets=offsets_of(np.array([len(boxes) for boxes in images], dtype=np.int64)),
        boxes_xyxy_px=boxes,
        labels=np.array([box[0] for box in flat], dtype=np.int64),
        is_crowd=np.array([len(box) > 5 and box[5] for box in flat], dtype=bool),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        names=tuple(names),
        category_ids=np.array(category_ids, dtype=np.int64),
    )


def make_found(entries) -> FoundBoxes:
    """Detections from (row, label, x1, y1, x2, y2, score), in order of row and then of score."""
    entries = sorted(entries, key=lambda entry: (entry[0], -entry[6]))
    boxes = np.array([entry[2:6] for entry in entries], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] -= boxes[:, :2]
    return FoundBoxes(
        rows=np.array([entry[0] for entry in entries], dtype=np.int64),
        labels=np.array([entry[1] for entry in entries], dtype=np.int64),
        boxes_xywh_px=boxes.round(3),
        scores=np.array([entry[6] for entry in entries], dtype=np.float64).round(5),
    )


def random_problem(seed, num_images=30, num_classes=4) -> tuple[AnnotationTable, FoundBoxes]:
    """Objects of all sizes, crowd regions, empty images, a class that never occurs; detections near them, doubled and
    wrong, with tied scores."""
    rng = np.random.default_rng(seed)
    images, entries = [], []
    for row in range(num_images):
        count = 0 if row % 7 == 3 else int(rng.integers(1, 9))
        sizes = np.exp(rng.uniform(np.log(6), np.log(250), (count, 2)))
        corners = rng.uniform(0, 1, (count, 2)) * (np.array([600, 500]) - sizes)
        labels = rng.integers(0, num_classes - 1, count)
        boxes = np.concatenate([corners, corners + sizes], axis=1).round(2)
        images.append([(int(k), *map(float, b), bool(rng.random() < 0.1)) for k, b in zip(labels, boxes, strict=True)])
        for label, box in zip(labels, boxes, strict=True):
            for _ in range(int(rng.integers(0, 4))):
                moved = box + rng.normal(0, 0.06, 4) * np.tile(box[2:] - box[:2], 2)
                found_label = label if rng.random() < 0.85 else rng.integers(0, num_classes)
                entries.append((row, int(found_label), *np.maximum(moved, [0, 0, 1, 1]), round(float(rng.random()), 1)))
        for _ in range(int(rng.integers(0, 12))):
            x, y = rng.uniform(0, 400, 2)
            w, h = rng.uniform(5, 100, 2)
            entries.append((row, int(rng.integers(0, num_classes)), x, y, x + w, y + h, round(float(rng.random()), 2)))
    ids = (rng.permutation(10_000)[:num_images] + 5).tolist()
    names = [f"class{label}" for label in range(num_classes)]
    return make_table(images, names, [17, 3, 90, 0][:num_classes], image_ids=ids), make_found(entries)
