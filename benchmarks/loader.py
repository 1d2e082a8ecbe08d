"""Throughput of training samples, against the time of decoding the images.

python benchmarks/loader.py --images FOLDER [--image-size 640] [--batch-size 16] [--samples 960]
                            [--workers 1] [--rounds 3]

Samples are mosaics of four with the default augmentation. CPU times are of this process, with one thread; the best of
some rounds counts, because a shared machine only ever adds to it. Images per second are those of ``--workers``
processes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch

from detect.config.recipe import DetectionRecipe
from detect.data import annotations
from detect.data.annotations import AnnotationTable, encode_paths, offsets_of
from detect.data.detection import images, loading
from detect.data.images import IMAGE_SUFFIXES, read_header
from detect.errors import InputError
from detect.runtime.cli import run_tool

BOXES_PER_IMAGE = 7
"""As many as COCO has on average."""


class Part:
    """Adds up the CPU time and the calls of a function, in its place in a module."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self.function: Callable[..., Any] = getattr(module, name)
        self.seconds = 0.0
        self.calls = 0
        setattr(module, name, self)

    def __call__(self, *arguments: Any) -> Any:
        start = time.process_time()
        result = self.function(*arguments)
        self.seconds += time.process_time() - start
        self.calls += 1
        return result


def table_of(paths: list[Path], num_rows: int) -> AnnotationTable:
    """A split of these images, repeated up to ``num_rows`` rows, so that no row is remembered from the round before."""
    rng = np.random.default_rng(0)
    sizes_hw = np.array([read_header(path).size_hw for path in paths], dtype=np.int32)
    rows = np.arange(num_rows) % len(paths)
    num_boxes = num_rows * BOXES_PER_IMAGE
    corners = np.sort(rng.random((num_boxes, 2, 2)), axis=1).reshape(-1, 4)
    scale = sizes_hw[rows].repeat(BOXES_PER_IMAGE, axis=0)[:, [1, 0, 1, 0]]
    return AnnotationTable(
        image_paths=encode_paths([paths[row] for row in rows]),
        image_ids=np.arange(1, num_rows + 1),
        has_own_ids=False,
        sizes_hw=sizes_hw[rows],
        box_offsets=offsets_of(np.full(num_rows, BOXES_PER_IMAGE)),
        boxes_xyxy_px=corners * scale,
        labels=rng.integers(80, size=num_boxes),
        is_crowd=np.zeros(num_boxes, dtype=bool),
        areas=np.ones(num_boxes),
        names=tuple(str(k) for k in range(80)),
        category_ids=np.arange(1, 81),
    )


def decode_floor(paths: list[Path]) -> float:
    """CPU milliseconds of ``cv2.imread`` for one image."""
    start = time.process_time()
    for path in paths:
        cv2.imread(str(path))
    return (time.process_time() - start) / len(paths) * 1e3


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="speed of the training loader against the decode floor")
    parser.add_argument("--images", type=Path, required=True, help="folder that is searched for images")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--samples", type=int, default=960, help="images per round")
    parser.add_argument("--workers", type=int, default=1, help="processes of the second measurement")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    paths = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(f"{arguments.images}: has no images")
    table = table_of(paths, max(arguments.samples, arguments.batch_size))
    settings = {"epochs": 100, "batch_size": arguments.batch_size, "image_size": arguments.image_size}

    parts = {
        "read and decode": Part(annotations, "decode_image"),
        "resize": Part(images, "letterbox"),
        "mosaic": Part(loading, "mosaic4"),
        "warp": Part(loading, "warp"),
        "HSV": Part(loading, "random_hsv"),
    }
    loader = loading.TrainingLoader(table, DetectionRecipe(**settings, workers=0))
    rounds = []
    for epoch in range(arguments.rounds):
        before = {name: (part.seconds, part.calls) for name, part in parts.items()}
        floor, start = decode_floor(paths), time.process_time()
        count = sum(len(batch.rows) for batch in loader.epoch(epoch))
        total = (time.process_time() - start) / count * 1e3
        shares = {name: (part.seconds - before[name][0]) / count * 1e3 for name, part in parts.items()}
        decoded = (parts["read and decode"].calls - before["read and decode"][1]) / count
        rounds.append((total, floor, decoded, shares))
    total, floor, decoded, shares = min(rounds, key=lambda measured: measured[0])
    print(f"{len(paths)} images, {arguments.image_size} px, mosaic of four, {count} samples a round, 1 thread")
    print(f"  cv2.imread alone        {floor:6.2f} CPU ms per image")
    print(f"  a training sample       {total:6.2f} CPU ms, {total / floor:.2f} times that; {decoded:.2f} files decoded")
    for name, share in shares.items():
        print(f"    {name:<20}  {share:6.2f}")
    print(f"    {'everything else':<20}  {total - sum(shares.values()):6.2f}")

    loader = loading.TrainingLoader(table, DetectionRecipe(**settings, workers=arguments.workers))
    rates = []
    for epoch in range(arguments.rounds):
        batches = loader.epoch(epoch)
        next(batches)  # the workers have started
        start = time.perf_counter()
        count = sum(len(batch.rows) for batch in batches)
        rates.append(count / (time.perf_counter() - start))
    print(f"  {arguments.workers} worker process(es)     {max(rates):6.0f} images per second")


if __name__ == "__main__":
    run_tool(main)
