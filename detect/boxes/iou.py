"""Overlap of boxes. Pairwise matrices come from ``torchvision.ops.box_iou``; here is what torchvision lacks.

Letters: N pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7
"""Keeps the ratios of degenerate boxes finite (torchvision's CIoU is NaN for a box without area)."""


def complete_iou(first_cxcywh: Tensor, second_cxcywh: Tensor) -> Tensor:
    """CIoU of boxes in pairs: IoU less a penalty for distant centres and one for unlike shapes.

    Args:
        first_cxcywh: (N, 4) centre x, centre y, width, height, in any one unit.
        second_cxcywh: (N, 4) the other box of each pair, in the same unit.

    Returns:
        (N,) in (-1.5, 1]; finite for boxes of any size, zero included. The weight of the shape penalty is not
        differentiated.

    Source: Zheng et al., "Distance-IoU Loss" (AAAI 2020), equations 7 to 11.
    """
    centre1, size1 = first_cxcywh.split(2, dim=-1)
    centre2, size2 = second_cxcywh.split(2, dim=-1)
    low1, high1, low2, high2 = centre1 - size1 / 2, centre1 + size1 / 2, centre2 - size2 / 2, centre2 + size2 / 2
    overlap = (torch.minimum(high1, high2) - torch.maximum(low1, low2)).clamp(min=0).prod(dim=-1)
    union = size1.prod(dim=-1) + size2.prod(dim=-1) - overlap + EPSILON
    iou = overlap / union

    enclosing = torch.maximum(high1, high2) - torch.minimum(low1, low2)
    diagonal_squared = enclosing.square().sum(dim=-1) + EPSILON
    distance_squared = (centre1 - centre2).square().sum(dim=-1)

    angle1 = torch.atan(size1[..., 0] / (size1[..., 1] + EPSILON))
    angle2 = torch.atan(size2[..., 0] / (size2[..., 1] + EPSILON))
    shape = 4 / math.pi**2 * (angle1 - angle2).square()
    with torch.no_grad():
        weight = shape / (1 - iou + shape + EPSILON)
    return iou - distance_squared / diagonal_squared - weight * shape
