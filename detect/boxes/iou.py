"""Overlap of boxes as tensors: IoU and its relatives.

Letters: N boxes (or pairs), M other boxes.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from detect.boxes.convert import Boxes

IouKind = Literal["iou", "giou", "diou", "ciou"]
EPSILON = 1e-7
"""Keeps the ratios of degenerate boxes finite (torchvision's CIoU is NaN for a box without area)."""


def paired_iou(first_cxcywh: Tensor, second_cxcywh: Tensor, kind: IouKind) -> Tensor:
    """Overlap of boxes in pairs; 1 minus the overlap is a loss.

    Args:
        first_cxcywh: (N, 4) centre x, centre y, width, height, in any one unit.
        second_cxcywh: (N, 4) the other box of each pair, in the same unit.
        kind: ``iou``, intersection over union, in [0, 1]; without a gradient where the boxes are apart.
            ``giou``: minus the share of the enclosing box that neither covers, in (-1, 1].
            ``diou``: minus the squared distance of the centres over that of the enclosing box's corners, in (-1, 1].
            ``ciou``: DIoU minus a penalty for unlike shapes, whose weight is not differentiated, in (-1.5, 1].

    Returns:
        (N,), finite for boxes of any size, zero included, and so are the gradients.

    Source: Rezatofighi et al., "Generalized Intersection over Union" (CVPR 2019), algorithm 1; Zheng et al.,
        "Distance-IoU Loss" (AAAI 2020), equations 7 to 11.
    """
    centre1, size1 = first_cxcywh.split(2, dim=-1)
    centre2, size2 = second_cxcywh.split(2, dim=-1)
    low1, high1, low2, high2 = centre1 - size1 / 2, centre1 + size1 / 2, centre2 - size2 / 2, centre2 + size2 / 2
    overlap = (torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp(min=0).prod(dim=-1)
    union = size1.prod(dim=-1) + size2.prod(dim=-1) - overlap
    iou = overlap / (union + EPSILON)
    if kind == "iou":
        return iou

    enclosing = torch.maximum(high1, high2) - torch.minimum(low1, low2)
    if kind == "giou":
        area = enclosing.prod(dim=-1)
        return iou - (area - union) / (area + EPSILON)

    distance = (centre1 - centre2).square().sum(dim=-1) / (enclosing.square().sum(dim=-1) + EPSILON)
    if kind == "diou":
        return iou - distance

    assert kind == "ciou", kind
    angle1 = torch.atan(size1[..., 0] / (size1[..., 1] + EPSILON))
    angle2 = torch.atan(size2[..., 0] / (size2[..., 1] + EPSILON))
    shape = 4 / math.pi**2 * (angle1 - angle2).square()
    with torch.no_grad():
        weight = shape / (1 - iou + shape + EPSILON)
    return iou - distance - weight * shape


def centred_iou(sizes: Boxes, anchors: Boxes) -> Boxes:
    """IoU (N, M) of sizes (N, 2) and anchors (M, 2), in one unit and above 0, that share their centre."""
    if isinstance(sizes, Tensor):
        overlap = torch.minimum(sizes[:, None], anchors[None]).prod(-1)
    else:
        overlap = np.minimum(sizes[:, None], anchors[None]).prod(-1)
    return overlap / (sizes.prod(-1)[:, None] + anchors.prod(-1)[None] - overlap)


def exceeds_iou(first_xyxy: Tensor, second_xyxy: Tensor, min_iou: float) -> Tensor:
    """Compare the IoU of pairs with ``min_iou``, coordinates first: (4, ...), (4, ...) to (...) bool.

    False for a pair without area.
    """
    low = torch.maximum(first_xyxy[:2], second_xyxy[:2])
    high = torch.minimum(first_xyxy[2:], second_xyxy[2:])
    shared = (high - low).clamp_(min=0).prod(dim=0)
    areas = (first_xyxy[2:] - first_xyxy[:2]).prod(dim=0) + (second_xyxy[2:] - second_xyxy[:2]).prod(dim=0)
    return shared > min_iou * (areas - shared)  # no division: the union of two boxes without area is 0
