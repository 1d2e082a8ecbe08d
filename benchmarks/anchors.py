"""Recall of anchors that each method fits to a data set's training boxes.

python benchmarks/anchors.py --data deeppcb --data-root FOLDER [--image-size 640] [--anchors 9] [--seeds 0 1 2]

One line a method: best possible recall (YOLOv5's, within a factor of 4, and within 2, where it still differs), close
recall (YOLOv3's, IoU 0.25 with an anchor about the same centre), the mean of that IoU, and seconds; means of the seeds.
"""

from __future__ import annotations

import argparse
import time
from typing import get_args, get_type_hints

import numpy as np

from detect.boxes.anchors import AnchorFit, best_possible_recall, close_recall, fit_anchors, fittable_sizes
from detect.boxes.iou import centred_iou
from detect.config.recipe import AnchorsConfig
from detect.data.datasets import open_split
from detect.data.detection.box_sizes import training_sizes_px
from detect.data.recognition import open_data

YOLOV5 = np.array(
    [(10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326)], dtype=float
)
"""Fitted to COCO at 640 px."""


def measure(sizes: np.ndarray, anchors: np.ndarray) -> list[float]:
    """Best possible recall at 4 and 2, close recall, mean IoU."""
    iou = float(centred_iou(sizes, anchors).max(axis=1).mean())
    recalls = [best_possible_recall(sizes, anchors, ratio) for ratio in (4.0, 2.0)]
    return [*recalls, close_recall(sizes, anchors, 0.25), iou]


def main() -> None:
    """Print the table of a data set."""
    parser = argparse.ArgumentParser(description="recall of fitted anchors")
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-root")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--anchors", type=int, default=9)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    table = open_split(open_data(arguments.data, arguments.data_root), "train")
    sizes = fittable_sizes(training_sizes_px(table, arguments.image_size))
    print(f"{len(sizes)} boxes at {arguments.image_size} px, {arguments.anchors} anchors, seeds {arguments.seeds}")
    print("| method | recall within 4 | within 2 | close recall | mean IoU | seconds |")
    print("|---|---|---|---|---|---|")
    print(f"| YOLOv5's own | {' | '.join(f'{value:.4f}' for value in measure(sizes, YOLOV5))} | |")
    for method in get_args(get_type_hints(AnchorsConfig)["method"]):
        found, start = [], time.perf_counter()
        for seed in arguments.seeds:
            found.append(measure(sizes, fit_anchors(sizes, AnchorFit(arguments.anchors, method), seed)))
        seconds = (time.perf_counter() - start) / len(arguments.seeds)
        values = " | ".join(f"{value:.4f}" for value in np.mean(found, axis=0))
        print(f"| `{method}` | {values} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
