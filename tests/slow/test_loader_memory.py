"""The memory of a loader with worker processes does not grow over a training, whatever the number of images.

python -m pytest tests/slow/test_loader_memory.py -m slow -s -n 0    prints the figures of docs/results/memory.md
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from detect.config.base import build
from detect.config.data import DataConfig, SplitConfig
from detect.config.recipe import DetectionRecipe
from detect.data.detection.loading import TrainingLoader
from detect.data.formats.coco import read_coco

NUM_IMAGES = 100_000
BOXES_PER_IMAGE = 7
"""As many as COCO has on average."""
NUM_FILES = 500
"""Different image files; the others are hard links to them, because a file may have some 65,000 at most."""
EPOCHS = 20
WORKERS = 3
IMAGE_SIZE = 32
MAX_GROWTH = 0.02
SETTLED = 3
"""Epochs until the C library's allocator has found its measure: then each worker has a few MB of its own heap more."""


class Memory(NamedTuple):
    """MB of the main process and its workers together.

    Args:
        rss: pages in memory; what the processes share counts in each of them.
        pss: of these, pages that are no files' (programs and libraries are), each divided by the number of processes
            that share it: when a worker copies a page by writing to it, this grows and ``rss`` does not.
        uss: changed pages that one process has alone.
    """

    rss: float
    pss: float
    uss: float


KEYS = {"Rss": "rss", "Pss_Anon": "pss", "Pss_Shmem": "pss", "Private_Dirty": "uss"}
"""Lines of ``/proc/PID/smaps_rollup`` that make each."""


def measured(pids: list[int]) -> Memory:
    """The memory of some processes."""
    total = dict.fromkeys(Memory._fields, 0.0)
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        for key, kibibytes in re.findall(r"^(\w+): +(\d+) kB$", rollup, re.MULTILINE):
            if key in KEYS:
                total[KEYS[key]] += int(kibibytes) * 1024 / 1e6
    return Memory(**total)


def make_data(folder: Path) -> DataConfig:
    """100,000 images of 40 x 30 px with seven boxes each, in COCO's format."""
    rng = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    for number in range(NUM_IMAGES):
        path = images / f"{number:06d}.jpg"
        if number < NUM_FILES:
            cv2.imwrite(str(path), rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        else:
            os.link(images / f"{number % NUM_FILES:06d}.jpg", path)
    corners = rng.integers(0, (30, 20), (NUM_IMAGES * BOXES_PER_IMAGE, 2)).tolist()
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i:06d}.jpg", "height": 30, "width": 40} for i in range(NUM_IMAGES)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, 81)],
        "annotations": [
            {"id": i + 1, "image_id": i // BOXES_PER_IMAGE, "category_id": i % 80 + 1, "bbox": [*corner, 9.5, 8.5]}
            for i, corner in enumerate(corners)
        ],
    }
    (folder / "train.json").write_text(json.dumps(content))
    return DataConfig("synthetic", str(folder), {"train": SplitConfig("images", "train.json")})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker:UserWarning")  # on two cores
def test_twenty_epochs_of_a_hundred_thousand_images(tmp_path: Path) -> None:
    table = read_coco(make_data(tmp_path), "train")
    assert len(table) == NUM_IMAGES
    recipe = build(
        DetectionRecipe,
        {
            "epochs": EPOCHS,
            "batch_size": 250,
            "image_size": IMAGE_SIZE,
            "workers": WORKERS,
            # Some mosaics, so that the workers remember images; without what only takes time.
            "augment": {
                "mosaic": 0.1,
                "close_mosaic": 5,
                "translate": 0.0,
                "scale": 0.0,
                "hsv_hue": 0.0,
                "hsv_saturation": 0.0,
                "hsv_value": 0.0,
            },
        },
        "here",
    )
    loader = TrainingLoader(table, recipe)
    after: list[Memory] = []
    start = time.perf_counter()
    for epoch in range(EPOCHS):
        num_images = sum(len(batch.images) for batch in loader.epoch(epoch))
        assert num_images == NUM_IMAGES
        gc.collect()  # once in a while Python does, and the main process then has copies of all that it shared
        workers = [child.pid for child in multiprocessing.active_children() if child.pid]
        assert len(workers) == WORKERS
        after.append(measured([os.getpid(), *workers]))
        seconds, figures = time.perf_counter() - start, "  ".join(f"{value:8.1f}" for value in after[-1])
        print(f"epoch {epoch + 1:2} {seconds:5.0f} s  RSS, PSS, USS in MB: {figures}", flush=True)
    for kind, settled in {"rss": 0, "pss": SETTLED, "uss": SETTLED}.items():
        first, most = getattr(after[settled], kind), max(getattr(memory, kind) for memory in after[settled:])
        assert most < (1 + MAX_GROWTH) * first, f"{kind}: {first:.1f} MB at first, then up to {most:.1f} MB"
