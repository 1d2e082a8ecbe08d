"""Post-processing: predictions of a network to detections in original-image pixels.

Letters: B images, H W network input pixels, P predictions per image, K classes, N detections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from detect.boxes import array_nms
from detect.data.letterbox import unletterbox
from detect.errors import InputError
from detect.structures import Detections, Letterbox

if TYPE_CHECKING:
    from torch import Tensor

Predictions: TypeAlias = "np.ndarray | Tensor"
"""(B, P, 5 + K) float32: cxcywh in network-input pixels, objectness, class probabilities."""
Forward = Callable[[np.ndarray], Predictions]
"""(B, H, W, 3) uint8 RGB to ``Predictions``."""


@dataclass(frozen=True)
class PredictSettings:
    """Score threshold and non-maximum suppression.

    Args:
        score_threshold: minimum score, in [0, 1].
        iou_threshold: of two boxes of a class with a larger IoU the one with the higher score is kept, in [0, 1].
        max_detections: maximum number of detections per image, over all classes.
        multi_label: a prediction gives a detection for each class above the threshold (better for AP) instead of its
            best class (better to look at).
        class_agnostic: boxes of different classes suppress each other as well.
        classes: class indices to keep; None keeps all.

    Raises:
        InputError: a value is outside its range.
    """

    score_threshold: float = 0.25
    iou_threshold: float = 0.6
    max_detections: int = 300
    multi_label: bool = False
    class_agnostic: bool = False
    classes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for label, value in (("score threshold", self.score_threshold), ("IoU threshold", self.iou_threshold)):
            if not 0 <= value <= 1:
                raise InputError(f"{label}: must be from 0 to 1, found {value}")
        if self.max_detections < 1:
            raise InputError(f"most detections per image: must be at least 1, found {self.max_detections}")


COCO_SETTINGS = PredictSettings(score_threshold=0.001, iou_threshold=0.6, max_detections=300, multi_label=True)
"""For measuring AP. The score threshold is low because AP integrates the whole precision-recall curve. IoU 0.6 lies
between 0.5, which removes neighbours in crowds, and 0.7, which leaves duplicates; one-stage detectors are commonly
validated with it. COCO's limit of 100 detections is per class and image, so more than 100 in all can count; 300 bounds
the time of post-processing."""


CLASSES_AT_LIMIT = 3
"""Classes that can fill the metric's limit in one image: 300 detections are kept for COCO's 100."""


def settings_for_limit(settings: PredictSettings, limit: int, num_classes: int) -> PredictSettings:
    """Keep enough detections for AP at another limit than COCO's 100 of a class and image; ``InputError`` below 1."""
    if limit < 1:
        raise InputError(f"most detections of a class and image: must be at least 1, found {limit}")
    wanted = limit * min(num_classes, CLASSES_AT_LIMIT)
    return replace(settings, max_detections=max(settings.max_detections, wanted))


def postprocess(
    predictions: Predictions, letterboxes: Sequence[Letterbox], settings: PredictSettings, names: tuple[str, ...]
) -> list[Detections]:
    """Apply non-maximum suppression and map boxes to the original images.

    Args:
        predictions: (B, P, 5 + K), see ``Predictions``.
        letterboxes: how each of the B images was placed.
        settings: score threshold and non-maximum suppression.
        names: the K class names.

    Returns B records in original-image pixels, without boxes that have no area inside the image.
    """
    assert len(letterboxes) == len(predictions), "every image needs its letterbox"
    found = []
    for (boxes, scores, labels), letterbox in zip(_suppressed(predictions, settings), letterboxes, strict=True):
        boxes_xyxy_px = unletterbox(boxes, letterbox)
        detections = Detections(boxes_xyxy_px, scores, labels, letterbox.image_hw, names)
        detections = replace(detections, reached_limit=len(scores) >= settings.max_detections)
        visible = np.all(boxes_xyxy_px[:, 2:] > boxes_xyxy_px[:, :2], axis=1)
        found.append(detections.select(visible))
    return found


def _suppressed(predictions: Predictions, settings: PredictSettings) -> list[array_nms.FoundArrays]:
    """Boxes, scores and labels of each image, in network-input pixels; tensors are suppressed where they are."""
    thresholds = (settings.score_threshold, settings.iou_threshold, settings.max_detections, settings.multi_label)
    choice = (settings.class_agnostic, settings.classes)
    if isinstance(predictions, np.ndarray):
        return array_nms.non_max_suppression(predictions, *thresholds, *choice)
    from detect.boxes.nms import non_max_suppression  # arrays do not need PyTorch, which takes seconds to import

    kept = non_max_suppression(predictions, *thresholds, *choice)
    return [(boxes.cpu().numpy(), scores.cpu().numpy(), labels.cpu().numpy()) for boxes, scores, labels in kept]
