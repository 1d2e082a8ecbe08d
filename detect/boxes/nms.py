"""Non-maximum suppression of tensors.

Letters: B batch, P predictions of an image, K classes, N candidates, n detections.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from detect.boxes.array_nms import max_candidates
from detect.boxes.convert import cxcywh_to_xyxy

Found = tuple[Tensor, Tensor, Tensor]
"""Boxes (n, 4) xyxy, scores (n,), labels (n,) int64, best first."""


def non_max_suppression(
    predictions: Tensor,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
    multi_label: bool,
    class_agnostic: bool = False,
    classes: tuple[int, ...] | None = None,
) -> list[Found]:
    """Select boxes, scores and labels of each image; the boxes, in pixels of ``predictions``, are not clipped.

    ``predictions`` are (B, P, 5 + K): cxcywh in pixels, objectness and K class probabilities in [0, 1]. The score of a
    candidate, objectness times class probability, must be above ``score_threshold``; with ``multi_label`` every such
    class makes a candidate, else the best only. Of two candidates of a class (``class_agnostic``: of any classes) with
    an IoU above ``iou_threshold`` the one with the lower score is dropped. The best ``max_detections`` of an image
    remain. ``classes`` are the labels to keep; None keeps all.
    """
    return [
        suppress(
            *_candidates(image, score_threshold, multi_label, classes, max_candidates(max_detections)),
            iou_threshold,
            max_detections,
            class_agnostic,
        )
        for image in predictions.float()
    ]


def _candidates(
    image: Tensor, score_threshold: float, multi_label: bool, classes: tuple[int, ...] | None, count: int
) -> Found:
    """Boxes, scores and labels above the threshold, best first, at most ``count``."""
    image = _likely(image, score_threshold)
    scores = image[:, 5:] * image[:, 4:5]
    if classes is not None:
        wanted = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        wanted[list(classes)] = True
        scores = scores.masked_fill(~wanted, 0)
    if multi_label:
        rows, labels = (scores > score_threshold).nonzero(as_tuple=True)
        scores = scores[rows, labels]
    else:
        scores, labels = scores.max(dim=1)
        rows = (scores > score_threshold).nonzero(as_tuple=True)[0]
        scores, labels = scores[rows], labels[rows]
    order = scores.argsort(descending=True, stable=True)[:count]
    boxes = cxcywh_to_xyxy(image[rows[order], :4])
    return boxes, scores[order], labels[order]


def _likely(image: Tensor, score_threshold: float) -> Tensor:
    """Rows that may be candidates: a score is at most its objectness, and at most the largest class probability.

    The first gate drops most rows before the class columns are read. A head without objectness has 1 everywhere: there
    the second one drops them before they are copied and multiplied. A row with NaN stays.
    """
    rows = (image[:, 4] > score_threshold).nonzero()[:, 0]
    if len(rows) < len(image):
        image = image.index_select(0, rows)
    return image.index_select(0, (~(image[:, 5:].amax(dim=1) <= score_threshold)).nonzero()[:, 0])


def suppress(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, max_detections: int, class_agnostic: bool
) -> Found:
    """Drop candidates that overlap a better one, as ``non_max_suppression`` does.

    ``boxes`` are (N, 4) xyxy, best score first; ``scores`` and ``labels`` are (N,).
    """
    if not len(boxes):
        return boxes, scores, labels
    if class_agnostic:
        shifted = boxes
    else:
        # Classes are moved apart so that one call serves them all. Float64 keeps the overlaps exact at the largest
        # shift; Apple's GPUs do not have it.
        wide = torch.float32 if boxes.device.type == "mps" else torch.float64
        span = (boxes.max() - boxes.min() + 1).to(wide)
        shifted = boxes.to(wide) + (labels * span)[:, None]
    keep = _best(shifted, scores.to(shifted.dtype), iou_threshold, max_detections)
    return boxes[keep], scores[keep], labels[keep]


def _best(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> Tensor:
    """Indices of the first ``count`` boxes that ``nms`` keeps, boxes in the order of their scores.

    A box is suppressed by better ones only. So the best candidates are processed first, and all only if too few remain:
    time grows with the square of their number.
    """
    looked_at = 2 * count
    while True:
        keep = _operator()(boxes[:looked_at], scores[:looked_at], iou_threshold)
        if len(keep) >= count or looked_at >= len(boxes):
            return keep[:count]
        looked_at *= 4


@cache
def _operator() -> Callable[[Tensor, Tensor, float], Tensor]:
    """Load torchvision's operator without its Python package, whose import takes as long as PyTorch's own."""
    found = importlib.util.find_spec("torchvision")
    folders = (found.submodule_search_locations or []) if found else []
    for path in sorted(path for folder in folders for path in Path(folder).glob("_C*.so")):
        torch.ops.load_library(path)
    if not hasattr(torch.ops.torchvision, "nms"):  # another layout than that of Linux and macOS
        importlib.import_module("torchvision.ops")
    operator: Callable[[Tensor, Tensor, float], Tensor] = torch.ops.torchvision.nms
    return operator
