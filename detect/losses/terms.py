"""Parts that the losses of detection share: their terms, gains, cross-entropy, and the choice of the assignment.

Letters: B images, A anchors per cell, H W cells, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from detect.boxes.coding import CellSize
from detect.config.recipe import LossConfig
from detect.errors import InputError
from detect.models.heads import DetectionHead

NEIGHBOUR_XY_SCALE = 2.0
"""``BoxCoding.xy_scale`` from which centres reach half a cell beyond their own, as YOLOv5's assignment requires."""

Assignment = Literal["yolov5", "yolov3", "simota", "tal"]


class Gains(NamedTuple):
    """Factors on the gains of ``LossConfig``."""

    box: float
    objectness: float
    classes: float


GAIN_FACTORS: dict[Assignment, Gains] = {
    "yolov5": Gains(box=1.0, objectness=1.0, classes=1.0),
    "yolov3": Gains(box=1.0, objectness=100.0, classes=1.0),
    "simota": Gains(box=100 / 64, objectness=1 / 64, classes=2 / 64),
    "tal": Gains(box=40 / 64, objectness=1 / 64, classes=2 / 64),
}
"""YOLOv3 assigns one anchor per object, YOLOv5 about ten, and objectness is a mean over all anchors: its gradient would
be too small; at 100 the objectness of an object weighs about as much as its box, as in Darknet.

The 100 is provisional: it rests on one small experiment on generated shapes (96 px, 160 images, 1000 updates): AP50
0.046 at 10, 0.072 at 30, 0.094 at 100, 0.093 at 300.

YOLOX has gains of 5, 1 and 1 on means over its 64 images; here the loss of an update is the sum of those of its images,
so that the default gains of 0.05, 1 and 0.5 become a 64th of YOLOX's. TOOD has 2 and 1 for boxes and classes."""


@dataclass(frozen=True)
class LossTerms:
    """Weighted terms, each a scalar, as means over the batch; of several processes each has its share of them.

    Args:
        box: 1 - IoU of matched boxes, of the recipe's kind, or their squared errors.
        objectness: cross-entropy of objectness over all cells.
        classes: cross-entropy of classes over matched boxes.
        num_images: of the batch, over all processes.
    """

    box: Tensor
    objectness: Tensor
    classes: Tensor
    num_images: int

    @property
    def total(self) -> Tensor:
        return self.box + self.objectness + self.classes

    def values(self) -> dict[str, float]:
        """Return numbers by name, for logs."""
        return {name: float(getattr(self, name).detach()) for name in ("box", "objectness", "classes")}


def decoded_boxes(raw: list[Tensor], head: DetectionHead, cells_px: list[CellSize]) -> list[Tensor]:
    """Decode the boxes of each level, (B, A*H*W, 4) cxcywh in network-input pixels, in float32."""
    levels = zip(raw, head.codings, head.anchors_px, cells_px, strict=True)
    # Four of 5 + K columns: made contiguous once, not in each step of the decoding.
    return [coding.decode(y[..., :4].float().contiguous(), *level).flatten(1, 3) for y, coding, *level in levels]


def choose_assignment(config: LossConfig, head: DetectionHead) -> Assignment:
    """Return the recipe's assignment, or for ``auto`` the one that suits the head.

    Raises:
        InputError: the recipe has YOLOv5's, but the head's centres cannot reach the neighbouring cells; or one that
            chooses among anchors, but the head has none.
    """
    has_anchors = head.codings[0].offsets == "sigmoid"
    reach = min(coding.xy_scale for coding in head.codings)
    if config.assignment == "auto":
        if not has_anchors:
            return "simota" if head.has_objectness else "tal"
        return "yolov5" if head.codings[0].sizes == "square" else "yolov3"
    if config.assignment in ("yolov5", "yolov3") and not has_anchors:
        raise InputError(
            f"loss.assignment: {config.assignment} chooses among anchors, which the head has not; take simota, tal or "
            "auto"
        )
    if config.assignment == "yolov5" and reach < NEIGHBOUR_XY_SCALE:
        raise InputError(
            f"loss.assignment: yolov5 assigns objects to neighbouring cells too, which the head's centres do not reach "
            f"(xy_scale {reach:g}, must be {NEIGHBOUR_XY_SCALE:g} or more); take yolov3 or auto"
        )
    return config.assignment


def cross_entropy(logits: Tensor, target: Tensor, focal_gamma: float, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each logit, focused on hard ones if ``focal_gamma`` is above 0."""
    loss = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
    if focal_gamma > 0:
        # Soft targets: the error |p - target| stands for 1 - p_t of the focal loss (Lin et al., 2017, equation 4).
        loss = loss * (logits.sigmoid() - target).abs() ** focal_gamma
    return loss
