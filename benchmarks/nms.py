"""Time of non-maximum suppression of an image's raw predictions, head by head, against torchvision's suppression alone.

python benchmarks/nms.py [--survivors 100 1000 5000] [--classes 80] [--rounds 200] [--threads 1]

As many predictions as the heads of some models make of a 640 px image, of which some survive the score threshold. The
floor is what torchvision's ``batched_nms`` needs for the survivors, already picked out and with their scores and
classes known.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial

import torch
from timing import alternate
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from detect.boxes.nms import non_max_suppression
from detect.cli.parser import positive_int
from detect.runtime.cli import run_tool

SCORE, IOU, MAX_DETECTIONS = 0.25, 0.6, 300
HEADS = {
    "yolov5n": (25_200, True),
    "yolov5n+p2": (102_000, True),
    "yolov5n+task-aligned": (8_400, False),
    "detect-n": (34_000, False),
}
"""Model to its predictions, and whether it predicts objectness; without, every class score is looked at."""


def random_predictions(head: str, survivors: int, classes: int) -> Tensor:
    """(1, P, 5 + K) with boxes of 16 to 80 px in 640 x 640 px; ``survivors`` of them are above the threshold."""
    count, has_objectness = HEADS[head]
    generator = torch.Generator().manual_seed(survivors)
    predictions = torch.rand(1, count, 5 + classes, generator=generator)
    predictions[..., :2] *= 640
    predictions[..., 2:4] = 16 + 64 * predictions[..., 2:4]
    predictions[..., 4] *= 0.5 * SCORE
    predictions[..., 5:] *= 0.1
    rows = torch.randperm(count, generator=generator)[:survivors]
    predictions[0, rows, 4] = 0.9 + 0.1 * torch.rand(survivors, generator=generator)
    if not has_objectness:
        predictions[..., 4] = 1.0
    labels = torch.randint(classes, (survivors,), generator=generator)
    predictions[0, rows, 5 + labels] = 0.5 + 0.5 * torch.rand(survivors, generator=generator)
    return predictions


def whole(predictions: Tensor) -> None:
    """From raw predictions to detections."""
    non_max_suppression(predictions, SCORE, IOU, MAX_DETECTIONS, multi_label=False)


def alone(boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
    """The floor."""
    batched_nms(boxes, scores, labels, IOU)


def main() -> None:
    parser = argparse.ArgumentParser(description="non-maximum suppression of one image's raw predictions")
    parser.add_argument("--survivors", type=positive_int, nargs="+", default=[100, 1000, 5000])
    parser.add_argument("--classes", type=positive_int, default=80)
    parser.add_argument("--rounds", type=positive_int, default=200)
    parser.add_argument("--threads", type=positive_int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.classes} classes, {arguments.threads} thread(s), median of {arguments.rounds}, CPU ms")
    print(f"{'head':<22}{'predictions':>12}{'survivors':>10}{'ours':>10}{'batched_nms alone':>20}{'ratio':>8}")
    for head, count in itertools.product(HEADS, arguments.survivors):
        predictions = random_predictions(head, count, arguments.classes)
        scores, labels = (predictions[0, :, 5:] * predictions[0, :, 4:5]).max(dim=1)
        kept = scores > SCORE
        boxes = box_convert(predictions[0, kept, :4], "cxcywh", "xyxy")
        runs = {"ours": partial(whole, predictions), "alone": partial(alone, boxes, scores[kept], labels[kept])}
        seconds = alternate(runs, arguments.rounds)
        ours, floor = seconds["ours"], seconds["alone"]
        times = f"{ours * 1e3:>10.2f}{floor * 1e3:>20.2f}{ours / floor:>8.2f}"
        print(f"{head:<22}{HEADS[head][0]:>12,}{count:>10,}{times}")


if __name__ == "__main__":
    run_tool(main)
