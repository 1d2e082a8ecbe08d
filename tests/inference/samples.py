"""Detections for the inference tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detect.inference.inputs import Source
from detect.inference.stream import FoundFrame
from detect.inference.video import Clip
from detect.structures import Detections

IMAGE = np.full((100, 200, 3), 90, np.uint8)
"""An image of the size that ``make_detections`` has."""


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


FOUND = make_detections([(1, 20, 10, 60, 50, 0.875), (0, 100.25, 0, 200, 100, 0.5)])


CLIP = Clip(fps=10.0, num_frames=4, is_live=False)


def still(path) -> Source:
    """An image file as a source."""
    return Source(str(path), "still", Path(path))


def seen(path, detections=FOUND) -> FoundFrame:
    """What was found in an image file."""
    return FoundFrame(source=str(path), image_rgb=IMAGE, detections=detections)


def seen_frame(path, index, detections=FOUND, clip=CLIP) -> FoundFrame:
    """What was found in a frame of a video."""
    return FoundFrame(
        source=str(path), image_rgb=IMAGE, index=index, time_s=index / clip.fps, clip=clip, detections=detections
    )
