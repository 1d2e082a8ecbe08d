"""Detections for the inference tests."""

from __future__ import annotations

import numpy as np

from detect.structures import Detections


def make_detections(rows, image_hw=(100, 200), names=("cat", "dog")) -> Detections:
    """Detections from (label, x1, y1, x2, y2, score)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Detections(
        table[:, 1:5].astype(np.float32),
        table[:, 5].astype(np.float32),
        table[:, 0].astype(np.int64),
        image_hw,
        tuple(names),
    )
