"""Metadata of an exported file: all that a program needs to run it."""

from __future__ import annotations

import json
from typing import Any

from detect import __version__
from detect.boxes.array_coding import MAX_LOG_RATIO, SHORT_SIDE
from detect.data.classification.geometry import MAX_ASPECT, resized_side
from detect.data.letterbox import PAD_VALUE
from detect.exporting.options import ExportOptions, Masks
from detect.exporting.wrappers import raw_names
from detect.models.checkpoint import Checkpoint
from detect.models.heads import DetectionHead
from detect.models.model import ClassificationModel, Model
from detect.models.packing import packed_layers
from detect.runtime.plugins import find_plugin, plugin_names

_INTERPOLATION = {"interpolation_smaller": "INTER_AREA", "interpolation_larger": "INTER_LINEAR"}
_PREDICTIONS = {
    "layout": "batch, predictions, columns",
    "columns": ["centre_x", "centre_y", "width", "height", "objectness", "one probability per class"],
    "box_unit": "pixels of the network input",
    "score": "objectness * class probability",
    "non_maximum_suppression": "not applied",
}
_DETECTIONS = {
    "layout": "detections: batch, rows, columns, best first, zeros behind the last; counts: rows of each image",
    "columns": ["left", "top", "right", "bottom", "score", "class index"],
    "box_unit": "pixels of the network input",
    "non_maximum_suppression": "applied",
}
_RAW = {
    "layout": "an output for each of levels, finest first: batch, anchors * (5 + classes), rows, columns; "
    "the values of an anchor lie together",
    "columns": ["x", "y", "width", "height", "objectness", "one value per class"],
    "decoding": "not applied: probability = sigmoid(value); centre = (offset + column or row) * cell_px",
    "offsets": {
        "sigmoid": "xy_scale * sigmoid(value) - (xy_scale - 1) / 2",
        "linear": "value",
        "distances": "the first four columns are of the left, top, right and bottom side, which lies d = "
        "exp(min(value, max_log_ratio)) - 1 anchors outward from the cell's centre, (0.5 + column or row) * cell_px; "
        "the box's centre lies (right - left) / 2 anchors from it",
    },
    "cell_px": "network input's width / columns for x, its height / rows for y: the stride, but of SDPoint's instances",
    "sizes": {
        "square": "(2 * sigmoid(value)) ** 2 * anchor",
        "exp": "exp(min(value, max_log_ratio)) * anchor",
        "distances": "max(s, short_side * exp(min(s / short_side, 1) - 1)) * anchor, where s = left + right",
    },
    "max_log_ratio": MAX_LOG_RATIO,
    "short_side": SHORT_SIDE,
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


def describe(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, str]:
    """The metadata of an exported model, structured values as JSON; the options have the image size resolved."""
    model, size = checkpoint.model, options.image_size
    assert size is not None, "it is resolved"
    classifies = isinstance(model, ClassificationModel)
    structured: dict[str, Any] = {
        "names": list(checkpoint.names),
        "category_ids": list(checkpoint.category_ids),
        "input": {
            "layout": options.format.layout,
            "type": "float32",
            "colour_order": "RGB",
            "scale": "1/255",
            "multiple_of": model.max_reduction,
        },
        "preprocessing": {
            **_pixel_values(checkpoint.value_range),
            **({"tile_px": checkpoint.tile_px} if checkpoint.tile_px else {}),  # of the training
            **(_center_crop(checkpoint.center_crop, size) if classifies else _letterbox(options, model)),
        },
        "output": _PROBABILITIES if classifies else _detector_output(checkpoint.detector.head, options),
    }
    if packed_layers(model):
        structured["masks"] = _MASKS[options.masks]
    papers: dict[str, str] = {}
    for name in plugin_names("export_facts"):
        papers |= find_plugin("export_facts", name)(checkpoint)
    return {
        "format": options.format.version,
        "producer": f"detect {__version__}",
        "model": model.definition.name,
        "task": "classification" if classifies else "detection",
        "image_size": str(size),
        "stride": str(model.max_reduction),
        "precision": options.precision,
        "instance": model.graph.transform.name,
        "cost": "1.0",
        **papers,
        **{key: json.dumps(value, ensure_ascii=False) for key, value in structured.items()},
    }


def _detector_output(head: DetectionHead, options: ExportOptions) -> dict[str, Any]:
    if options.raw:
        levels = zip(raw_names(head), head.reductions, head.codings, head.anchors_px.tolist(), strict=True)
        return {
            **_RAW,
            "levels": [
                {"name": name, "stride": stride, **vars(coding), "anchors_px": anchors}
                for name, stride, coding, anchors in levels
            ],
        }
    if options.suppression is None:
        return _PREDICTIONS
    names = ("score_threshold", "iou_threshold", "max_detections")
    return {**_DETECTIONS, **{name: getattr(options.suppression, name) for name in names}}


def _pixel_values(value_range: tuple[float, float] | None) -> dict[str, Any]:
    """Conversion of values of more than 8 bits to bytes, as in ``detect.data.pixel_values``."""
    if value_range is None:
        return {"over_8_bits": "of 16 bits without a sign, value // 256"}
    return {
        "over_8_bits": "floor((value - low) * 256 / (high - low)), at least 0 and at most 255; NaN is 0",
        "value_range": list(value_range),
    }


def _letterbox(options: ExportOptions, model: Model) -> dict[str, Any]:
    """Preprocessing of a detector, as in ``detect.data.letterbox``."""
    pad_to = (
        {"pad_to_multiple_of": model.max_reduction} if options.dynamic else {"pad_to_square_of": options.image_size}
    )
    return {
        "resize": "long side to image_size, short side in proportion, both rounded to whole pixels",
        **_INTERPOLATION,
        "position": "top left",
        "pad_value": PAD_VALUE,
        **pad_to,
    }


def _center_crop(center_crop: float, image_size: int) -> dict[str, Any]:
    """Preprocessing of a classifier, as in ``detect.data.classification.geometry.center_crop``."""
    return {
        "cut_first": "of a long side above max_aspect times the short side, that much of the middle",
        "max_aspect": MAX_ASPECT,
        "resize": "short side to resize_short_side, long side in proportion, rounded to whole pixels",
        "resize_short_side": resized_side(image_size, center_crop),
        **_INTERPOLATION,
        "crop": "image_size x image_size from row (height - image_size) // 2, column (width - image_size) // 2",
        "center_crop": center_crop,
        "normalisation": "none; mean and deviation are in the graph",
    }
