"""Box formats and the conversions between them, for NumPy arrays and PyTorch tensors.

Boxes are the last dimension, in any unit: ``xyxy`` is left, top, right, bottom; ``xywh`` left, top, width, height;
``cxcywh`` centre x, centre y, width, height.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Boxes = TypeVar("Boxes", np.ndarray, "Tensor")


def box_sizes(boxes_xyxy: Boxes) -> Boxes:
    """Widths and heights (..., 2) of boxes (..., 4)."""
    return boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]


def box_areas(boxes_xyxy: Boxes) -> Boxes:
    sizes = box_sizes(boxes_xyxy)
    return sizes[..., 0] * sizes[..., 1]


def xyxy_to_xywh(boxes_xyxy: Boxes) -> Boxes:
    return _joined(boxes_xyxy[..., :2], box_sizes(boxes_xyxy))


def xywh_to_xyxy(boxes_xywh: Boxes) -> Boxes:
    return _joined(boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:])


def xyxy_to_cxcywh(boxes_xyxy: Boxes) -> Boxes:
    return _joined((boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2, box_sizes(boxes_xyxy))


def xywh_to_cxcywh(boxes_xywh: Boxes) -> Boxes:
    return _joined(boxes_xywh[..., :2] + boxes_xywh[..., 2:] / 2, boxes_xywh[..., 2:])


def cxcywh_to_xyxy(boxes_cxcywh: Boxes) -> Boxes:
    centres, halves = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return _joined(centres - halves, centres + halves)


def _joined(first: Boxes, second: Boxes) -> Boxes:
    if isinstance(first, np.ndarray):
        return np.concatenate([first, second], axis=-1)
    import torch  # arrays do not need it, and it takes seconds

    return torch.cat([first, second], dim=-1)
