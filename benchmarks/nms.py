"""Time of non-maximum suppression of one image's raw predictions, against torchvision's suppression alone.

python benchmarks/nms.py [--survivors 100 1000 5000] [--classes 80] [--rounds 200] [--threads 1]

25,200 predictions, those of a 640 px image, of which some survive the score threshold. The floor is what torchvision's
``batched_nms`` needs for the survivors, already picked out and with their scores and classes known.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from timing import alternate
from torch import Tensor
from torchvision.ops import batched_nms, box_convert

from detect.boxes.nms import non_max_suppression
from detect.cli.parser import positive_int
from detect.runtime.cli import run_tool

PREDICTIONS, SCORE, IOU, MAX_DETECTIONS = 25_200, 0.25, 0.6, 300


def random_predictions(survivors: int, classes: int) -> Tensor:
    """(1, P, 5 + K) with boxes of 16 to 80 px in 640 x 640 px; ``survivors`` of them are above the threshold."""
    generator = torch.Generator().manual_seed(survivors)
    predictions = torch.rand(1, PREDICTIONS, 5 + classes, generator=generator)
    predictions[..., :2] *= 640
    predictions[..., 2:4] = 16 + 64 * predictions[..., 2:4]
    predictions[..., 4] *= 0.5 * SCORE
    predictions[..., 5:] *= 0.1
    rows = torch.randperm(PREDICTIONS, generator=generator)[:survivors]
    predictions[0, rows, 4] = 0.9 + 0.1 * torch.rand(survivors, generator=generator)
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
    print(f"25,200 x {5 + arguments.classes}, {arguments.threads} thread(s), median of {arguments.rounds}, CPU ms")
    print(f"{'survivors':>10}{'ours':>10}{'batched_nms alone':>20}{'ratio':>8}")
    for count in arguments.survivors:
        predictions = random_predictions(count, arguments.classes)
        kept = predictions[0][predictions[0, :, 4] > SCORE]
        scores, labels = (kept[:, 5:] * kept[:, 4:5]).max(dim=1)
        boxes = box_convert(kept[:, :4], "cxcywh", "xyxy")
        runs = {"ours": partial(whole, predictions), "alone": partial(alone, boxes, scores, labels)}
        seconds = alternate(runs, arguments.rounds)
        ours, floor = seconds["ours"], seconds["alone"]
        print(f"{count:>10,}{ours * 1e3:>10.2f}{floor * 1e3:>20.2f}{ours / floor:>8.2f}")


if __name__ == "__main__":
    run_tool(main)
