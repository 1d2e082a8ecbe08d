"""Options of an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detect.evaluation.postprocess import PredictSettings
from detect.inference.runtimes.formats import ONNX, Format
from detect.models.model import Model
from detect.models.packing import packed_layers

Masks = Literal["folded", "packed"]
"""Storage of binary weights, see ``detect.papers.bdsc.onnx_masks``."""

OPSETS = range(16, 24)
"""Operator sets that the exporter can write."""

DEFAULT_OPSET = 18
"""The exporter's own; an older one goes through a converter."""


@dataclass(frozen=True)
class ExportOptions:
    """Kind of file that an export writes.

    Args:
        image_size: side of the network input in pixels (a detector's long side); None is the one of the training.
        opset: version of the ONNX operator set.
        masks: storage of binary weights.
        suppression: a detector's file gives detections, after non-maximum suppression with these settings, one class
            for each prediction and each class apart; None: it gives all predictions.
        dynamic: any batch size, height and width; otherwise one square image of ``image_size``, for runtimes that need
            fixed sizes, and for instances of SDPoint.
        half: the network computes in half precision, and the file is half as large; input and output stay float32.
        raw: a detector's file gives the maps of its head, one for each level, not decoded to boxes: for hardware whose
            tools know convolutions and little else. Not together with ``suppression``.
        int8: weights and inputs of convolutions have 8 bits (``detect.exporting.int8``).
        weights_only: with ``int8``: weights alone have 8 bits, and the network computes in float.
        format: of the file; the other options are possible for ONNX, and what ``detect.exporting.converters`` says.
    """

    image_size: int | None = None
    opset: int = DEFAULT_OPSET
    masks: Masks = "folded"
    suppression: PredictSettings | None = None
    dynamic: bool = True
    half: bool = False
    raw: bool = False
    int8: bool = False
    weights_only: bool = False
    format: Format = ONNX

    @property
    def precision(self) -> str:
        """Number format of the network, as the metadata name it."""
        if self.weights_only:
            return "int8 weights"
        return "int8" if self.int8 else "fp16" if self.half else "fp32"


DEFAULT_OPTIONS = ExportOptions()


def masks_note(model: Model, masks: Masks) -> str | None:
    """One line for users about the storage of binary weights; None if the model has none."""
    if not packed_layers(model):
        return None
    if masks == "packed":
        return (
            "binary weights packed, 1 bit each: a smaller file, not a faster one; the runtime unpacks them when it "
            "loads the file or at each run, and computes the same ordinary convolutions"
        )
    return (
        "binary weights written out as ordinary ones, 32 bits each; --masks packed makes the file smaller, not faster"
    )
