"""The COCO metrics by pycocotools and by hotcoco: the same numbers, and what they cost.

python benchmarks/coco_engines.py [--images 500] [--detections 50000] [--classes 80] [--rounds 1]

Random objects, and detections of which half lie near an object. CPU times are of the whole way from our arrays to the
metrics, all threads together. The run fails unless the twelve numbers and the precision curves are equal to the bit.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from timing import alternate

from detect.cli.parser import positive_int
from detect.data.annotations import AnnotationTable, encode_paths, offsets_of
from detect.evaluation.coco import METRICS, CocoMetrics, Engine, FoundBoxes, coco_metrics
from detect.runtime.cli import run_tool

OBJECTS_PER_IMAGE = 7
"""As many as COCO has on average."""

IMAGE_HW = (480, 640)
ENGINES: tuple[Engine, ...] = ("pycocotools", "hotcoco")


def random_table(rng: np.random.Generator, num_images: int, num_classes: int) -> AnnotationTable:
    """A split with objects of 6 to 300 px; one in fifty is a crowd region."""
    num_objects = num_images * OBJECTS_PER_IMAGE
    boxes = random_boxes(rng, num_objects)
    return AnnotationTable(
        image_paths=encode_paths([Path(f"{row}.jpg").absolute() for row in range(num_images)]),
        image_ids=np.arange(1, num_images + 1),
        has_own_ids=True,
        sizes_hw=np.tile(np.array(IMAGE_HW, dtype=np.int32), (num_images, 1)),
        box_offsets=offsets_of(np.full(num_images, OBJECTS_PER_IMAGE)),
        boxes_xyxy_px=boxes,
        labels=rng.integers(num_classes, size=num_objects),
        is_crowd=rng.random(num_objects) < 0.02,
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        names=tuple(str(label) for label in range(num_classes)),
        category_ids=np.arange(1, num_classes + 1),
    )


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) xyxy inside the image, small ones as frequent as large ones."""
    sizes = 6 * 50 ** rng.random((count, 2))
    corners = rng.random((count, 2)) * (np.array(IMAGE_HW[::-1]) - sizes)
    return np.concatenate([corners, corners + sizes], axis=1).round(2)


def random_detections(rng: np.random.Generator, table: AnnotationTable, count: int) -> FoundBoxes:
    """Half near an object and mostly of its class, half anywhere, with a few tied scores."""
    source = rng.integers(len(table.labels), size=count)
    rows = source // OBJECTS_PER_IMAGE
    near = rng.random(count) < 0.5
    sizes = np.tile(table.boxes_xyxy_px[source, 2:] - table.boxes_xyxy_px[source, :2], 2)
    moved = table.boxes_xyxy_px[source] + rng.normal(0, 0.08, (count, 4)) * sizes
    boxes = np.where(near[:, None], moved, random_boxes(rng, count))
    same_class = near & (rng.random(count) < 0.85)
    labels = np.where(same_class, table.labels[source], rng.integers(len(table.names), size=count))
    scores = rng.random(count).round(3)
    order = np.lexsort((-scores, rows))
    boxes_xywh = np.concatenate([boxes[:, :2], np.maximum(boxes[:, 2:] - boxes[:, :2], 1)], axis=1)
    return FoundBoxes(rows[order], labels[order], boxes_xywh[order].round(3), scores[order])


def main() -> None:
    parser = argparse.ArgumentParser(description="the COCO metrics by pycocotools and by hotcoco")
    parser.add_argument("--images", type=positive_int, default=500)
    parser.add_argument("--detections", type=positive_int, default=50_000)
    parser.add_argument("--classes", type=positive_int, default=80)
    parser.add_argument("--rounds", type=positive_int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    table = random_table(rng, arguments.images, arguments.classes)
    found = random_detections(rng, table, arguments.detections)
    metrics: dict[str, CocoMetrics] = {}

    def run(engine: Engine) -> None:
        metrics[engine] = coco_metrics(table, found, engine)

    seconds = alternate({engine: partial(run, engine) for engine in ENGINES}, arguments.rounds)
    reference, fast = (metrics[engine] for engine in ENGINES)
    for name in METRICS:
        assert reference[name] == fast[name], f"{name}: {reference[name]!r} and {fast[name]!r}"
    assert np.array_equal(reference.precision, fast.precision), "the precision curves differ"
    print(f"{len(table)} images, {len(table.labels)} objects, {len(found)} detections, {arguments.classes} classes")
    print(", ".join(f"{name} {reference[name]:.4f}" for name in METRICS) + ": equal to the bit")
    for engine, value in seconds.items():
        print(f"  {engine:<12}{value:8.2f} CPU s, {value / seconds['pycocotools']:.3f} of pycocotools")


if __name__ == "__main__":
    run_tool(main)
