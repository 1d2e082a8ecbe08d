"""What a program needs to know to use an exported model, written into the file itself."""

from __future__ import annotations

import json

from detect import __version__
from detect.data.letterbox import PAD_VALUE
from detect.models.checkpoint import Checkpoint


def describe(checkpoint: Checkpoint, image_size: int) -> dict[str, str]:
    """The metadata of an exported detector: strings, structured ones as JSON.

    Args:
        checkpoint: the model.
        image_size: long side of the network input in pixels.
    """
    stride = checkpoint.model.max_reduction
    structured = {
        "names": list(checkpoint.names),
        "category_ids": list(checkpoint.category_ids),
        "input": {
            "layout": "NCHW",
            "type": "float32",
            "colour_order": "RGB",
            "scale": "1/255",
            "multiple_of": stride,
        },
        "preprocessing": {
            "resize": "long side to image_size, short side in proportion, both rounded to whole pixels",
            "interpolation_smaller": "INTER_AREA",
            "interpolation_larger": "INTER_LINEAR",
            "position": "top left",
            "pad_value": PAD_VALUE,
            "pad_to_multiple_of": stride,
        },
        "output": {
            "layout": "batch, predictions, columns",
            "columns": ["centre_x", "centre_y", "width", "height", "objectness", "one probability per class"],
            "box_unit": "pixels of the network input",
            "score": "objectness * class probability",
            "non_maximum_suppression": "not applied",
        },
    }
    return {
        "producer": f"detect {__version__}",
        "model": checkpoint.model.definition.name,
        "image_size": str(image_size),
        "stride": str(stride),
        **{key: json.dumps(value, ensure_ascii=False) for key, value in structured.items()},
    }
