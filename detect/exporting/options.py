"""What kind of file an export writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detect.evaluation.predict import PredictSettings

Masks = Literal["folded", "packed"]
"""How binary weights are stored, see ``detect.exporting.masks``."""

OPSETS = range(16, 24)
"""Operator sets that the exporter can write."""

DEFAULT_OPSET = 18
"""The exporter's own; an older one goes through a converter."""


@dataclass(frozen=True)
class ExportOptions:
    """What kind of file is written.

    Args:
        image_size: side of the network input in pixels (a detector's long side); None is the one of the training.
        opset: version of the ONNX operator set.
        masks: how binary weights are stored.
        suppression: a detector's file gives detections, after non-maximum suppression with these settings, one class
            for each place and all classes apart; None: it gives all predictions.
        dynamic: any batch size, height and width; otherwise one square image of ``image_size``, for runtimes that want
            to know, and for instances of SDPoint.
        half: the network computes in half precision, and the file is half as large; input and output stay float32.
        raw: a detector's file gives what its head says, a map for each level, not decoded to boxes: for hardware whose
            tools know convolutions and little else. Not together with ``suppression``.
    """

    image_size: int | None = None
    opset: int = DEFAULT_OPSET
    masks: Masks = "folded"
    suppression: PredictSettings | None = None
    dynamic: bool = True
    half: bool = False
    raw: bool = False


DEFAULT_OPTIONS = ExportOptions()
