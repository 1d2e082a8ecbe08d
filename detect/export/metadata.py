"""What a program needs to know to use an exported model, written into the file itself."""

from __future__ import annotations

import json
from typing import Any

from detect import __version__
from detect.data.center_crop import MAX_ASPECT, resized_side
from detect.data.letterbox import PAD_VALUE
from detect.export.masks import Masks
from detect.models.checkpoint import Checkpoint
from detect.models.classifier import ClassificationModel
from detect.models.packing import binary_weights

_INTERPOLATION = {"interpolation_smaller": "INTER_AREA", "interpolation_larger": "INTER_LINEAR"}
_DETECTIONS = {
    "layout": "batch, predictions, columns",
    "columns": ["centre_x", "centre_y", "width", "height", "objectness", "one probability per class"],
    "box_unit": "pixels of the network input",
    "score": "objectness * class probability",
    "non_maximum_suppression": "not applied",
}
_PROBABILITIES = {
    "layout": "batch, classes",
    "columns": ["one probability per class"],
    "softmax": "applied; the logarithm of the output is the logits but for a constant of each image",
}
_MASKS: dict[Masks, dict[str, str]] = {
    "folded": {"form": "folded", "weights": "float32, each of two values for each output"},
    "packed": {
        "form": "packed",
        "NAME_bits": "uint8, a bit for each entry: 1 is +1, 0 is -1; first entry in the highest bit, zeros at the end",
        "order": "output, input, row, column",
        "NAME_scale": "float32, one for each output, may be negative",
        "weights": "NAME = NAME_scale * signs of NAME_bits, computed by the graph",
    },
}


def describe(checkpoint: Checkpoint, image_size: int, masks: Masks = "folded") -> dict[str, str]:
    """The metadata of an exported model: strings, structured ones as JSON.

    Args:
        checkpoint: the model.
        image_size: side of the network input in pixels; of a detector, the long side.
        masks: how binary weights are stored; not told where there are none.
    """
    stride = checkpoint.model.max_reduction
    classifies = isinstance(checkpoint.model, ClassificationModel)
    structured: dict[str, Any] = {
        "names": list(checkpoint.names),
        "category_ids": list(checkpoint.category_ids),
        "input": {
            "layout": "NCHW",
            "type": "float32",
            "colour_order": "RGB",
            "scale": "1/255",
            "multiple_of": stride,
        },
        "preprocessing": _middle(checkpoint.center_crop, image_size) if classifies else _letterbox(stride),
        "output": _PROBABILITIES if classifies else _DETECTIONS,
    }
    if binary_weights(checkpoint.model):
        structured["masks"] = _MASKS[masks]
    return {
        "producer": f"detect {__version__}",
        "model": checkpoint.model.definition.name,
        "task": "classification" if classifies else "detection",
        "image_size": str(image_size),
        "stride": str(stride),
        **{key: json.dumps(value, ensure_ascii=False) for key, value in structured.items()},
    }


def _letterbox(stride: int) -> dict[str, Any]:
    """How a detector sees an image, as ``detect.data.letterbox`` prepares it."""
    return {
        "resize": "long side to image_size, short side in proportion, both rounded to whole pixels",
        **_INTERPOLATION,
        "position": "top left",
        "pad_value": PAD_VALUE,
        "pad_to_multiple_of": stride,
    }


def _middle(center_crop: float, image_size: int) -> dict[str, Any]:
    """How a classifier sees an image, as ``detect.data.center_crop`` prepares it."""
    return {
        "cut_first": f"of a long side above {MAX_ASPECT} times the short side, that much of the middle",
        "resize": "short side to resize_short_side, long side in proportion, rounded to whole pixels",
        "resize_short_side": resized_side(image_size, center_crop),
        **_INTERPOLATION,
        "crop": "image_size x image_size from row (height - image_size) // 2, column (width - image_size) // 2",
        "center_crop": center_crop,
        "normalisation": "none; mean and deviation are in the graph",
    }
