"""The records that pass between packages."""

from __future__ import annotations

from detect.structures.batches import Batch, ClassTargets, FeatureShape, Letterbox, Targets
from detect.structures.class_names import ClassMatch, are_numbers, match_names, some_names
from detect.structures.results import Classification, Detection, Detections, class_indices

__all__ = [
    "Batch",
    "ClassMatch",
    "ClassTargets",
    "Classification",
    "Detection",
    "Detections",
    "FeatureShape",
    "Letterbox",
    "Targets",
    "are_numbers",
    "class_indices",
    "match_names",
    "some_names",
]
