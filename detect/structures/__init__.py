"""The records that pass between packages."""

from __future__ import annotations

from detect.structures.batches import Batch, ClassTargets, FeatureShape, Letterbox, Targets
from detect.structures.results import Classification, Detection, Detections, class_indices

__all__ = [
    "Batch",
    "ClassTargets",
    "Classification",
    "Detection",
    "Detections",
    "FeatureShape",
    "Letterbox",
    "Targets",
    "class_indices",
]
